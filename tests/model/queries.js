// The queries that every server must answer as PostgreSQL does, at rest and after every change.
// Each has a name that says what is tried. Those with `sql` are checked against that statement
// too, so that the oracle is not the official compiler alone: the statement's columns are
// compared, in order, with the same columns of the view.

import {organisationId} from './seed.js';
import {zql} from './schema.js';

/**
 * @typedef {object} Case
 * @property {string} name
 * @property {any} query
 * @property {string} [sql] a hand-written statement with the same answer
 * @property {true} [handOnly] the official compiler gets this wrong or not at all
 * @property {any} [client] what the client evaluates itself, where it cannot evaluate `query`
 *   (NOT EXISTS); such a query is a named one
 * @property {string} [peer] why the peer is known to answer wrongly
 */

/** The bound of the `start` cases: an issue of the seed, by (created, id). */
const START = {created: 1.7e12 + 4 * 86_400_000, id: 'i024'};

/** @type {Case[]} */
const operators = [
  {
    name: 'a whole table in primary key order',
    query: zql.member,
    sql: `select id, name, email, reputation, active, manager_id as "managerID",
            organisation_id as "orgID" from "user" order by id`,
  },
  {name: 'a table outside public under another name', query: zql.org},
  {name: 'a table with a compound key', query: zql.milestone},
  {name: 'a table whose key is all of its columns', query: zql.reaction},
  {
    name: '= on text',
    query: zql.member.where('name', 'Ada'),
    sql: `select id from "user" where name = 'Ada' order by id`,
  },
  {name: '= on a boolean', query: zql.issue.where('open', true)},
  {name: '= on an enum', query: zql.issue.where('severity', '=', 'major')},
  {
    name: '= on a timestamp',
    query: zql.issue.where('created', '=', START.created),
    sql: `select id, number from issue
          where created = timestamptz 'epoch' + interval '1 ms' * ${START.created} order by id`,
  },
  {name: '= on a uuid', query: zql.member.where('orgID', '=', organisationId(2))},
  {name: '= on the primary key', query: zql.issue.where('id', 'i011')},
  {
    name: '= on the whole compound key',
    query: zql.milestone.where('projectID', 1).where('year', 2024).where('number', 2),
  },
  {
    name: '= null is never true',
    query: zql.issue.where('ownerID', '=', /** @type {any} */ (null)),
    sql: `select id from issue where owner_id = null`,
  },
  {
    name: '!= leaves nulls out',
    query: zql.issue.where('severity', '!=', 'major'),
    sql: `select id from issue where severity <> 'major' order by id`,
  },
  {
    name: 'IS null',
    query: zql.issue.where('ownerID', 'IS', null),
    sql: `select id from issue where owner_id is null order by id`,
  },
  {name: 'IS with a value', query: zql.issue.where('severity', 'IS', 'minor')},
  {
    name: 'IS NOT null',
    query: zql.issue.where('body', 'IS NOT', null),
    sql: `select id, body from issue where body is not null order by id`,
  },
  {
    name: 'IS NOT with a value keeps nulls',
    query: zql.issue.where('severity', 'IS NOT', 'minor'),
    sql: `select id from issue where severity is distinct from 'minor' order by id`,
  },
  {name: '< on numbers', query: zql.issue.where('estimate', '<', 0.5)},
  {name: '<= on integers', query: zql.issue.where('votes', '<=', 4)},
  {
    name: '> on text goes by code points',
    query: zql.member.where('name', '>', 'a'),
    sql: `select id, name from "user" where name > 'a' order by id`,
  },
  {name: '>= on a numeric', query: zql.project.where('budget', '>=', 0.1)},
  {
    name: 'a range of timestamps',
    query: zql.issue
      .where('created', '>=', START.created)
      .where('created', '<', START.created + 3 * 86_400_000),
  },
  {
    name: 'a timestamp with microseconds',
    query: zql.issue.where('modified', '>', Date.UTC(2024, 0, 10)).orderBy('modified', 'desc'),
  },
  {name: 'IN on enums', query: zql.issue.where('severity', 'IN', ['minor', 'blocker'])},
  {name: 'IN on numbers', query: zql.issue.where('number', 'IN', [3, 5, 8, 400, 7])},
  {name: 'IN nothing', query: zql.issue.where('severity', 'IN', [])},
  {
    name: 'NOT IN leaves nulls out',
    query: zql.issue.where('ownerID', 'NOT IN', ['u1', 'u2']),
    sql: `select id from issue where owner_id not in ('u1', 'u2') order by id`,
  },
  {name: 'LIKE with a prefix', query: zql.issue.where('title', 'LIKE', 'Heat%')},
  {name: 'LIKE with _', query: zql.issue.where('title', 'LIKE', '_eat leaks%')},
  {name: 'LIKE with an escape', query: zql.issue.where('title', 'LIKE', '100\\%%')},
  {
    name: 'LIKE across lines',
    query: zql.issue.where('title', 'LIKE', 'two%lines%'),
    sql: `select id, title from issue where title like 'two%lines%' order by id`,
  },
  {name: 'NOT LIKE', query: zql.issue.where('title', 'NOT LIKE', '%a%')},
  {name: 'ILIKE', query: zql.issue.where('title', 'ILIKE', 'HEAT LEAKS%')},
  {name: 'NOT ILIKE', query: zql.member.where('name', 'NOT ILIKE', 'ada')},
  {name: 'code points beyond the BMP', query: zql.issue.where('title', 'LIKE', '😀%')},
];

