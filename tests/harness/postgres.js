// A throwaway PostgreSQL cluster: its own folder, its own port, gone at the end.

import {execFileSync} from 'node:child_process';
import {
  chownSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import {tmpdir, userInfo} from 'node:os';
import {join} from 'node:path';
import postgres from 'postgres';
import {freePort} from './ports.js';
import {Child} from './process.js';

/** The folder of PostgreSQL's programs: `PG_BIN`, or the newest that Debian installed. */
function programs() {
  if (process.env.PG_BIN) return process.env.PG_BIN;
  const base = '/usr/lib/postgresql';
  const versions = existsSync(base)
    ? readdirSync(base)
        .map(Number)
        .filter(v => v >= 15)
    : [];
  if (versions.length === 0) throw new Error('no PostgreSQL ≥ 15: run scripts/setup postgres');
  return join(base, String(Math.max(...versions)), 'bin');
}

/** The path of one of PostgreSQL's programs. */
export function program(name) {
  return join(programs(), name);
}

/** PostgreSQL refuses to run as root; then the account that Debian's package made runs it. */
export function account() {
  if (userInfo().uid !== 0) return {};
  const id = flag => Number(execFileSync('id', [flag, 'postgres'], {encoding: 'utf8'}));
  return {uid: id('-u'), gid: id('-g')};
}

/** The major version of PostgreSQL that the tests run on. */
export function majorVersion() {
  const said = execFileSync(program('postgres'), ['--version'], {encoding: 'utf8'});
  return Number(/\d+/.exec(said)[0]);
}

/** A running cluster. Text sorts by code point (`--locale=C`), as ZQL does. */
export class Cluster {
  #folder;
  #settings;
  /** @type {Child} */ #server;
  /** @type {Map<string, import('postgres').Sql>} */ #pools = new Map();

  /** @param {Record<string, string>} settings of postgresql.conf, over the defaults here */
  static async start(settings = {}) {
    const cluster = await Cluster.#fresh({
      wal_level: 'logical',
      max_wal_senders: '20',
      max_replication_slots: '20',
      max_connections: '200',
      fsync: 'off',
      shared_buffers: '64MB',
      ...settings,
    });
    const options = {...account(), cwd: cluster.#folder};
    const init = ['-D', join(cluster.#folder, 'data'), '-U', 'postgres', '--locale=C'];
    execFileSync(join(programs(), 'initdb'), [...init, '--encoding=UTF8', '--auth=trust', '-N'], {
      ...options,
      stdio: 'pipe',
    });
    await cluster.resume();
    return cluster;
  }

  /** A cluster that has a folder and a port, and nothing in it. */
  static async #fresh(settings) {
    const cluster = new Cluster();
    const who = account();
    cluster.#folder = mkdtempSync(join(tmpdir(), 'kelvin-pg-'));
    if (who.uid !== undefined) chownSync(cluster.#folder, who.uid, who.gid);
    cluster.port = await freePort();
    cluster.#settings = settings;
    return cluster;
  }

  /**
   * A standby of this cluster, made of a copy of its files, for which the server is stopped.
   * @param {Record<string, string>} settings of the standby, over those of this cluster
   */
  async standby(settings) {
    const primary = `host=127.0.0.1 port=${this.port} user=postgres dbname=postgres`;
    const standby = await Cluster.#fresh({
      ...this.#settings,
      primary_conninfo: primary,
      ...settings,
    });
    await this.halt();
    execFileSync('cp', ['-a', this.data, standby.data]);
    await this.resume();
    writeFileSync(join(standby.data, 'standby.signal'), '');
    await standby.resume();
    return standby;
  }

  /** Makes this standby a primary of its own, at the port of one that is gone. */
  async takeOver(port) {
    await this.sql('postgres')`select pg_promote()`;
    await Promise.all([...this.#pools.values()].map(pool => pool.end({timeout: 1})));
    this.#pools.clear();
    await this.halt();
    this.port = port;
    await this.resume();
  }

  /**
   * Starts the server of the cluster (again).
   * @param {Record<string, string>} changed settings that are other ones from now on
   */
  async resume(changed = {}) {
    this.#settings = {...this.#settings, ...changed};
    const settings = {
      ...this.#settings,
      port: String(this.port),
      listen_addresses: '127.0.0.1',
      unix_socket_directories: '',
    };
    const args = Object.entries(settings).flatMap(([key, value]) => ['-c', `${key}=${value}`]);
    this.#server = new Child(
      'postgres',
      join(programs(), 'postgres'),
      ['-D', join(this.#folder, 'data'), ...args],
      {...account(), cwd: this.#folder},
    );
    await this.#server.ready(async () => {
      await this.sql('postgres')`select 1`;
      return true;
    });
  }

  /** Stops the server at once (clients are cut) and keeps the folder, for `resume`. */
  async halt() {
    await this.#server.stop('SIGINT');
  }

  /** Ends the server as a crash of its machine would. */
  async crash() {
    await this.#server.kill();
  }

  /** Keeps a copy of the cluster's files, for which its server is stopped. */
  async backUp() {
    await this.halt();
    execFileSync('cp', ['-a', this.data, this.#backup]);
    await this.resume();
  }

  /** Takes the cluster back to where it was when it was backed up. */
  async restore() {
    await this.halt();
    rmSync(this.data, {recursive: true});
    renameSync(this.#backup, this.data);
    await this.resume();
  }

  get #backup() {
    return join(this.#folder, 'backup');
  }

  /** Its data directory. */
  get data() {
    return join(this.#folder, 'data');
  }

  /** The URL of a database. */
  url(database, user = 'postgres', password = '') {
    const secret = password ? `:${encodeURIComponent(password)}` : '';
    return `postgres://${user}${secret}@127.0.0.1:${this.port}/${database}?sslmode=disable`;
  }

  /** A pool of connections to a database. */
  sql(database) {
    let pool = this.#pools.get(database);
    if (!pool) {
      pool = postgres(this.url(database), {max: 4, onnotice: () => {}});
      this.#pools.set(database, pool);
    }
    return pool;
  }

  /** Makes an empty database and returns a pool of connections to it. */
  async createDatabase(name) {
    await this.sql('postgres').unsafe(`create database "${name}"`);
    return this.sql(name);
  }

  /** Ends everything and removes the folder. */
  async stop() {
    await Promise.all([...this.#pools.values()].map(pool => pool.end({timeout: 1})));
    await this.#server?.stop('SIGINT');
    rmSync(this.#folder, {recursive: true, force: true});
  }
}
