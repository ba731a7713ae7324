// What makes a server copy a table, or compare all of the database with what it holds: a new table, a slot
// that is gone. The process stays, clients stay connected, and they hear of what differs alone.

import {strict as assert} from 'node:assert';
import {after, before, describe, test} from 'node:test';
import {setTimeout as sleep} from 'node:timers/promises';
import {createSchema, number, string, table} from '@rocicorp/zero';
import {connect} from '../harness/client.js';
import {eventually} from '../harness/deadline.js';
import {ProtocolClient} from '../harness/protocol.js';
import {ADMIN_PASSWORD, PEER} from '../harness/server.js';
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

  const SKIP = {skip: PEER && 'it copies everything anew'};

  /** Drops the slot of the server, which comes back to it within milliseconds. */
  async function dropSlot() {
    const [{slot}] = await world.sql`select slot_name as slot from pg_replication_slots
      where not temporary limit 1`;
    await eventually('the slot to be dropped', async () => {
      await world.sql`select pg_terminate_backend(active_pid) from pg_replication_slots
        where slot_name = ${slot} and active`;
      return world.sql`select pg_drop_replication_slot(${slot})`.then(
        () => true,
        () => false,
      );
    });
  }

  /** An official client that would say so if it had to start afresh, and a view of its labels. */
  async function watcher() {
    const lost = [];
    const client = connect(world.server.url, {onClientStateNotFound: why => lost.push(why)});
    const view = client.watch(zql.label.orderBy('id', 'asc'));
    await view.complete();
    const names = () => view.data.map(label => label.name);
    return {...client, lost, names};
  }

  /** What a strict client has been told of rows, from a message on. */
  function told(c, since) {
    const parts = c.messages.slice(since).filter(([type]) => type === 'pokePart');
    return parts.flatMap(([, part]) => part.rowsPatch ?? []);
  }

  /** Lets a client rename a project, and waits until PostgreSQL has it. */
  async function renamed(client, name) {
    await client.zero.mutate.project.update({id: 1, name});
    await eventually(`the project to be ${name}`, async () => {
      const [project] = await world.sql`select name from project where id = 1`;
      return project.name === name;
    });
  }

  const labels = async () =>
    (await world.sql`select name from label order by id`).map(label => label.name);

  test('a dropped slot costs connected clients what differs', SKIP, async () => {
    const official = await watcher();
    const strict = new ProtocolClient(world.server.port);
    await strict.gets('labels');
    const since = strict.messages.length;
    await dropSlot();
    await world.sql.begin(async tx => {
      await tx`update label set name = 'after the slot' where id = 2`;
      await tx`update label set name = name where id = 3`;
      await tx`delete from label where id = 4`;
      await tx`insert into label (id, name, colour) values (77, 'new', 'red')`;
    });
    // A client goes on writing meanwhile.
    await renamed(official, 'while the slot is gone');
    await eventually(
      'what differs',
      async () => JSON.stringify(official.names()) === JSON.stringify(await labels()),
      () => JSON.stringify(official.names()),
    );
    await strict.until('what differs', () => strict.table('label').has('[77]'));
    const ops = told(strict, since).map(op => [op.op, (op.value ?? op.id).id]);
    assert.deepEqual(ops.sort(), [
      ['del', 4],
      ['put', 2],
      ['put', 77],
    ]);
    // And what comes after comes as ever.
    await world.sql`update label set name = 'by the new slot' where id = 5`;
    await strict.until('a change after that', () =>
      told(strict, since).some(op => op.value?.name === 'by the new slot'),
    );
    strict.clean();
    assert.equal(strict.socket.ended, false);
    assert.deepEqual(strict.of('error'), []);
    strict.close();
    assert.deepEqual(official.lost, []);
    const connections = official.states.filter(state => state.name === 'connected').length;
    assert(connections <= 1, JSON.stringify(official.states));
    await official.close();
    assert(world.server.running);
    const slots = await world.sql`select 1 from pg_replication_slots where not temporary`;
    assert.equal(slots.length, 1);
  });

  test('a slot lost while the server is away costs clients what differs', SKIP, async () => {
    const official = await watcher();
    const before = new ProtocolClient(world.server.port);
    await before.gets('labels');
    const {clientID, groupID, cookie} = before;
    before.close();
    await world.server.stop();
    await dropSlot();
    await world.sql`update label set name = 'while away' where id = 1`;
    await world.sql`delete from label where id = 77`;
    await world.server.start();
    const again = new ProtocolClient(world.server.port, {
      params: {clientID, clientGroupID: groupID, baseCookie: cookie},
      init: {desiredQueriesPatch: []},
    });
    await again.until('what differs', () => told(again, 0).length >= 2);
    const ops = told(again, 0).map(op => [op.op, (op.value ?? op.id).id]);
    assert.deepEqual(ops.sort(), [
      ['del', 77],
      ['put', 1],
    ]);
    assert.deepEqual(again.of('error'), []);
    again.close();
    await eventually(
      'what differs',
      async () => JSON.stringify(official.names()) === JSON.stringify(await labels()),
      () => JSON.stringify(official.names()),
    );
    assert.deepEqual(official.lost, []);
    await official.close();
    // Operators are told, too: this one is of the second process.
    const authorization = `Basic ${btoa(`admin:${ADMIN_PASSWORD}`)}`;
    const answer = await fetch(`${world.server.url}/metrics`, {headers: {authorization}});
    const metrics = await answer.text();
    assert.match(metrics, /^kelvin_resyncs 1$/m);
    assert.match(metrics, /^kelvin_resyncing 0$/m);
    assert.match(metrics, /^kelvin_resync_rows [23]$/m);
  });

  test('own tables that are dropped cost clients what differs', SKIP, async () => {
    const official = await watcher();
    const strict = new ProtocolClient(world.server.port);
    await strict.gets('labels');
    const since = strict.messages.length;
    await world.sql`drop schema zero_0 cascade`;
    await eventually('the tables to be there again', async () => {
      const there = await world.sql`select to_regclass('zero_0.clients')::text as name`;
      return there[0].name !== null;
    });
    await world.sql`update label set name = 'goes on' where id = 3`;
    await strict.until('a change after that', () =>
      told(strict, since).some(op => op.value?.name === 'goes on'),
    );
    const ops = told(strict, since).map(op => [op.op, (op.value ?? op.id).id]);
    assert.deepEqual(ops, [['put', 3]]);
    // Mutations are still heard of.
    await world.sql`insert into zero_0.clients ("clientGroupID", "clientID", "lastMutationID")
      values (${strict.groupID}, ${strict.clientID}, 1)`;
    await strict.until('its mutation id', () => strict.lastMutationIDs[strict.clientID] === 1);
    strict.clean();
    assert.equal(strict.socket.ended, false);
    assert.deepEqual(strict.of('error'), []);
    strict.close();
    assert.deepEqual(official.lost, []);
    await official.close();
    assert(world.server.running);
  });

  test('a database that is restored costs clients what differs', SKIP, async () => {
    const official = await watcher();
    const writer = await watcher();
    await renamed(writer, 'before the backup');
    const strict = new ProtocolClient(world.server.port);
    await strict.gets('labels');
    const away = new ProtocolClient(world.server.port);
    await away.gets('labels');
    await world.cluster.backUp();
    // The WAL gets further than it was in the backup.
    await world.sql`create table filler as select i, repeat('x', 500) as t
      from generate_series(1, 4000) i`;
    await renamed(writer, 'to be lost');
    await world.sql`update label set name = 'lost' where id = 1`;
    await world.sql`insert into label (id, name, colour) values (88, 'lost', 'red')`;
    await strict.until('the last changes', () => strict.table('label').has('[88]'));
    // What a write of a client that is away later on leaves behind.
    await world.sql`insert into zero_0.clients ("clientGroupID", "clientID", "lastMutationID")
      values (${away.groupID}, ${away.clientID}, 1)`;
    await away.until('its mutation id', () => away.lastMutationIDs[away.clientID] === 1);
    away.close();
    const since = strict.messages.length;
    const {cookie} = strict;
    await world.cluster.restore();
    await strict.until('the label to be taken back', () => !strict.table('label').has('[88]'));
    await world.sql`update label set name = 'after the restore' where id = 3`;
    await strict.until('a change after that', () =>
      told(strict, since).some(op => op.value?.name === 'after the restore'),
    );
    const ops = told(strict, since).map(op => [op.op, (op.value ?? op.id).id]);
    assert.deepEqual(ops.sort(), [
      ['del', 88],
      ['put', 1],
      ['put', 3],
    ]);
    strict.clean();
    assert(strict.cookie > cookie);
    assert.deepEqual(strict.of('error'), []);
    strict.close();
    await eventually(
      'what differs',
      async () => JSON.stringify(official.names()) === JSON.stringify(await labels()),
      () => JSON.stringify(official.names()),
    );
    assert.deepEqual(official.lost, []);
    await official.close();
    // Only clients whose writes are lost cannot go on: their mutation ids were given already.
    await eventually('the writer to start afresh', () => writer.lost.length > 0);
    await writer.close();
    const again = new ProtocolClient(world.server.port, {
      params: {clientID: away.clientID, clientGroupID: away.groupID, baseCookie: away.cookie},
    });
    await again.error('ClientNotFound');
    again.close();
  });
});
