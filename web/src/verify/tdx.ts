/**
 * Intel TDX: a trust domain (TD), measured by the TDX module, quoted with a key that Intel's PCK vouches for.
 *
 * See `spec/evidence-intel.md`; the checks Q1 to Q20 (`intel.ts`) and T1 to T11 are numbered as there.
 */

import { type Bytes, hex, isZero, little, unhex } from "./bytes.ts";
import type { TdReport } from "./dcap.ts";
import { StrongroomError } from "./errors.ts";
import {
  type Endorsement,
  type Evidence,
  FOREVER,
  Measurement,
  type Platform,
  type Roots,
  type Verified,
} from "./evidence.ts";
import { namedAdvisories, type Processor, STEPS, verifyQuote } from "./intel.ts";
import { STATUSES, type TcbStatus } from "./intel_collateral.ts";
import { Steps, type Transcript } from "./transcript.ts";
import { AFFIRMED, KNOWN_VULNERABLE, NO_CLAIMS, type TrustVector, UNACCEPTABLE } from "./vector.ts";
import { equalJson, Fields, type Json, matches } from "./wire.ts";

const PLATFORM = "tdx";
const TERMS_STEPS = new Steps("T", [
  "the status of the TCB is an accepted one",
  "every advisory that touches it is tolerated at the time in question",
  "Intel's evaluation of the TCB is recent enough",
  "the host cannot inject exceptions at private pages (SEPT_VE_DISABLE)",
  "no migration TD can move the TD elsewhere (MIGRATABLE)",
  "the TD does not use the performance counters that it shares with its host (PERFMON)",
  "no other attribute of the TD is set but those that the terms name",
  "the extended features of the processor are as the terms ask (XFAM)",
  "the TDX module is an accepted one (MRSEAM)",
  "the TDX module is signed by Intel (MRSIGNERSEAM)",
  "no service TD is bound to the TD but an accepted one (MRSERVICETD)",
]);

const ANY_MODULE = "any-module"; // said in words: an empty list accepts none
const MAX_ADVISORIES = 1024;
const MAX_MEASUREMENTS = 256;
const ADVISORY = /^INTEL-[A-Z]{2,8}-\d{1,8}$/;

// Bits of TD attributes by name (TDX Module ABI, TD_ATTRIBUTES). The first byte is TUD: A4 refuses any bit of it.
const TUD = 0xffn;
const bit = (n: number) => 1n << BigInt(n);
const [SEPT_VE_DISABLE, MIGRATABLE, PERFMON] = [bit(28), bit(29), bit(63)];
const ATTRIBUTES: ReadonlyMap<string, bigint> = new Map([
  ["icssd", bit(16)],
  ["kl", bit(31)],
  ["lass", bit(27)],
  ["migratable", MIGRATABLE],
  ["perfmon", PERFMON],
  ["pks", bit(30)],
  ["tpa", bit(62)],
]);

/** What must hold of the processor and the TD, beyond that the quote is genuine. */
interface Terms {
  readonly json: Json;
  readonly statuses: ReadonlySet<TcbStatus>;
  readonly advisories: ReadonlyMap<string, number>; // to the last second at which each is tolerated; none else is
  readonly evaluationFloor: number;
  readonly septVeDisable: boolean; // whether exceptions at private pages must be switched off
  readonly attributes: ReadonlySet<string>; // that may be set; no other may
  readonly xfamRequired: bigint;
  readonly xfamAllowed: bigint;
  readonly mrseam: ReadonlySet<string> | null; // accepted TDX modules, hex; null for any
  readonly mrservicetd: ReadonlySet<string>; // accepted service TDs, hex; none needs not to be listed
}

const STRICT = {
  advisories: {},
  attributes: [],
  mrseam: ANY_MODULE,
  mrservicetd: [],
  sept_ve_disable: true,
  statuses: ["UpToDate"],
  tcb_evaluation_floor: 17,
  xfam_allowed: "e75a060000000000",
  xfam_required: "0300000000000000",
};

