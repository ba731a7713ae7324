// Changes of the schema while official clients are connected. No client is cut off but those whose
// own schema is no longer there, and every query keeps giving PostgreSQL's answer.

import {strict as assert} from 'node:assert';
import {after, before, describe, test} from 'node:test';
import {
  createBuilder,
  createSchema,
  json,
  number,
  relationships,
  string,
  table,
} from '@rocicorp/zero';
import {connect} from '../harness/client.js';
import {equal, same} from '../harness/compare.js';
import {eventually} from '../harness/deadline.js';
import {oracle} from '../harness/oracle.js';
import {ProtocolClient} from '../harness/protocol.js';
import {deployPermissions, startWorld} from '../harness/world.js';
import {openPermissions} from '../model/schema.js';

const shelf = table('shelf').columns({id: number(), name: string()}).primaryKey('id');
const columns = {id: number(), shelfID: number().from('shelf_id'), title: string().optional()};
const older = table('book').columns(columns).primaryKey('id');
const newer = table('book')
  .columns({...columns, price: number().optional(), notes: json().optional()})
  .primaryKey('id');

function schemaOf(book) {
  const relations = relationships(shelf, ({many}) => ({
    books: many({sourceField: ['id'], destSchema: book, destField: ['shelfID']}),
  }));
  return createSchema({
    tables: [shelf, book],
    relationships: [relations],
    enableLegacyMutators: true,
    enableLegacyQueries: true,
  });
}

const TABLES = `
  create table shelf (id int primary key, name text not null);
  create table book (id int primary key, shelf_id int not null, title text, old text, secret text);
  insert into shelf select n, 'shelf ' || n from generate_series(1, 5) n;
  insert into book select n, n % 5 + 1, 'book ' || n, 'x', 'y' from generate_series(1, 40) n`;
const BEFORE = schemaOf(older);
const AFTER = schemaOf(newer);

const queries = zql => ({
  all: zql.book.orderBy('id', 'asc'),
  first: zql.book.orderBy('title', 'desc').limit(3),
  nested: zql.shelf.related('books', q => q.orderBy('title', 'asc')),
  filled: zql.shelf.whereExists('books', q => q.where('title', 'LIKE', '%1%')),
});

