/**
 * Other systems' JSON: any spelling, fractions allowed, a member twice refused.
 *
 * `JSON.parse` keeps the last of two members of one name and rounds large integers; what a vendor signed must be read as it
 * stands. Integers that a number cannot hold are bigints, and what has a fraction or an exponent is a `Fraction`, which is
 * no integer even where its value is whole.
 */

import { text } from "./bytes.ts";
import { StrongroomError } from "./errors.ts";

const MAX_NUMBER_CHARS = 40;
const MAX_DEPTH = 512; // of nesting; deeper than any vendor's, and no deeper than the stack

/** A number with a fraction or an exponent, as it was written. */
export class Fraction {
  readonly spelled: string;
  constructor(spelled: string) {
    this.spelled = spelled;
  }
}

export type Foreign = null | boolean | number | bigint | Fraction | string | Foreign[] | ReadonlyMap<string, Foreign>;

const NUMBER = /-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/y;
// biome-ignore lint/suspicious/noControlCharactersInRegex: JSON forbids them in strings
const STRING = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}))*"/y;
const SPACE = /[ \t\n\r]*/y;

class Reader {
  readonly #text: string;
  #at = 0;

  constructor(said: string) {
    this.#text = said;
  }

  whole(): Foreign {
    const found = this.value(0);
    this.match(SPACE);
    if (this.#at !== this.#text.length) throw new SyntaxError("bytes after the end");
    return found;
  }

  match(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text);
    if (found) this.#at = pattern.lastIndex;
    return found;
  }

  take(literal: string): boolean {
    this.match(SPACE);
    if (!this.#text.startsWith(literal, this.#at)) return false;
    this.#at += literal.length;
    return true;
  }

  value(depth: number): Foreign {
    if (depth > MAX_DEPTH) throw new SyntaxError("nested too deeply");
    if (this.take("null")) return null;
    if (this.take("true")) return true;
    if (this.take("false")) return false;
    if (this.take("[")) return this.list(depth);
    if (this.take("{")) return this.object(depth);
    return this.string() ?? this.number();
  }

  string(): string | null {
    this.match(SPACE);
    const found = this.match(STRING);
    return found && (JSON.parse(found[0]) as string);
  }

  number(): Foreign {
    const found = this.match(NUMBER);
    if (!found || found[0].length > MAX_NUMBER_CHARS) throw new SyntaxError("no value, or too long a number");
    const [spelled, fraction, exponent] = found;
    if (fraction !== undefined || exponent !== undefined) {
      if (!Number.isFinite(Number(spelled))) throw new SyntaxError("a number is too large");
      return new Fraction(spelled);
    }
    const number = Number(spelled);
    return Number.isSafeInteger(number) ? number : BigInt(spelled);
  }

  list(depth: number): Foreign[] {
    const found: Foreign[] = [];
    if (this.take("]")) return found;
    do found.push(this.value(depth + 1));
    while (this.take(","));
    if (!this.take("]")) throw new SyntaxError("a list does not end");
    return found;
  }

  object(depth: number): Map<string, Foreign> {
    const found = new Map<string, Foreign>();
    if (this.take("}")) return found;
    do {
      const name = this.string();
      if (name === null || !this.take(":") || found.has(name)) throw new SyntaxError("no member, or one twice");
      found.set(name, this.value(depth + 1));
    } while (this.take(","));
    if (!this.take("}")) throw new SyntaxError("an object does not end");
    return found;
  }
}

/** Parse foreign JSON. Throws `wire.too_large`, `wire.not_json`. */
export function loads(data: Uint8Array, maxBytes = 4 << 20): Foreign {
  requireBounds(data, maxBytes);
  try {
    return new Reader(text(data)).whole();
  } catch (error) {
    const said = "the bytes are not JSON in UTF-8, hold a member twice or a number that is too long";
    throw new StrongroomError("wire.not_json", said, { cause: error });
  }
}

/** The limits on bytes and values that hold for every JSON that is read. Throws `wire.too_large`. */
export function requireBounds(data: Uint8Array, maxBytes: number): void {
  if (data.length > maxBytes) {
    throw new StrongroomError("wire.too_large", `${data.length} bytes where at most ${maxBytes} are allowed`);
  }
  const most = Math.max(1 << 15, Math.floor(maxBytes / 128));
  let found = 0;
  for (const byte of data) if (byte === 0x2c || byte === 0x5b || byte === 0x7b) found++;
  if (found > most) throw new StrongroomError("wire.too_large", `more than ${most} values`);
}