/** Every member must be there; lists are sorted and distinct; an empty list accepts nothing. Throws `wire.bad_field`. */
function readTerms(value: unknown): Terms {
  const where = "terms of tdx";
  const bad = (why: string) => new StrongroomError("wire.bad_field", `${where}${why}`);
  const f = new Fields(value, where);
  const mrseam = f.any("mrseam");
  const status = (one: unknown) => new Fields({ status: one }, "terms.statuses").choice("status", STATUSES);
  const statuses = new Set(f.items("statuses", status, { high: STATUSES.length }));
  const advisories = readAdvisories(f.any("advisories"));
  const evaluationFloor = f.integer("tcb_evaluation_floor", { high: 0xffff });
  const septVeDisable = f.boolean("sept_ve_disable");
  const attributes = new Set(f.names("attributes", { high: ATTRIBUTES.size }));
  const xfamRequired = little(f.hex("xfam_required", 8));
  const xfamAllowed = little(f.hex("xfam_allowed", 8));
  const modules = mrseam === ANY_MODULE ? null : readMeasurements(mrseam, "mrseam");
  const mrservicetd = readMeasurements(f.any("mrservicetd"), "mrservicetd");
  if (statuses.has("Revoked")) throw bad(".statuses names Revoked, which nothing can make acceptable");
  if (advisories.size > MAX_ADVISORIES || ![...advisories.keys()].every((one) => matches(ADVISORY, one))) {
    throw bad(`.advisories has more than ${MAX_ADVISORIES} members, or one that is no advisory of Intel's`);
  }
  if (![...attributes].every((one) => ATTRIBUTES.has(one))) {
    throw bad(`.attributes names what is none of ${[...ATTRIBUTES.keys()].join(", ")}`);
  }
  f.end();
  const json: Json = {
    advisories: Object.fromEntries(advisories),
    attributes: [...attributes].sort(),
    mrseam: modules === null ? ANY_MODULE : digests(modules),
    mrservicetd: digests(mrservicetd),
    sept_ve_disable: septVeDisable,
    statuses: [...statuses].sort(),
    tcb_evaluation_floor: evaluationFloor,
    xfam_allowed: hex(littleBytes(xfamAllowed)),
    xfam_required: hex(littleBytes(xfamRequired)),
  };
  if (!equalJson(json, value as Json)) throw bad(": a list is not sorted and distinct");
  const rest = { septVeDisable, attributes, xfamRequired, xfamAllowed, mrseam: modules, mrservicetd };
  return { json, statuses, advisories, evaluationFloor, ...rest };
}

function readAdvisories(value: unknown): Map<string, number> {
  const f = new Fields(value, "terms.advisories");
  return new Map(Object.keys(value as object).map((one) => [one, f.integer(one)]));
}

function readMeasurements(value: unknown, name: string): ReadonlySet<string> {
  const one = (item: unknown) => {
    const bare = typeof item === "string" && item.startsWith("sha384:") ? item.slice(7) : item;
    return hex(new Fields({ [name]: bare }, "terms of tdx").hex(name, 48));
  };
  return new Set(new Fields({ [name]: value }, "terms of tdx").items(name, one, { high: MAX_MEASUREMENTS }));
}

function digests(measurements: ReadonlySet<string>): Json {
  return [...measurements].sort().map((one) => `sha384:${one}`);
}

function littleBytes(value: bigint): Bytes {
  return unhex(value.toString(16).padStart(16, "0")).toReversed();
}

interface TdxVerified extends Verified {
  readonly td: TdReport;
  readonly processor: Processor;
}

/** What was built into the TD (MRTD), measured as it started (RTMR), and given by its host (MRCONFIGID, MROWNER). */
function measurementOf(td: TdReport): Measurement {
  const found: Record<string, Bytes> = {
    mrconfigid: td.mrconfigid,
    mrowner: td.mrowner,
    mrownerconfig: td.mrownerconfig,
    mrtd: td.mrtd,
  };
  for (const [n, rtmr] of td.rtmrs.entries()) found[`rtmr${n}`] = rtmr;
  const registers = Object.entries(found).map(([name, value]) => [name, `sha384:${hex(value)}`]);
  return new Measurement(PLATFORM, Object.fromEntries(registers));
}

async function verify(
  evidence: Evidence,
  endorsements: readonly Endorsement[],
  roots: Roots,
  at: number,
  transcript: Transcript,
): Promise<TdxVerified> {
  const { quote, processor } = await verifyQuote(evidence, endorsements, roots, at, transcript);
  const debug = quote.td.attributes[0] !== 0;
  return {
    td: quote.td,
    processor,
    reportData: quote.td.reportData,
    measurement: measurementOf(quote.td),
    debug,
    producedAt: null, // a quote says nothing of when it was made
    validUntil: processor.validUntil,
    collateral: processor.collateral,
    machine: `ppid:${hex(processor.pck.ppid)}`,
    vector: { ...NO_CLAIMS, "instance-identity": AFFIRMED, "runtime-opaque": debug ? UNACCEPTABLE : AFFIRMED },
  };
}

