/** DER (X.690), as far as certificates and revocation lists need it: definite lengths, each in its one shortest spelling. */

import { ascii, type Bytes, text } from "./bytes.ts";
import { StrongroomError } from "./errors.ts";

export const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bits: 0x03,
  octets: 0x04,
  oid: 0x06,
  enumerated: 0x0a,
  utf8: 0x0c,
  printable: 0x13,
  teletex: 0x14,
  ia5: 0x16,
  utcTime: 0x17,
  time: 0x18,
  universal: 0x1c,
  bmp: 0x1e,
  sequence: 0x30,
  set: 0x31,
} as const;

const PRINTABLE = /^[A-Za-z0-9 '()+,./:=?-]*$/; // X.680, section 41.4

const bad = (why: string) => new StrongroomError("attest.bad_certificate", why);

/** One element: its tag, its contents, and all of it. */
export interface Element {
  readonly tag: number;
  readonly value: Bytes;
  readonly der: Bytes;
}

/** Takes elements one after another out of the contents of another. */
export class Der {
  readonly #data: Bytes;
  #at = 0;

  constructor(data: Bytes) {
    this.#data = data;
  }

  get done(): boolean {
    return this.#at === this.#data.length;
  }

  /** Whether the next element has one of these tags. */
  isNext(...tags: readonly number[]): boolean {
    return tags.includes(this.#data[this.#at] ?? -1);
  }

  any(): Element {
    const data = this.#data;
    const begin = this.#at;
    const [tag, short] = [data[begin], data[begin + 1]];
    if (tag === undefined || short === undefined) throw bad("it ends early");
    if ((tag & 0x1f) === 0x1f) throw bad("an element of it has a long tag");
    let start = begin + 2;
    let length = short;
    if (short >= 0x80) {
      const size = short & 0x7f;
      if (size < 1 || size > 4) throw bad("an element of it has no definite length");
      if (start + size > data.length) throw bad("it ends early");
      length = 0;
      for (let n = 0; n < size; n++) length = length * 256 + (data[start + n] ?? 0);
      if (length < 0x80 || data[start] === 0) throw bad("a length in it is not in its shortest form");
      start += size;
    }
    if (start + length > data.length) throw bad("it ends early");
    this.#at = start + length;
    return { tag, value: data.slice(start, this.#at), der: data.slice(begin, this.#at) };
  }

  take(tag: number, what: string): Element {
    const found = this.any();
    if (found.tag !== tag) throw bad(`${what} is not where it should be`);
    return found;
  }

  inside(tag: number, what: string): Der {
    return new Der(this.take(tag, what).value);
  }

  end(what: string): void {
    if (!this.done) throw bad(`bytes follow in ${what}`);
  }
}

/** The contents of the one sequence that the bytes are. */
export function sequence(data: Bytes): Der {
  const der = new Der(data);
  const found = der.any();
  if (found.tag !== TAG.sequence || !der.done) throw bad("it is not exactly one DER sequence");
  return new Der(found.value);
}

/** An INTEGER's value. */
export function integer({ tag, value }: Element, expected: number = TAG.integer): bigint {
  const [head, next] = [value[0], value[1]];
  if (tag !== expected || head === undefined) throw bad("a number in it is none");
  if (next !== undefined && ((head === 0 && next < 0x80) || (head === 0xff && next >= 0x80))) {
    throw bad("a number in it is not in its shortest form");
  }
  let found = BigInt(head >= 0x80 ? head - 256 : head);
  for (const byte of value.subarray(1)) found = found * 256n + BigInt(byte);
  return found;
}

export function boolean({ tag, value }: Element): boolean {
  if (tag !== TAG.boolean || value.length !== 1 || (value[0] !== 0 && value[0] !== 0xff)) {
    throw bad("a truth value in it is none");
  }
  return value[0] === 0xff;
}

/** A BIT STRING of whole bytes. */
export function wholeBits({ tag, value }: Element): Bytes {
  if (tag !== TAG.bits || value[0] !== 0) throw bad("bits in it are no whole bytes");
  return value.slice(1);
}

/** The numbers of an OBJECT IDENTIFIER, with dots. */
export function oid({ tag, value }: Element): string {
  const last = value.at(-1);
  if (tag !== TAG.oid || last === undefined || last >= 0x80) throw bad("a name of a kind in it is none");
  const found: bigint[] = [];
  let part = 0n;
  let begins = true;
  for (const byte of value) {
    if (begins && byte === 0x80) throw bad("a name of a kind in it is not in its shortest form");
    part = part * 128n + BigInt(byte & 0x7f);
    begins = byte < 0x80;
    if (begins) {
      found.push(part);
      part = 0n;
    }
  }
  const joint = found[0] ?? 0n;
  const root = joint < 40n ? 0n : joint < 80n ? 1n : 2n;
  return [root, joint - 40n * root, ...found.slice(1)].join(".");
}

/** A time, in unix seconds (RFC 5280 section 4.1.2.5: in UTC, to the second). */
export function time({ tag, value }: Element): number {
  const said = ascii(value) ?? "";
  const pattern =
    tag === TAG.utcTime ? /^(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/ : /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/;
  const found = pattern.exec(said);
  if (!found || (tag !== TAG.utcTime && tag !== TAG.time)) throw bad("a time in it is none");
  const [, y = "", ...rest] = found;
  const year = y.length === 4 ? y : `${Number(y) < 50 ? "20" : "19"}${y}`;
  return utcSeconds(`${year}-${rest[0]}-${rest[1]}T${rest[2]}:${rest[3]}:${rest[4]}Z`) ?? fail();
}

function fail(): never {
  throw bad("a time in it is none");
}

/** The unix seconds of `2026-01-31T12:00:00Z`; `null` where there is no such time. */
export function utcSeconds(said: string): number | null {
  const milliseconds = Date.parse(said);
  if (Number.isNaN(milliseconds) || new Date(milliseconds).toISOString() !== said.replace("Z", ".000Z")) return null;
  return milliseconds / 1000;
}

/** The text of a string of one of the kinds that names are made of. */
export function string({ tag, value }: Element): string {
  switch (tag) {
    case TAG.utf8:
      try {
        return text(value);
      } catch {
        throw bad("a name in it is no text");
      }
    case TAG.printable:
    case TAG.ia5: {
      const found = ascii(value);
      if (found === null || (tag === TAG.printable && !PRINTABLE.test(found))) throw bad("a name in it is no text");
      return found;
    }
    case TAG.teletex:
      return String.fromCharCode(...value);
    case TAG.bmp:
      return new TextDecoder("utf-16be", { fatal: true }).decode(value);
    default:
      throw bad("a name in it is of a kind that is not known here");
  }
}