describe('schema changes', () => {
  let world, sql, replica;
  const clients = [];

  before(async () => {
    world = await startWorld({permissions: await openPermissions(BEFORE), tables: TABLES});
    sql = world.sql;
    replica = await slots();
  });

  after(async () => {
    for (const client of clients) await client.close();
    await world?.stop('schema');
  });

  /** The slots there are; a new copy takes a new one. */
  const slots = async () =>
    JSON.stringify(await sql`select slot_name from pg_replication_slots where not temporary`);

  /** A client with the queries of a schema. */
  async function watching(schema) {
    const client = connect(world.server.url, {schema});
    clients.push(client);
    const asked = queries(createBuilder(schema));
    const views = Object.entries(asked).map(([name, query]) => [name, query, client.watch(query)]);
    for (const [, , view] of views) await view.complete();
    const ask = oracle(sql, schema);
    return {
      ...client,
      /** Waits until each view is PostgreSQL's answer. Columns that it does not know do not count. */
      async agrees(what) {
        for (const [name, query, view] of views) {
          const expected = await ask(query);
          await eventually(
            `${name} to be right after ${what}`,
            () => equal(known(view.data, schema), known(expected, schema)),
            () => JSON.stringify({now: view.data.slice(0, 3), expected: expected.slice(0, 3)}),
          );
        }
      },
      /** Fails if it was ever cut off. */
      stayed() {
        const states = client.states.map(state => state.name);
        const since = states.slice(states.indexOf('connected'));
        assert(since.length > 0 && since.every(name => name === 'connected'), states.join());
        assert.deepEqual(client.errors, []);
      },
    };
  }

  /** Rows without the columns that the schema does not have. */
  function known(rows, schema) {
    const names = new Set(Object.values(schema.tables).flatMap(t => Object.keys(t.columns)));
    const strip = row =>
      Object.fromEntries(
        Object.entries(row)
          .filter(([name]) => names.has(name) || name === 'books')
          .map(([name, value]) => [name, name === 'books' ? value.map(strip) : value]),
      );
    return rows.map(strip);
  }

  test('clients stay connected and right through changes they need not know of', async () => {
    const client = await watching(BEFORE);
    const changes = [
      'alter table book add column price int default 7',
      `alter table book add column notes jsonb default '{"a": 1}'`,
      'alter table book add column plain text',
      'alter table book drop column old',
      'alter table book rename column secret to hidden',
      'alter table book alter column title set not null',
      'create index on book (title desc)',
      'alter table shelf add column depth int not null default 1',
      'drop table reaction',
    ];
    let id = 1000;
    for (const change of changes) {
      await sql`update book set title = ${`${id} before`} where id = 3`;
      await sql.unsafe(change);
      await sql`insert into book (id, shelf_id, title) values (${(id += 1)}, 2, ${`new 1 ${id}`})`;
      await sql`update book set title = ${`${id} after`} where id = 4`;
      await client.agrees(change);
    }
    client.stayed();
    assert.equal(await slots(), replica, 'the database was copied anew');
  });

  test('a client that knows a new column sees it in rows that were there', async () => {
    const client = await watching(AFTER);
    await client.agrees('joining');
    await sql`update book set price = 8 where id = 5`;
    await sql`alter table book add column more int default 1`;
    await sql`update book set price = price + 1 where id < 9`;
    await client.agrees('a change');
    client.stayed();
  });

  test('a change within a transaction that writes rows is in its place', async () => {
    const client = await watching(AFTER);
    await sql.begin(async tx => {
      await tx`update book set title = 'in one transaction 1' where id = 6`;
      await tx`alter table book drop column more`;
      await tx`insert into book (id, shelf_id, title, price) values (2000, 1, 'two 1', 2)`;
      await tx`alter table book add column extra text default 'extra'`;
      await tx`insert into book (id, shelf_id, title, price) values (2001, 1, 'three 1', 3)`;
      await tx`delete from book where id = 7`;
    });
    await client.agrees('the transaction');
    client.stayed();
    assert.equal(await slots(), replica, 'the database was copied anew');
  });

  test('rows are sent again whole, to clients that are there and to one that comes back', async () => {
    const say = from =>
      new ProtocolClient(world.server.port, {
        keys: {book: ['id']},
        params: from && {
          clientID: from.clientID,
          clientGroupID: from.groupID,
          baseCookie: from.cookie,
        },
        init: from
          ? {desiredQueriesPatch: [], activeClients: [from.clientID]}
          : {
              desiredQueriesPatch: [{op: 'put', hash: 'all', ast: {table: 'book'}}],
              clientSchema: {
                tables: {
                  book: {columns: {id: {type: 'number'}}, primaryKey: ['id']},
                },
              },
            },
      });
    const held = client => [...client.table('book').values()].sort((a, b) => a.id - b.id);
    const there = () => sql`select * from book order by id`;
    const settled = (what, client) =>
      eventually(
        what,
        async () => equal(held(client), await there()),
        () => JSON.stringify([held(client)[0], client.messages.slice(-2)]).slice(0, 1500),
      );
    const [live, away] = [say(), say()];
    await settled('all rows', live);
    await settled('all rows', away);
    away.close();
    await sql`update book set title = 'while away' where id = 9`;
    await sql`alter table book add column late int default 4`;
    await sql`alter table book drop column hidden`;
    await sql`delete from book where id = 10`;
    await sql`update book set late = 5 where id = 11`;
    await settled('the change', live);
    const back = say(away);
    back.rows = away.rows;
    await settled('the change', back);
    same(held(back), held(live), 'two ways to one state');
    for (const client of [live, back]) {
      client.clean();
      client.close();
    }
  });

  test('rows that a change rewrites are copied again while clients stay', async () => {
    const client = await watching(BEFORE);
    await sql`insert into book select n, n % 5 + 1, 'many ' || n from generate_series(5000, 5500) n`;
    const changes = [
      'alter table book alter column title type varchar(200)',
      'alter table book add column luck double precision default random()',
      'alter table book alter column shelf_id type bigint',
      'alter table shelf add column number serial',
      'alter table book drop constraint book_pkey, add primary key (title, id), add unique (id)',
    ];
    for (const [at, change] of changes.entries()) {
      await sql`update book set title = ${`1 before ${at}`} where id = 12`;
      await sql.unsafe(change);
      await sql`update book set title = title || '!' where id % 10 = ${at}`;
      await sql`delete from book where id = ${5000 + at}`;
      await sql`update shelf set name = ${`1 after ${at}`} where id = 3`;
      await client.agrees(change);
    }
    client.stayed();
    assert.equal(await slots(), replica, 'the database was copied anew');
  });

  test('a table that is created is there for clients that know it, and others stay', async () => {
    const old = await watching(BEFORE);
    const writing = (async () => {
      for (let n = 0; n < 50; n += 1) {
        await sql`insert into author (id, name) values (${10_000 + n}, 'late')`.catch(() => {});
        await sql`update book set title = ${`1 meanwhile ${n}`} where id = 13`;
      }
    })();
    await sql.begin(async tx => {
      await tx`create table author (id int primary key, name text)`;
      await tx`insert into author select n, 'author ' || n from generate_series(1, 3000) n`;
    });
    await writing;
    const author = table('author').columns({id: number(), name: string()}).primaryKey('id');
    const schema = createSchema({
      tables: [shelf, older, author],
      enableLegacyMutators: true,
      enableLegacyQueries: true,
    });
    await deployPermissions(sql, await openPermissions(schema));
    const columns = {id: {type: 'number'}, name: {type: 'string'}};
    const clientSchema = {tables: {author: {columns, primaryKey: ['id']}}};
    await eventually('the table to be there', async () => {
      const init = {
        desiredQueriesPatch: [{op: 'put', hash: 'a', ast: {table: 'author'}}],
        clientSchema,
      };
      const probe = new ProtocolClient(world.server.port, {init});
      await eventually('an answer', () => probe.socket.ended || probe.table('author').size > 0);
      probe.close();
      return probe.table('author').size > 0;
    });
    const client = connect(world.server.url, {schema});
    clients.push(client);
    const all = createBuilder(schema).author.orderBy('id', 'asc');
    const view = client.watch(all);
    await view.complete();
    const ask = oracle(sql, schema);
    const agree = async what => {
      const expected = await ask(all);
      await eventually(what, () => equal(view.data, expected));
    };
    await agree('its rows');
    await sql`update author set name = 'changed' where id % 7 = 0`;
    await sql`delete from author where id % 11 = 0`;
    await agree('changes of it');
    await old.agrees('the new table');
    old.stayed();
    assert.equal(await slots(), replica, 'the database was copied anew');
  });

  test('a client whose column is dropped is told, and nobody else', async () => {
    const [old, doomed] = [await watching(BEFORE), await watching(AFTER)];
    await sql`alter table book drop column price`;
    await sql`update book set title = 'dropped 1' where id = 8`;
    await eventually('the error', () => doomed.states.some(state => state.name === 'error'));
    assert(JSON.stringify(doomed.states.at(-1)).includes('price') || doomed.errors.length > 0);
    await old.agrees('the drop');
    old.stayed();
  });
});