type Answer = readonly [passed: boolean, seen: string];

/** T1 to T3. */
function judgeTcb({ tcb, evaluation }: Processor, terms: Terms, at: number): readonly Answer[] {
  const late = tcb.advisories.filter((one) => at > (terms.advisories.get(one) ?? -1)).sort();
  const seen = late.length > 0 ? `not tolerated at ${at}: ${late.join(", ")}` : namedAdvisories(tcb);
  const now = tcb.now === null || tcb.now === tcb.status ? "" : `, now ${tcb.now}`;
  const nowAccepted = isCurrent(tcb.now) || (tcb.now !== null && terms.statuses.has(tcb.now));
  return [
    [terms.statuses.has(tcb.status) && nowAccepted, `${tcb.status}${now}, levels of ${tcb.date}`],
    [late.length === 0, seen],
    [evaluation >= terms.evaluationFloor, `evaluation ${evaluation}, floor ${terms.evaluationFloor}`],
  ];
}

/** Whether nothing is to be said of what the machine has now. */
function isCurrent(now: TcbStatus | null): boolean {
  return now === null || now === "UpToDate";
}

/** T4 to T11. */
function judgeTd(td: TdReport, terms: Terms): readonly Answer[] {
  const attributes = little(td.attributes);
  const isSet = (mask: bigint) => (attributes & mask) !== 0n;
  const said = (mask: bigint) => (isSet(mask) ? "set" : "not set");
  const judgedBefore = TUD | SEPT_VE_DISABLE | MIGRATABLE | PERFMON;
  const may = [...terms.attributes].reduce((all, name) => all | (ATTRIBUTES.get(name) ?? 0n), judgedBefore);
  const wrong = attributes & ~may;
  const xfam = little(td.xfam);
  const none = td.mrservicetd !== null && isZero(td.mrservicetd);
  return [
    [isSet(SEPT_VE_DISABLE) || !terms.septVeDisable, said(SEPT_VE_DISABLE)],
    [!isSet(MIGRATABLE) || terms.attributes.has("migratable"), said(MIGRATABLE)],
    [!isSet(PERFMON) || terms.attributes.has("perfmon"), said(PERFMON)],
    [wrong === 0n, `${hex(td.attributes)}${wrong === 0n ? "" : `, not named 0x${wrong.toString(16)}`}`],
    [(xfam & ~terms.xfamAllowed) === 0n && (terms.xfamRequired & ~xfam) === 0n, hex(td.xfam)],
    [terms.mrseam === null || terms.mrseam.has(hex(td.mrseam)), `sha384:${hex(td.mrseam)}`],
    [isZero(td.mrsignerseam), `sha384:${hex(td.mrsignerseam)}`],
    td.mrservicetd === null
      ? [true, "a report 1.0, in which there is none"]
      : [none || terms.mrservicetd.has(hex(td.mrservicetd)), none ? "none" : `sha384:${hex(td.mrservicetd)}`],
  ];
}

function judge(verified: TdxVerified, terms: Terms, at: number, transcript: Transcript): TrustVector {
  const { processor, td } = verified;
  const tcb = judgeTcb(processor, terms, at);
  for (const [n, [passed, seen]] of tcb.entries()) {
    transcript.record(`T${n + 1}`, passed, seen, "attest.tcb_not_accepted");
  }
  for (const [n, [passed, seen]] of judgeTd(td, terms).entries()) {
    transcript.record(`T${n + 4}`, passed, seen, "attest.terms_not_met");
  }
  const accepted = tcb.every(([passed]) => passed);
  const { status, now, advisories } = processor.tcb;
  const current = status === "UpToDate" && isCurrent(now) && advisories.length === 0;
  return { ...verified.vector, hardware: !accepted ? UNACCEPTABLE : current ? AFFIRMED : KNOWN_VULNERABLE };
}

export const tdx: Platform<TdxVerified, Terms> = {
  label: "platform: tdx (Intel TDX)",
  steps: STEPS,
  termsSteps: TERMS_STEPS,
  readTerms,
  writeTerms: (terms) => terms.json,
  strictTerms: readTerms(STRICT),
  verify,
  judge,
  toleratedUntil: ({ processor }, terms) =>
    Math.min(FOREVER, ...processor.tcb.advisories.map((one) => terms.advisories.get(one) ?? -1)),
};
