/** Bytes, and their spellings. */

import { StrongroomError } from "./errors.ts";

/** Bytes that WebCrypto takes: never a view of shared memory. */
export type Bytes = Uint8Array<ArrayBuffer>;

const UTF8 = new TextEncoder();
const STRICT_UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export function utf8(text: string): Bytes {
  return UTF8.encode(text) as Bytes;
}

/** The text of UTF-8 bytes, a byte order mark kept; throws a TypeError where they are none. */
export function text(data: Uint8Array): string {
  return STRICT_UTF8.decode(data);
}

/** The text of ASCII bytes; `null` where one of them is none. */
export function ascii(data: Uint8Array): string | null {
  return data.every((byte) => byte < 0x80) ? text(data) : null;
}

export function concat(...parts: readonly Uint8Array[]): Bytes {
  const found = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    found.set(part, at);
    at += part.length;
  }
  return found;
}

export function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, n) => byte === b[n]);
}

export function isZero(data: Uint8Array): boolean {
  return data.every((byte) => byte === 0);
}

export function hex(data: Uint8Array): string {
  let found = "";
  for (const byte of data) found += byte.toString(16).padStart(2, "0");
  return found;
}

/** The bytes of hex digits of either case, an even number of them, which the caller has looked at. */
export function unhex(digits: string): Bytes {
  const found = new Uint8Array(digits.length / 2);
  for (let n = 0; n < found.length; n++) found[n] = Number.parseInt(digits.slice(2 * n, 2 * n + 2), 16);
  return found;
}

/** Standard base64 with padding (RFC 4648 section 4). */
export function b64(data: Uint8Array): string {
  let found = "";
  for (let at = 0; at < data.length; at += 0x8000) found += String.fromCharCode(...data.subarray(at, at + 0x8000));
  return btoa(found);
}

/** Decode standard base64, refusing every spelling but the canonical one. Throws `wire.bad_field`. */
export function unb64(spelled: string): Bytes {
  let found: Bytes;
  try {
    // atob() is content with white space and without padding.
    if (spelled.length % 4 !== 0 || /[^A-Za-z0-9+/=]/.test(spelled)) throw new SyntaxError("another alphabet");
    found = Uint8Array.from(atob(spelled), (c) => c.charCodeAt(0));
  } catch (error) {
    throw new StrongroomError("wire.bad_field", "not base64", { cause: error });
  }
  if (b64(found) !== spelled) throw new StrongroomError("wire.bad_field", "not canonical base64");
  return found;
}

/** A big-endian number. */
export function big(data: Uint8Array): bigint {
  return data.length === 0 ? 0n : BigInt(`0x${hex(data)}`);
}

/** A little-endian number. */
export function little(data: Uint8Array): bigint {
  return big(data.toReversed());
}

/** A big-endian number of four bytes. */
export function u32(data: Uint8Array): number {
  return Number(big(data.subarray(0, 4)));
}

export function u32Bytes(value: number): Bytes {
  const found = new Uint8Array(4);
  new DataView(found.buffer).setUint32(0, value);
  return found;
}

/** How Python writes a text in a message, so that both verifiers say the same. */
export function quoted(said: string): string {
  const quote = said.includes("'") && !said.includes('"') ? '"' : "'";
  const escaped = Array.from(said, (c) => {
    if (c === "\\" || c === quote) return `\\${c}`;
    if (c === "\n") return "\\n";
    if (c === "\r") return "\\r";
    if (c === "\t") return "\\t";
    if (c === " " || !/[\p{C}\p{Z}]/u.test(c)) return c;
    const point = c.codePointAt(0) ?? 0;
    if (point < 0x100) return `\\x${point.toString(16).padStart(2, "0")}`;
    return point < 0x10000 ? `\\u${point.toString(16).padStart(4, "0")}` : `\\U${point.toString(16).padStart(8, "0")}`;
  });
  return quote + escaped.join("") + quote;
}

/** How many characters a text has, each counted once however UTF-16 writes it. */
export function characters(said: string): number {
  let found = 0;
  for (const _ of said) found++;
  return found;
}

/** The first so many characters. */
export function first(said: string, most: number): string {
  return said.length <= most ? said : Array.from(said).slice(0, most).join("");
}
