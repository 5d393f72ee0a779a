/**
 * What Intel says of its processors: TCB information, QE identities, and the status that follows from them.
 *
 * Formats as in the API of Intel's Provisioning Certification Service (PCS), version 4; how statuses are merged, as in Intel's
 * quote verification library. See `spec/evidence-intel.md`.
 */

import { ascii, type Bytes, concat, equal, first, isZero, quoted, unhex, utf8 } from "./bytes.ts";
import type { EnclaveReport, TdReport } from "./dcap.ts";
import { utcSeconds } from "./der.ts";
import { isOurs, StrongroomError } from "./errors.ts";
import { COMPONENTS, type PckExtension } from "./intel_pck.ts";
import { loads } from "./json.ts";
import { Fields, matches } from "./wire.ts";

const MAX_COLLATERAL_BYTES = 64 << 10;
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/;
const ADVISORY = /^[A-Z][A-Z0-9-]{0,63}$/;

/** How current the trusted computing base is, in the words of Intel's PCS; of its verification library for a relaunch. */
export const STATUSES = [
  "UpToDate",
  "SWHardeningNeeded",
  "ConfigurationNeeded",
  "ConfigurationAndSWHardeningNeeded",
  "TDRelaunchAdvised",
  "TDRelaunchAdvisedConfigurationNeeded",
  "OutOfDate",
  "OutOfDateConfigurationNeeded",
  "Revoked",
] as const;
export type TcbStatus = (typeof STATUSES)[number];

const OF_PARTS: ReadonlySet<string> = new Set(["UpToDate", "OutOfDate", "Revoked"]);
const OF_PLATFORMS: ReadonlySet<string> = new Set(STATUSES.filter((status) => !status.startsWith("TDRelaunch")));
const OUT_OF_DATE: ReadonlySet<TcbStatus> = new Set(["OutOfDate", "OutOfDateConfigurationNeeded"]);
const CONFIGURE: ReadonlySet<TcbStatus> = new Set([
  "ConfigurationNeeded",
  "ConfigurationAndSWHardeningNeeded",
  "OutOfDateConfigurationNeeded",
]);

/** A level that something signed reaches. `date` is when Intel released what it needs, unix seconds. */
export interface Level {
  readonly of: string;
  readonly status: TcbStatus;
  readonly date: number;
  readonly advisories: readonly string[];
}

/** What follows from all levels. `now`: the status of what the machine has since the TD was launched, where a report says it. */
export interface Tcb {
  readonly status: TcbStatus;
  readonly date: number;
  readonly advisories: readonly string[]; // their ids, distinct
  readonly now: TcbStatus | null;
}

const bad = (why: string) => new StrongroomError("attest.bad_endorsement", `not an answer of Intel's PCS: ${why}`);
const below = (why: string) => new StrongroomError("attest.tcb_not_accepted", why);

/** What `read` gives; a member that is not as it should be makes the whole no answer of the PCS. */
function reading<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw isOurs(error, "wire") ? bad(error.message) : error;
  }
}

function bytes(f: Fields, name: string, size: number): Bytes {
  const said = f.text(name, 2 * size);
  if (said.length !== 2 * size || !/^[0-9A-Fa-f]*$/.test(said)) throw bad(`its ${name} is not ${2 * size} hex digits`);
  return unhex(said);
}

function seconds(f: Fields, name: string): number {
  const said = f.text(name, 20);
  const found = matches(TIME, said) ? utcSeconds(said) : null;
  if (found === null) throw bad(`its ${name} is no time`);
  return found;
}

function list(value: unknown): readonly unknown[] {
  if (!Array.isArray(value)) throw bad("a list is missing");
  return value;
}

/** The bytes that were signed as they stand in an answer of the PCS, the signature, and what the bytes say. */
function unwrap(data: Bytes, name: string): { signed: Bytes; signature: Bytes; fields: Fields } {
  const [before, between, after] = [utf8(`{"${name}":`), utf8(',"signature":"'), utf8('"}')];
  if (data.length > MAX_COLLATERAL_BYTES) throw bad(`longer than ${MAX_COLLATERAL_BYTES} bytes`);
  const split = Math.max(data.length - after.length - 128, 0);
  const signed = data.slice(before.length, Math.max(split - between.length, before.length));
  const digits = data.slice(split, split + 128);
  const said = ascii(digits) ?? "";
  if (!equal(data, concat(before, signed, between, digits, after)) || !/^[0-9a-f]{128}$/.test(said)) {
    throw bad(`not ${name} and a signature of 128 hex digits, and nothing else`);
  }
  return { signed, signature: unhex(said), fields: reading(() => new Fields(loads(signed), name)) };
}

