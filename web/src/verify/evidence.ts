/** What a platform says about an enclave, before anybody has checked it; and what a verified platform hands on. */

import { type Bytes, b64, hex } from "./bytes.ts";
import { digest } from "./crypto.ts";
import { StrongroomError } from "./errors.ts";
import { VerifyKey } from "./party.ts";
import type { Steps, Transcript } from "./transcript.ts";
import type { TrustVector } from "./vector.ts";
import { encode, Fields, isList, type Json, matches } from "./wire.ts";

export const MAX_EVIDENCE_BYTES = 256 << 10;
const MAX_EVENT_LOG_BYTES = 1 << 20;
const MAX_DEVICES = 16;
const MAX_BINDING_BYTES = 64 << 10;
const MAX_ENDORSEMENT_BYTES = 1 << 20;
const MAX_ENDORSEMENTS = 64;
export const REPORT_DATA_BYTES = 64;
export const FOREVER = Number.MAX_SAFE_INTEGER; // of what has no end

export const PLATFORM_NAME = /^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$/;
const REGISTER = /^[a-z0-9][a-z0-9_]{0,31}$/;
const VALUE = /^(?:sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96})$/;
const ROOT = /^sha256:[0-9a-f]{64}$/;

/** What a platform signed. **Untrusted**, all of it: `platform` says only which verifier to ask. */
export interface Evidence {
  readonly platform: string;
  readonly data: Bytes;
  readonly eventLog: Bytes; // empty where there is none
  readonly devices: readonly Evidence[];
  readonly deviceBinding: Bytes;
}

/** Read the members beside the platform's name. Throws `wire.bad_field`, `attest.bad_evidence`. */
export function readEvidence(platform: string, f: Fields): Evidence {
  const found: Evidence = {
    platform,
    data: f.base64("data", MAX_EVIDENCE_BYTES),
    eventLog: present(f, "event_log", MAX_EVENT_LOG_BYTES),
    devices: f.has("devices") ? f.items("devices", evidenceFromJson, { low: 1, high: MAX_DEVICES }) : [],
    deviceBinding: present(f, "device_binding", MAX_BINDING_BYTES),
  };
  if (!matches(PLATFORM_NAME, platform)) {
    throw new StrongroomError("attest.bad_evidence", "the evidence does not name a platform");
  }
  if (found.devices.some((device) => device.devices.length > 0 || device.eventLog.length > 0)) {
    const said = `more than ${MAX_DEVICES} devices, or one with devices or an event log of its own`;
    throw new StrongroomError("attest.bad_evidence", said);
  }
  if (found.devices.length > 0 !== found.deviceBinding.length > 0) {
    throw new StrongroomError("attest.bad_evidence", "devices without what binds them, or the other way round");
  }
  return found;
}

export function evidenceFromJson(value: unknown): Evidence {
  const f = new Fields(value, "evidence");
  const found = readEvidence(f.text("platform", 64), f);
  f.end();
  return found;
}

/** The bytes of a member that may be left out, but may not be empty. */
function present(f: Fields, name: string, most: number): Bytes {
  if (!f.has(name)) return new Uint8Array();
  const found = f.base64(name, most);
  if (found.length === 0) {
    throw new StrongroomError("wire.bad_field", `evidence.${name} is empty; it is left out instead`);
  }
  return found;
}

/** A document that vouches for a platform's key. **Untrusted** until a pinned root verifies it. */
export interface Endorsement {
  readonly mediaType: string;
  readonly data: Bytes;
}

export function endorsementsFromJson(value: unknown): readonly Endorsement[] {
  return new Fields({ endorsements: value }, "evidence").items(
    "endorsements",
    (item) => {
      const f = new Fields(item, "endorsement");
      const found = { mediaType: f.mediaType("media_type"), data: f.base64("data", MAX_ENDORSEMENT_BYTES) };
      f.end();
      return found;
    },
    { high: MAX_ENDORSEMENTS },
  );
}

/** What runs, as digests. Two measurements are the same exactly when every register is. */
export class Measurement {
  readonly platform: string;
  readonly registers: Readonly<Record<string, string>>;

