// The sync server under test: kelvin, or its peer zero-cache to prove the tests themselves.

import {mkdtempSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {freePort} from './ports.js';
import {Child} from './process.js';
import {TESTS, kelvinBinary} from './paths.js';

/** Which server the suites run against: `kelvin` (default) or `zero-cache`. */
export const PEER = (process.env.SERVER ?? 'kelvin') === 'zero-cache';

/** The password of the server's administrator in all tests. */
export const ADMIN_PASSWORD = 'admin-of-the-tests';

function command(peer) {
  if (!peer) return {program: kelvinBinary(), args: ['serve']};
  const cli = join(TESTS, 'node_modules/@rocicorp/zero/out/zero/src/cli.js');
  return {program: process.execPath, args: [cli]};
}

/** A sync server that can be stopped, killed and started again on the same port and replica. */
export class SyncServer {
  /** @type {Child | undefined} */ #child;
  /** Logs of the runs before the present one. */
  #history = '';

  /**
   * @param {string} upstream URL of the PostgreSQL database
   * @param {Record<string, string>} [env] further `ZERO_*` variables; an empty one is unset
   * @param {boolean} [peer] whether it is zero-cache, whatever the suites run against
   */
  constructor(upstream, env = {}, peer = PEER) {
    this.upstream = upstream;
    this.peer = peer;
    this.folder = mkdtempSync(join(tmpdir(), 'kelvin-replica-'));
    this.env = env;
  }

  /** Starts the process without waiting. */
  async spawn() {
    this.port ??= Number(this.env.ZERO_PORT ?? (await freePort()));
    const {program, args} = command(this.peer);
    const env = {
      PATH: process.env.PATH,
      HOME: process.env.HOME,
      ZERO_UPSTREAM_DB: this.upstream,
      ZERO_ADMIN_PASSWORD: ADMIN_PASSWORD,
      ZERO_REPLICA_FILE: join(this.folder, 'replica.db'),
      ZERO_PORT: String(this.port),
      ZERO_LOG_LEVEL: process.env.TEST_LOG_LEVEL ?? 'info',
      ...(this.peer
        ? {ZERO_NUM_SYNC_WORKERS: '1', ZERO_CHANGE_STREAMER_STARTUP_DELAY_MS: '0'}
        : {}),
      ...(this.peer
        ? {DO_NOT_TRACK: '1', ZERO_CHANGE_STREAMER_PORT: String(await freePort())}
        : {}),
      ...this.env,
    };
    this.#history += this.#child?.log ?? '';
    this.#child = new Child('server', program, args, {env, cwd: this.folder});
    return this.#child;
  }

  /** Starts the server and waits until it answers. */
  async start(deadlineMs = 60_000) {
    const child = await this.spawn();
    await child.ready(async () => {
      const answer = await fetch(`${this.url}/keepalive`, {signal: AbortSignal.timeout(2000)});
      return answer.ok;
    }, deadlineMs);
    return this;
  }

  /** Where clients connect to. */
  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  /** The log of all runs. */
  get log() {
    return this.#history + (this.#child?.log ?? '');
  }

  get running() {
    return this.#child?.running ?? false;
  }

  get pid() {
    return this.#child?.pid;
  }

  stop() {
    return this.#child?.stop();
  }

  kill() {
    return this.#child?.kill();
  }

  /** How the process ended, with a bound on the wait. */
  async exit(deadlineMs = 60_000) {
    const timeout = new Promise((_, reject) => {
      const fail = () => reject(new Error(`the server still runs after ${deadlineMs} ms`));
      setTimeout(fail, deadlineMs).unref();
    });
    return Promise.race([this.#child?.exited, timeout]);
  }

  /** Stops the server and removes its replica; keeps the log when a test failed. */
  async dispose(label) {
    await this.stop();
    if (label) this.#child?.keepLog(label);
    rmSync(this.folder, {recursive: true, force: true});
  }
}
