/** The extension of a PCK certificate, in which Intel says which processor a key belongs to. */

import { type Bytes, concat, equal, unhex } from "./bytes.ts";
import { Der, type Element, integer, TAG } from "./der.ts";
import { isOurs, StrongroomError } from "./errors.ts";

export const PCK_EXTENSION = "1.2.840.113741.1.13.1";
export const COMPONENTS = 16; // of a processor, each with a security version

const OID = unhex("2a864886f84d010d01"); // PCK_EXTENSION's name, as DER writes it
const BAD = "the SGX extension of the PCK certificate is not DER, or has a member that is not known here, or one twice";

const bad = (why: string) => new StrongroomError("attest.bad_certificate", why);

/** Which processor a PCK belongs to, and its security versions. */
export interface PckExtension {
  readonly ppid: Bytes; // the processor's permanent identity
  readonly svns: readonly number[]; // the versions of its 16 components
  readonly pceSvn: number; // the version of its provisioning certification enclave (PCE)
  readonly pceId: Bytes;
  readonly fmspc: Bytes; // the kind of processor and platform
}

interface Member {
  readonly tag: number;
  readonly value: Bytes;
}

/** A sequence's members, each a pair of an object identifier and a value, by the last part of the identifier. */
function members(data: Bytes, prefix: readonly number[] = []): Map<number, Member> {
  const name = concat(OID, new Uint8Array(prefix));
  const found = new Map<number, Member>();
  try {
    for (const all = new Der(data); !all.done; ) {
      const pair = all.inside(TAG.sequence, "a member");
      const { tag, value: oid } = pair.any();
      const number = oid.at(-1);
      const value = pair.any();
      pair.end("a member");
      if (tag !== TAG.oid || number === undefined || !equal(oid.slice(0, -1), name) || found.has(number)) throw bad(BAD);
      found.set(number, value);
    }
  } catch (error) {
    throw isOurs(error) ? bad(BAD) : error;
  }
  return found;
}

function value(of: ReadonlyMap<number, Member>, number: number, tag: number, size: number | null): Bytes {
  const found = of.get(number);
  if (found?.tag !== tag || (size !== null && found.value.length !== size)) {
    throw bad(`the SGX extension of the PCK certificate lacks its member ${number}, or has it in another form`);
  }
  return found.value;
}

function number(of: ReadonlyMap<number, Member>, place: number, most: number): number {
  const contents = value(of, place, TAG.integer, null);
  const found = integer({ tag: TAG.integer, value: contents, der: contents });
  if (found < 0n || found > BigInt(most)) {
    throw bad("a number in the SGX extension of the PCK certificate is out of range");
  }
  return Number(found);
}

/** The contents of the one sequence that the extension is. */
function whole(data: Bytes): Bytes {
  let found: Element;
  const der = new Der(data);
  try {
    found = der.any();
  } catch (error) {
    throw isOurs(error) ? bad(BAD) : error;
  }
  if (found.tag !== TAG.sequence || !der.done) {
    throw bad("the SGX extension of the PCK certificate is not one sequence");
  }
  return found.value;
}

/** Throws `attest.bad_certificate`. */
export function parsePckExtension(data: Bytes): PckExtension {
  const found = members(whole(data));
  const tcb = members(value(found, 2, TAG.sequence, null), [2]);
  const configuration = found.has(7) ? members(value(found, 7, TAG.sequence, null), [7]) : new Map<number, Member>();
  const read: PckExtension = {
    ppid: value(found, 1, TAG.octets, 16),
    svns: Array.from({ length: COMPONENTS }, (_, n) => number(tcb, n + 1, 0xff)),
    pceSvn: number(tcb, 17, 0xffff),
    pceId: value(found, 3, TAG.octets, 2),
    fmspc: value(found, 4, TAG.octets, 6),
  };
  value(found, 5, TAG.enumerated, 1); // its kind, which no check reads
  if (configuration.has(3)) value(configuration, 3, TAG.boolean, 1); // hyper-threading, likewise
  return read;
}
