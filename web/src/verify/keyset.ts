/**
 * The keyset: an enclave's identity under ACI (`aci/1`), the statement that binds it to a nonce, and the report of both.
 *
 * Everything here is **untrusted** until `appraise` has found it bound into evidence. See `spec/attestation.md`.
 */

import { type Bytes, concat, hex, quoted, unhex } from "./bytes.ts";
import { digest, sha256 } from "./crypto.ts";
import { isOurs, StrongroomError } from "./errors.ts";
import {
  type Endorsement,
  type Evidence,
  endorsementsFromJson,
  MAX_EVIDENCE_BYTES,
  REPORT_DATA_BYTES,
  readEvidence,
} from "./evidence.ts";
import { ENCRYPTION_KEY_BYTES, requireEncryptionKey, VerifyKey } from "./party.ts";
import { decode, encode, Fields, type Json, matches } from "./wire.ts";

export const API_VERSION = "aci/1";
export const NONCE_BYTES = 32;
const MAX_ENTRIES = 16;
const MAX_KEY_BYTES = 4096;

const RUN_RECEIPT = "strongroom-run-receipt-ed25519";
const DEVICE_BINDING = "strongroom-device-binding-ed25519";
const RELEASE = "strongroom-release-mlkem768-x25519";
const INFERENCE_RECEIPT = "ed25519"; // ACI's own name for it
const CHAT_SIGNATURE = "strongroom-chat-signature-ed25519";
const EHBP = "strongroom-ehbp-x25519-hkdf-sha256-aes-256-gcm";

const LABEL = /^[!-~]{1,128}$/; // printable ASCII without spaces
const KEY = /^(?:[0-9a-f]{2})+$/;
const SPKI_HEADS = [unhex("302a300506032b6570032100"), unhex("302a300506032b656e032100")]; // Ed25519, X25519 (RFC 8410)

const bad = (why: string) => new StrongroomError("attest.bad_keyset", why);

/** One public key of a keyset: its `algo` is its role. */
interface KeyEntry {
  readonly keyId: string;
  readonly algo: string;
  readonly raw: Bytes;
}

function readEntry(value: unknown): KeyEntry {
  const f = new Fields(value, "key entry");
  const [keyId, algo, key] = [f.text("key_id"), f.text("algo"), f.text("public_key", 2 * MAX_KEY_BYTES)];
  if (!matches(LABEL, keyId) || !matches(LABEL, algo)) {
    throw bad("a key's id or algo is not 1 to 128 printable ASCII characters");
  }
  if (!matches(KEY, key)) throw bad(`the key ${quoted(keyId)} is not lowercase hex of 1 to ${MAX_KEY_BYTES} bytes`);
  f.end();
  return { keyId, algo, raw: unhex(key) };
}

interface TlsKey {
  readonly spki: string;
  readonly domain: string | null;
}

function readTlsKey(value: unknown): TlsKey {
  const f = new Fields(value, "TLS key");
  const spki = hex(f.hex("spki_sha256", 32));
  const domain = f.has("domain") ? f.text("domain", 253) : null;
  f.end();
  if (domain === "") throw bad("a TLS key's domain is not 1 to 253 characters long");
  return { spki, domain };
}

/** The keys of an entry, each part of a hybrid one counted: none of them may have another role. */
function roleKeys(entry: KeyEntry): readonly Bytes[] {
  if (entry.algo !== RELEASE || entry.raw.length !== ENCRYPTION_KEY_BYTES) return [entry.raw];
  return [entry.raw, entry.raw.slice(0, -32), entry.raw.slice(-32)];
}

const distinct = (items: readonly string[]) => new Set(items).size === items.length;

/** An enclave's public keys with their expiry (ACI section 3.1). */
export class Keyset {
  readonly notAfter: number;
  readonly digest: string; // `workload_keyset_digest`
  readonly subject: string | null; // a name that means nothing by itself
  readonly #receiptKeys: readonly KeyEntry[];
  readonly #e2eeKeys: readonly KeyEntry[];

  private constructor(
    members: Pick<Keyset, "notAfter" | "digest" | "subject">,
    receiptKeys: readonly KeyEntry[],
    e2eeKeys: readonly KeyEntry[],
  ) {
    this.notAfter = members.notAfter;
    this.digest = members.digest;
    this.subject = members.subject;
    this.#receiptKeys = receiptKeys;
    this.#e2eeKeys = e2eeKeys;
  }

  /** Throws `wire.bad_field`, `attest.bad_keyset`. */
  static async fromJson(value: unknown): Promise<Keyset> {
    const f = new Fields(value, "keyset");
    const notAfter = f.integer("not_after");
    const receiptKeys = f.items("receipt_signing_keys", readEntry, { high: MAX_ENTRIES });
    const e2eeKeys = f.items("e2ee_public_keys", readEntry, { high: MAX_ENTRIES });
    const tls = f.items("tls_public_keys", readTlsKey, { high: MAX_ENTRIES });
    const subject = f.optional("subject", (named) => new Fields({ subject: named }, "keyset").text("subject", 256));
    const entries = [...receiptKeys, ...e2eeKeys];
    if (!distinct(entries.map((entry) => entry.keyId))) throw bad("a keyset has the same key_id twice");
    const keys = entries.flatMap(roleKeys);
    if (!distinct(keys.map(hex))) throw bad("a keyset has the same public key twice: one key per role");
    if (!distinct(tls.map((key) => `${key.spki} ${key.domain ?? ""}`))) throw bad("a keyset has the same TLS key twice");
    const spki = await Promise.all(keys.flatMap((key) => SPKI_HEADS.map((head) => sha256(concat(head, key)))));
    if (tls.some((key) => spki.some((one) => hex(one) === key.spki))) {
      throw bad("a keyset's TLS key has another role too");
    }
    const signs = [RUN_RECEIPT, DEVICE_BINDING, CHAT_SIGNATURE];
    if (receiptKeys.some((entry) => entry.algo === RELEASE) || e2eeKeys.some((entry) => signs.includes(entry.algo))) {
      throw bad("a keyset lists a key under a role that is not the key's own");
    }
    f.end();
    return new Keyset({ notAfter, digest: await digest(encode(value as Json)), subject }, receiptKeys, e2eeKeys);
  }

