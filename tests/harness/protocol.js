// A client of the sync protocol that is strict about what the server may send and can itself send
// anything. It keeps rows, queries, results and the cookie as the specification says a client does.

import {strict as assert} from 'node:assert';
import {randomUUID} from 'node:crypto';
import {eventually} from './deadline.js';
import {BareWebSocket, OPCODE, frame} from './websocket.js';

/** Protocol versions whose pokes differ in form. */
export const VERSIONS = [30, 51, 52];

/** The client schema of some tables of the model, in the names of the server. */
export const CLIENT_SCHEMA = {
  tables: {
    issue: {
      columns: {id: {type: 'string'}, title: {type: 'string'}, open: {type: 'boolean'}},
      primaryKey: ['id'],
    },
    label: {
      columns: {id: {type: 'number'}, name: {type: 'string'}, colour: {type: 'string'}},
      primaryKey: ['id'],
    },
  },
};

/** A query of the model, as a client would ask for it. */
export const LABELS = {op: 'put', hash: 'labels', ast: {table: 'label', orderBy: [['id', 'asc']]}};

/** The value of `Sec-WebSocket-Protocol`. */
export function handshake(content) {
  return encodeURIComponent(Buffer.from(JSON.stringify(content)).toString('base64'));
}

export class ProtocolClient {
  /** Every message, decoded, in order. */
  messages = [];
  /** What the server did that it may not. */
  faults = [];
  /** Rows by table, then by the JSON of the primary key. */
  rows = new Map();
  got = new Set();
  desired = new Map();
  lastMutationIDs = {};
  results = new Map();
  cookie = null;
  pokes = 0;
  #poke;
  #parts = [];
  #chunks = [];

  /**
   * @param {number} port
   * @param {object} [options]
   * @param {number} [options.version] protocol version
   * @param {Record<string, string | undefined>} [options.params] over the usual ones
   * @param {any} [options.init] body of `initConnection` in the handshake; `null` for none
   * @param {string} [options.auth]
   * @param {Record<string, string>} [options.headers]
   * @param {string} [options.path] instead of the whole path and query string
   * @param {Buffer} [options.together] bytes in the packet of the handshake
   * @param {Record<string, string[]>} [options.keys] primary keys by table
   */
  constructor(port, options = {}) {
    const {version = 51, params = {}, headers = {}} = options;
    this.version = version;
    this.clientID = params.clientID ?? randomUUID();
    this.groupID = params.clientGroupID ?? randomUUID();
    this.cookie = params.baseCookie || null;
    this.keys = options.keys ?? {issue: ['id'], label: ['id']};
    const query = new URLSearchParams();
    const usual = {
      clientID: this.clientID,
      clientGroupID: this.groupID,
      userID: 'u1',
      baseCookie: '',
      ts: '812.5',
      lmid: '0',
      wsid: 'w1',
      ...params,
    };
    for (const [key, value] of Object.entries(usual)) {
      if (value !== undefined) query.set(key, value);
    }
    const first =
      options.init === undefined
        ? {
            desiredQueriesPatch: [LABELS],
            clientSchema: CLIENT_SCHEMA,
            activeClients: [this.clientID],
          }
        : options.init;
    const content = {
      ...(first ? {initConnectionMessage: ['initConnection', first]} : {}),
      ...(options.auth ? {authToken: options.auth} : {}),
    };
    this.protocol = handshake(content);
    this.socket = new BareWebSocket(
      port,
      options.path ?? `/sync/v${version}/connect?${query}`,
      {'Sec-WebSocket-Protocol': this.protocol, ...headers},
      options.together,
    );
    this.socket.onFrame = (opcode, payload) => this.#frame(opcode, payload);
  }

  /** Sends a message. */
  send(type, body) {
    this.raw(JSON.stringify([type, body]));
  }

  /** Sends text as it is. */
  raw(text) {
    this.socket.write(frame(OPCODE.text, text));
  }