/** @type {Case[]} */
const nesting = [
  {
    name: 'or of columns',
    query: zql.issue.where(({or, cmp}) => or(cmp('open', false), cmp('votes', '>', 10))),
    sql: `select id from issue where not open or votes > 10 order by id`,
  },
  {
    name: 'and within or within and',
    query: zql.issue
      .where('projectID', 1)
      .where(({or, and, cmp}) =>
        or(
          and(cmp('open', true), cmp('votes', '<', 6)),
          and(cmp('open', false), or(cmp('severity', 'IS', null), cmp('estimate', '>', 1))),
        ),
      ),
    sql: `select id from issue where project_id = 1 and (open and votes < 6
            or not open and (severity is null or estimate > 1)) order by id`,
  },
  {
    name: 'not of an or',
    query: zql.issue.where(({not, or, cmp}) =>
      not(or(cmp('open', true), cmp('severity', 'major'))),
    ),
  },
  {
    name: 'an empty or is false',
    query: zql.issue.where(({or}) => or()),
    handOnly: true,
    sql: `select id from issue where false`,
  },
  {
    name: 'an empty and is true',
    query: zql.label.where(({and}) => and()),
    handOnly: true,
    sql: `select id, name from label order by id`,
  },
  {
    name: 'a comparison of constants',
    query: zql.label.where(({cmpLit, or, cmp}) => or(cmpLit(1, '=', 2), cmp('id', '>', 3))),
  },
];

/** @type {Case[]} */
const windows = [
  {
    name: 'orderBy one column',
    query: zql.member.orderBy('name', 'asc'),
    sql: `select id, name from "user" order by name, id`,
  },
  {
    name: 'orderBy with ties, descending',
    query: zql.member.orderBy('reputation', 'desc'),
    sql: `select id, reputation from "user" order by reputation desc, id`,
  },
  {
    name: 'orderBy a nullable column, ascending',
    query: zql.issue.orderBy('estimate', 'asc').orderBy('number', 'desc'),
    sql: `select id, estimate from issue order by estimate nulls first, number desc`,
  },
  {
    name: 'orderBy a nullable column, descending',
    // ZQL sorts an enum by its label, PostgreSQL (and so the official compiler) by its position.
    query: zql.issue.orderBy('severity', 'desc').orderBy('title', 'asc'),
    handOnly: true,
    sql: `select id, title from issue order by severity::text desc nulls last, title, id`,
  },
  {
    name: 'orderBy three columns',
    query: zql.issue.orderBy('projectID', 'desc').orderBy('open', 'asc').orderBy('created', 'desc'),
  },
  {name: 'limit', query: zql.issue.limit(5)},
  {name: 'limit zero', query: zql.issue.limit(0)},
  {name: 'limit beyond the rows', query: zql.label.limit(1000)},
  {
    name: 'a window of the newest open issues',
    query: zql.issue.where('open', true).orderBy('created', 'desc').limit(7),
    sql: `select id, number from issue where open order by created desc, id limit 7`,
  },
  {name: 'a window by a nullable column', query: zql.issue.orderBy('modified', 'asc').limit(12)},
  {
    name: 'a window by a nullable column, descending',
    query: zql.issue.orderBy('ownerID', 'desc').orderBy('votes', 'asc').limit(9),
  },
  {
    name: 'start after a row',
    query: zql.issue.orderBy('created', 'asc').start(START).limit(10),
    sql: `select id from issue where (created, id) >
            (timestamptz 'epoch' + interval '1 ms' * ${START.created}, '${START.id}')
          order by created, id limit 10`,
  },
  {
    name: 'start at a row',
    query: zql.issue.orderBy('created', 'asc').start(START, {inclusive: true}).limit(10),
  },
  {
    name: 'start in descending order',
    query: zql.issue.orderBy('created', 'desc').start(START).limit(10),
  },
  {
    name: 'start without a limit',
    query: zql.member.orderBy('reputation', 'asc').start({reputation: 40, id: 'u2'}),
  },
  {name: 'start at a row that is not there', query: zql.issue.start({id: 'i0105'}).limit(4)},
  {name: 'one', query: zql.issue.where('projectID', 4).orderBy('votes', 'desc').one()},
  {name: 'one that is not there', query: zql.issue.where('id', 'nope').one()},
];

