/**
 * Intel's quotes, versions 4 and 5: their layout, and the two signatures inside them that need nothing else.
 *
 * A quote is a header, a report of a trust domain (TD), and the signature of an *attestation key* over both. The *quoting
 * enclave* (QE) that holds the key has a report of its own, which hashes the key and which the processor's PCK signs. All
 * integers are little-endian. See `spec/evidence-intel.md`.
 */

import { type Bytes, concat, equal, isZero, little } from "./bytes.ts";
import { ecdsaKey, ecdsaVerifies, sha256 } from "./crypto.ts";
import { StrongroomError } from "./errors.ts";

const MAX_QUOTE_BYTES = 32 << 10; // without the padding
const MAX_PADDING_BYTES = 4 << 10;
const MAX_QE_AUTH_BYTES = 1 << 10;
export const PCK_CHAIN = 5; // certification data: certificates in PEM, the PCK's first
const QE_REPORT_DATA = 6; // certification data: the QE's report, and certification data of another type
const ECDSA_P256 = 2;
const ENCLAVE = 384;
const BODIES: ReadonlyMap<number, number> = new Map([
  [1, ENCLAVE],
  [2, 584],
  [3, 648],
]);
const TEES: ReadonlyMap<number, Tee> = new Map([
  [0x00, "SGX"],
  [0x81, "TDX"],
]);

export type Tee = "SGX" | "TDX";

const number = (data: Bytes) => Number(little(data));

/** The report of an SGX enclave: here of the quoting enclave. Fields as in the SDM's REPORT. */
export interface EnclaveReport {
  readonly miscSelect: Bytes;
  readonly attributes: Bytes;
  readonly mrsigner: Bytes;
  readonly isvProdId: number;
  readonly isvSvn: number;
  readonly reportData: Bytes;
  readonly debug: boolean;
}

function enclaveReport(body: Bytes): EnclaveReport {
  return {
    miscSelect: body.slice(16, 20),
    attributes: body.slice(48, 64),
    mrsigner: body.slice(128, 160),
    isvProdId: number(body.slice(256, 258)),
    isvSvn: number(body.slice(258, 260)),
    reportData: body.slice(320, 384),
    debug: ((body[48] ?? 0) & 0x02) !== 0,
  };
}

/** The report of a TDX trust domain, 1.0 or 1.5. Fields as in the TDX module's TDREPORT_STRUCT. */
export interface TdReport {
  readonly teeTcbSvn: Bytes;
  readonly mrseam: Bytes;
  readonly mrsignerseam: Bytes;
  readonly seamAttributes: Bytes;
  readonly attributes: Bytes;
  readonly xfam: Bytes;
  readonly mrtd: Bytes;
  readonly mrconfigid: Bytes;
  readonly mrowner: Bytes;
  readonly mrownerconfig: Bytes;
  readonly rtmrs: readonly Bytes[];
  readonly reportData: Bytes;
  readonly teeTcbSvn2: Bytes | null; // what the machine has now; null in a report 1.0
  readonly mrservicetd: Bytes | null;
}

function tdReport(body: Bytes): TdReport {
  const later = body.length === BODIES.get(3);
  return {
    teeTcbSvn: body.slice(0, 16),
    mrseam: body.slice(16, 64),
    mrsignerseam: body.slice(64, 112),
    seamAttributes: body.slice(112, 120),
    attributes: body.slice(120, 128),
    xfam: body.slice(128, 136),
    mrtd: body.slice(136, 184),
    mrconfigid: body.slice(184, 232),
    mrowner: body.slice(232, 280),
    mrownerconfig: body.slice(280, 328),
    rtmrs: [328, 376, 424, 472].map((at) => body.slice(at, at + 48)),
    reportData: body.slice(520, 584),
    teeTcbSvn2: later ? body.slice(584, 600) : null,
    mrservicetd: later ? body.slice(600, 648) : null,
  };
}

/** A quote, taken apart. **Untrusted**: who signed what is for `intel.ts` to find out. */
export interface Quote {
  readonly tee: Tee;
  readonly version: number;
  readonly bodyType: number; // 1 an enclave's report, 2 a TD's report 1.0, 3 a TD's report 1.5
  readonly signed: Bytes; // what the attestation key signed
  readonly td: TdReport; // means something only where `tee` is TDX
  readonly qeVendor: Bytes;
  readonly signature: Bytes; // `r ‖ s`
  readonly attestationKey: Bytes; // `x ‖ y` on P-256
  readonly qeReport: Bytes;
  readonly qe: EnclaveReport;
  readonly qeSignature: Bytes;
  readonly qeAuth: Bytes; // what the QE hashes into its report beside the key
  readonly certificationType: number;
  readonly certificationData: Bytes;
  readonly padding: number; // how many zero bytes follow
}

const bad = (why: string) => new StrongroomError("attest.bad_evidence", `not a quote of Intel's: ${why}`);

/** Takes a quote's fields one after another, and refuses to go past its end. */
class Reader {
  readonly #data: Bytes;
  at = 0;

  constructor(data: Bytes) {
    this.#data = data;
  }

