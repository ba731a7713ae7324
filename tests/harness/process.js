// One child process: its log, its readiness, its end. Nothing outlives the test process.

import {spawn} from 'node:child_process';
import {writeFileSync} from 'node:fs';
import {setTimeout as sleep} from 'node:timers/promises';
import {artifact} from './paths.js';

/** Newest bytes of a child's log that are kept in memory. */
const LOG_LIMIT = 8 << 20;

/** @type {Set<import('node:child_process').ChildProcess>} */
const living = new Set();
process.on('exit', () => living.forEach(child => signalGroup(child, 'SIGKILL')));
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.once(signal, () => process.exit(1));
}

/** Signals a child with all that it started in turn. */
function signalGroup(child, signal) {
  try {
    process.kill(-child.pid, signal);
  } catch {
    // It has ended already.
  }
}

/** A running (or ended) child process, the leader of a process group. */
export class Child {
  /** @type {import('node:child_process').ChildProcess} */ #process;
  #log = '';
  /** Resolves to `{code, signal}` when the process has ended. */
  exited;

  /**
   * @param {string} name for messages and for the name of its log file
   * @param {string} command
   * @param {string[]} args
   * @param {import('node:child_process').SpawnOptions} [options]
   */
  constructor(name, command, args, options = {}) {
    this.name = name;
    this.#process = spawn(command, args, {
      ...options,
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    living.add(this.#process);
    const keep = data => {
      this.#log = (this.#log + data).slice(-LOG_LIMIT);
    };
    this.#process.stdout.setEncoding('utf8').on('data', keep);
    this.#process.stderr.setEncoding('utf8').on('data', keep);
    this.exited = new Promise(resolve => {
      this.#process.once('error', error => {
        keep(`${error}\n`);
        living.delete(this.#process);
        resolve({code: -1, signal: null});
      });
      this.#process.once('exit', (code, signal) => {
        living.delete(this.#process);
        signalGroup(this.#process, 'SIGKILL');
        // What it wrote last is still on its way.
        setTimeout(() => resolve({code, signal}), 20);
      });
    });
  }

  /** Standard output and error so far (the newest part of it, if there was a lot). */
  get log() {
    return this.#log;
  }

  get pid() {
    return this.#process.pid;
  }

  get running() {
    return living.has(this.#process);
  }

  /** Ends the process in an orderly way; after `graceMs` by SIGKILL. Returns how it ended. */
  async stop(signal = 'SIGTERM', graceMs = 15_000) {
    if (this.running) this.#process.kill(signal);
    const timer = setTimeout(() => signalGroup(this.#process, 'SIGKILL'), graceMs);
    const ended = await this.exited;
    clearTimeout(timer);
    return ended;
  }

  /** Ends the process as a crash would. */
  async kill() {
    if (this.running) signalGroup(this.#process, 'SIGKILL');
    return this.exited;
  }

  /** Polls `probe` until it is true, the process ends or the deadline passes. */
  async ready(probe, deadlineMs = 60_000) {
    const end = Date.now() + deadlineMs;
    while (Date.now() < end) {
      if (!this.running) {
        const {code, signal} = await this.exited;
        throw new Error(
          `${this.name} ended (${code ?? signal}) before it was ready:\n${this.tail()}`,
        );
      }
      if (await probe().catch(() => false)) return;
      await sleep(50);
    }
    throw new Error(`${this.name} was not ready in ${deadlineMs} ms:\n${this.tail()}`);
  }

  /** The last lines of the log. */
  tail(lines = 60) {
    return this.#log.split('\n').slice(-lines).join('\n');
  }

  /** Writes the log to the artifacts. */
  keepLog(label) {
    writeFileSync(artifact(`${label}-${this.name}-${this.pid}.log`), this.#log);
  }
}