/** @type {Case[]} */
const related = [
  {
    name: 'related one',
    query: zql.issue.where('projectID', 2).related('owner'),
    sql: `select i.id, (select jsonb_build_object('id', u.id, 'name', u.name) from "user" u
            where u.id = i.owner_id) as owner from issue i where project_id = 2 order by i.id`,
  },
  {
    name: 'related many, ordered',
    query: zql.issue
      .where('number', '<', 12)
      .related('comments', q => q.orderBy('created', 'desc')),
    sql: `select i.id, coalesce((select jsonb_agg(jsonb_build_object('id', c.id)
            order by c.created desc, c.id) from comment c where c.issue_id = i.id), '[]')
            as comments from issue i where number < 12 order by i.id`,
  },
  {
    name: 'related with a filter and a limit',
    query: zql.issue.related('comments', q =>
      q.where('pinned', 'IS NOT', false).orderBy('created', 'asc').limit(2),
    ),
  },
  {name: 'related with limit zero', query: zql.issue.limit(9).related('comments', q => q.limit(0))},
  {
    name: 'related with start',
    query: zql.issue
      .where('id', 'IN', ['i000', 'i001', 'i004'])
      .related('comments', q => q.start({id: 'c020'}).limit(3)),
  },
  {
    name: 'related one row of many',
    query: zql.issue.limit(20).related('comments', q => q.orderBy('created', 'desc').one()),
  },
  {
    name: 'related through a junction',
    query: zql.issue.where('number', '<', 25).related('labels'),
    sql: `select i.id, coalesce((select jsonb_agg(jsonb_build_object('name', l.name)
            order by l.id) from issue_label il join label l on l.id = il.label_id
            where il.issue_id = i.id), '[]') as labels
          from issue i where number < 25 order by i.id`,
  },
  {
    name: 'the junction the other way round',
    query: zql.label.related('issues', q => q.where('open', true)),
  },
  {name: 'related by a compound key with nulls', query: zql.issue.related('milestone')},
  {name: 'a compound key the other way round', query: zql.milestone.related('issues')},
  {
    name: 'a self reference up',
    query: zql.issue.where('parentID', 'IS NOT', null).related('parent'),
  },
  {name: 'a self reference down', query: zql.member.related('reports', q => q.related('reports'))},
  {
    name: 'related to depth three',
    query: zql.project.related('issues', q =>
      q
        .where('open', true)
        .orderBy('votes', 'desc')
        .limit(4)
        .related('comments', c =>
          c
            .orderBy('created', 'asc')
            .limit(3)
            .related('reactions')
            .related('author', a => a.related('org')),
        )
        .related('labels')
        .related('creator'),
    ),
  },
  {
    name: 'related to depth three over a junction',
    query: zql.label
      .where('id', '<', 4)
      .related('issues', q => q.related('comments', c => c.related('author'))),
  },
  {
    name: 'several relations of one row',
    query: zql.issue
      .limit(15)
      .related('project', q => q.related('lead'))
      .related('creator')
      .related('owner', q => q.related('manager'))
      .related('children'),
  },
];

