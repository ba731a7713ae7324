// A WebSocket client on a bare socket: unlike the built-in one it can also break every rule, and
// it shows each frame as it came.

import {randomBytes} from 'node:crypto';
import {connect} from 'node:net';

/** Opcodes of RFC 6455. */
export const OPCODE = {continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10};

/** A frame as a client sends it. Every part of it can be made wrong. */
export function frame(opcode, payload, {fin = true, masked = true, reserved = 0, length} = {}) {
  const body = Buffer.from(payload);
  const size = length ?? BigInt(body.length);
  const head = [(fin ? 0x80 : 0) | (reserved << 4) | opcode];
  const mask = masked ? 0x80 : 0;
  if (size < 126n) {
    head.push(mask | Number(size));
  } else if (size < 65_536n) {
    head.push(mask | 126, Number(size >> 8n), Number(size & 255n));
  } else {
    head.push(mask | 127);
    for (let shift = 56n; shift >= 0n; shift -= 8n) head.push(Number((size >> shift) & 255n));
  }
  if (!masked) return Buffer.concat([Buffer.from(head), body]);
  const key = randomBytes(4);
  const hidden = Buffer.from(body.map((byte, i) => byte ^ key[i % 4]));
  return Buffer.concat([Buffer.from(head), key, hidden]);
}

/** A connection. Frames arrive at `onFrame`, the end at `onEnd`. */
export class BareWebSocket {
  #socket;
  #buffer = Buffer.alloc(0);
  #upgraded = false;
  #ended = false;
  /** The status line and headers of the server's answer. */
  response = '';
  /** Code and reason of the server's close frame. */
  closeCode = undefined;
  closeReason = '';
  onFrame = (/** @type {number} */ _opcode, /** @type {Buffer} */ _payload) => {};
  onEnd = () => {};

  /**
   * @param {number} port
   * @param {string} path with the query string
   * @param {Record<string, string>} [headers] over the usual ones; an empty value leaves one out
   * @param {Buffer} [together] bytes sent in the same packet as the handshake
   */
  constructor(port, path, headers = {}, together = Buffer.alloc(0)) {
    const all = {
      'Host': `127.0.0.1:${port}`,
      'Connection': 'Upgrade',
      'Upgrade': 'websocket',
      'Sec-WebSocket-Version': '13',
      'Sec-WebSocket-Key': randomBytes(16).toString('base64'),
      ...headers,
    };
    const lines = Object.entries(all)
      .filter(([, v]) => v !== '')
      .map(([k, v]) => `${k}: ${v}\r\n`);
    this.#socket = connect(port, '127.0.0.1');
    this.#socket.setNoDelay(true);
    const request = `GET ${path} HTTP/1.1\r\n${lines.join('')}\r\n`;
    this.#socket.write(Buffer.concat([Buffer.from(request), together]));
    this.#socket.on('data', data => this.#receive(data));
    this.#socket.on('error', () => this.#end());
    this.#socket.on('close', () => this.#end());
  }

  get ended() {
    return this.#ended;
  }

  #end() {
    if (this.#ended) return;
    this.#ended = true;
    this.onEnd();
  }

  #receive(data) {
    this.#buffer = Buffer.concat([this.#buffer, data]);
    if (!this.#upgraded) {
      const end = this.#buffer.indexOf('\r\n\r\n');
      if (end < 0) return;
      this.response = this.#buffer.subarray(0, end).toString('latin1');
      this.#buffer = this.#buffer.subarray(end + 4);
      this.#upgraded = this.response.startsWith('HTTP/1.1 101');
      if (!this.#upgraded) return;
    }
    while (this.#next());
  }

  #next() {
    const b = this.#buffer;
    if (b.length < 2) return false;
    let size = b[1] & 0x7f;
    let at = 2;
    if (size === 126) {
      if (b.length < 4) return false;
      size = b.readUInt16BE(2);
      at = 4;
    } else if (size === 127) {
      if (b.length < 10) return false;
      size = Number(b.readBigUInt64BE(2));
      at = 10;
    }
    if (b.length < at + size) return false;
    const payload = b.subarray(at, at + size);
    this.#buffer = b.subarray(at + size);
    const opcode = b[0] & 0x0f;
    if (opcode === OPCODE.close) {
      this.closeCode = payload.length >= 2 ? payload.readUInt16BE(0) : 1005;
      this.closeReason = payload.subarray(2).toString();
      this.#socket.write(frame(OPCODE.close, payload.subarray(0, 2)));
      this.#socket.end();
    } else if (opcode === OPCODE.ping) {
      this.#socket.write(frame(OPCODE.pong, payload));
    } else {
      this.onFrame(opcode, payload);
    }
    return true;
  }

  /** Sends bytes as they are. */
  write(bytes) {
    this.#socket.write(bytes);
  }

  /** Stops and restarts reading, to play a client that does not take its data. */
  pause() {
    this.#socket.pause();
  }

  resume() {
    this.#socket.resume();
  }

  /** Cuts the connection without a word. */
  destroy() {
    this.#socket.destroy();
  }
}
