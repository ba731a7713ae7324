// Who may see and do what: tokens, the rules on reading that go with them, users of one group.

import {strict as assert} from 'node:assert';
import {after, before, describe, test} from 'node:test';
import {ANYONE_CAN, definePermissions} from '@rocicorp/zero';
import {connect} from '../harness/client.js';
import {same} from '../harness/compare.js';
import {eventually} from '../harness/deadline.js';
import {ProtocolClient} from '../harness/protocol.js';
import {PEER} from '../harness/server.js';
import {token} from '../harness/tokens.js';
import {deployPermissions, startWorld} from '../harness/world.js';
import {schema, zql} from '../model/schema.js';

const SECRET = 'a secret of the tests that is long enough';

/** Rules: issues of projects one leads or that one owns; comments of issues one may see. */
const rules = definePermissions(schema, () => {
  const mayRead = (auth, {or, cmp, exists}) =>
    or(
      cmp('ownerID', auth.sub),
      exists('project', q => q.where('leadID', auth.sub)),
    );
  const ofReadable = (auth, {exists}) => exists('issue', q => q.where('ownerID', auth.sub));
  const admin = (auth, {cmpLit}) => cmpLit(auth.role, '=', 'admin');
  const readers = select => ({row: {select}});
  return {
    issue: readers([mayRead, admin]),
    comment: readers([ofReadable, admin]),
    label: readers(ANYONE_CAN),
    issueLabel: readers(ANYONE_CAN),
    member: readers([(auth, {cmp}) => cmp('id', auth.sub)]),
    project: readers(ANYONE_CAN),
  };
});

