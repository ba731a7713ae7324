// `kelvin doctor`: a healthy server is called healthy, each thing that is wrong is found and comes
// with a fix, and once that is applied, word for word where it is SQL, it is no longer found.

import {strict as assert} from 'node:assert';
import {execFileSync} from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import {tmpdir, userInfo} from 'node:os';
import {join} from 'node:path';
import {after, before, describe, test} from 'node:test';
import {eventually, within} from '../harness/deadline.js';
import {kelvinBinary} from '../harness/paths.js';
import {Bouncer} from '../harness/pgbouncer.js';
import {freePort} from '../harness/ports.js';
import {Cluster, account, program} from '../harness/postgres.js';
import {Child} from '../harness/process.js';
import {PEER, SyncServer} from '../harness/server.js';

/** Longest the doctor may take, with some room; it promises a minute. */
const PATIENCE_MS = 90_000;

/** Exit codes of the doctor. */
const FINE = 0;
const ERRORS = 1;
const WRONG_OPTIONS = 2;
const WARNINGS = 3;

/**
 * Runs the doctor and returns its exit code and what it printed.
 * @param {Record<string, string>} env
 * @param {string[]} args
 * @param {import('node:child_process').SpawnOptions & {binary?: string}} options
 */
async function run(env, args = [], {binary = kelvinBinary(), ...options} = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'kelvin-doctor-'));
  try {
    const child = new Child('doctor', binary, ['doctor', ...args], {
      cwd: folder,
      env: {PATH: process.env.PATH, ...env},
      ...options,
    });
    const ended = await within('the doctor', child.exited, PATIENCE_MS);
    assert.equal(ended.signal, null, child.log);
    assert.doesNotMatch(child.log, /panicked|stack backtrace/);
    return {code: ended.code, text: child.log};
  } finally {
    rmSync(folder, {recursive: true, force: true});
  }
}

/** What the doctor says of a database, as a program reads it. */
async function examine(upstream, env = {}, options = {}) {
  const {code, text} = await run({ZERO_UPSTREAM_DB: upstream, ...env}, ['--json'], options);
  const report = JSON.parse(text);
  assert.equal(report.exitCode, code);
  for (const finding of report.findings) {
    const {check, state, subject, found, fix} = finding;
    assert.match(state, /^(ok|note|warning|error)$/);
    for (const words of [check, subject, found]) assert(words.length > 0, text);
    assert.equal(state === 'ok', fix === null, `a fix for all that is not ok: ${text}`);
  }
  const bad = report.findings.filter(({state}) => state !== 'ok');
  return {
    code,
    report,
    /** The findings of a check that are not ok. */
    of: check => bad.filter(finding => finding.check === check),
    /** The only finding of a check that is not ok, which must be there. */
    one(check) {
      const found = bad.filter(finding => finding.check === check);
      assert.equal(found.length, 1, `${check}: ${JSON.stringify(report.findings, null, 2)}`);
      return found[0];
    },
    /** The finding of a check, whatever it is. */
    state: check => report.findings.find(finding => finding.check === check)?.state,
  };
}

/** The SQL of a fix: all of it, or what follows the words before it. */
function statements({fix}) {
  const start = fix.search(/\b(ALTER|CREATE|DROP|GRANT|SELECT) /);
  assert.notEqual(start, -1, fix);
  return fix.slice(start);
}