  static async parse(data: Bytes): Promise<Keyset> {
    return await Keyset.fromJson(decode(data, MAX_EVIDENCE_BYTES));
  }

  /** The run-receipt key and the release key are usable (A9); this page uses neither. Throws `attest.bad_keyset`. */
  requireRoles(): void {
    usable("the run-receipt key", () => new VerifyKey(one(this.#receiptKeys, RUN_RECEIPT)));
    usable("the release key", () => requireEncryptionKey(one(this.#e2eeKeys, RELEASE)));
  }

  /** The key of this id, if it signs ACI receipts, and nothing else (ACI section 7.2). Throws `attest.bad_keyset`. */
  inferenceReceiptKey(keyId: string): VerifyKey {
    const [found, ...more] = this.#receiptKeys.filter((entry) => entry.keyId === keyId);
    if (!found || more.length > 0 || found.algo !== INFERENCE_RECEIPT) {
      throw bad(`the keyset has no key ${quoted(keyId)} for ACI receipts`);
    }
    return usable(`the key ${quoted(keyId)}`, () => new VerifyKey(found.raw));
  }

  /** The raw X25519 key to which requests are encrypted. Throws `attest.bad_keyset` where there is not exactly one. */
  get requestKey(): Bytes {
    return one(this.#e2eeKeys, EHBP);
  }
}

function one(entries: readonly KeyEntry[], algo: string): Bytes {
  const [found, ...more] = entries.filter((entry) => entry.algo === algo);
  if (!found || more.length > 0) throw bad(`a keyset has ${found ? 1 + more.length : 0} keys for ${algo}, not one`);
  return found.raw;
}

function usable<T>(what: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!isOurs(error, "party")) throw error;
    throw new StrongroomError("attest.bad_keyset", `${what} is unusable: ${error.message}`, { cause: error });
  }
}

/** The bytes that bind a keyset to a nonce (ACI section 3.2). */
export function statement(keysetDigest: string, nonce: Bytes | null): Bytes {
  if (nonce !== null && nonce.length !== NONCE_BYTES) {
    throw new StrongroomError("attest.bad_nonce", `a nonce is not ${NONCE_BYTES} bytes long`);
  }
  return encode({ keyset_digest: keysetDigest, nonce: nonce && hex(nonce), purpose: "aci.report_data.v1" });
}

/** The 64 bytes for the platform's slot: SHA-256 of the statement, then 32 zeros. */
export async function reportData(keysetDigest: string, nonce: Bytes | null): Promise<Bytes> {
  return concat(await sha256(statement(keysetDigest, nonce)), new Uint8Array(REPORT_DATA_BYTES - 32));
}

/** The body of `GET /v1/aci/attestation` (ACI section 4.1). **Untrusted**: only `appraise` makes anything of it. */
export interface AttestationReport {
  readonly keyset: Keyset;
  readonly evidence: Evidence;
  readonly endorsements: readonly Endorsement[];
}

/** Read a report. Throws `wire.…`, `attest.bad_keyset`, `attest.bad_evidence`. */
export async function parseReport(data: Bytes): Promise<AttestationReport> {
  const f = new Fields(decode(data), "report");
  f.literal("api_version", API_VERSION);
  const attestation = new Fields(f.any("attestation"), "attestation");
  const evidence = new Fields(attestation.any("evidence"), "evidence");
  const capabilities = new Fields(f.any("service_capabilities"), "service_capabilities");
  const keyset = await Keyset.fromJson(attestation.any("workload_keyset"));
  attestation.hex("report_data", 32); // a copy for people, which no check uses
  const found = {
    keyset,
    evidence: readEvidence(attestation.text("tee_type", 64), evidence),
    endorsements: endorsementsFromJson(evidence.any("endorsements")),
  };
  readProvenance(attestation.any("source_provenance"));
  const version = (item: unknown) => new Fields({ version: item }, "service_capabilities").text("version");
  capabilities.items("supported_e2ee_versions", version, { high: 8 });
  capabilities.choice("serving", ["direct", "aggregator"]);
  if (f.digest("workload_keyset_digest") !== keyset.digest) throw bad("the report's keyset digest is not its keyset's");
  for (const read of [evidence, attestation, capabilities, f]) read.end();
  return found;
}

/** Where the code is said to come from: not bound into the evidence, and no check uses it. */
function readProvenance(value: unknown): void {
  const f = new Fields(value, "source_provenance");
  for (const name of ["repo_url", "repo_commit", "image_digest"]) {
    f.optional(name, (item) => new Fields({ [name]: item }, "source_provenance").text(name, 512));
  }
  if (f.any("image_provenance") !== null) {
    throw new StrongroomError("wire.bad_field", "source_provenance.image_provenance is not null");
  }
  f.end();
}
