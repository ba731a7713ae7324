// How long kelvin and zero-cache take for the initial copy of one large table.
//
// Each starts with a directory of its own, in turns, and is stopped again. What counts is the time
// from its start until it answers, less the same for a database that holds next to nothing.

import {Cluster} from '../../tests/harness/postgres.js';
import {SyncServer} from '../../tests/harness/server.js';
import {PUBLICATION, modelDatabase} from '../../tests/harness/world.js';

const ROWS = Number(process.env.KELVIN_BENCH_PEER_ROWS ?? 1_000_000);
const ROUNDS = Number(process.env.KELVIN_BENCH_PEER_ROUNDS ?? 3);
/** A shorter copy could as well be chance. */
const LEAST_SECONDS = 0.2;
/** A copy takes minutes at most. */
const DEADLINE_MS = 1_200_000;

/** Rows of about 300 bytes, with a key and an index. */
const LARGE = `
  create table event (
    id bigint primary key, project text not null, title text not null, body text not null,
    open boolean not null, modified double precision not null);
  create index on event (modified desc);
  insert into event
    select n, 'project ' || n % 1000, 'Event ' || n, repeat('words of it ', 18), n % 3 = 0, n
    from generate_series(1, ${ROWS}) n;
  analyze;`;

/** Seconds from the start of a server until it answers. */
async function seconds(upstream, peer) {
  const server = new SyncServer(upstream, {ZERO_APP_PUBLICATIONS: PUBLICATION}, peer);
  try {
    const started = performance.now();
    await server.start(DEADLINE_MS);
    return (performance.now() - started) / 1000;
  } finally {
    await server.dispose();
  }
}

const median = values => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

/** What a server leaves upstream: a slot would keep PostgreSQL's log, and be gone on with. */
async function tidy(sql) {
  await sql.unsafe(`select pg_drop_replication_slot(slot_name) from pg_replication_slots
    where database = current_database() and not active`);
}

async function run() {
  const cluster = await Cluster.start();
  try {
    const databases = {};
    for (const [name, more] of [
      ['small', ''],
      ['large', LARGE],
    ]) {
      const sql = await modelDatabase(cluster, name);
      if (more) await sql.unsafe(more);
      databases[name] = sql;
    }
    const times = {kelvin: {small: [], large: []}, zeroCache: {small: [], large: []}};
    for (let round = 0; round < ROUNDS; round += 1) {
      for (const name of ['small', 'large']) {
        for (const peer of round % 2 ? [true, false] : [false, true]) {
          const of = times[peer ? 'zeroCache' : 'kelvin'][name];
          of.push(await seconds(cluster.url(name), peer));
          await tidy(databases[name]);
        }
      }
    }
    const copied = ({small, large}) => median(large) - median(small);
    const [ours, theirs] = [copied(times.kelvin), copied(times.zeroCache)];
    if (Math.min(ours, theirs) < LEAST_SECONDS) {
      throw new Error(`${ROWS} rows are too few to tell their copy from the start of a server`);
    }
    console.log(`kelvin / zero-cache, medians of ${ROUNDS} rounds in one run:`);
    console.log(
      `  copy of ${ROWS} rows: ${ours.toFixed(2)} s / ${theirs.toFixed(2)} s, ` +
        `${(theirs / ours).toFixed(1)} times`,
    );
    const starts = [times.kelvin.small, times.zeroCache.small].map(median);
    console.log(`  start without it: ${starts.map(s => `${s.toFixed(2)} s`).join(' / ')}`);
  } finally {
    await cluster.stop();
  }
}

await run();