/** One item of `tcbLevels`: what it asks for, and what it stands for. */
function level(value: unknown, of: string, allowed: ReadonlySet<string>): [unknown, Level] {
  const f = new Fields(value, "tcbLevels");
  const [status, date] = [f.text("tcbStatus", 64), seconds(f, "tcbDate")];
  if (!allowed.has(status)) throw bad(`a status ${quoted(first(status, 40))} of a ${of}`);
  const advisories = f.has("advisoryIDs") ? list(f.any("advisoryIDs")) : [];
  const named = advisories.filter((one): one is string => typeof one === "string" && matches(ADVISORY, one));
  if (named.length !== advisories.length) throw bad("an advisory has no number");
  return [f.any("tcb"), { of, status: status as TcbStatus, date, advisories: named }];
}

/** The first level whose `isvsvn` is reached. */
function bySvn(levels: unknown, svn: number, of: string): Level {
  for (const item of list(levels)) {
    const [tcb, found] = level(item, of, OF_PARTS);
    if (svn >= new Fields(tcb, "tcb").integer("isvsvn", { high: 0xffff })) return found;
  }
  throw below(`the ${of}'s version ${svn} is below every level that Intel lists`);
}

/** What both kinds of answers have. **Untrusted** until the signature is checked. */
interface Document {
  readonly der: Bytes; // the PCS's answer, by whose digest results name it
  readonly signed: Bytes; // the bytes that were signed, as they stand in it
  readonly signature: Bytes;
  readonly id: string;
  readonly version: number;
  readonly issued: number; // the first and the last second at which it counts, unix
  readonly nextUpdate: number;
  readonly evaluation: number; // `tcbEvaluationDataNumber`
}

export type { Document };

/** Which quoting enclave Intel vouches for. */
export interface QeIdentity extends Document {
  readonly mrsigner: Bytes;
  readonly isvProdId: number;
  readonly miscSelect: Bytes;
  readonly miscSelectMask: Bytes;
  readonly attributes: Bytes;
  readonly attributesMask: Bytes;
  readonly levels: unknown;
}

/** Members that are not known here are left alone: Intel adds some, and signs all. Throws `attest.bad_endorsement`. */
export function parseQeIdentity(der: Bytes): QeIdentity {
  const { signed, signature, fields: f } = unwrap(der, "enclaveIdentity");
  return reading(() => ({
    der,
    signed,
    signature,
    id: f.text("id", 16),
    version: f.integer("version"),
    issued: seconds(f, "issueDate"),
    nextUpdate: seconds(f, "nextUpdate"),
    evaluation: f.integer("tcbEvaluationDataNumber"),
    mrsigner: bytes(f, "mrsigner", 32),
    isvProdId: f.integer("isvprodid"),
    miscSelect: bytes(f, "miscselect", 4),
    miscSelectMask: bytes(f, "miscselectMask", 4),
    attributes: bytes(f, "attributes", 16),
    attributesMask: bytes(f, "attributesMask", 16),
    levels: f.any("tcbLevels"),
  }));
}

/** The level that this quoting enclave reaches. Throws `attest.forged`, `.tcb_not_accepted`, `.bad_endorsement`. */
export function levelOfQe(identity: QeIdentity, qe: EnclaveReport): Level {
  const same =
    equal(qe.mrsigner, identity.mrsigner) &&
    qe.isvProdId === identity.isvProdId &&
    equal(masked(qe.miscSelect, identity.miscSelectMask), identity.miscSelect) &&
    equal(masked(qe.attributes, identity.attributesMask), identity.attributes);
  if (!same || qe.debug) {
    const said = "the quote was made by another enclave than the quoting enclave that Intel describes";
    throw new StrongroomError("attest.forged", said);
  }
  return reading(() => bySvn(identity.levels, qe.isvSvn, "quoting enclave"));
}

function masked(value: Bytes, mask: Bytes): Bytes {
  return value.map((byte, n) => byte & (mask[n] ?? 0));
}

/** What Intel says of one kind of processor. */
export interface TcbInfo extends Document {
  readonly fmspc: Bytes;
  readonly pceId: Bytes;
  readonly levels: unknown;
  readonly module: unknown;
  readonly modules: unknown;
}

/** Throws `attest.bad_endorsement`. */
export function parseTcbInfo(der: Bytes): TcbInfo {
  const { signed, signature, fields: f } = unwrap(der, "tcbInfo");
  return reading(() => {
    if (f.integer("tcbType") !== 0) throw bad("its levels are of a type that is compared in another way");
    return {
      der,
      signed,
      signature,
      id: f.has("id") ? f.text("id", 16) : "",
      version: f.integer("version"),
      issued: seconds(f, "issueDate"),
      nextUpdate: seconds(f, "nextUpdate"),
      evaluation: f.integer("tcbEvaluationDataNumber"),
      fmspc: bytes(f, "fmspc", 6),
      pceId: bytes(f, "pceId", 2),
      levels: f.any("tcbLevels"),
      module: f.has("tdxModule") ? f.any("tdxModule") : null,
      modules: f.has("tdxModuleIdentities") ? f.any("tdxModuleIdentities") : [],
    };
  });
}