  take(size: number, what: string): Bytes {
    if (size > this.#data.length - this.at) throw bad(`it ends within ${what}`);
    this.at += size;
    return this.#data.slice(this.at - size, this.at);
  }

  number(size: number, what: string): number {
    return number(this.take(size, what));
  }
}

function readHeader(header: Bytes): { version: number; tee: Tee } {
  const version = number(header.slice(0, 2));
  const keyType = number(header.slice(2, 4));
  const kind = number(header.slice(4, 8));
  const tee = TEES.get(kind);
  if (![3, 4, 5].includes(version)) throw bad(`its version is ${version}, where 3, 4 and 5 are known`);
  if (keyType !== ECDSA_P256) {
    throw bad(`its attestation key is of type ${keyType}, where only 2 (ECDSA P-256) is known`);
  }
  if (tee === undefined) throw bad(`its type of environment is 0x${kind.toString(16)}, neither SGX nor TDX`);
  if ((version === 3) !== (tee === "SGX")) {
    throw bad(`version ${version} is not for ${tee} here: SGX has version 3, TDX 4 and 5`);
  }
  return { version, tee };
}

/** What is signed of the report, its type, and the report. */
function readBody(reader: Reader, version: number): { bodyType: number; sizes: Bytes; body: Bytes } {
  if (version < 5) {
    const bodyType = version === 3 ? 1 : 2;
    return { bodyType, sizes: new Uint8Array(), body: reader.take(BODIES.get(bodyType) ?? 0, "its report") };
  }
  const type = reader.take(2, "its report's type");
  const size = reader.take(4, "its report's size");
  const bodyType = number(type);
  if (bodyType !== 2 && bodyType !== 3) throw bad(`its report is of type ${bodyType}, where 2 and 3 are known for TDX`);
  if (number(size) !== BODIES.get(bodyType)) throw bad(`a report of type ${bodyType} does not have ${number(size)} bytes`);
  return { bodyType, sizes: concat(type, size), body: reader.take(number(size), "its report") };
}

/** Take a quote apart. Every length must agree, and after it only zero bytes may come, at most 4 KiB. */
export function parseQuote(data: Bytes): Quote {
  if (data.length === 1024 && data[0] === 0x81) {
    throw bad("a raw TDREPORT, which nobody but its own machine can check; ask the quoting enclave for a quote");
  }
  if (data.length > MAX_QUOTE_BYTES + MAX_PADDING_BYTES) {
    throw bad(`longer than ${MAX_QUOTE_BYTES} bytes and ${MAX_PADDING_BYTES} of padding`);
  }
  const reader = new Reader(data);
  const header = reader.take(48, "its header");
  const { version, tee } = readHeader(header);
  const { bodyType, sizes, body } = readBody(reader, version);
  const end = reader.number(4, "its signature's size") + reader.at;
  const signature = reader.take(64, "its signature");
  const attestationKey = reader.take(64, "its attestation key");
  if (version > 3) {
    const kind = reader.number(2, "its certification data");
    const size = reader.number(4, "its certification data");
    if (kind !== QE_REPORT_DATA) throw bad(`its certification data is of type ${kind}, where version ${version} has 6`);
    if (reader.at + size !== end) throw bad("its certification data is not as long as it says");
  }
  const qeReport = reader.take(ENCLAVE, "its QE's report");
  const qeSignature = reader.take(64, "its QE's signature");
  const authSize = reader.number(2, "its QE's data");
  if (authSize > MAX_QE_AUTH_BYTES) throw bad(`its QE's data is longer than ${MAX_QE_AUTH_BYTES} bytes`);
  const qeAuth = reader.take(authSize, "its QE's data");
  const certificationType = reader.number(2, "its certification data");
  const certificationData = reader.take(reader.number(4, "its certification data"), "its certification data");
  if (reader.at !== end) throw bad("its signature is not as long as it says");
  if (end > MAX_QUOTE_BYTES) throw bad(`longer than ${MAX_QUOTE_BYTES} bytes`);
  const padding = data.length - end;
  if (padding > MAX_PADDING_BYTES || !isZero(data.subarray(end))) {
    throw bad(`${padding} bytes follow it, where only zero bytes may, at most ${MAX_PADDING_BYTES}`);
  }
  return {
    tee,
    version,
    bodyType,
    signed: concat(header, sizes, body),
    td: tdReport(body),
    qeVendor: header.slice(12, 28),
    signature,
    attestationKey,
    qeReport,
    qe: enclaveReport(qeReport),
    qeSignature,
    qeAuth,
    certificationType,
    certificationData,
    padding,
  };
}

/** Require an ECDSA P-256 SHA-256 signature `r ‖ s` of the key at a point. Throws `attest.forged`. */
export async function requireSignature(point: Bytes, signature: Bytes, data: Bytes, otherwise: string): Promise<void> {
  const key = await ecdsaKey("P-256", point);
  if (key === null || !(await ecdsaVerifies(key, "SHA-256", signature, data))) {
    throw new StrongroomError("attest.forged", otherwise);
  }
}

/** The point of a raw key `x ‖ y`. */
export function pointOf(raw: Bytes): Bytes {
  return concat(new Uint8Array([4]), raw);
}

/** Require that the QE's report hashes the attestation key. Throws `attest.forged`. */
export async function requireBound(quote: Quote): Promise<void> {
  const hash = await sha256(concat(quote.attestationKey, quote.qeAuth));
  if (!equal(quote.qe.reportData, concat(hash, new Uint8Array(32)))) {
    throw new StrongroomError("attest.forged", "the quoting enclave's report is of another attestation key");
  }
}
