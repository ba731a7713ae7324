// Waiting with a bound.

import {setTimeout as sleep} from 'node:timers/promises';

/** How long a test waits for something that must happen, in ms (`TEST_DEADLINE_MS`). */
export const DEADLINE_MS = Number(process.env.TEST_DEADLINE_MS ?? 30_000);

/**
 * Polls until `probe` returns something truthy and returns that.
 * @template T
 * @param {string} what completes the sentence "waited for …"
 * @param {() => T | Promise<T>} probe
 * @param {() => string} [detail] says what is there instead, when the deadline passes
 */
export async function eventually(what, probe, detail = () => '', deadlineMs = DEADLINE_MS) {
  const end = Date.now() + deadlineMs;
  for (;;) {
    const result = await probe();
    if (result) return result;
    if (Date.now() > end) {
      throw new Error(`waited ${deadlineMs} ms for ${what}${detail() ? `\n${detail()}` : ''}`);
    }
    await sleep(20);
  }
}

/** Fails if `promise` does not settle in time. */
export async function within(what, promise, deadlineMs = DEADLINE_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    const fail = () => reject(new Error(`waited ${deadlineMs} ms for ${what}`));
    timer = setTimeout(fail, deadlineMs);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
