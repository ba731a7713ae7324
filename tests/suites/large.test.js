// Transactions larger than what the server holds in memory: clients see all of one or nothing, also
// when the server is killed within it, and nothing is copied again.

import {strict as assert} from 'node:assert';
import {after, before, describe, test} from 'node:test';
import {setTimeout as sleep} from 'node:timers/promises';
import {connect} from '../harness/client.js';
import {equal, same} from '../harness/compare.js';
import {eventually} from '../harness/deadline.js';
import {oracle} from '../harness/oracle.js';
import {PEER} from '../harness/server.js';
import {startWorld} from '../harness/world.js';
import {zql} from '../model/schema.js';

const QUERIES = {
  'a part of the table': zql.comment.where('pinned', true),
  'a window': zql.comment.orderBy('body', 'desc').limit(20),
  'EXISTS': zql.issue.whereExists('comments', q => q.where('pinned', true)),
  'relations': zql.issue.where('number', '<', 10).related('comments'),
  'another table': zql.project,
};

/** Bytes of a transaction the server holds in memory. */
const BOUND = 1 << 20;
/** Rows of a large one; they make ten times the bound. */
const ROWS = 20_000;

describe('large transactions', {skip: PEER && 'it has no such bound'}, () => {
  let world, ask, slots;
  const watched = [];

  before(async () => {
    world = await startWorld({env: {ZERO_KELVIN_TRANSACTION_BYTES: String(BOUND)}});
    ask = oracle(world.sql);
    slots = await slotNames();
    for (const [name, query] of Object.entries(QUERIES)) {
      const client = connect(world.server.url);
      const marker = client.watch(zql.marker);
      watched.push({name, query, client, view: client.watch(query), marker});
    }
    for (const {view} of watched) await view.complete();
  });

  after(async () => {
    await Promise.all(watched.map(w => w.client.close()));
    await world?.stop('large');
  });

  const slotNames = async () =>
    (await world.sql`select slot_name from pg_replication_slots order by 1`).map(s => s.slot_name);

  /** One transaction of many rows, with a savepoint that is taken back. */
  const write = step =>
    world.sql.begin(async tx => {
      await tx`insert into comment (id, issue_id, author_id, body, created, pinned)
        select ${`large${step}-`} || n, 'i0' || lpad((n % 60)::text, 2, '0'), 'u1',
          repeat(${`z${step}`}, 150) || n, now(), n % 2000 = 0
        from generate_series(1, ${ROWS}) n`;
      await tx
        .savepoint(async inner => {
          await inner`update comment set pinned = true, body = 'lost'`;
          await inner`delete from project`;
          throw new Error('taken back');
        })
        .catch(() => {});
      await tx`update comment set pinned = not pinned where id like ${`large${step}-%7`}
        and length(id) < 12`;
      await tx`delete from comment where id like ${`large${step - 1}-%`}`;
      await tx`update project set budget = ${step} where id = 1`;
      await tx`update marker set step = ${step}`;
    });

  async function settled(step) {
    await eventually(`transaction ${step}`, () =>
      watched.every(w => w.marker.data[0]?.step === step),
    );
    for (const {name, query, view, client} of watched) {
      const expected = await ask(query);
      await eventually(`${name} after ${step}`, () => equal(view.data, expected));
      await client.state('connected');
    }
    assert.deepEqual(await slotNames(), slots, 'nothing is copied again');
  }

  test('views equal PostgreSQL after each', async () => {
    for (const step of [2001, 2002]) {
      await write(step);
      await settled(step);
    }
  });

  test('views equal PostgreSQL after the server is killed within one', async () => {
    for (const [step, pause] of [
      [2003, 0],
      [2004, 150],
      [2005, 400],
    ]) {
      await write(step);
      await sleep(pause);
      await world.server.kill();
      await world.server.start();
      await settled(step);
    }
  });

  test('a client that comes after them all has the same', async () => {
    const fresh = connect(world.server.url);
    for (const [name, query] of Object.entries(QUERIES)) {
      const view = fresh.watch(query);
      await view.complete();
      same(view.data, await ask(query), `${name} differs from PostgreSQL`);
    }
    await fresh.close();
  });
});
