// Client groups: tabs that share a store, queries that many groups share, how long queries live,
// connections that are cut.

import {strict as assert} from 'node:assert';
import {after, before, describe, test} from 'node:test';
import {setTimeout as sleep} from 'node:timers/promises';
import {connect} from '../harness/client.js';
import {equal, same} from '../harness/compare.js';
import {eventually} from '../harness/deadline.js';
import {oracle} from '../harness/oracle.js';
import {LABELS, ProtocolClient} from '../harness/protocol.js';
import {startWorld} from '../harness/world.js';
import {zql} from '../model/schema.js';

describe('groups', () => {
  let world, ask;
  const clients = [];
  const client = options => {
    const c = connect(world.server.url, options);
    clients.push(c);
    return c;
  };
  const raw = options => {
    const c = new ProtocolClient(world.server.port, options);
    clients.push(c);
    return c;
  };

  before(async () => {
    world = await startWorld();
    ask = oracle(world.sql);
  });

  after(async () => {
    await Promise.all(clients.map(c => c.close()));
    await world?.stop('groups');
  });

  test('tabs of one browser share rows and stay equal', async () => {
    const tabs = [client({storageKey: 'tabs'}), client({storageKey: 'tabs'})];
    const query = zql.issue.where('open', true).orderBy('created', 'desc').limit(10);
    const views = tabs.map(tab => tab.watch(query));
    for (const view of views) await view.complete();
    assert.equal(await tabs[0].zero.clientGroupID, await tabs[1].zero.clientGroupID);
    await world.sql`update issue set open = not open where number % 5 = 0`;
    for (const view of views) {
      await eventually('the tabs to be as PostgreSQL', async () =>
        equal(view.data, await ask(query)),
      );
    }
    await tabs[0].zero.mutate.project.update({id: 1, name: 'by a tab'}).catch(() => {});
    const other = tabs[1].watch(zql.project.where('id', 1));
    await other.complete();
    await eventually('the write of the other tab', () => other.data[0].name === 'by a tab');
  });

  test('a tab that joins gets what the group has', async () => {
    const first = client({storageKey: 'joins'});
    await first.watch(zql.label).complete();
    const second = client({storageKey: 'joins'});
    const view = second.watch(zql.label.related('issues'));
    same(await view.complete(), await ask(zql.label.related('issues')), 'the view of a second tab');
    await first.close();
    await world.sql`update label set name = 'after the first left' where id = 4`;
    await eventually(
      'a change after the first left',
      () => view.data.find(l => l.id === 4)?.name === 'after the first left',
    );
  });

  test('all clients of a group see each other’s queries and mutation ids', async () => {
    const a = raw();
    await a.gets('labels');
    const b = raw({
      params: {clientGroupID: a.groupID, baseCookie: a.cookie},
      init: {desiredQueriesPatch: [LABELS]},
    });
    await b.until('a poke', () => b.pokes > 0);
    await a.until('the desires of the other', () => a.desired.get(b.clientID)?.has('labels'));
    a.clean();
    b.clean();
  });

  test('one query watched by many groups is the same for all', async () => {
    const query = zql.issue
      .whereExists('labels')
      .orderBy('votes', 'desc')
      .limit(15)
      .related('comments');
    const views = Array.from({length: 40}, () => client().watch(query));
    for (const view of views) await view.complete();
    await world.sql`update issue set votes = (number * 31) % 50`;
    await world.sql`delete from comment where id like 'c00%'`;
    const last = await ask(query);
    for (const view of views) {
      await eventually('a view to be as PostgreSQL', () => equal(view.data, last));
    }
  });

  test('a query without time to live goes with its last view, and so do its rows', async () => {
    const c = raw({init: undefined});
    await c.gets('labels');
    const put = {op: 'put', hash: 'short', ttl: 0, ast: {table: 'issue', limit: 3}};
    c.send('changeDesiredQueries', {desiredQueriesPatch: [put]});
    await c.gets('short');
    assert.equal(c.table('issue').size, 3);
    c.send('changeDesiredQueries', {desiredQueriesPatch: [{op: 'del', hash: 'short'}]});
    await c.until('the query to end', () => !c.got.has('short'));
    assert.equal(c.table('issue').size, 0);
    assert.equal(c.table('label').size, 5);
    c.clean();
  });

  test('a query with time to live stays that long after its last view', async () => {
    const c = raw();
    await c.gets('labels');
    const put = {op: 'put', hash: 'longer', ttl: 2000, ast: {table: 'issue', limit: 3}};
    c.send('changeDesiredQueries', {desiredQueriesPatch: [put]});
    await c.gets('longer');
    c.send('changeDesiredQueries', {desiredQueriesPatch: [{op: 'del', hash: 'longer'}]});
    await c.until('the desire to end', () => !c.desired.get(c.clientID).has('longer'));
    assert(c.got.has('longer'), 'its rows are still fed');
    await world.sql`update issue set title = 'fed' where id = 'i000'`;
    await c.until('a change of it', () => c.table('issue').get('["i000"]')?.title === 'fed');
    await c.until('its end', () => !c.got.has('longer') && c.table('issue').size === 0);
    c.clean();
  });

  test('a row two queries hold goes with the second', async () => {
    const c = raw();
    const one = {op: 'put', hash: 'one', ttl: 0, ast: {table: 'issue', limit: 2}};
    const two = {op: 'put', hash: 'two', ttl: 0, ast: {table: 'issue', limit: 4}};
    await c.gets('labels');
    c.send('changeDesiredQueries', {desiredQueriesPatch: [one, two]});
    await c.gets('one', 'two');
    assert.equal(c.table('issue').size, 4);
    c.send('changeDesiredQueries', {desiredQueriesPatch: [{op: 'del', hash: 'two'}]});
    await c.until('two to end', () => !c.got.has('two'));
    assert.equal(c.table('issue').size, 2);
    c.send('changeDesiredQueries', {desiredQueriesPatch: [{op: 'del', hash: 'one'}]});
    await c.until('one to end', () => !c.got.has('one'));
    assert.equal(c.table('issue').size, 0);
    c.clean();
  });

  test('clients go on after the server was restarted', async () => {
    const query = zql.project.related('issues', q => q.orderBy('number', 'asc').limit(3));
    const c = client();
    const view = c.watch(query);
    await view.complete();
    const cookie = raw();
    await cookie.gets('labels');
    await world.server.stop();
    await world.sql`update issue set title = 'while the server was away' where number < 20`;
    await world.sql`delete from label where id = 5`;
    await world.server.start();
    await eventually('the view to be as PostgreSQL', async () =>
      equal(view.data, await ask(query)),
    );
    const again = raw({
      params: {
        clientID: cookie.clientID,
        clientGroupID: cookie.groupID,
        baseCookie: cookie.cookie,
      },
      init: {desiredQueriesPatch: [], activeClients: [cookie.clientID]},
    });
    again.rows = cookie.rows;
    await again.until('what changed meanwhile', () => !again.table('label').has('[5]'));
    again.clean();
    assert.deepEqual(again.of('error'), []);
    await c.state('connected');
  });

  test('clients go on after PostgreSQL was restarted', async () => {
    const c = client();
    const view = c.watch(zql.label);
    await view.complete();
    await world.cluster.halt();
    await sleep(300);
    await world.cluster.resume();
    await eventually('a change after that', async () => {
      await world.sql`update label set name = 'after the restart' where id = 2`.catch(() => {});
      return view.data.some(l => l.name === 'after the restart');
    });
  });
});
