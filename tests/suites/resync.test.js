// What makes a server copy a table or all of the database anew while it runs: a new table, a slot that
// is gone. The process stays, and clients that start afresh find everything.

import {strict as assert} from 'node:assert';
import {after, before, describe, test} from 'node:test';
import {setTimeout as sleep} from 'node:timers/promises';
import {createSchema, number, string, table} from '@rocicorp/zero';
import {connect} from '../harness/client.js';
import {eventually} from '../harness/deadline.js';
import {ProtocolClient} from '../harness/protocol.js';
import {PEER} from '../harness/server.js';
import {deployPermissions, startWorld} from '../harness/world.js';
import {openPermissions, zql} from '../model/schema.js';

describe('resync', () => {
  let world;

  before(async () => {
    world = await startWorld();
  });

  after(async () => {
    await world?.stop('resync');
  });

  /** Connects again and again, as people reload a page, until a client's rows satisfy `probe`. */
  async function seen(what, table, columns, probe) {
    const desiredQueriesPatch = [{op: 'put', hash: 'all', ast: {table}}];
    const clientSchema = {tables: {[table]: {columns, primaryKey: ['id']}}};
    const say = () =>
      new ProtocolClient(world.server.port, {
        init: {desiredQueriesPatch, clientSchema},
      });
    let c = say();
    await eventually(
      what,
      async () => {
        if (c.socket.ended) {
          await sleep(200);
          c = say();
        }
        return probe([...c.table(table).values()]);
      },
      () => JSON.stringify(c.messages.slice(-3)).slice(0, 1500),
    );
    c.clean();
    c.close();
  }

  test('a column that is added is there for clients that know it', async () => {
    const old = connect(world.server.url);
    await old.watch(zql.label).complete();
    await world.sql`alter table label add column weight int default 7`;
    const columns = {id: {type: 'number'}, weight: {type: 'number'}};
    await world.sql`update label set weight = 8 where id = 1`;
    await seen(
      'the new column',
      'label',
      columns,
      rows => rows.length === 5 && rows.every(row => row.weight === (row.id === 1 ? 8 : 7)),
    );
    await world.sql`update label set weight = 9 where id = 1`;
    await seen(
      'a change of it',
      'label',
      columns,
      rows => rows.find(row => row.id === 1)?.weight === 9,
    );
    assert(world.server.running);
    await old.close();
  });

  test('a table that is created is there for clients that know it', async () => {
    await world.sql`create table novel (id int primary key, name text)`;
    await world.sql`insert into novel values (1, 'new')`;
    const schema = createSchema({
      tables: [table('novel').columns({id: number(), name: string().optional()}).primaryKey('id')],
    });
    await deployPermissions(world.sql, await openPermissions(schema));
    const columns = {id: {type: 'number'}, name: {type: 'string'}};
    await seen(
      'the new table',
      'novel',
      columns,
      rows => rows.length === 1 && rows[0].name === 'new',
    );
    await deployPermissions(world.sql, await openPermissions());
  });

  test('a dropped replication slot is made anew', {skip: PEER && 'it ends'}, async () => {
    const [{slot}] = await world.sql`select slot_name as slot from pg_replication_slots
      where active limit 1`;
    await world.sql`select pg_terminate_backend(active_pid) from pg_replication_slots
      where slot_name = ${slot}`;
    await eventually('the slot to be dropped', async () => {
      await world.sql`select pg_terminate_backend(active_pid) from pg_replication_slots
        where slot_name = ${slot} and active`;
      return world.sql`select pg_drop_replication_slot(${slot})`.then(
        () => true,
        () => false,
      );
    });
    await world.sql`update label set name = 'after the slot' where id = 2`;
    const columns = {id: {type: 'number'}, name: {type: 'string'}};
    await seen('a change after that', 'label', columns, rows =>
      rows.some(row => row.name === 'after the slot'),
    );
    assert(world.server.running);
  });
});
