// kelvin and zero-cache for the same app on the same database: each follows its own slot and leaves
// that of the other alone, a mutation counts for both, and an app can move to and fro.

import {strict as assert} from 'node:assert';
import {after, before, describe, test} from 'node:test';
import {connect} from '../harness/client.js';
import {eventually} from '../harness/deadline.js';
import {ProtocolClient} from '../harness/protocol.js';
import {PEER, SyncServer} from '../harness/server.js';
import {startWorld} from '../harness/world.js';
import {zql} from '../model/schema.js';

describe('beside zero-cache', {skip: PEER && 'starts both'}, () => {
  let world, kelvin, peer;

  before(async () => {
    world = await startWorld();
    kelvin = world.server;
    peer = new SyncServer(kelvin.upstream, kelvin.env, true);
    await peer.start();
    await slots(2);
  });

  after(async () => {
    await peer?.dispose('beside-zero-cache');
    await world?.stop('beside-kelvin');
  });

  /** Waits until so many slots are streamed from; gives the names of all slots. */
  async function slots(active) {
    await eventually(`${active} slots in use`, async () => {
      const [{count}] =
        await world.sql`select count(*)::int from pg_replication_slots where active`;
      return count === active;
    });
    const rows = await world.sql`select slot_name as name from pg_replication_slots order by 1`;
    return rows.map(row => row.name);
  }

  const labelled = (view, name) => view.data.find(label => label.id === 1)?.name === name;

  /** A write through each of two clients, which both see in the end. */
  async function mutualWrites(a, b, tag) {
    const views = [a, b].map(client => client.watch(zql.label));
    await Promise.all(views.map(view => view.complete()));
    for (const [client, who] of [
      [a, 'kelvin'],
      [b, 'zero-cache'],
    ]) {
      const name = `${tag} through ${who}`;
      await client.zero.mutate.label.update({id: 1, name});
      for (const view of views) await eventually(name, () => labelled(view, name));
    }
  }

  test('clients of both see the writes of each', async () => {
    const [a, b] = [connect(kelvin.url), connect(peer.url)];
    await mutualWrites(a, b, 'first');
    await a.close();
    await b.close();
  });

  test('restarts of either leave both slots, and neither copies anew', async () => {
    const names = await slots(2);
    assert.deepEqual(names, ['kelvin_zero_0_a', 'zero_0_a']);
    // What one finds not in use when it starts is what it might take for left over.
    await kelvin.stop();
    await peer.stop();
    assert.deepEqual(await slots(0), names);
    await peer.start();
    assert.deepEqual(await slots(1), names);
    await peer.stop();
    await kelvin.start();
    assert.deepEqual(await slots(1), names);
    assert.match(kelvin.log, /slot of zero-cache is not in use and holds back WAL/);
    await peer.start();
    assert.deepEqual(await slots(2), names);
    assert.doesNotMatch(kelvin.log, /copied anew|copying anew|resync/i);
    const [a, b] = [connect(kelvin.url), connect(peer.url)];
    await mutualWrites(a, b, 'second');
    await a.close();
    await b.close();
  });

  test('a group that moves to and fro starts afresh and its mutation ids go on', async () => {
    const group = {};
    /** @param {SyncServer} server */
    const meet = (server, params = {}) =>
      new ProtocolClient(server.port, {params: {...group, ...params}});
    const push = (c, id) =>
      c.send('push', {
        clientGroupID: c.groupID,
        pushVersion: 1,
        timestamp: 1,
        requestID: `r${id}`,
        mutations: [
          {
            type: 'crud',
            id,
            clientID: c.clientID,
            name: '_zero_crud',
            timestamp: 1,
            args: [
              {
                ops: [
                  {
                    op: 'update',
                    tableName: 'label',
                    primaryKey: ['id'],
                    value: {id: 2, name: `mutation ${id}`},
                  },
                ],
              },
            ],
          },
        ],
      });
    const acknowledged = (c, id) =>
      c.until(`mutation ${id} to be acknowledged`, () => c.lastMutationIDs[c.clientID] === id);

    let last = meet(kelvin);
    group.clientID = last.clientID;
    group.clientGroupID = last.groupID;
    await last.gets('labels');
    push(last, 1);
    await acknowledged(last, 1);
    let id = 1;
    for (const server of [peer, kelvin, peer]) {
      const {cookie} = last;
      last.close();
      const stranger = meet(server, {baseCookie: cookie, lmid: String(id)});
      // A server does not take the cookie of another for one of its own. Either answer makes a
      // client start afresh.
      const {kind} = await stranger.error();
      const answers = ['ClientNotFound'];
      if (server.peer) answers.push('InvalidConnectionRequestBaseCookie');
      assert(answers.includes(kind), kind);
      await stranger.ended();
      // As a client does then, all is asked for anew. The ids stand in PostgreSQL.
      last = meet(server);
      await last.gets('labels');
      await acknowledged(last, id);
      push(last, id);
      id += 1;
      push(last, id);
      await acknowledged(last, id);
      const [{name}] = await world.sql`select name from label where id = 2`;
      assert.equal(name, `mutation ${id}`);
      last.clean();
    }
    last.close();
  });

  test('zero-cache sets up what it wants beyond what kelvin has made', async () => {
    const [config] = await world.sql`select "ddlDetection" as ddl from zero_0."shardConfig"`;
    assert.equal(config.ddl, true, 'its event triggers');
    const triggers =
      await world.sql`select evtname as name from pg_event_trigger order by evtname collate "C"`;
    assert.deepEqual(
      triggers.map(trigger => trigger.name),
      [
        'kelvin_zero_0_ddl_end',
        'kelvin_zero_0_dropped',
        'kelvin_zero_0_rewrite',
        'zero_ddl_end_0',
        'zero_ddl_start_0',
      ],
      'those of both',
    );
    // The hook that migrations call is zero-cache's by now.
    const [hook] = await world.sql`
      select prosrc like '%schemaSnapshot%' as theirs from pg_proc
      where proname = 'update_schemas' and pronargs = 0`;
    assert.equal(hook.theirs, true);
    await world.sql`select zero_0.update_schemas()`;
    const c = connect(kelvin.url);
    const view = c.watch(zql.label);
    await view.complete();
    await world.sql`alter table label add column extra int default 3`;
    await world.sql`update label set name = 'altered' where id = 1`;
    await eventually('the update', () => labelled(view, 'altered'));
    await c.close();
  });
});
