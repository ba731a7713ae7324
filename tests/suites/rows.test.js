// Rows on the wire: which rows a client was sent, whatever its queries make of them. Each row it
// holds is as PostgreSQL has it; and what it holds depends on its queries and the database alone,
// not on the way it came there: followed commit by commit, caught up after a break, or fresh.

import {strict as assert} from 'node:assert';
import {after, before, describe, test} from 'node:test';
import {plain, same} from '../harness/compare.js';
import {oracle} from '../harness/oracle.js';
import {ProtocolClient} from '../harness/protocol.js';
import {PEER} from '../harness/server.js';
import {startWorld} from '../harness/world.js';
import {CHANGES} from '../model/changes.js';
import {CASES} from '../model/queries.js';
import {schema, zql} from '../model/schema.js';

const serverName = part => part.serverName ?? part.name;

/** The client schema as it is said on the wire: in the names of the server. */
const CLIENT_SCHEMA = {
  tables: Object.fromEntries(
    Object.values(schema.tables).map(table => [
      serverName(table),
      {
        columns: Object.fromEntries(
          Object.entries(table.columns).map(([name, column]) => [
            column.serverName ?? name,
            {type: column.type},
          ]),
        ),
        primaryKey: table.primaryKey.map(name => table.columns[name].serverName ?? name).sort(),
      },
    ]),
  ),
};
const KEYS = Object.fromEntries(
  Object.entries(CLIENT_SCHEMA.tables).map(([name, table]) => [name, table.primaryKey]),
);

describe('rows on the wire', () => {
  let world, ask;
  /** @type {ProtocolClient} */
  let live;
  /** @type {ProtocolClient} */
  let returning;
  /** @type {ProtocolClient} */
  let absent;
  const hashes = [...CASES.map((_, i) => `case${i}`), 'marker'];

  before(async () => {
    const queries = Object.fromEntries(CASES.map((c, i) => [`case${i}`, () => c.query]));
    world = await startWorld({app: {queries: {...queries, marker: () => zql.marker}}});
    ask = oracle(world.sql);
    [live, returning, absent] = [connect(), connect(), connect()];
    for (const client of [live, returning, absent]) await got(client);
    absent.close();
  });

  after(async () => {
    for (const client of [live, returning, absent]) client?.close();
    await world?.stop('rows');
  });

  /** A client with all queries; with `from` it is that client, coming back with what it holds. */
  function connect(from) {
    const desiredQueriesPatch = hashes.map(name => ({op: 'put', hash: name, name, args: []}));
    const client = new ProtocolClient(world.server.port, {
      version: PEER ? 51 : 52,
      keys: KEYS,
      params: from && {
        clientID: from.clientID,
        clientGroupID: from.groupID,
        baseCookie: from.cookie,
      },
      init: from
        ? {desiredQueriesPatch: [], activeClients: [from.clientID]}
        : {desiredQueriesPatch, clientSchema: CLIENT_SCHEMA},
      // The header would be too long for a client to send, not for this server to read.
    });
    if (from) {
      client.rows = from.rows;
      client.got = from.got;
    }
    return client;
  }

  const got = client =>
    client.until('all queries to be got', () => hashes.every(hash => client.got.has(hash)));
  const sees = (client, step) =>
    client.until(`step ${step}`, () => client.table('marker').get('[1]')?.step === step);

  /** All rows a client holds, sorted. */
  const held = client =>
    [...client.rows]
      .flatMap(([table, rows]) => [...rows].map(([key, row]) => [`${table} ${key}`, plain(row)]))
      .sort(([a], [b]) => (a < b ? -1 : 1));

  /** Each row a client holds is in PostgreSQL, and equal. */
  async function faithful(client) {
    for (const table of Object.values(schema.tables)) {
      const rows = await ask(zql[table.name]);
      const names = Object.entries(table.columns).map(([name, c]) => [name, c.serverName ?? name]);
      const there = new Map(
        rows.map(row => {
          const server = Object.fromEntries(names.map(([name, own]) => [own, row[name]]));
          return [JSON.stringify(KEYS[serverName(table)].map(k => server[k])), server];
        }),
      );
      for (const [key, row] of client.table(serverName(table))) {
        same(row, there.get(key), `${serverName(table)} ${key} is not as PostgreSQL has it`);
      }
    }
  }

  test('at rest', async () => {
    assert(live.table('issue').size > 50 && live.table('crm.organisation').size > 0);
    await faithful(live);
    if (!PEER) same(held(returning), held(live), 'two clients with the same queries differ');
  });

  for (const [index, change] of CHANGES.entries()) {
    test(`after: ${change.name}`, async () => {
      // One of the clients is away every other time.
      if (index % 2 === 0) returning.close();
      await world.sql.begin(async tx => {
        for (const statement of change.statements) await tx.unsafe(statement);
        await tx`update marker set step = ${index + 1}`;
      });
      await sees(live, index + 1);
      live.clean();
      await faithful(live);
      if (index % 2 === 0) returning = connect(returning);
      await sees(returning, index + 1);
      returning.clean();
      if (!PEER) same(held(returning), held(live), 'the client that was away holds other rows');
    });
  }

  test('a client that was away the whole time, and one that is new', async () => {
    const late = connect(absent);
    await sees(late, CHANGES.length);
    late.clean();
    await faithful(late);
    const fresh = connect();
    await got(fresh);
    await sees(fresh, CHANGES.length);
    if (!PEER) {
      same(held(late), held(live), 'the client that was away holds other rows');
      same(held(fresh), held(live), 'the new client holds other rows');
    }
    late.close();
    fresh.close();
  });

  test('a restart of the server changes nothing', async () => {
    await world.server.stop();
    await world.server.start();
    const again = connect(live);
    await again.until('a poke', () => again.pokes > 0);
    await world.sql`update marker set step = 500`;
    await sees(again, 500);
    await faithful(again);
    const fresh = connect();
    await got(fresh);
    await sees(fresh, 500);
    if (!PEER) same(held(again), held(fresh), 'after the restart');
    again.close();
    fresh.close();
  });
});
