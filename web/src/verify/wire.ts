/**
 * Canonical JSON, strict parsing and signed envelopes: `spec/wire.md`.
 *
 * What was parsed, encoded again, is the bytes that were given, or they are refused: duplicate members, another order, white
 * space and every other spelling end there. Signed documents have no fractions, and integers within 2^53-1.
 */

import { type Bytes, b64, characters, concat, equal, first, quoted, text, unb64, unhex, utf8 } from "./bytes.ts";
import { digest } from "./crypto.ts";
import { type Code, isOurs, StrongroomError } from "./errors.ts";
import { requireBounds } from "./json.ts";

export type Json = null | boolean | number | string | readonly Json[] | { readonly [member: string]: Json };

export const MAX_INT = Number.MAX_SAFE_INTEGER; // 2^53-1
const MAX_DEPTH = 32;
const MAX_BYTES = 4 << 20;

const DIGEST = /^sha256:[0-9a-f]{64}$/;
const NAME = /^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$/;
const MEDIA_TYPE = /^[a-z0-9][a-z0-9.+-]{0,62}\/[a-z0-9][a-z0-9.+-]{0,126}$/;

/** Whether the whole text is what a pattern says that stands between `^` and `$`. */
export function matches(pattern: RegExp, said: string): boolean {
  return pattern.test(said);
}

function spelled(value: Json, depth: number): string {
  const no = (why: string) => new StrongroomError("wire.not_canonical", why);
  if (depth > MAX_DEPTH) throw no(`nested deeper than ${MAX_DEPTH} levels`);
  if (value === null || typeof value === "boolean") return String(value);
  if (typeof value === "number") {
    if (!Number.isInteger(value)) throw no("a number is not an integer");
    if (!Number.isSafeInteger(value)) throw no("an integer is outside ±(2^53-1)");
    return String(value);
  }
  if (typeof value === "string") {
    if (!value.isWellFormed()) throw no("a string holds a lone surrogate");
    return JSON.stringify(value); // the escapes of RFC 8785 section 3.2.2.2
  }
  if (isList(value)) return `[${value.map((item) => spelled(item, depth + 1)).join(",")}]`;
  if (typeof value !== "object") throw no(`a ${typeof value} cannot stand in a signed document`);
  const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)); // by UTF-16 units
  return `{${members.map(([name, item]) => `${spelled(name, depth)}:${spelled(item, depth + 1)}`).join(",")}}`;
}

export function isList(value: unknown): value is readonly Json[] {
  return Array.isArray(value);
}

/** The canonical bytes of a JSON value (RFC 8785). Throws `wire.not_canonical`. */
export function encode(value: Json): Bytes {
  return utf8(spelled(value, 0));
}

