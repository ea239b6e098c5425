// One end of a WebSocket that validates nothing: it sends every message back as it came, answers pings and
// Closes, and takes masks, reserved bits, opcodes, lengths, text and codes for whatever they say. What is judged
// where such an end is behind, or in front of, a gateway is judged by the gateway.
import { createHash } from "node:crypto";

const CONTINUATION = 0;
const CLOSE = 8;
const PING = 9;
const PONG = 10;

/** What a server answers a key with (RFC 6455 §4.2.2). */
export function accept(key) {
  return createHash("sha1").update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
}

/** Sends back what comes on `socket`; as a client, masks (with zeros). */
export class LaxEcho {
  constructor(socket, { client = false, onMessage = null } = {}) {
    this.socket = socket;
    this.client = client;
    this.onMessage = onMessage;
    this.pending = [];
    this.held = 0;
    this.wanted = 2;
    this.message = null;
    this.closed = false;
    socket.setNoDelay(true);
    socket.on("data", (bytes) => this.feed(bytes));
    socket.on("error", () => {});
  }

  feed(bytes) {
    this.pending.push(bytes);
    this.held += bytes.length;
    // Joined only once enough is there: large messages come in many pieces.
    if (this.held < this.wanted) return;
    let rest = Buffer.concat(this.pending);
    for (let frame; (frame = read(rest)).whole; rest = rest.subarray(frame.length)) {
      this.take(frame);
    }
    this.pending = [rest];
    this.held = rest.length;
    this.wanted = read(rest).length;
  }

  take({ first, payload }) {
    const opcode = first & 0x0f;
    if (opcode === PING) {
      this.send(0x80 | PONG, payload);
    } else if (opcode === CLOSE) {
      if (!this.closed) this.send(first, payload);
      this.closed = true;
      if (!this.client) this.socket.end();
    } else if (opcode !== PONG) {
      // Any other opcode begins a message, if none has begun.
      this.message ??= { opcode: opcode === CONTINUATION ? 2 : opcode, pieces: [] };
      this.message.pieces.push(payload);
      if (first & 0x80) this.whole();
    }
  }

  whole() {
    const { opcode, pieces } = this.message;
    this.message = null;
    const payload = Buffer.concat(pieces);
    if (this.onMessage) this.onMessage(payload);
    else this.send(0x80 | opcode, payload);
  }

  send(first, payload) {
    if (this.closed || this.socket.writableEnded) return;
    const mask = this.client ? 0x80 : 0;
    const long = payload.length > 0xffff ? 8 : payload.length > 125 ? 2 : 0;
    const head = Buffer.alloc(2 + long + (this.client ? 4 : 0));
    head[0] = first;
    head[1] = mask | (long === 8 ? 127 : long === 2 ? 126 : payload.length);
    if (long === 8) head.writeBigUInt64BE(BigInt(payload.length), 2);
    if (long === 2) head.writeUInt16BE(payload.length, 2);
    this.socket.write(Buffer.concat([head, payload]));
  }
}

/** The frame that `bytes` begin with; if it is not whole, how many bytes are wanted to tell more. */
function read(bytes) {
  if (bytes.length < 2) return { whole: false, length: 2 };
  const masked = bytes[1] & 0x80;
  let size = bytes[1] & 0x7f;
  const long = size === 127 ? 8 : size === 126 ? 2 : 0;
  const head = 2 + long + (masked ? 4 : 0);
  if (bytes.length < head) return { whole: false, length: head };
  if (long === 8) size = Number(bytes.readBigUInt64BE(2));
  if (long === 2) size = bytes.readUInt16BE(2);
  const length = head + size;
  if (bytes.length < length) return { whole: false, length };
  const payload = Buffer.from(bytes.subarray(head, length));
  if (masked) {
    const key = bytes.subarray(head - 4, head);
    for (let at = 0; at < size; at++) payload[at] ^= key[at & 3];
  }
  return { whole: true, length, first: bytes[0], payload };
}