describe('doctor', {skip: PEER && 'about kelvin'}, () => {
  /** @type {Cluster} */ let cluster;
  let databases = 0;

  before(async () => {
    cluster = await Cluster.start({max_wal_size: '64MB', min_wal_size: '32MB'});
  });

  after(() => cluster?.stop());

  /** A new database with a table that has nothing odd. */
  async function database() {
    const name = `patient_${(databases += 1)}`;
    const sql = await cluster.createDatabase(name);
    await sql`create table issue (id int primary key, title text)`;
    return {name, sql, url: cluster.url(name)};
  }

  /** Everything in a database that the doctor might have left there. */
  async function traces(sql) {
    const [{all}] = await sql`select jsonb_build_object(
      'slots', (select count(*) from pg_replication_slots),
      'publications', (select jsonb_agg(pubname) from pg_publication),
      'schemas', (select jsonb_agg(nspname) from pg_namespace where nspname !~ '^pg_'),
      'tables', (select jsonb_agg(relname order by relname) from pg_class
                 where relnamespace = 'public'::regnamespace),
      'settings', (select jsonb_agg(setconfig) from pg_db_role_setting),
      'roles', (select jsonb_agg(to_jsonb(r) order by rolname) from pg_roles r)) as all`;
    return all;
  }

  test('a healthy server is called healthy, and nothing is left in it', async () => {
    const {sql, url} = await database();
    const before = await traces(sql);
    const folder = mkdtempSync(join(tmpdir(), 'kelvin-doctor-'));
    // No password of the administrator, which only serving needs.
    const {code, report} = await examine(url, {ZERO_REPLICA_FILE: join(folder, 'deep', 'zero.db')});
    assert.equal(code, FINE, JSON.stringify(report, null, 2));
    assert.equal(report.counts.error + report.counts.warning, 0);
    assert.deepEqual(await traces(sql), before);
    assert(!existsSync(join(folder, 'deep')));
    rmSync(folder, {recursive: true});
  });

  test('people get a table that fits, without colours where there is no terminal', async () => {
    const {sql, url} = await database();
    await sql`create table "log" (line text)`;
    await sql.unsafe(`create table "e\u001bvil name" (id int primary key)`);
    for (const width of [80, 100]) {
      const env = {ZERO_UPSTREAM_DB: url, COLUMNS: String(width)};
      const {code, text} = await run(env);
      assert.equal(code, WARNINGS, text);
      assert.match(text, /^STATE +LOOKED AT +FOUND\n/);
      assert.match(text, /^warning +table log +not synced.*no primary key/m);
      assert.match(text, /fix: ALTER TABLE "public"."log" ADD PRIMARY KEY/);
      assert.match(text, /\n0 errors, 2 warnings, \d+ notes?: /);
      assert(!text.includes('\u001b'), 'neither colours nor what a name smuggles in');
      for (const line of text.split('\n')) assert(line.length <= width, line);
    }
  });

  test('flags and a .env file are read as by the server', async () => {
    const {url} = await database();
    const folder = mkdtempSync(join(tmpdir(), 'kelvin-doctor-'));
    writeFileSync(join(folder, '.env'), `ZERO_UPSTREAM_DB='${url}'\nZERO_APP_ID=fromfile\n`);
    const read = async args => (await run({}, args, {cwd: folder})).text;
    assert.match(await read([]), /schemas fromfile and fromfile_0 can be created/);
    assert.match(await read(['--app-id', 'flag']), /schemas flag and flag_0 can be created/);
    rmSync(folder, {recursive: true});
  });

  test('wrong options have an exit code of their own', async () => {
    for (const [env, args, words] of [
      [{}, [], /ZERO_UPSTREAM_DB/],
      [{ZERO_UPSTREAM_DB: 'postgres://x'}, ['--no-such-flag'], /--no-such-flag/],
      [{ZERO_UPSTREAM_DB: 'postgres://x', ZERO_APP_ID: 'My-App'}, [], /ZERO_APP_ID/],
    ]) {
      const told = await run(env, args);
      assert.equal(told.code, WRONG_OPTIONS, told.text);
      assert.match(told.text, words);
      const json = await run(env, ['--json', ...args]);
      assert.equal(json.code, WRONG_OPTIONS, json.text);
      assert.match(JSON.parse(json.text).findings[0].found, words);
    }
    const help = await run({}, ['--help']);
    assert.equal(help.code, 0);
    assert.match(help.text, /Exit codes:/);
  });

  test('a server that is not there', async () => {
    const port = await freePort();
    const url = `postgres://postgres@127.0.0.1:${port}/x`;
    const {code, one, report} = await examine(url);
    assert.equal(code, ERRORS);
    assert.match(one('connection').found, new RegExp(`127.0.0.1:${port}`));
    assert.match(one('connection').fix, /check that PostgreSQL runs there/);
    assert(
      report.findings.every(({check}) =>
        /^(connection|replica|replica_directory|disk_space)$/.test(check),
      ),
      'nothing is said of what could not be looked at',
    );
    const {text} = await run({ZERO_UPSTREAM_DB: url});
    assert.match(text, /^error +connection /m);
  });

  test('a wrong password, and a database that is not there', async () => {
    const sql = cluster.sql('postgres');
    await sql`create role guarded login superuser password 'right'`;
    const file = (await sql`show hba_file`)[0].hba_file;
    const open = readFileSync(file, 'utf8');
    const rule = 'host all guarded 127.0.0.1/32 scram-sha-256\n';
    writeFileSync(file, rule + open);
    await sql`select pg_reload_conf()`;
    const {name} = await database();
    const wrong = await eventually('the rule to hold', async () => {
      const report = await examine(cluster.url(name, 'guarded', 'hunter2'));
      return report.code === ERRORS && report;
    });
    assert.match(wrong.one('connection').found, /guarded/);
    assert.match(wrong.one('connection').fix, /percent-encoded/);
    assert.doesNotMatch(JSON.stringify(wrong.report), /hunter2/);
    assert.equal((await examine(cluster.url(name, 'guarded', 'right'))).code, FINE);
    const nowhere = await examine(cluster.url('nowhere'));
    assert.match(statements(nowhere.one('connection')), /CREATE DATABASE "nowhere"/);
  });

  test('a database that the role may not connect to', async () => {
    const {name, sql} = await database();
    await sql`create role stranger login`;
    await sql.unsafe(`revoke connect on database "${name}" from public`);
    const look = () => examine(cluster.url(name, 'stranger'));
    const before = await look();
    assert.equal(before.code, ERRORS);
    await sql.unsafe(statements(before.one('connection')));
    assert.equal((await look()).state('connection'), 'ok');
  });

  test('what only a restart mends: wal_level, senders, slots', async () => {
    const poor = await Cluster.start({wal_level: 'replica', max_replication_slots: '1'});
    try {
      const sql = await poor.createDatabase('app');
      await sql`create table issue (id int primary key)`;
      const before = await examine(poor.url('app'));
      assert.equal(before.code, ERRORS);
      assert.match(before.one('wal_level').fix, /ALTER SYSTEM SET wal_level = logical/);
      await poor.halt();
      await poor.resume({wal_level: 'logical', max_wal_senders: '0'});
      await sql`select pg_create_logical_replication_slot('other', 'pgoutput')`;
      const full = await examine(poor.url('app'));
      assert.deepEqual(full.of('wal_level'), []);
      assert.match(full.one('senders').fix, /ALTER SYSTEM SET max_wal_senders = 4/);
      assert.equal(full.one('replication').state, 'error');
      assert.equal(full.one('slots').state, 'error');
      assert.match(full.one('slots').fix, /pg_drop_replication_slot.*other.*max_replication_slots/);
      await sql`select pg_drop_replication_slot('other')`;
      await poor.halt();
      await poor.resume({max_wal_senders: '4'});
      assert.equal((await examine(poor.url('app'))).code, FINE);
    } finally {
      await poor.stop();
    }
  });

  test('a standby', async () => {
    const pair = await Cluster.start();
    try {
      await pair.createDatabase('app');
      await pair.halt();
      writeFileSync(join(pair.data, 'standby.signal'), '');
      await pair.resume();
      const standby = await examine(pair.url('app'));
      assert.match(standby.one('standby').fix, /address of the primary/);
      await pair.sql('app')`select pg_promote()`;
      assert.deepEqual((await examine(pair.url('app'))).of('standby'), []);
    } finally {
      await pair.stop();
    }
  });

  test('a role without rights gets them by the statements of the fixes', async () => {
    const {name, sql} = await database();
    await sql`create schema crm`;
    await sql`create table crm.customer (id int primary key)`;
    await sql`create publication mine for table issue, crm.customer`;
    await sql`create role meek login`;
    const look = publications =>
      examine(cluster.url(name, 'meek'), {ZERO_APP_PUBLICATIONS: publications});
    const before = await look('mine');
    assert.equal(before.code, ERRORS);
    assert.equal(before.one('select').state, 'error');
    assert.equal(before.one('replication').fix, 'ALTER ROLE "meek" REPLICATION');
    for (const check of ['replication', 'set_up', 'select'])
      await sql.unsafe(statements(before.one(check)));
    await sql.unsafe(statements(before.one('transactions')));
    const healed = await look('mine');
    assert.equal(healed.code, FINE, JSON.stringify(healed.report, null, 2));
    assert.deepEqual(healed.of('transactions'), []);
    // All tables of a schema may be published by a superuser alone.
    const all = await look('');
    assert.match(all.one('publish').fix, /CREATE PUBLICATION .* ZERO_APP_PUBLICATIONS/);
    // The server agrees with the doctor.
    const server = new SyncServer(cluster.url(name, 'meek'), {ZERO_APP_PUBLICATIONS: 'mine'});
    await server.start();
    const serving = await look('mine');
    assert.equal(serving.code, FINE, JSON.stringify(serving.report, null, 2));
    await server.dispose();
  });

  test('tables of the app that belong to somebody else', async () => {
    const {name, sql} = await database();
    const server = new SyncServer(cluster.url(name));
    await server.start();
    await server.dispose();
    await sql`create role heir login replication`;
    await sql.unsafe(`grant create on database "${name}" to heir; grant select on issue to heir`);
    const url = cluster.url(name, 'heir');
    for (let round = 0; round < 3; round += 1) {
      const {of} = await examine(url);
      for (const finding of of('set_up')) {
        assert.equal(finding.state, 'error');
        await sql.unsafe(statements(finding));
      }
    }
    assert.deepEqual((await examine(url)).of('set_up'), []);
    await sql`select pg_drop_replication_slot(slot_name) from pg_replication_slots
      where database = current_database()`;
  });

  test('policies that hide rows', async () => {
    const {name, sql} = await database();
    await sql`create role narrow login replication`;
    await sql.unsafe(
      `grant create on database "${name}" to narrow; grant select on issue to narrow`,
    );
    await sql`create publication mine for table issue`;
    await sql`alter table issue enable row level security`;
    const look = () => examine(cluster.url(name, 'narrow'), {ZERO_APP_PUBLICATIONS: 'mine'});
    const before = await look();
    assert.equal(before.one('row_security').state, 'error');
    assert.match(before.one('row_security').found, /"public"."issue"/);
    await sql.unsafe(statements(before.one('row_security')));
    assert.equal((await look()).state('row_security'), 'ok');
  });

  test('publications: missing, partial, empty, by partition, filtered', async () => {
    const {sql, url} = await database();
    const look = () => examine(url, {ZERO_APP_PUBLICATIONS: 'mine'});
    assert.match((await look()).one('publication').found, /"mine" does not exist/);
    await sql`create publication mine with (publish = 'insert')`;
    await sql.unsafe(statements((await look()).one('publication')));
    const empty = await look();
    assert.equal(empty.one('publication').state, 'warning');
    await sql.unsafe(statements(empty.one('publication')).replace('…', 'issue'));
    assert.equal((await look()).code, FINE);

    await sql`create table event (at date primary key) partition by range (at)`;
    await sql`create table event_now partition of event default`;
    await sql`alter publication mine add table event`;
    const parts = await look();
    assert.equal(parts.one('partitions').state, 'warning');
    await sql.unsafe(statements(parts.one('partitions')));
    assert.deepEqual((await look()).of('partitions'), []);

    await sql`alter publication mine set table issue (id) where (id > 7)`;
    const partial = await look();
    assert.match(partial.one('row_filters').found, /only some rows of issue .*id > 7/);
    assert.match(partial.one('column_lists').found, /only some columns of issue/);
    assert.equal(partial.code, FINE, 'that may be meant');

    await sql`create publication other for table issue`;
    const torn = await examine(url, {ZERO_APP_PUBLICATIONS: 'mine,other'});
    assert.match(torn.one('tables').found, /issue.*several publications/);
    assert.equal(torn.code, ERRORS);
  });

  test('an own publication that lost a table, and another list than at the last start', async () => {
    const {sql, url} = await database();
    const server = new SyncServer(url);
    await server.start();
    await server.dispose();
    await sql`alter publication _zero_metadata_0 drop table zero.permissions`;
    await sql`create publication mine for table issue`;
    const torn = await examine(url, {ZERO_APP_PUBLICATIONS: 'mine'});
    const [changed] = torn.of('publication').filter(({state}) => state === 'note');
    assert.match(changed.found, /_zero_public_0.*compared with the replica/);
    const [metadata] = torn.of('publication').filter(({state}) => state === 'error');
    const [drop] = statements(metadata).split(';');
    await sql.unsafe(drop);
    assert.deepEqual((await examine(url)).of('publication'), []);
    await sql`select pg_drop_replication_slot(slot_name) from pg_replication_slots
      where database = current_database()`;
  });

  test('tables that cannot be synced, or not whole', async () => {
    const {sql, url} = await database();
    await sql.unsafe(`
      create table keyless (a int);
      create table identical (id int primary key);
      alter table identical replica identity nothing;
      create table "odd name" (id int primary key);
      create table pointed (at interval primary key, id int not null unique);
      create table placed (id int primary key, place point, "odd column" int);
      create table indexed (id int not null unique, name text);
      create table full_rows (id int primary key);
      alter table full_rows replica identity full;
      create unlogged table scratch (id int primary key)`);
    const before = await examine(url);
    assert.equal(before.code, WARNINGS);
    const about = name => {
      const found = before.report.findings.filter(
        ({subject, state}) => subject === `table ${name}` && state !== 'ok',
      );
      assert.equal(found.length, 1, `${name}: ${JSON.stringify(before.report, null, 2)}`);
      return found[0];
    };
    assert.match(about('keyless').found, /no primary key.*UPDATE and DELETE of it fail/);
    assert.match(about('identical').found, /NOTHING.*UPDATE and DELETE of it fail/);
    assert.match(about('odd name').found, /its name/);
    assert.match(about('pointed').found, /not all of supported types/);
    assert.match(about('placed').found, /2 columns are not synced: place .*point.*odd column/);
    assert.equal(about('placed').state, 'note');
    assert.match(about('indexed').found, /kelvin makes index "indexed_id_key" its REPLICA IDENT/);
    assert.match(before.one('unlogged').found, /public.scratch/);
    const full = before.of('replica_identity').find(({found}) => /full_rows/.test(found));
    await sql.unsafe(statements(full));
    await sql.unsafe(statements(about('keyless')).replace('…', 'a'));
    await sql.unsafe(statements(about('identical')));
    await sql.unsafe(statements(about('odd name')).replace('…', 'even_name').split(',')[0]);
    await sql`alter table pointed replica identity using index pointed_id_key`;
    await sql`alter table placed rename "odd column" to even_column`;
    await sql.unsafe(statements(about('placed')));
    await sql.unsafe(statements(about('indexed')));
    await sql.unsafe(statements(before.one('unlogged')));
    const pointed = await examine(url);
    assert.match(pointed.one('column').found, /at .*interval/);
    await sql.unsafe(statements(pointed.one('column')));
    const healed = await examine(url);
    for (const check of ['table', 'column', 'replica_identity', 'unlogged']) {
      assert.deepEqual(healed.of(check), [], JSON.stringify(healed.of('table')));
    }
    assert.equal(healed.code, FINE);
  });

  test('settings that end sessions, cut the stream or give up the slot', async () => {
    const {name, sql, url} = await database();
    const set = settings =>
      sql.unsafe(settings.map(setting => `alter database "${name}" set ${setting}`).join(';'));
    await set([
      "wal_sender_timeout = '500ms'",
      "idle_session_timeout = '10min'",
      "statement_timeout = '7s'",
      'default_transaction_read_only = on',
    ]);
    const short = await examine(url);
    assert.equal(short.code, ERRORS);
    assert.match(short.one('wal_sender_timeout').found, /500 ms/);
    const {found} = short.report.findings.find(({check}) => check === 'session_timeouts');
    assert.match(found, /statement_timeout is 7 s, idle_session_timeout is 10 min; turned off/);
    const admin = cluster.sql('postgres');
    await admin.unsafe(statements(short.one('default_transaction_read_only')));
    await admin.unsafe(`alter database "${name}" set wal_sender_timeout = 0`);
    const never = await examine(url);
    assert.equal(never.code, WARNINGS);
    assert.match(never.one('wal_sender_timeout').fix, /INBOUND_TIMEOUT_MS/);
    const watched = {ZERO_UPSTREAM_PG_STREAM_INBOUND_TIMEOUT_MS: '60000'};
    assert.equal((await examine(url, watched)).code, FINE);
    await admin.unsafe(statements(never.one('wal_sender_timeout')));
    const healed = await examine(url);
    assert.equal(healed.code, FINE, JSON.stringify(healed.report, null, 2));
    assert.equal(healed.state('wal_sender_timeout'), 'ok');
  });

  test('a limit of WAL that is none, or too small', async () => {
    const {url} = await database();
    const admin = cluster.sql('postgres');
    /** Each statement of a fix on its own, for ALTER SYSTEM wants no transaction. */
    const apply = async finding => {
      for (const statement of statements(finding).split(';')) await admin.unsafe(statement);
    };
    const limit = await examine(url);
    assert.equal(limit.one('max_slot_wal_keep_size').state, 'note');
    await apply(limit.one('max_slot_wal_keep_size'));
    const gone = () =>
      eventually('the setting to hold', async () => {
        const {of} = await examine(url);
        return of('max_slot_wal_keep_size').length === 0;
      });
    await gone();
    await admin`alter system set max_slot_wal_keep_size = '1MB'`;
    await admin`select pg_reload_conf()`;
    const small = await eventually('the small limit', async () => {
      const report = await examine(url);
      return report.code === WARNINGS && report;
    });
    assert.match(small.one('max_slot_wal_keep_size').found, /less than max_wal_size/);
    await apply(small.one('max_slot_wal_keep_size'));
    await gone();
  });

  test('PgBouncer in between, whatever it pools by', async () => {
    const {name, url} = await database();
    for (const mode of ['session', 'transaction']) {
      const bouncer = await Bouncer.start(cluster, mode);
      try {
        const pooled = await examine(bouncer.url(name));
        assert.equal(pooled.code, ERRORS);
        const {found, fix} = pooled.one('pooler');
        assert.match(found, /PgBouncer/);
        assert.match(
          found,
          mode === 'transaction' ? /each transaction another/ : /than was announced/,
        );
        assert.match(fix, /address of PostgreSQL itself.*5432/);
        assert.equal(pooled.one('replication').state, 'error');
        assert.equal(pooled.state('tables'), 'ok', 'the other checks go on');
      } finally {
        await bouncer.stop();
      }
    }
    const direct = await examine(url);
    assert.equal(direct.state('pooler'), 'ok');
    assert.equal(direct.state('replication'), 'ok');
  });

  test('a slot while the server runs, is stopped, and has lost its slot', async () => {
    const {sql, url} = await database();
    const server = new SyncServer(url);
    const env = {ZERO_REPLICA_FILE: join(server.folder, 'replica.db')};
    await server.start();
    await eventually('the stream', async () => {
      const [slot] =
        await sql`select active from pg_replication_slots where database = current_database()`;
      return slot?.active;
    });
    const running = await examine(url, env);
    assert.equal(running.code, FINE, JSON.stringify(running.report, null, 2));
    assert.equal(running.state('slot'), 'ok');
    assert.match(running.one('replica').found, /in use/);
    await server.stop();
    const stopped = await examine(url, env);
    assert.equal(stopped.code, FINE);
    assert.match(stopped.one('slot').found, /of the replica here, inactive, .* behind/);
    assert.equal(stopped.state('replica'), 'ok');
    await sql.unsafe(statements(stopped.one('slot')));
    const lost = await examine(url, env);
    assert.equal(lost.code, WARNINGS);
    assert.match(lost.one('slot').found, /not in PostgreSQL any more/);
    assert.match(lost.one('slot').fix, /start kelvin/);
    const strict = await examine(url, {...env, ZERO_AUTO_RESET: 'false'});
    assert.equal(strict.code, ERRORS);
    assert.match(strict.one('slot').fix, /ZERO_AUTO_RESET=true/);
    server.env = {ZERO_AUTO_RESET: 'false'};
    await server.spawn();
    assert.equal((await server.exit()).code, 1, 'the server agrees');
    assert.match(server.log, /is gone.*ZERO_AUTO_RESET=true/);
    server.env = {};
    // It serves at once, and makes another slot meanwhile.
    await server.start();
    await eventually('all to be fine', async () => (await examine(url, env)).code === FINE);
    await server.dispose();
    await sql`select pg_drop_replication_slot(slot_name) from pg_replication_slots
      where database = current_database()`;
  });

  test('an invalidated slot', async () => {
    const short = await Cluster.start({
      max_slot_wal_keep_size: '1MB',
      max_wal_size: '32MB',
      min_wal_size: '32MB',
    });
    try {
      const sql = await short.createDatabase('app');
      await sql`create table issue (id int primary key)`;
      const server = new SyncServer(short.url('app'));
      const env = {ZERO_REPLICA_FILE: join(server.folder, 'replica.db')};
      await server.start();
      await server.stop();
      await eventually('the slot to be lost', async () => {
        await sql`create table filler as select 1`;
        await sql`drop table filler`;
        await sql`select pg_switch_wal()`;
        await sql`checkpoint`;
        const [slot] = await sql`select wal_status from pg_replication_slots`;
        return slot.wal_status === 'lost';
      });
      const lost = await examine(short.url('app'), env);
      assert.match(lost.one('slot').found, /invalidated: WAL it needs is gone/);
      // It serves at once, and makes another slot meanwhile.
      await server.start();
      await eventually('the lost slot to be gone', async () => {
        const found = await examine(short.url('app'), env);
        return found.of('slot').length === 0;
      });
      await server.dispose();
    } finally {
      await short.stop();
    }
  });

  test('zero-cache beside kelvin', async () => {
    const {name, sql, url} = await database();
    const server = new SyncServer(url);
    await server.start();
    // What a zero-cache that runs leaves to see.
    await sql`select pg_create_logical_replication_slot('zero_0_q', 'pgoutput')`;
    await sql`insert into zero_0.replicas (id, slot, version, "initialSyncContext")
      values ('1', 'zero_0_q', '00', '{"taskID": "x"}')`;
    const idle = await examine(url);
    assert.match(idle.one('slot').found, /of zero-cache, inactive/);
    const output = ['-o', 'proto_version=1', '-o', 'publication_names=_zero_public_0'];
    const stream = new Child(
      'zero-cache',
      program('pg_recvlogical'),
      ['--start', '--no-loop', '-f', '/dev/null', '-S', 'zero_0_q', ...output, '-d', url],
      account(),
    );
    await eventually('both to stream', async () => {
      const [{count}] = await sql`select count(*)::int from pg_replication_slots
        where active and database = ${name}`;
      return count === 2;
    });
    const both = await examine(url);
    assert.equal(both.state('side_by_side'), 'ok');
    await stream.stop();
    await eventually('the slot to be free', async () => {
      const [{active}] = await sql`select active from pg_replication_slots
        where slot_name = 'zero_0_q'`;
      return !active;
    });
    await sql.unsafe(statements(idle.one('slot')));
    const alone = await examine(url);
    assert.deepEqual([...alone.of('side_by_side'), ...alone.of('slot')], []);
    await server.dispose();
    await sql`select pg_drop_replication_slot(slot_name) from pg_replication_slots
      where database = current_database()`;
  });

  test('failover slots before PostgreSQL 17', async () => {
    const {sql, url} = await database();
    const [{version}] = await sql`select current_setting('server_version_num')::int as version`;
    const asked = await examine(url, {ZERO_UPSTREAM_PG_REPLICATION_SLOT_FAILOVER: 'true'});
    if (version < 170000)
      assert.match(asked.one('failover').found, /no effect before PostgreSQL 17/);
    else assert.match(asked.one('failover').found, /no standby is connected/);
    assert.equal((await examine(url)).state('failover'), 'ok');
  });

  test('a view that the role may not read is said to be unchecked, and the rest goes on', async () => {
    const {name, sql} = await database();
    await sql`create role half login replication`;
    await sql.unsafe(`grant create on database "${name}" to half; grant select on issue to half`);
    await sql`create publication mine for table issue`;
    await sql`revoke select on pg_prepared_xacts from public`;
    const look = () => examine(cluster.url(name, 'half'), {ZERO_APP_PUBLICATIONS: 'mine'});
    const before = await look();
    assert.match(before.one('prepared').found, /could not be checked: .*permission denied/);
    assert.equal(before.one('prepared').state, 'note');
    assert.equal(before.state('tables'), 'ok');
    assert.equal(before.code, FINE);
    await sql`grant select on pg_prepared_xacts to public`;
    assert.equal((await look()).state('prepared'), 'ok');
  });

  test('a directory that cannot be written, or is not ours', async () => {
    const {url} = await database();
    const root = userInfo().uid === 0;
    const id = flag => Number(execFileSync('id', [flag, 'nobody'], {encoding: 'utf8'}));
    const who = root ? {uid: id('-u'), gid: id('-g')} : {};
    const folder = mkdtempSync(join(tmpdir(), 'kelvin-unwritable-'));
    chmodSync(folder, 0o555);
    if (root) chownSync(folder, 0, 0);
    // The binary may lie in a folder only its owner can enter.
    const reachable = mkdtempSync(join(tmpdir(), 'kelvin-bin-'));
    chmodSync(reachable, 0o755);
    const binary = join(reachable, 'kelvin');
    execFileSync('cp', [kelvinBinary(), binary]);
    try {
      const env = {ZERO_REPLICA_FILE: join(folder, 'replica.db')};
      const look = () => examine(url, env, {...who, binary, cwd: '/'});
      const before = await look();
      assert.equal(before.code, ERRORS);
      const {found, fix} = before.one('replica_directory');
      assert(found.includes(folder), found);
      assert.match(fix, /ZERO_REPLICA_FILE.*permissions/);
      chmodSync(folder, 0o777);
      assert.equal((await look()).code, FINE);
      mkdirSync(join(folder, 'replica.db.kelvin', 'store'), {recursive: true});
      assert.match((await look()).one('replica').fix, /move what is in/);
    } finally {
      rmSync(folder, {recursive: true, force: true});
      rmSync(reachable, {recursive: true, force: true});
    }
  });
});
