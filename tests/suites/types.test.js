// Types: a value looks the same to a client whichever way it came, and as the specification says.

import {strict as assert} from 'node:assert';
import {after, before, describe, test} from 'node:test';
import {createBuilder, createSchema, number, string, table} from '@rocicorp/zero';
import {connect} from '../harness/client.js';
import {same} from '../harness/compare.js';
import {eventually} from '../harness/deadline.js';
import {Cluster} from '../harness/postgres.js';
import {PEER, SyncServer} from '../harness/server.js';
import {deployPermissions} from '../harness/world.js';
import {openPermissions} from '../model/schema.js';
import {COLUMNS, DDL, TABLES, expected, literals, typesSchema} from '../model/types.js';

const zql = createBuilder(typesSchema);

/** A table with integers beyond what a client can hold. */
const bigSchema = createSchema({
  tables: [table('big').columns({id: number(), value: number()}).primaryKey('id')],
  enableLegacyQueries: true,
});

describe('types', () => {
  let cluster, sql, server, client;
  const views = {};

  const insert = (into, {id, values}) =>
    `insert into ${into} (id, ${Object.keys(values)}) values (${id}, ${Object.values(values)})`;
  const update = (into, {id, values}) =>
    `update ${into} set ${Object.entries(values).map(([k, v]) => `${k} = ${v}`)} where id = ${id}`;

  before(async () => {
    cluster = await Cluster.start();
    sql = await cluster.createDatabase('types');
    for (const statement of DDL) await sql.unsafe(statement);
    const open = await Promise.all([typesSchema, bigSchema].map(openPermissions));
    const tables = Object.assign({}, ...open.map(permissions => permissions.tables));
    await deployPermissions(sql, {...open[0], tables});
    for (const row of literals(PEER)) {
      await sql.unsafe(insert('copied', row));
      await sql.unsafe(`insert into updated (id) values (${row.id})`);
    }
    await sql`insert into without_key values (1, 'seen by nobody')`;
    if (!PEER) await sql`insert into big values (1, 7), (2, 9007199254740993)`;
    server = await new SyncServer(cluster.url('types')).start();
    client = connect(server.url, {schema: typesSchema});
    for (const name of TABLES) views[name] = client.watch(zql[name]);
    for (const name of TABLES) await views[name].complete();
    for (const row of literals(PEER)) {
      await sql.unsafe(insert('inserted', row));
      await sql.unsafe(update('updated', row));
    }
    await sql`insert into without_key values (2, 'nor this')`;
  });

  after(async () => {
    await client?.close();
    await server?.dispose('types');
    await cluster?.stop();
  });

  for (const name of TABLES) {
    test(`rows that were ${name}`, async t => {
      const rows = expected(PEER);
      const last = rows.at(-1);
      await eventually(
        `${rows.length} rows that were ${name}`,
        () =>
          views[name].data.length === rows.length &&
          Object.keys(last).every(
            k => (views[name].data.at(-1)[k] ?? null) === null || last[k] !== null,
          ),
        () => `there are ${views[name].data.length}: ${JSON.stringify(client.errors)}`,
      );
      if (name === 'updated') {
        await eventually('the updates', () => views[name].data.at(-1)?.a_text === last.a_text);
      }
      for (const [column] of COLUMNS) {
        await t.test(column, () => {
          const seen = views[name].data.map(row => row[column]);
          same(
            seen,
            rows.map(row => row[column]),
            `${name}.${column}`,
          );
        });
      }
    });
  }

  test('an integer no client can hold harms its own query only', async t => {
    if (PEER) return t.skip('it harms all clients');
    const other = connect(server.url, {schema: bigSchema});
    const big = createBuilder(bigSchema).big;
    const [good, bad] = [other.watch(big.where('id', 1)), other.watch(big.where('id', 2))];
    assert.equal((await good.complete())[0].value, 7);
    await bad.settled();
    assert.equal(bad.type, 'error', JSON.stringify(bad.data));
    await sql`update big set value = 8 where id = 1`;
    await eventually('a change beside it', () => good.data[0].value === 8);
    await sql`update inserted set a_int4 = 77 where id = 0`;
    await eventually('a change for others', () => views.inserted.data[0].a_int4 === 77);
    await other.close();
  });

  test('a table without a key is left out, and a client that wants it is told', async () => {
    const schema = createSchema({
      tables: [table('without_key').columns({a: number(), b: string()}).primaryKey('a')],
      enableLegacyQueries: true,
    });
    let reason;
    const other = connect(server.url, {schema, onUpdateNeeded: why => (reason = why)});
    other.watch(createBuilder(schema).without_key);
    await eventually(
      'a refusal of the schema',
      () => reason,
      () => JSON.stringify(other.states),
    );
    same(reason.type, 'SchemaVersionNotSupported', 'reason');
    await other.close();
    await client.state('connected');
  });
});
