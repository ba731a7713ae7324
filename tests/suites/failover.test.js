// A primary that is lost and a standby in its place: with slots that PostgreSQL keeps in step on the
// standby, kelvin goes on where it was, and clients notice nothing but what has changed.

import {strict as assert} from 'node:assert';
import {after, before, describe, test} from 'node:test';
import {connect} from '../harness/client.js';
import {eventually} from '../harness/deadline.js';
import {Cluster, majorVersion} from '../harness/postgres.js';
import {PEER, SyncServer} from '../harness/server.js';
import {PUBLICATION, modelDatabase} from '../harness/world.js';
import {zql} from '../model/schema.js';

/** The first version that keeps slots on standbys. */
const SYNCED_SLOTS = 17;

const skip =
  (PEER && 'about kelvin') ||
  (majorVersion() < SYNCED_SLOTS && `needs PostgreSQL ${SYNCED_SLOTS}, see scripts/setup`);

describe('failover', {skip}, () => {
  let primary, standby, server;

  before(async () => {
    primary = await Cluster.start();
    const sql = await modelDatabase(primary, 'model');
    await sql`select pg_create_physical_replication_slot('standby', true)`;
    standby = await primary.standby({
      primary_slot_name: 'standby',
      hot_standby_feedback: 'on',
      sync_replication_slots: 'on',
    });
    // Nobody who decodes gets ahead of the standby.
    await primary.resume({synchronized_standby_slots: 'standby'});
    server = new SyncServer(primary.url('model'), {
      ZERO_APP_PUBLICATIONS: PUBLICATION,
      ZERO_UPSTREAM_PG_REPLICATION_SLOT_FAILOVER: 'true',
    });
    await server.start();
  });

  after(async () => {
    await server?.dispose('failover');
    await standby?.stop();
    await primary?.stop();
  });

  test('kelvin goes on at the standby from where it was, and clients stay', async () => {
    const client = connect(server.url);
    const view = client.watch(zql.label);
    await view.complete();
    const named = name => () => view.data.find(label => label.id === 1)?.name === name;
    await primary.sql('model')`update label set name = 'before' where id = 1`;
    await eventually('the write before', named('before'));
    const [{slot}] = await primary.sql('model')`
      select slot_name as slot from pg_replication_slots where slot_type = 'logical'`;
    const kept = async () => {
      // Slots are taken over once the standby has seen what runs on the primary.
      await primary.sql('postgres')`select pg_log_standby_snapshot()`;
      const [row] = await standby.sql('postgres')`
        select synced and not temporary as kept from pg_replication_slots
        where slot_name = ${slot}`;
      return row?.kept;
    };
    await eventually('the slot on the standby', kept, () => '', 120_000);

    await primary.crash();
    await standby.takeOver(primary.port);
    await standby.sql('model')`update label set name = 'after' where id = 1`;
    await eventually('the write after', named('after'), () => server.log.slice(-2000), 60_000);
    const slots = await standby.sql('model')`
      select slot_name as slot, active from pg_replication_slots where slot_type = 'logical'`;
    assert.deepEqual([...slots], [{slot, active: true}]);
    assert.doesNotMatch(server.log, /copied anew|copying anew|compar(ed|ing) with|resync/i);
    assert.deepEqual(client.errors, []);
    await client.close();
  });
});