describe('auth', () => {
  let world;
  const clients = [];

  before(async () => {
    world = await startWorld({permissions: await rules, env: {ZERO_AUTH_SECRET: SECRET}});
  });

  after(async () => {
    await Promise.all(clients.map(c => c.close()));
    await world?.stop('auth');
  });

  const client = (userID, auth, options = {}) => {
    const c = connect(world.server.url, {userID, auth, ...options});
    clients.push(c);
    return c;
  };
  const user = async (sub, claims = {}) => client(sub, await token(sub, SECRET, claims));

  test('rules with EXISTS decide which rows a user sees', async () => {
    for (const sub of ['u1', 'u2', 'u4']) {
      const view = (await user(sub)).watch(zql.issue);
      await view.complete();
      const rows = await world.sql`select id from issue i where owner_id = ${sub} or exists
        (select from project p where p.id = i.project_id and p.lead_id = ${sub}) order by id`;
      assert(rows.length > 0);
      same(
        view.data.map(i => i.id),
        rows.map(r => r.id),
        `issues of ${sub}`,
      );
    }
  });

  test('rules hold for related rows and within EXISTS', async () => {
    const c = await user('u1');
    const withComments = c.watch(zql.issue.related('comments').related('creator'));
    const gate = c.watch(zql.label.whereExists('issues'));
    await withComments.complete();
    await gate.complete();
    const readable = new Set(
      (
        await world.sql`select c.id from comment c join issue i
      on i.id = c.issue_id and i.owner_id = 'u1'`
      ).map(r => r.id),
    );
    const seen = withComments.data.flatMap(i => i.comments.map(comment => comment.id));
    assert(seen.length > 0 && seen.every(id => readable.has(id)));
    const creators = withComments.data.map(i => i.creator?.id).filter(Boolean);
    assert(creators.every(id => id === 'u1'));
    const rows = await world.sql`select id from label l where exists (select from issue_label il
      join issue i on i.id = il.issue_id left join project p on p.id = i.project_id
      where il.label_id = l.id and (i.owner_id = 'u1' or p.lead_id = 'u1')) order by id`;
    same(
      gate.data.map(l => l.id),
      rows.map(r => r.id),
      'labels of readable issues',
    );
  });

  test('claims of the token are parameters of the rules', async () => {
    const view = (await user('u4', {role: 'admin'})).watch(zql.issue);
    await view.complete();
    const [{count}] = await world.sql`select count(*)::int from issue`;
    assert.equal(view.data.length, count);
  });

  test('a table without rules is seen by nobody', async () => {
    const view = (await user('u1')).watch(zql.milestone);
    same(await view.complete(), [], 'milestones');
  });

  test('a row that comes under a rule arrives, one that leaves it goes', async () => {
    const view = (await user('u4')).watch(zql.issue);
    const before = (await view.complete()).length;
    await world.sql`update project set lead_id = 'u4' where id = 4`;
    const [{count}] = await world.sql`select count(*)::int from issue
      where owner_id = 'u4' or project_id = 4`;
    assert(count > before);
    await eventually('the issues of the project', () => view.data.length === count);
    await world.sql`update project set lead_id = 'u8' where id = 4`;
    await eventually('them to go', () => view.data.length === before);
  });

  test('without a token only what needs none is seen', async () => {
    const c = client(null, undefined);
    const [labels, issues] = [c.watch(zql.label), c.watch(zql.issue)];
    assert.equal((await labels.complete()).length, 5);
    assert.equal((await issues.complete()).length, 0);
  });

  test('a token of a wrong secret, a spoiled or an expired one asks for another', async () => {
    const good = await token('u1', SECRET);
    const bad = {
      'wrong secret': await token('u1', 'another secret that is long enough'),
      'expired': await token('u1', SECRET, {expires: '-1m'}),
      'spoiled': `${good.slice(0, -6)}AAAAAA`,
      'of another user': await token('u2', SECRET),
    };
    if (!PEER) {
      Object.assign(bad, {
        'no token at all': 'a.b.c',
        'unsigned': `${btoa('{"alg":"none"}')}.${btoa('{"sub":"u1"}')}.`.replaceAll('=', ''),
      });
    }
    for (const [what, auth] of Object.entries(bad)) {
      const c = client('u1', auth);
      c.watch(zql.label);
      await c.state('needs-auth').catch(error => assert.fail(`${what}: ${error.message}`));
    }
    // And one that got a good token goes on.
    const c = clients.at(-1);
    const view = c.watch(zql.label);
    await c.zero.connection.connect({auth: good});
    await view.complete();
  });

  test('a refused token is closed with 3000', async () => {
    const c = new ProtocolClient(world.server.port, {auth: await token('u9', SECRET)});
    assert.equal((await c.error()).kind, 'AuthInvalidated');
    await c.ended();
    assert.equal(c.socket.closeCode, 3000);
    c.close();
  });

  test('a token without a user is refused', async () => {
    const c = new ProtocolClient(world.server.port, {
      auth: await token('u1', SECRET),
      params: {userID: undefined},
    });
    assert.equal((await c.error()).kind, 'Unauthorized');
    await c.ended();
    c.close();
  });

  test('a group belongs to one user', async () => {
    const a = new ProtocolClient(world.server.port, {auth: await token('u1', SECRET)});
    await a.gets('labels');
    const b = new ProtocolClient(world.server.port, {
      auth: await token('u2', SECRET),
      params: {userID: 'u2', clientGroupID: a.groupID},
    });
    assert.equal((await b.error()).kind, 'Unauthorized');
    await b.ended();
    assert(!a.socket.ended);
    a.close();
    b.close();
  });

  test('new rules take effect on clients that are connected', async () => {
    const c = await user('u4');
    const view = c.watch(zql.issue);
    const before = (await view.complete()).length;
    await deployPermissions(
      world.sql,
      await definePermissions(schema, () => ({
        issue: {row: {select: ANYONE_CAN}},
        label: {row: {select: ANYONE_CAN}},
      })),
    );
    const [{count}] = await world.sql`select count(*)::int from issue`;
    assert(count > before);
    await eventually('all issues', () => view.data.length === count);
    await deployPermissions(world.sql, await rules);
    await eventually('only the own ones', () => view.data.length === before);
    await c.state('connected');
  });
});
