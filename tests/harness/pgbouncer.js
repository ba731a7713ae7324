// A PgBouncer in front of a cluster: its own folder, its own port, gone at the end.

import {execFileSync} from 'node:child_process';
import {chownSync, existsSync, mkdtempSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {freePort} from './ports.js';
import {account} from './postgres.js';
import {Child} from './process.js';

/** Debian's package puts it where only an administrator's search path leads. */
function program() {
  const found = ['/usr/sbin/pgbouncer', '/usr/bin/pgbouncer'].find(path => existsSync(path));
  if (!found) throw new Error('no PgBouncer: run scripts/setup pgbouncer');
  return found;
}

/** A running PgBouncer. */
export class Bouncer {
  #folder;
  /** @type {Child} */ #process;

  /**
   * @param {import('./postgres.js').Cluster} cluster
   * @param {'session' | 'transaction'} mode when a connection of PostgreSQL is given back
   */
  static async start(cluster, mode) {
    const bouncer = new Bouncer();
    const who = account();
    bouncer.#folder = mkdtempSync(join(tmpdir(), 'kelvin-bouncer-'));
    bouncer.port = await freePort();
    const config = join(bouncer.#folder, 'pgbouncer.ini');
    // With authentication of type "any" it logs in as the user of the database's line.
    writeFileSync(
      config,
      `[databases]
* = user=postgres host=127.0.0.1 port=${cluster.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${bouncer.port}
unix_socket_dir =
auth_type = any
pool_mode = ${mode}
`,
    );
    if (who.uid !== undefined) {
      chownSync(bouncer.#folder, who.uid, who.gid);
      execFileSync('chmod', ['-R', 'a+rX', bouncer.#folder]);
    }
    bouncer.#process = new Child('pgbouncer', program(), [config], {
      ...who,
      cwd: bouncer.#folder,
    });
    await bouncer.#process.ready(async () => bouncer.#process.log.includes('process up'));
    return bouncer;
  }

  /** The URL of a database through it. */
  url(database) {
    return `postgres://postgres@127.0.0.1:${this.port}/${database}?sslmode=disable`;
  }

  /** Ends it and removes its folder. */
  async stop() {
    await this.#process.stop('SIGINT');
    rmSync(this.#folder, {recursive: true, force: true});
  }
}
