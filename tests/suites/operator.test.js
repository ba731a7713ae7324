// Mistakes of an operator: each ends the server with a message that says what to do and an exit
// code other than 0; none of them hangs, none shows a stack trace.

import {strict as assert} from 'node:assert';
import {execFileSync} from 'node:child_process';
import {chmodSync, chownSync, mkdtempSync, rmSync} from 'node:fs';
import {createServer} from 'node:net';
import {tmpdir, userInfo} from 'node:os';
import {join} from 'node:path';
import {after, before, describe, test} from 'node:test';
import {ADMIN_PASSWORD, PEER, SyncServer} from '../harness/server.js';
import {Child} from '../harness/process.js';
import {kelvinBinary} from '../harness/paths.js';
import {Cluster} from '../harness/postgres.js';
import {deployPermissions, modelDatabase} from '../harness/world.js';
import {openPermissions} from '../model/schema.js';
import {freePort} from '../harness/ports.js';

describe('operator errors', {skip: PEER && 'about kelvin'}, () => {
  let cluster;

  before(async () => {
    cluster = await Cluster.start();
    await modelDatabase(cluster, 'model');
  });

  after(() => cluster?.stop());

  /** Starts a server that must end by itself and returns what it said. */
  async function ends(env, upstream = cluster.url('model')) {
    const server = new SyncServer(upstream, env);
    try {
      await server.spawn();
      const {code, signal} = await server.exit(30_000);
      assert.equal(signal, null, `it was killed:\n${server.log}`);
      assert.notEqual(code, 0, server.log);
      assert.doesNotMatch(server.log, /panicked|stack backtrace|RUST_BACKTRACE/);
      return server.log;
    } finally {
      await server.dispose();
    }
  }

  test('a wrong password', async () => {
    const sql = cluster.sql('postgres');
    await sql`create role guarded login superuser password 'right'`;
    const file = (await sql`show hba_file`)[0].hba_file;
    await sql.unsafe(`create table hba (line text);
      copy hba from program 'cat ${file}';
      insert into hba values ('# unchanged below');
      copy (select 'host all guarded 127.0.0.1/32 scram-sha-256' union all
        select line from hba) to '${file}';
      select pg_reload_conf()`);
    const said = await ends({}, cluster.url('model', 'guarded', 'wrong'));
    assert.match(said, /password/i);
    assert.match(said, /guarded/);
    assert.doesNotMatch(said, /:wrong@/, 'the password is not in the log');
  });

  test('no server at that address', async () => {
    const port = await freePort();
    const said = await ends({}, `postgres://postgres@127.0.0.1:${port}/model`);
    assert.match(said, new RegExp(`127\\.0\\.0\\.1.*${port}|${port}`));
    assert.match(said, /refused|connect/i);
  });

  test('no such database', async () => {
    assert.match(await ends({}, cluster.url('nowhere')), /nowhere/);
  });

  test('no URL', async () => {
    assert.match(await ends({ZERO_UPSTREAM_DB: ''}), /ZERO_UPSTREAM_DB/);
  });

  test('a URL that is none', async () => {
    assert.match(await ends({}, 'not a url'), /address is not valid.*postgres:\/\//);
  });

  test('an app id with a letter that is not allowed', async () => {
    assert.match(await ends({ZERO_APP_ID: 'My-App'}), /ZERO_APP_ID|app id/i);
  });

  test('a number that is none', async () => {
    assert.match(await ends({ZERO_PORT: 'many'}), /ZERO_PORT/);
  });

  test('no administrator password', async () => {
    assert.match(await ends({ZERO_ADMIN_PASSWORD: ''}), /ZERO_ADMIN_PASSWORD/);
  });

  test('a publication that is not there', async () => {
    assert.match(await ends({ZERO_APP_PUBLICATIONS: 'nothing'}), /nothing/);
  });

  test('a port that is taken', async () => {
    const holder = createServer();
    await new Promise(resolve => holder.listen(0, '0.0.0.0', () => resolve(undefined)));
    const {port} = /** @type {import('node:net').AddressInfo} */ (holder.address());
    const said = await ends({ZERO_PORT: String(port)});
    assert.match(said, new RegExp(String(port)));
    assert.match(said, /in use|taken/i);
    holder.close();
  });

  test('a wal_level that is not logical', async () => {
    const poor = await Cluster.start({wal_level: 'replica'});
    try {
      await modelDatabase(poor, 'model');
      const said = await ends({}, poor.url('model'));
      assert.match(said, /wal_level/);
      assert.match(said, /logical/);
    } finally {
      await poor.stop();
    }
  });

  test('no replication slot left', async () => {
    const poor = await Cluster.start({max_replication_slots: '0'});
    try {
      await modelDatabase(poor, 'model');
      assert.match(await ends({}, poor.url('model')), /max_replication_slots/);
    } finally {
      await poor.stop();
    }
  });

  test('a directory that cannot be written to', async () => {
    // Root may write anywhere, so another account runs the server then.
    const root = userInfo().uid === 0;
    const id = flag => Number(execFileSync('id', [flag, 'nobody'], {encoding: 'utf8'}));
    const who = root ? {uid: id('-u'), gid: id('-g')} : {};
    const folder = mkdtempSync(join(tmpdir(), 'kelvin-unwritable-'));
    chmodSync(folder, 0o555);
    if (root) chownSync(folder, 0, 0);
    // The binary may lie in a folder only its owner can enter.
    const reachable = mkdtempSync(join(tmpdir(), 'kelvin-bin-'));
    chmodSync(reachable, 0o755);
    execFileSync('cp', [kelvinBinary(), join(reachable, 'kelvin')]);
    const child = new Child('server', join(reachable, 'kelvin'), ['serve'], {
      ...who,
      cwd: '/',
      env: {
        ZERO_UPSTREAM_DB: cluster.url('model'),
        ZERO_ADMIN_PASSWORD: ADMIN_PASSWORD,
        ZERO_PORT: String(await freePort()),
        ZERO_REPLICA_FILE: join(folder, 'replica.db'),
      },
    });
    try {
      const late = setTimeout(() => child.kill(), 30_000);
      const {code, signal} = await child.exited;
      clearTimeout(late);
      assert.equal(signal, null, child.log);
      assert.notEqual(code, 0, child.log);
      assert(child.log.includes(folder), child.log);
      assert.match(child.log, /permission|writ/i);
    } finally {
      await child.kill();
      rmSync(folder, {recursive: true, force: true});
      rmSync(reachable, {recursive: true, force: true});
    }
  });

  test('a role that may not replicate', async () => {
    await cluster.sql('postgres')`create role meek login`;
    const said = await ends({}, cluster.url('model', 'meek'));
    assert.match(said, /meek|replication|permission/i);
  });

  test('a table without a key is named, and everything else is served', async () => {
    const sql = await cluster.createDatabase('unkeyed');
    await sql`create table keyless (a int)`;
    await sql`create table keyed (id int primary key)`;
    await deployPermissions(sql, await openPermissions());
    const server = new SyncServer(cluster.url('unkeyed'));
    await server.start();
    assert.match(server.log, /keyless/);
    const ended = await server.stop();
    assert.equal(ended.code, 0, 'an orderly stop is no error');
    await server.dispose();
  });
});
