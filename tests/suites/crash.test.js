// kill -9 while PostgreSQL is written to: nothing is lost, nothing is copied again, clients go on.

import {strict as assert} from 'node:assert';
import {after, before, describe, test} from 'node:test';
import {setTimeout as sleep} from 'node:timers/promises';
import {defineMutator, defineMutators} from '@rocicorp/zero';
import {connect} from '../harness/client.js';
import {same} from '../harness/compare.js';
import {eventually, within} from '../harness/deadline.js';
import {oracle} from '../harness/oracle.js';
import {PEER} from '../harness/server.js';
import {startWorld} from '../harness/world.js';
import {zql} from '../model/schema.js';

const QUERIES = {
  'a whole table': zql.comment,
  'a window': zql.issue.where('open', true).orderBy('votes', 'desc').limit(20),
  'relations': zql.issue.where('number', '<', 40).related('comments').related('labels'),
  'EXISTS': zql.issue.whereExists('comments', q => q.where('pinned', true)),
  'another schema': zql.org.related('members'),
};

/** How often the server is killed. */
const KILLS = 4;

describe('crashes', () => {
  let world, ask;
  const watched = [];
  let stopLoad = () => {};

  before(async () => {
    world = await startWorld({
      app: {
        mutators: {
          count: (tx, {id}) => tx.dbTransaction.wrappedTransaction`
        update project set budget = budget + 1 where id = ${id}`,
        },
      },
    });
    ask = oracle(world.sql);
    for (const [name, query] of Object.entries(QUERIES)) {
      const client = connect(world.server.url);
      watched.push({
        name,
        query,
        client,
        view: client.watch(query),
        marker: client.watch(zql.marker),
      });
    }
    for (const {view} of watched) await view.complete();
  });

  after(async () => {
    stopLoad();
    await sleep(100);
    await Promise.all(watched.map(w => w.client.close()));
    await world?.stop('crash');
  });

  /** One transaction of the load. */
  function write(n) {
    const id = `load${n % 50}`;
    return world.sql.begin(async tx => {
      await tx`insert into comment values (${id}, ${`i0${String(n % 60).padStart(2, '0')}`}, 'u1',
        ${`comment ${n}`}, now(), ${n % 2 === 0}) on conflict (id) do update
        set body = excluded.body, issue_id = excluded.issue_id, pinned = excluded.pinned`;
      await tx`update issue set votes = ${n % 100}, open = ${n % 3 > 0} where number = ${n % 60}`;
      if (n % 7 === 0) await tx`delete from comment where id = ${`load${(n * 3) % 50}`}`;
      if (n % 11 === 0) await tx`update "user" set reputation = ${n} where id = 'u3'`;
    });
  }

  test('views equal PostgreSQL after each kill -9 under write load', async () => {
    const copies = () => Number(world.sql && replicaCreations(world));
    const slots = async () =>
      (
        await world.sql`select slot_name from pg_replication_slots
      where not temporary order by 1`
      ).map(s => s.slot_name);
    const slotsBefore = await slots();
    const copiesBefore = copies();
    let writing = true;
    let n = 0;
    stopLoad = () => {
      writing = false;
    };
    const load = (async () => {
      while (writing) {
        await write((n += 1));
        await sleep(5);
      }
    })();
    for (let kill = 0; kill < KILLS; kill += 1) {
      await sleep(400 + kill * 150);
      await world.server.kill();
      await sleep(100);
      await world.server.start();
      await eventually(
        `clients to see writes after kill ${kill + 1}`,
        async () => {
          const step = 1000 + kill;
          await world.sql`update marker set step = ${step}`;
          return watched.every(w => w.marker.data[0]?.step === step);
        },
        () =>
          JSON.stringify(
            watched.map(w => [
              w.name,
              w.marker.data[0]?.step,
              w.client.states.at(-1),
              w.client.errors.at(-1),
            ]),
          ),
      );
    }
    writing = false;
    await load;
    assert(n > 50, `the load wrote ${n} transactions`);
    await world.sql`update marker set step = 2000`;
    for (const {name, query, view, marker, client} of watched) {
      await eventually('the last transaction', () => marker.data[0]?.step === 2000);
      same(view.data, await ask(query), `${name} differs from PostgreSQL`);
      await client.state('connected');
    }
    assert.deepEqual(await slots(), slotsBefore, 'the replication slot is still the first one');
    assert.equal(copies(), copiesBefore, 'the database was copied once');
  });

  test('each mutation takes effect once, and none is said to have failed', async () => {
    const mutators = defineMutators({
      count: defineMutator(async ({tx, args}) => {
        const row = await tx.run(zql.project.where('id', args.id).one());
        if (row) await tx.mutate.project.update({id: row.id, budget: (row.budget ?? 0) + 1});
      }),
    });
    const client = connect(world.server.url, {mutators});
    const view = client.watch(zql.project.where('id', 1));
    const before = (await view.complete())[0].budget;
    const runs = [];
    let mutating = true;
    stopLoad = () => {
      mutating = false;
    };
    const load = (async () => {
      while (mutating) {
        runs.push(client.zero.mutate(mutators.count({id: 1})));
        await sleep(40);
      }
    })();
    for (let kill = 0; kill < 2; kill += 1) {
      await sleep(500);
      await world.server.kill();
      await world.server.start();
      await eventually(
        'the client to be back',
        () => client.zero.connection.state.current.name === 'connected',
      );
    }
    await sleep(300);
    mutating = false;
    await load;
    const results = await within('all mutations', Promise.allSettled(runs.map(run => run.server)));
    const failed = results.filter(r => r.status === 'rejected' || r.value?.type === 'error');
    if (!PEER) assert.deepEqual(failed, []);
    const [{budget}] = await world.sql`select budget::float8 from project where id = 1`;
    assert.equal(Math.round(budget - before), runs.length);
    await eventually('the count at the client', () => view.data[0].budget === budget);
    await client.close();
  });

  test('a new client sees what those see that lived through it', async () => {
    const client = connect(world.server.url);
    for (const {name, query} of watched) {
      const view = client.watch(query);
      same(await view.complete(), await ask(query), `${name} differs from PostgreSQL`);
    }
    await client.close();
  });
});

/** How often the server's log says that it copied the database. */
function replicaCreations(world) {
  const said = PEER
    ? /Initializing initial sync|initial-sync:.*starting/gi
    : /sorting what was copied/g;
  return (world.server.log.match(said) ?? []).length;
}
