// Comparing views with what PostgreSQL answers.

import assert from 'node:assert/strict';

/** A plain JSON value: symbols gone, undefined read as null, keys sorted. */
export function plain(value) {
  if (value === null || value === undefined) return null;
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value === 'bigint') return Number(value);
  if (typeof value !== 'object') return value;
  return Object.fromEntries(
    Object.keys(value)
      .sort()
      .map(key => [key, plain(value[key])]),
  );
}

/** The part of `value` that `shape` has too: other keys of objects are left out, recursively. */
export function restrict(value, shape) {
  if (Array.isArray(value) && Array.isArray(shape)) {
    return value.map((item, i) => restrict(item, shape[i] ?? shape[0] ?? item));
  }
  if (!value || !shape || typeof value !== 'object' || typeof shape !== 'object') return value;
  const keys = Object.keys(value).filter(key => key in shape);
  return Object.fromEntries(keys.map(key => [key, restrict(value[key], shape[key])]));
}

/** Fails with a readable difference unless both are the same JSON. */
export function same(actual, expected, message) {
  const [a, b] = [plain(actual), plain(expected)];
  try {
    assert.deepStrictEqual(a, b);
  } catch (error) {
    throw new Error(`${message}\n${/** @type {Error} */ (error).message.slice(0, 4000)}`);
  }
}

/** Whether both are the same JSON. */
export function equal(actual, expected) {
  return JSON.stringify(plain(actual)) === JSON.stringify(plain(expected));
}