/** What lenient parsers take for JSON, and this one for no JSON at all: it is refused as another spelling of it. */
function isLenientJson(data: Bytes): boolean {
  let said: string;
  try {
    said = text(data);
  } catch {
    return false;
  }
  if (/^[[{]{33}/.test(said)) return true;
  return /^-?(?:NaN|Infinity)$|[[,:]-?(?:NaN|Infinity)[\],}]/.test(said.replace(/"(?:[^"\\]|\\.)*"/g, ""));
}

/** Parse canonical JSON, refusing every other spelling of it. Throws `wire.too_large`, `.not_json`, `.not_canonical`. */
export function decode(data: Bytes, maxBytes = MAX_BYTES): Json {
  requireBounds(data, maxBytes);
  let value: Json;
  try {
    value = JSON.parse(text(data)) as Json;
  } catch (error) {
    if (isLenientJson(data))
      throw new StrongroomError("wire.not_canonical", "a number is not an integer, or it is too deep");
    throw new StrongroomError("wire.not_json", "the bytes are not JSON in UTF-8", { cause: error });
  }
  if (!equal(encode(value), data)) {
    throw new StrongroomError("wire.not_canonical", "the bytes are JSON, but not in canonical form (RFC 8785)");
  }
  return value;
}

/** An object's members, each read exactly once; every reader throws `wire.bad_field`, and `end` for what is left over. */
export class Fields {
  readonly #left: Map<string, unknown>;
  readonly #where: string;

  constructor(value: unknown, where: string) {
    if (value instanceof Map) this.#left = new Map(value as ReadonlyMap<string, unknown>);
    else if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      this.#left = new Map(Object.entries(value));
    } else throw new StrongroomError("wire.bad_field", `${where} is not an object`);
    this.#where = where;
  }

  #no(name: string, why: string): StrongroomError {
    return new StrongroomError("wire.bad_field", `${this.#where}.${name} ${why}`);
  }

  any(name: string): unknown {
    if (!this.#left.has(name)) throw this.#no(name, "is missing");
    const found = this.#left.get(name);
    this.#left.delete(name);
    return found;
  }

  has(name: string): boolean {
    return this.#left.has(name);
  }

  text(name: string, maxChars = 1024): string {
    const value = this.any(name);
    if (typeof value !== "string" || (value.length > maxChars && characters(value) > maxChars)) {
      throw this.#no(name, `is not a string of at most ${maxChars} characters`);
    }
    return value;
  }

  choice<T extends string>(name: string, choices: readonly T[], maxChars = 1024): T {
    const value = this.text(name, maxChars);
    const found = choices.find((choice) => choice === value);
    if (found === undefined) throw this.#no(name, `is not one of ${choices.join(", ")}`);
    return found;
  }

  literal(name: string, expected: string): void {
    if (this.any(name) !== expected) throw this.#no(name, `is not ${quoted(expected)}`);
  }

  #matching(name: string, pattern: RegExp, what: string): string {
    const value = this.text(name);
    if (!matches(pattern, value)) throw this.#no(name, `is not ${what}`);
    return value;
  }

  name(name: string): string {
    return this.#matching(name, NAME, "a name (a-z, 0-9, '.', '_', '-')");
  }

  mediaType(name: string): string {
    return this.#matching(name, MEDIA_TYPE, "a media type");
  }

  digest(name: string): string {
    return this.#matching(name, DIGEST, "sha256: and 64 lowercase hex digits");
  }

  integer(name: string, { low = 0, high = MAX_INT }: { low?: number; high?: number } = {}): number {
    const value = this.any(name);
    if (typeof value !== "number" || !Number.isSafeInteger(value) || value < low || value > high) {
      throw this.#no(name, `is not an integer from ${low} to ${high}`);
    }
    return value;
  }

  boolean(name: string): boolean {
    const value = this.any(name);
    if (typeof value !== "boolean") throw this.#no(name, "is not true or false");
    return value;
  }

  /** Lowercase hex of exactly so many bytes. */
  hex(name: string, size: number): Bytes {
    const value = this.text(name, 2 * size);
    if (value.length !== 2 * size || !/^[0-9a-f]*$/.test(value))
      throw this.#no(name, `is not ${2 * size} lowercase hex digits`);
    return unhex(value);
  }

  base64(name: string, maxBytes = MAX_BYTES): Bytes {
    const value = this.text(name, Math.floor((maxBytes * 4) / 3) + 4);
    let found: Bytes;
    try {
      found = unb64(value);
    } catch (error) {
      throw isOurs(error) ? this.#no(name, `is ${error.message}`) : error;
    }
    if (found.length > maxBytes) throw this.#no(name, `is longer than ${maxBytes} bytes`);
    return found;
  }

  items<T>(name: string, parse: (item: unknown) => T, { low = 0, high = 1024 }: { low?: number; high?: number } = {}): T[] {
    const value = this.any(name);
    if (!isList(value) || value.length < low || value.length > high) {
      throw this.#no(name, `is not a list of ${low} to ${high} items`);
    }
    return value.map(parse);
  }

  /** A sorted list of distinct names. */
  names(name: string, bounds: { low?: number; high?: number } = {}): string[] {
    const value = this.items(name, (item) => new Fields({ item }, `${this.#where}.${name}`).name("item"), bounds);
    if (value.some((one, n) => n > 0 && one <= (value[n - 1] ?? ""))) throw this.#no(name, "is not sorted and distinct");
    return value;
  }

  /** `parse` of the member, or `null` where it is `null`; the member must be there. */
  optional<T>(name: string, parse: (value: unknown) => T): T | null {
    const value = this.any(name);
    return value === null ? null : parse(value);
  }

  /** Refuse members that nobody read. */
  end(): void {
    const [left] = [...this.#left.keys()].sort();
    if (left !== undefined) {
      throw new StrongroomError("wire.bad_field", `${this.#where} has an unknown member ${quoted(first(left, 40))}`);
    }
  }
}

/** DSSE v1 pre-authentication encoding: the bytes that are signed. */
export function pae(payloadType: string, payload: Bytes): Bytes {
  const kind = utf8(payloadType);
  return concat(utf8(`DSSEv1 ${kind.length} `), kind, utf8(` ${payload.length} `), payload);
}

/** A DSSE envelope. **Untrusted**: nothing in it is checked until a key's `verify` has seen it. */
export class Envelope {
  readonly payloadType: string;
  readonly payload: Bytes;
  readonly signatures: readonly { readonly keyid: string; readonly sig: Bytes }[];

  constructor(value: unknown) {
    const f = new Fields(value, "envelope");
    this.payload = f.base64("payload");
    this.payloadType = f.text("payloadType", 128);
    this.signatures = f.items("signatures", readSignature, { high: 64 });
    f.end();
  }

  static parse(data: Bytes): Envelope {
    return new Envelope(decode(data, 2 * MAX_BYTES));
  }

  toJson(): Json {
    const signatures = this.signatures.map(({ keyid, sig }) => ({ keyid, sig: b64(sig) }));
    return { payload: b64(this.payload), payloadType: this.payloadType, signatures };
  }

  /** The payload's digest: a document's identity, whoever signed it. */
  async digest(): Promise<string> {
    return await digest(this.payload);
  }

  /** The payload, if the envelope is of this type. Throws `wire.bad_envelope`. */
  expect(payloadType: string): Bytes {
    if (this.payloadType !== payloadType) {
      const held = quoted(first(this.payloadType, 80));
      throw new StrongroomError("wire.bad_envelope", `the envelope holds ${held}, not ${quoted(payloadType)}`);
    }
    return this.payload;
  }
}

function readSignature(item: unknown): { keyid: string; sig: Bytes } {
  const f = new Fields(item, "signature");
  const found = { keyid: f.digest("keyid"), sig: f.base64("sig", 64) };
  f.end();
  if (found.sig.length !== 64) throw new StrongroomError("wire.bad_envelope", "a signature is not 64 bytes long");
  return found;
}

/** The payload type of one of our documents. */
export function mediaType(noun: string): string {
  return `application/vnd.strongroom.${noun}.v1+json`;
}

/** What `read` gives, or an error of another code in place of one of these families. */
export function instead<T>(read: () => T, families: readonly string[], code: Code, before: string): T {
  try {
    return read();
  } catch (error) {
    if (!isOurs(error, ...families)) throw error;
    throw new StrongroomError(code, `${before}${error.message}`, { cause: error });
  }
}

/** Whether two values have the same canonical form. */
export function equalJson(a: Json, b: Json): boolean {
  return equal(encode(a), encode(b));
}