  #fault(text) {
    this.faults.push(text);
  }

  #frame(opcode, payload) {
    if (opcode === OPCODE.binary) {
      if (this.version < 52) this.#fault(`a binary frame in version ${this.version}`);
      if (payload[0] !== 0) this.#fault(`a binary frame of type ${payload[0]}`);
      if (!this.#poke) this.#fault('a binary frame outside a poke');
      this.#chunks.push(Buffer.from(payload.subarray(1)));
      return;
    }
    const [type, body, ...rest] = JSON.parse(payload.toString('utf8'));
    if (rest.length) this.#fault(`more than two elements in ${type}`);
    if (this.messages.length === 0 && type !== 'connected' && type !== 'error') {
      this.#fault(`the first message is ${type}`);
    }
    this.messages.push([type, body]);
    this[`on_${type}`]?.(body);
  }

  on_pokeStart(body) {
    if (this.#poke) this.#fault('a poke within a poke');
    if (body.baseCookie !== this.cookie) {
      this.#fault(`a poke from ${body.baseCookie} for a client at ${this.cookie}`);
    }
    this.#poke = body;
    this.#parts = [];
    this.#chunks = [];
  }

  on_pokePart(body) {
    if (this.#poke?.pokeID !== body.pokeID) this.#fault(`a part of another poke: ${body.pokeID}`);
    this.#parts.push(body);
  }

  on_pokeEnd(body) {
    const start = this.#poke;
    this.#poke = undefined;
    if (start?.pokeID !== body.pokeID) this.#fault(`the end of another poke: ${body.pokeID}`);
    if (body.cancel) return;
    const text = new TextDecoder('utf-8', {fatal: true}).decode(Buffer.concat(this.#chunks));
    const parts = text ? JSON.parse(text) : this.#parts;
    if (text && this.#parts.length) this.#fault('both forms of parts in one poke');
    if (this.cookie !== null && body.cookie < this.cookie) {
      this.#fault(`the cookie fell from ${this.cookie} to ${body.cookie}`);
    }
    const keys = parts.flatMap(part => Object.keys(part)).filter(key => key !== 'pokeID');
    if (body.cookie === this.cookie && keys.length) {
      this.#fault(`a poke that keeps the cookie has content: ${keys}`);
    }
    this.#once(parts.flatMap(part => part.rowsPatch ?? []));
    for (const part of parts) this.#apply(part);
    this.cookie = body.cookie;
    this.pokes += 1;
  }

  #apply(part) {
    for (const [client, ops] of Object.entries(part.desiredQueriesPatches ?? {})) {
      const known = this.desired.get(client) ?? new Set();
      this.desired.set(client, known);
      for (const op of ops) {
        if (op.op === 'put') known.add(op.hash);
        else known.delete(op.hash);
      }
    }
    for (const op of part.gotQueriesPatch ?? []) {
      if (op.op === 'put') this.got.add(op.hash);
      else this.got.delete(op.hash);
    }
    for (const op of part.rowsPatch ?? []) this.#row(op);
    for (const op of part.mutationsPatch ?? []) {
      const id = op.op === 'put' ? op.mutation.id : op.id;
      if (op.op === 'put') this.results.set(`${id.clientID}/${id.id}`, op.mutation.result);
      else this.results.delete(`${id.clientID}/${id.id}`);
    }
    for (const [client, id] of Object.entries(part.lastMutationIDChanges ?? {})) {
      if (id < (this.lastMutationIDs[client] ?? 0)) this.#fault(`the LMID of ${client} fell`);
      this.lastMutationIDs[client] = id;
    }
  }

  /** However many queries have a row, a poke puts it once. */
  #once(ops) {
    const told = new Set();
    for (const op of ops.filter(op => op.op === 'put')) {
      const row = `${op.tableName} ${this.#key(op)}`;
      if (told.has(row)) this.#fault(`a poke puts a row twice: ${row}`);
      told.add(row);
    }
  }

  /** The columns of the key of a row operation. */
  #names(op) {
    return this.keys[op.tableName] ?? Object.keys(op.id ?? {}).sort();
  }

  /** The JSON of its values. */
  #key(op) {
    const source = op.op === 'put' ? op.value : op.id;
    return JSON.stringify(this.#names(op).map(name => source[name]));
  }

  #row(op) {
    if (op.op !== 'put' && op.op !== 'del') return this.#fault(`a row operation ${op.op}`);
    const table = this.table(op.tableName);
    const key = this.#key(op);
    if (op.op === 'put') {
      table.set(key, op.value);
      return;
    }
    assert.deepEqual(Object.keys(op.id).sort(), this.#names(op).toSorted());
    if (!table.delete(key)) {
      this.#fault(`a row is deleted that is not there: ${op.tableName} ${key}`);
    }
  }

  /** The rows of a table, by the JSON of the key. */
  table(name) {
    let rows = this.rows.get(name);
    if (!rows) this.rows.set(name, (rows = new Map()));
    return rows;
  }

  /** The bodies of the messages of a type. */
  of(type) {
    return this.messages.filter(([t]) => t === type).map(([, body]) => body);
  }

  /** Waits until something is true of this client. */
  until(what, probe, deadlineMs) {
    const detail = () => {
      const seen = JSON.stringify(this.messages.slice(-4)).slice(0, 1500);
      return `${this.socket.response.split('\r\n')[0]}; ended ${this.socket.ended}; last: ${seen}`;
    };
    return eventually(what, probe, detail, deadlineMs);
  }

  /** Waits for an error of a kind. */
  error(kind) {
    return this.until(`error ${kind}`, () => this.of('error').find(e => !kind || e.kind === kind));
  }

  /** Waits until the server has closed the connection. */
  ended() {
    return this.until('the connection to be closed', () => this.socket.ended);
  }

  /** Waits until queries are got. */
  gets(...hashes) {
    return this.until(`${hashes} to be got`, () => hashes.every(hash => this.got.has(hash)));
  }

  /** Fails if the server did anything it may not. */
  clean() {
    assert.deepEqual(this.faults, []);
  }

  close() {
    this.socket.destroy();
  }
}
