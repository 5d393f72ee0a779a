/** Distinguished names (RFC 5280 section 4.1.2.4): compared, and shown to people. */

import { type Bytes, equal, first } from "./bytes.ts";
import { Der, type Element, oid, string, TAG } from "./der.ts";
import { StrongroomError } from "./errors.ts";

const MAX_NAME_BYTES = 4096;
const MAX_SHOWN_NAME = 256;
const COMMON_NAME = "2.5.4.3";
const SHORT_NAMES: ReadonlyMap<string, string> = new Map([
  [COMMON_NAME, "CN"],
  ["2.5.4.6", "C"],
  ["2.5.4.7", "L"],
  ["2.5.4.8", "ST"],
  ["2.5.4.9", "STREET"],
  ["2.5.4.10", "O"],
  ["2.5.4.11", "OU"],
  ["0.9.2342.19200300.100.1.25", "DC"],
  ["0.9.2342.19200300.100.1.1", "UID"],
]);

const bad = (why: string) => new StrongroomError("attest.bad_certificate", why);

/** A distinguished name: sets of pairs of a kind and a text. */
export class Name {
  readonly der: Bytes;
  readonly #parts: readonly (readonly (readonly [string, string])[])[];

  constructor(element: Element) {
    if (element.tag !== TAG.sequence) throw bad("a name in it is none");
    if (element.der.length > MAX_NAME_BYTES) throw bad(`a name in it is longer than ${MAX_NAME_BYTES} bytes`);
    this.der = element.der;
    const parts: [string, string][][] = [];
    for (const all = new Der(element.value); !all.done; ) {
      const set: [string, string][] = [];
      for (const some = all.inside(TAG.set, "a part of a name"); !some.done; ) {
        const pair = some.inside(TAG.sequence, "a part of a name");
        set.push([oid(pair.any()), string(pair.any())]);
        pair.end("a part of a name");
      }
      if (set.length === 0) throw bad("a part of a name in it is empty");
      parts.push(set);
    }
    this.#parts = parts;
  }

  /** Alike when each part has the same kinds with the same texts, however they are encoded. */
  equals(other: Name): boolean {
    const flat = (name: Name) => JSON.stringify(name.#parts.map((set) => set.map((pair) => JSON.stringify(pair)).sort()));
    return equal(this.der, other.der) || flat(this) === flat(other);
  }

  /** For people, on one line (RFC 4514): whoever made the certificate chose it. */
  get shown(): string {
    const said = this.#parts
      .toReversed()
      .map((set) => set.map(([kind, value]) => `${SHORT_NAMES.get(kind) ?? kind}=${escaped(value)}`).join("+"))
      .join(",");
    const cut = first(said, MAX_SHOWN_NAME).replace(/[\p{C}\p{Z}]/gu, (c) => (c === " " ? c : "?"));
    return first(said, MAX_SHOWN_NAME) === said ? cut : `${cut}…`;
  }

  get commonName(): string {
    const found = this.#parts.flat().filter(([kind]) => kind === COMMON_NAME);
    return found.length === 1 ? (found[0]?.[1] ?? "") : "";
  }
}

function escaped(value: string): string {
  const found = value.replace(/[\\"+,;<>]/g, (c) => `\\${c}`).replaceAll("\0", "\\00");
  const begun = /^[# ]/.test(found) ? `\\${found}` : found;
  return begun.endsWith(" ") && begun !== "\\ " ? `${begun.slice(0, -1)}\\ ` : begun;
}
