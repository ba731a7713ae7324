// A full disk under the replica: the server stays, says so, and goes on by itself once there is
// room, with nothing lost and nothing copied again.
//
// Needs a small file system of its own, and so Linux and root: run it as `sudo scripts/test disk`
// where you are not root. It fails, and does not pass by, where it cannot mount one.

import {strict as assert} from 'node:assert';
import {execFileSync} from 'node:child_process';
import {closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {after, before, describe, test} from 'node:test';
import {setTimeout as sleep} from 'node:timers/promises';
import {connect} from '../harness/client.js';
import {same} from '../harness/compare.js';
import {eventually} from '../harness/deadline.js';
import {oracle} from '../harness/oracle.js';
import {ADMIN_PASSWORD, PEER} from '../harness/server.js';
import {startWorld} from '../harness/world.js';
import {zql} from '../model/schema.js';

const QUERIES = {
  'a whole table': zql.comment,
  'a window': zql.issue.where('open', true).orderBy('votes', 'desc').limit(20),
  'relations': zql.issue.where('number', '<', 40).related('comments'),
};

/** Bytes that stay free on a full disk: less than the server wants to begin with. */
const LEFT = 1 << 20;
const ENV = {
  ZERO_KELVIN_MEMTABLE_BYTES: String(4 << 20),
  ZERO_KELVIN_WRITE_BUFFER_BYTES: String(8 << 20),
};

/** Takes all room of a file system but `LEFT` bytes; gives what frees it. */
function fill(folder) {
  const path = join(folder, 'ballast');
  const file = openSync(path, 'w');
  const chunk = Buffer.alloc(64 * 1024, 1);
  let written = 0;
  try {
    for (;;) written += writeSync(file, chunk);
  } catch (error) {
    assert.equal(error.code, 'ENOSPC');
  }
  ftruncateSync(file, Math.max(0, written - LEFT));
  closeSync(file);
  return () => rmSync(path);
}

describe('a full disk', {skip: PEER && 'about kelvin'}, () => {
  let folder, mounted, world, ask;
  const watched = [];

  before(async () => {
    assert.equal(process.getuid(), 0, 'mounting a small disk takes root: sudo scripts/test disk');
    folder = mkdtempSync(join(tmpdir(), 'kelvin-disk-'));
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=96m', 'tmpfs', folder]);
    mounted = true;
    world = await startWorld({env: {...ENV, ZERO_REPLICA_FILE: join(folder, 'replica.db')}});
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
    await Promise.all(watched.map(w => w.client.close()));
    await world?.stop('disk');
    if (mounted) execFileSync('umount', [folder]);
    if (folder) rmSync(folder, {recursive: true, force: true});
  });

  /** The figure called `name` of the server's metrics. */
  async function figure(name) {
    const authorization = `Basic ${Buffer.from(`:${ADMIN_PASSWORD}`).toString('base64')}`;
    const answer = await fetch(`${world.server.url}/metrics`, {headers: {authorization}});
    const line = (await answer.text()).match(new RegExp(`^${name} (.*)$`, 'm'));
    return line && Number(line[1]);
  }

  /** One transaction of the load, of some 50 kB that do not compress. */
  let n = 0;
  async function write() {
    n += 1;
    const noise = Array.from({length: 1500}, () => Math.random().toString(36)).join('');
    await world.sql.begin(async tx => {
      await tx`insert into comment values (${`load${n % 40}`}, ${`i0${String(n % 60).padStart(2, '0')}`},
        'u1', ${noise}, now(), true) on conflict (id) do update set body = excluded.body`;
      await tx`update issue set votes = ${n % 100}, open = ${n % 3 > 0} where number = ${n % 60}`;
    });
  }

  const slots = async () =>
    (await world.sql`select slot_name from pg_replication_slots where not temporary`).map(
      s => s.slot_name,
    );
  const copies = () => world.server.log.match(/copying from PostgreSQL/g).length;

  test('the server says so, stays, and goes on once there is room, twice', async () => {
    const [pid, slotsBefore] = [world.server.pid, await slots()];
    for (const round of [1, 2]) {
      assert.equal(await figure('kelvin_replica_open'), 1);
      const free = fill(folder);
      await eventually('the full disk to be reported', async () => {
        await write();
        return (await figure('kelvin_replica_disk_full')) === 1;
      });
      assert.match(world.server.log, /the disk that holds \S+ is full: make room/);
      assert.equal(await figure('kelvin_replica_open'), 0);
      // Changes go on meanwhile, and clients with them.
      for (let more = 0; more < 5; more += 1) await write();
      await sleep(3000);
      assert(world.server.running, world.server.log);
      assert((await figure('kelvin_replica_failures')) >= 2 * round, 'it is tried again');
      assert.equal((await fetch(`${world.server.url}/keepalive`)).status, 200);
      free();
      await world.sql`update marker set step = ${1000 + round}`;
      for (const {name, query, client, view, marker} of watched) {
        await eventually(
          `the last transaction of round ${round}`,
          () => marker.data[0]?.step === 1000 + round,
          () => JSON.stringify({states: client.states.slice(-3), errors: client.errors.slice(-3)}),
        );
        same(view.data, await ask(query), `${name} differs from PostgreSQL`);
        await client.state('connected');
      }
      assert.equal(await figure('kelvin_replica_disk_full'), 0);
    }
    assert.equal(world.server.pid, pid, 'the process is the first one');
    assert.doesNotMatch(world.server.log, /panicked/);
    assert.equal(copies(), 1, 'the database was copied once');
    assert.deepEqual(await slots(), slotsBefore, 'the replication slot is the first one');
  });
});