/** @type {Case[]} */
const exists = [
  {
    name: 'EXISTS',
    query: zql.issue.whereExists('comments'),
    sql: `select id from issue i where exists (select from comment c where c.issue_id = i.id)
          order by id`,
  },
  {
    name: 'EXISTS with a filter',
    query: zql.issue.whereExists('comments', q =>
      q.where('body', 'LIKE', 'comment 1%').where('pinned', true),
    ),
  },
  {
    name: 'EXISTS over a nullable reference',
    query: zql.issue.whereExists('owner', q => q.where('active', true)),
    sql: `select i.id from issue i join "user" u on u.id = i.owner_id and u.active order by 1`,
  },
  {
    name: 'EXISTS through a junction',
    query: zql.issue.whereExists('labels', q => q.where('name', 'bug')),
  },
  {
    name: 'EXISTS by a compound key',
    query: zql.issue.whereExists('milestone', q => q.where('title', 'IN', ['Alpha', 'Beta'])),
  },
  {
    name: 'EXISTS within EXISTS',
    query: zql.project.whereExists('issues', q =>
      q
        .where('open', true)
        .whereExists('comments', c => c.whereExists('author', a => a.where('reputation', '>', 50))),
    ),
  },
  {
    name: 'EXISTS of the same relation twice',
    query: zql.issue
      .whereExists('comments', q => q.where('pinned', true))
      .whereExists('comments', q => q.where('pinned', 'IS', null)),
  },
  {
    name: 'EXISTS or a column',
    query: zql.issue.where(({or, cmp, exists: has}) =>
      or(
        cmp('votes', '>', 10),
        has('labels', q => q.where('id', 2)),
      ),
    ),
  },
  {
    name: 'EXISTS or EXISTS',
    query: zql.issue.where(({or, exists: has}) =>
      or(
        has('labels', q => q.where('id', 3)),
        has('comments', q => q.where('pinned', true)),
      ),
    ),
  },
  {
    name: 'EXISTS with a window and relations',
    query: zql.issue
      .whereExists('owner', q => q.whereExists('org', o => o.where('country', 'IS NOT', null)))
      .orderBy('created', 'desc')
      .limit(6)
      .related('owner', q => q.related('org')),
  },
  {
    name: 'EXISTS from a relation',
    query: zql.member.related('owned', q => q.whereExists('labels').orderBy('number', 'asc')),
  },
  {
    name: 'EXISTS driven from the child',
    query: zql.issue.whereExists('creator', q => q.where('name', 'Bo'), {flip: true}),
  },
  {
    name: 'EXISTS that is at most one row',
    query: zql.issue.whereExists('project', q => q.where('id', 2), {scalar: true}).limit(10),
  },
  {
    name: 'a self reference in EXISTS',
    query: zql.issue.whereExists('children', q => q.where('open', true)),
  },
];

/** @type {Case[]} */
const notExists = [
  {
    name: 'NOT EXISTS',
    query: zql.issue.where(({not, exists: has}) => not(has('comments'))),
    client: zql.issue,
    sql: `select id from issue i where not exists
            (select from comment c where c.issue_id = i.id) order by id`,
  },
  {
    name: 'NOT EXISTS with a filter',
    query: zql.issue.where(({not, exists: has}) =>
      not(has('comments', q => q.where('pinned', true))),
    ),
    client: zql.issue,
  },
  {
    name: 'NOT EXISTS over a nullable reference is true for null',
    query: zql.issue.where(({not, exists: has}) => not(has('owner'))),
    client: zql.issue,
    sql: `select id from issue i where not exists
            (select from "user" u where u.id = i.owner_id) order by id`,
  },
  {
    name: 'NOT EXISTS through a junction, in a window',
    query: zql.issue
      .where(({not, exists: has}) => not(has('labels', q => q.where('name', 'bug'))))
      .orderBy('created', 'desc')
      .limit(8),
    client: zql.issue.orderBy('created', 'desc').limit(8),
  },
  {
    name: 'NOT EXISTS by a compound key and a column',
    query: zql.issue.where('open', true).where(({not, exists: has}) => not(has('milestone'))),
    client: zql.issue.where('open', true),
  },
  {
    name: 'NOT EXISTS or a column',
    query: zql.issue.where(({not, or, cmp, exists: has}) =>
      or(cmp('severity', 'blocker'), not(has('comments'))),
    ),
    client: zql.issue,
  },
  {
    name: 'EXISTS within NOT EXISTS',
    query: zql.project.where(({not, exists: has}) =>
      not(has('issues', q => q.whereExists('labels', l => l.where('id', 4)))),
    ),
    client: zql.project,
  },
];

/** All cases. */
export const CASES = [...operators, ...nesting, ...windows, ...related, ...exists, ...notExists];
