// Official clients in Node, with their store in memory.

import {Zero} from '@rocicorp/zero';
import {schema} from '../model/schema.js';
import {eventually, within} from './deadline.js';

/** Makes the names of stores, so that each client has its own and is a group of its own. */
let stores = 0;

/**
 * An official client. Its log goes to `errors` instead of the console. Clients with the same
 * `storageKey` (and user) share a store, as tabs of one browser do: they are one client group.
 * @param {string} url of the sync server
 * @param {Partial<import('@rocicorp/zero').ZeroOptions<any, any>>} [options]
 */
export function connect(url, options = {}) {
  const zero = new Zero({
    cacheURL: url,
    schema,
    userID: 'u1',
    kvStore: 'mem',
    storageKey: `store${(stores += 1)}`,
    logLevel: 'error',
    logSink: {log: (level, context, ...args) => errors.push([level, ...args])},
    ...Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)),
  });
  /** @type {unknown[][]} */
  const errors = [];
  const states = [];
  zero.connection.state.subscribe(state => states.push(state));
  const views = new Set();
  return {
    zero,
    /** What the client logged at level error. */
    errors,
    /** Every state the connection went through. */
    states,

    /** Subscribes to a query and keeps its view. */
    watch(query, ttl = 'none') {
      const view = watch(zero.materialize(query, {ttl}), () => JSON.stringify({errors, states}));
      views.add(view);
      return view;
    },

    /** Waits for a state of the connection. */
    state(name) {
      return eventually(
        `the client to be ${name}`,
        () => zero.connection.state.current.name === name && zero.connection.state.current,
        () => JSON.stringify({now: zero.connection.state.current, errors}),
      );
    },

    async close() {
      if (zero.closed) return;
      views.forEach(view => view.destroy());
      await zero.close();
    },
  };
}

/** A view of a query: its newest data, its state, and how often it changed. */
function watch(view, context) {
  let type = 'unknown';
  let error;
  let finish;
  let destroyed = false;
  const explain = failure => {
    throw new Error(`${failure.message}; the client says: ${context().slice(0, 2000)}`);
  };
  const settled = new Promise(resolve => (finish = resolve));
  const state = {
    updates: 0,
    /** The newest data. */
    get data() {
      return view.data;
    },
    get type() {
      return type;
    },
    get error() {
      return error;
    },
    /** Resolves when the server has answered, be it with an error. */
    settled: () => within('a query to be answered', settled).catch(explain),
    /** Resolves to the data when the server has answered completely. */
    async complete() {
      await within('a query to be complete', settled).catch(explain);
      if (type !== 'complete') throw new Error(`query failed: ${JSON.stringify(error)}`);
      return view.data;
    },
    /** Lets go of the query, once: the client takes the second time for an error of its own. */
    destroy() {
      if (!destroyed) view.destroy();
      destroyed = true;
    },
  };
  view.addListener((_, now, why) => {
    state.updates += 1;
    type = now;
    error = why;
    if (now !== 'unknown') finish();
  });
  return state;
}