/** What follows for a processor, a TD's report and the level of the quoting enclave. */
export function tcbOf(info: TcbInfo, pck: PckExtension, td: TdReport, qe: Level): Tcb {
  return reading(() => {
    requireModule(info, td);
    const launched = tcbAt(info, pck, td.teeTcbSvn, qe);
    return td.teeTcbSvn2 === null ? launched : relaunch(launched, tcbAt(info, pck, td.teeTcbSvn2, qe));
  });
}

function tcbAt(info: TcbInfo, pck: PckExtension, svn: Bytes, qe: Level): Tcb {
  const module = moduleIdentity(info, svn[1] ?? 0);
  const parts = module === null ? [] : [bySvn(module.any("tcbLevels"), svn[0] ?? 0, "TDX module")];
  return merge([platformLevel(info, pck, svn), ...parts, qe]);
}

/** The first level of which nothing exceeds what the processor has. */
function platformLevel(info: TcbInfo, pck: PckExtension, svn: Bytes): Level {
  // From version 1 of the TDX module on, its own two numbers are judged by its identity.
  const skip = (svn[1] ?? 0) > 0 ? 2 : 0;
  for (const item of list(info.levels)) {
    const [tcb, found] = level(item, "platform", OF_PLATFORMS);
    const f = new Fields(tcb, "tcb");
    if (pck.pceSvn < f.integer("pcesvn", { high: 0xffff })) continue;
    if (!reaches(pck.svns, f.any("sgxtcbcomponents"), 0)) continue;
    if (reaches([...svn], f.any("tdxtcbcomponents"), skip)) return found;
  }
  throw below("the platform is below every level that Intel lists");
}

/** What describes the TDX module of a major version; `null` for version 0, which the platform's levels judge. */
function moduleIdentity(info: TcbInfo, version: number): Fields | null {
  if (version === 0) return null;
  const wanted = `TDX_${version.toString(16).toUpperCase().padStart(2, "0")}`;
  for (const item of list(info.modules)) {
    const f = new Fields(item, "tdxModuleIdentities");
    if (f.text("id", 16).toUpperCase() === wanted) return f;
  }
  throw below(`Intel describes no TDX module of version ${version}`);
}

function requireModule(info: TcbInfo, td: TdReport): void {
  const f = moduleIdentity(info, td.teeTcbSvn[1] ?? 0) ?? new Fields(info.module, "tdxModule");
  const [signer, attributes, mask] = [bytes(f, "mrsigner", 48), bytes(f, "attributes", 8), bytes(f, "attributesMask", 8)];
  const outside = masked(
    td.seamAttributes,
    mask.map((byte) => ~byte & 0xff),
  );
  if (!equal(td.mrsignerseam, signer) || !equal(masked(td.seamAttributes, mask), attributes) || !isZero(outside)) {
    throw below("the TDX module is another than Intel describes");
  }
}

/** Whether every component from `skip` on is at least as wanted. */
function reaches(have: readonly number[], wanted: unknown, skip: number): boolean {
  const items = list(wanted);
  if (items.length !== COMPONENTS) throw bad("a level does not have 16 components");
  const svns = items.map((item) => {
    const svn: unknown = item instanceof Map ? item.get("svn") : undefined;
    if (typeof svn !== "number" && typeof svn !== "bigint") throw bad("no svn");
    return svn;
  });
  return have.every((svn, n) => n < skip || svn >= (svns[n] ?? Number.POSITIVE_INFINITY));
}

/** The platform's level first, then those of its parts: a part that is out of date or revoked makes the whole so. */
function merge(levels: readonly [Level, ...Level[]]): Tcb {
  const [platform, ...parts] = levels;
  let status = platform.status;
  if (parts.some((part) => part.status === "OutOfDate") && !OUT_OF_DATE.has(status)) {
    status = CONFIGURE.has(status) ? "OutOfDateConfigurationNeeded" : "OutOfDate";
  }
  if (levels.some((one) => one.status === "Revoked")) status = "Revoked";
  return {
    status,
    date: Math.min(...levels.map((one) => one.date)),
    advisories: [...new Set(levels.flatMap((one) => one.advisories))],
    now: null,
  };
}

/** A TD that was started under an old TDX module, on a machine that has a current one by now, should be started anew. */
function relaunch(launched: Tcb, now: Tcb): Tcb {
  let status = launched.status;
  if (launched.status === "Revoked" || now.status === "Revoked") status = "Revoked";
  else if (OUT_OF_DATE.has(launched.status) && !OUT_OF_DATE.has(now.status)) {
    const configure = CONFIGURE.has(launched.status) || CONFIGURE.has(now.status);
    status = configure ? "TDRelaunchAdvisedConfigurationNeeded" : "TDRelaunchAdvised";
  }
  return {
    status,
    date: Math.min(launched.date, now.date),
    advisories: [...new Set([...launched.advisories, ...now.advisories])],
    now: now.status,
  };
}
