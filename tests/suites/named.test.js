// Named queries: the app's endpoint says what a query means; its errors concern that query alone;
// what it is asked and told (users, cookies of a session, status codes).

import {strict as assert} from 'node:assert';
import {after, before, describe, test} from 'node:test';
import {defineQueries, defineQuery} from '@rocicorp/zero';
import {connect} from '../harness/client.js';
import {same} from '../harness/compare.js';
import {eventually} from '../harness/deadline.js';
import {startWorld} from '../harness/world.js';
import {zql} from '../model/schema.js';

const named = defineQueries({
  openIssues: defineQuery(({args}) => zql.issue.where('open', true).limit(args.limit)),
  mine: defineQuery(() => zql.issue),
  refused: defineQuery(() => zql.issue),
  unknown: defineQuery(() => zql.issue),
  labels: defineQuery(() => zql.label),
  group: {
    project: defineQuery(({args}) => zql.project.where('id', args)),
  },
});

describe('named queries', () => {
  let world;
  /** What the endpoint answers instead, while it is set. */
  let instead;
  const clients = [];
  const client = options => {
    const c = connect(world.server.url, options);
    clients.push(c);
    return c;
  };

  before(async () => {
    world = await startWorld({
      app: {
        user: headers => headers.authorization?.replace('Bearer ', '') ?? null,
        intercept: (request, body) => instead?.(request, body),
        queries: {
          'openIssues': args =>
            zql.issue.where('open', true).orderBy('created', 'desc').limit(args.limit),
          'mine': (_, {userID}) => zql.issue.where('ownerID', userID),
          'refused': () => {
            throw new Error('not for you');
          },
          'labels': () => zql.label,
          'group.project': id => zql.project.where('id', id),
        },
      },
    });
  });

  after(async () => {
    await Promise.all(clients.map(c => c.close()));
    await world?.stop('named');
  });

  const user = name => client({userID: name, auth: name});

  test('arguments and the user decide what a query means', async () => {
    const [ada, bo] = [user('u1'), user('u2')];
    const views = [ada.watch(named.mine()), bo.watch(named.mine())];
    for (const view of views) await view.complete();
    same(new Set(views[0].data.map(i => i.ownerID)).size, 1, 'owners');
    same(views[0].data[0].ownerID, 'u1', 'the owner of the issues of u1');
    same(views[1].data[0].ownerID, 'u2', 'the owner of the issues of u2');
    const project = ada.watch(named.group.project(2));
    await project.complete();
    same(
      project.data.map(p => p.name),
      ['Triple point'],
      'the project asked for',
    );
    const [five, seven] = [5, 7].map(limit => ada.watch(named.openIssues({limit})));
    assert.equal((await five.complete()).length, 5);
    assert.equal((await seven.complete()).length, 7);
  });

  test('the endpoint is asked with the schema, the app and the token of the user', async () => {
    const request = world.api.requests.find(r => r.path === '/query' && r.body[1].length > 0);
    assert.equal(request.params.get('schema'), 'zero_0');
    assert.equal(request.params.get('appID'), 'zero');
    assert.match(request.headers.authorization, /^Bearer u\d$/);
    assert.equal(request.body[0], 'transform');
    const {id, name, args} = request.body[1][0];
    assert(typeof id === 'string' && typeof name === 'string' && Array.isArray(args));
  });

  test('an error of one query leaves the others alone', async () => {
    const c = user('u1');
    const good = c.watch(named.labels());
    const bad = c.watch(named.refused());
    const missing = c.watch(named.unknown());
    await good.complete();
    for (const view of [bad, missing]) {
      await view.settled();
      assert.equal(view.type, 'error');
    }
    assert.match(JSON.stringify(bad.error), /not for you/);
    await world.sql`update label set name = 'still here' where id = 3`;
    await eventually('a change of the good query', () =>
      good.data.some(l => l.name === 'still here'),
    );
    await c.state('connected');
  });

  test('rows follow the transformed query', async () => {
    const c = user('u1');
    const view = c.watch(named.mine());
    const before = (await view.complete()).length;
    await world.sql`update issue set owner_id = 'u1' where id = 'i002'`;
    await eventually('an issue more', () => view.data.length === before + 1);
    await world.sql`update issue set owner_id = null where id = 'i002'`;
    await eventually('an issue less', () => view.data.length === before);
  });

  test('an endpoint that says 401 asks for another token', async () => {
    instead = request =>
      request.headers.authorization === 'Bearer stale' && {status: 401, body: {error: 'expired'}};
    const c = client({userID: 'stale', auth: 'stale'});
    const view = c.watch(named.labels());
    const state = await c.state('needs-auth');
    assert.equal(state.reason.status, 401);
    instead = undefined;
    await c.zero.connection.connect({auth: 'stale'});
    await view.complete();
  });

  test('an endpoint that fails for a moment is asked again', async () => {
    let failures = 2;
    instead = request =>
      request.headers.authorization === 'Bearer patient' &&
      failures-- > 0 && {status: 503, body: 'later'};
    const c = client({userID: 'patient', auth: 'patient'});
    await c.watch(named.labels()).complete();
    instead = undefined;
  });

  test('an endpoint that talks nonsense is an error of that client', async () => {
    instead = (request, body) =>
      request.headers.authorization === 'Bearer unlucky' &&
      body[1]?.length > 0 && {status: 200, body: '<html>'};
    const c = client({userID: 'unlucky', auth: 'unlucky'});
    c.watch(named.labels());
    const state = await c.state('error');
    assert(state.reason);
    instead = undefined;
    await user('u1').watch(named.labels()).complete();
  });
});