  constructor(platform: string, registers: Readonly<Record<string, string>>) {
    const bad = (why: string) => new StrongroomError("attest.bad_measurement", why);
    const names = Object.keys(registers);
    if (!matches(PLATFORM_NAME, platform)) throw bad("a measurement does not name a platform");
    if (names.length < 1 || names.length > 32) throw bad("a measurement does not have 1 to 32 registers");
    for (const [name, value] of Object.entries(registers)) {
      if (!matches(REGISTER, name) || !matches(VALUE, value)) {
        throw bad(`register '${name.slice(0, 32)}' of a measurement is not a digest`);
      }
    }
    this.platform = platform;
    this.registers = registers;
  }

  static fromJson(value: unknown): Measurement {
    const f = new Fields(value, "measurement");
    const platform = f.name("platform");
    const registers = f.any("registers");
    f.end();
    if (typeof registers !== "object" || registers === null || isList(registers)) throw notDigests();
    if (!Object.values(registers).every((one) => typeof one === "string")) throw notDigests();
    return new Measurement(platform, registers as Record<string, string>);
  }

  toJson(): { readonly platform: string; readonly registers: Readonly<Record<string, string>> } {
    return { platform: this.platform, registers: this.registers };
  }

  /** The canonical form, by which measurements are compared and sorted. */
  encode(): Bytes {
    return encode(this.toJson());
  }

  async digest(): Promise<string> {
    return await digest(this.encode());
  }
}

function notDigests(): StrongroomError {
  return new StrongroomError("attest.bad_measurement", "a measurement's registers are not an object of digests");
}

/** What a verifier pins for one platform. Empty, it accepts nothing. */
export class Roots {
  readonly keys: readonly VerifyKey[]; // raw Ed25519 root keys (`simulated`)
  readonly certificates: readonly string[]; // digests of root certificates' SubjectPublicKeyInfo (every other platform)

  constructor(keys: readonly VerifyKey[] = [], certificates: readonly string[] = []) {
    if (!certificates.every((one) => matches(ROOT, one))) {
      throw new StrongroomError("wire.bad_field", "a pinned root certificate is not the sha256: digest of its key");
    }
    const byBytes = new Map(keys.map((key) => [hex(key.raw), key]));
    this.keys = [...byBytes].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, key]) => key);
    this.certificates = [...new Set(certificates)].sort();
  }

  static fromJson(value: unknown): Roots {
    const where = "appraisal policy";
    const texts = new Fields({ roots: value }, where).items(
      "roots",
      (root) => new Fields({ root }, where).text("root", 128),
      { high: 64 },
    );
    const digests = texts.filter((one) => one.startsWith("sha256:"));
    const raw = texts.filter((one) => !one.startsWith("sha256:"));
    return new Roots(
      raw.map((root) => new VerifyKey(new Fields({ root }, where).base64("root", 32))),
      digests,
    );
  }

  toJson(): Json {
    return [...this.keys.map((key) => b64(key.raw)), ...this.certificates];
  }
}

/** What a platform's verifier found signed, alike for every platform. */
export interface Verified {
  readonly reportData: Bytes;
  readonly measurement: Measurement;
  readonly debug: boolean; // whether the enclave's memory may be read by its host
  readonly producedAt: number | null; // unix seconds by the platform's clock; null where it has none
  readonly validUntil: number; // the last second at which every endorsement used is valid
  readonly collateral: readonly string[]; // digests of the endorsements used
  readonly vector: TrustVector;
  readonly machine: string | null; // `kind:hex`
}

/** What each platform is: its label, its numbered checks, whether evidence is genuine, and whether it meets the terms. */
export interface Platform<V extends Verified = Verified, T = unknown> {
  readonly label: string;
  readonly steps: Steps;
  readonly termsSteps: Steps | null; // null where a platform has no terms
  readTerms(value: unknown): T;
  writeTerms(terms: T): Json;
  readonly strictTerms: T; // where the policy says nothing
  /** Records every step; throws a StrongroomError for the first check that did not pass, which it has recorded. */
  verify(
    evidence: Evidence,
    endorsements: readonly Endorsement[],
    roots: Roots,
    at: number,
    transcript: Transcript,
  ): Promise<V>;
  /** Records every term, passed or failed, and says what can be claimed. */
  judge(verified: V, terms: T, at: number, transcript: Transcript): TrustVector;
  /** The last second at which terms that were met tolerate what is not as it should be; `FOREVER` where nothing is so. */
  toleratedUntil(verified: V, terms: T): number;
}
