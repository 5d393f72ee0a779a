/** What a policy asks of AMD SEV-SNP beyond that a report is genuine: SP1 to SP15 of `spec/evidence-sev-snp.md`. */

import { hex, isZero } from "./bytes.ts";
import { StrongroomError } from "./errors.ts";
import type { SnpVerified } from "./snp.ts";
import {
  allows,
  type Firmware,
  firmwareToJson,
  HOST_VMPL,
  isAtLeast,
  isNotBefore,
  MAX_VMPL,
  PLATFORM_BITS,
  POLICY_BITS,
  PROCESSORS,
  platformHas,
  readFirmware,
  readTcb,
  shownTcb,
  type Tcb,
  unknownBits,
} from "./snp_report.ts";
import { Steps, type Transcript } from "./transcript.ts";
import { AFFIRMED, type TrustVector, UNACCEPTABLE } from "./vector.ts";
import { equalJson, Fields, isList, type Json } from "./wire.ts";

export const TERMS_STEPS = new Steps("SP", [
  "the report is of an accepted version",
  "the key that signed it is of an accepted kind, and lent to an accepted provider",
  "the terms name the processor",
  "the reported, committed and launch TCB are at least as the terms ask",
  "the reported TCB is not above the committed one, nor that and the launch TCB above the current one",
  "the current and the committed firmware are of an accepted version",
  "the mitigations asked for were in force at launch and are now",
  "the guest asked for the report, at an accepted privilege level",
  "no migration agent can take the guest elsewhere",
  "the guest's policy is as the terms ask, and has no bit that is not known",
  "the guest's policy asks for the ABI that the terms ask for",
  "the platform is as the terms ask, and has no bit that is not known",
  "the guest's security version is at least as the terms ask",
  "the guest's identity is signed as the terms ask",
  "the guest's family and image are accepted ones",
]);

const WHERE = "terms of sev_snp";
const ANY = "any"; // said in words: an empty list accepts nothing
const WORDS = [ANY, "refused", "required"] as const;
type Word = (typeof WORDS)[number];
const KEY_KINDS = ["vcek", "vlek"];

// Debugging and a migration agent are refused whatever the terms say, and so are not among what they can say.
const POLICY_NAMES = [...POLICY_BITS.keys()].filter((name) => name !== "debug" && name !== "migration_agent").sort();
const PLATFORM_NAMES = [...PLATFORM_BITS.keys()].sort();

export interface Terms {
  readonly json: Json;
  readonly minimumTcb: ReadonlyMap<string, Tcb>; // by processor; one that is not named is refused
  readonly minimumFirmware: Firmware;
  readonly minimumAbi: readonly [major: number, minor: number];
  readonly minimumGuestSvn: number;
  readonly minimumReportVersion: number;
  readonly mitigations: bigint;
  readonly signingKeys: ReadonlySet<string>;
  readonly cloudProviders: ReadonlySet<string> | null; // null for any
  readonly vmpls: ReadonlySet<number>;
  readonly guestPolicy: ReadonlyMap<string, Word>;
  readonly platformInfo: ReadonlyMap<string, Word>;
  readonly idKey: Word;
  readonly authorKey: Word;
  readonly familyIds: ReadonlySet<string> | null; // hex; null for any
  readonly imageIds: ReadonlySet<string> | null;
}

const bad = (why: string) => new StrongroomError("wire.bad_field", `${WHERE}${why}`);

function members(f: Fields, name: string): readonly (readonly [string, unknown])[] {
  const found = f.any(name);
  if (typeof found !== "object" || found === null || isList(found)) throw bad(`.${name} is not an object`);
  return Object.entries(found);
}

function readWords(f: Fields, name: string, names: readonly string[]): ReadonlyMap<string, Word> {
  const given = members(f, name);
  const read = new Fields(Object.fromEntries(given), `${WHERE}.${name}`);
  const found = new Map(given.map(([bit]) => [bit, read.choice(bit, WORDS)] as const).sort(([a], [b]) => (a < b ? -1 : 1)));
  if ([...found.keys()].join() !== names.join()) throw bad(": a bit that is not known, or that nothing is said of");
  return found;
}

function readSet<T>(f: Fields, name: string, one: (item: unknown) => T, high: number): ReadonlySet<T> | null {
  const value = f.any(name);
  return value === ANY ? null : new Set(new Fields({ [name]: value }, WHERE).items(name, one, { high }));
}

const readId = (id: unknown) => hex(new Fields({ id }, WHERE).hex("id", 16));
const readProvider = (provider: unknown) => new Fields({ provider }, WHERE).text("provider", 126);
const readVmpl = (vmpl: unknown) => new Fields({ vmpl }, WHERE).integer("vmpl", { high: MAX_VMPL });
const setToJson = (set: ReadonlySet<string> | null): Json => (set === null ? ANY : [...set].sort());
const tcbToJson = (tcb: Tcb): Json => Object.fromEntries(tcb);

/** Every member must be there, in its one spelling. Throws `wire.bad_field`. */
export function readTerms(value: unknown): Terms {
  const f = new Fields(value, WHERE);
  const abi = new Fields(f.any("minimum_abi"), `${WHERE}.minimum_abi`);
  const found = {
    authorKey: f.choice("author_key", WORDS),
    cloudProviders: readSet(f, "cloud_providers", readProvider, 64),
    familyIds: readSet(f, "family_ids", readId, 1024),
    guestPolicy: readWords(f, "guest_policy", POLICY_NAMES),
    idKey: f.choice("id_key", WORDS),
    imageIds: readSet(f, "image_ids", readId, 1024),
    minimumAbi: [abi.integer("major", { high: 255 }), abi.integer("minor", { high: 255 })] as const,
    minimumFirmware: readFirmware(f.any("minimum_firmware")),
    minimumGuestSvn: f.integer("minimum_guest_svn", { high: 0xffffffff }),
    minimumReportVersion: f.integer("minimum_report_version", { low: 2, high: 5 }),
    minimumTcb: new Map(members(f, "minimum_tcb").map(([name, tcb]) => [name, readTcb(tcb)])),
    mitigations: BigInt(`0x${hex(f.hex("mitigations", 8))}`),
    platformInfo: readWords(f, "platform_info", PLATFORM_NAMES),
    signingKeys: new Set(f.names("signing_keys", { high: KEY_KINDS.length })),
    vmpls: new Set(f.items("vmpls", readVmpl, { high: MAX_VMPL + 1 })),
  };
  abi.end();
  f.end();
  for (const [name, tcb] of found.minimumTcb) {
    const known = PROCESSORS.get(name);
    if (known === undefined || (known.line === "turin") !== tcb.has("fmc")) {
      throw bad(`: '${name.slice(0, 32)}' is no processor with a TCB of that form`);
    }
  }
  if (![...found.signingKeys].every((kind) => KEY_KINDS.includes(kind))) {
    throw bad(": a kind of key or a privilege level that there is not");
  }
  const json: Json = {
    author_key: found.authorKey,
    cloud_providers: setToJson(found.cloudProviders),
    family_ids: setToJson(found.familyIds),
    guest_policy: Object.fromEntries(found.guestPolicy),
    id_key: found.idKey,
    image_ids: setToJson(found.imageIds),
    minimum_abi: { major: found.minimumAbi[0], minor: found.minimumAbi[1] },
    minimum_firmware: firmwareToJson(found.minimumFirmware),
    minimum_guest_svn: found.minimumGuestSvn,
    minimum_report_version: found.minimumReportVersion,
    minimum_tcb: Object.fromEntries(Array.from(found.minimumTcb, ([name, tcb]) => [name, tcbToJson(tcb)])),
    mitigations: found.mitigations.toString(16).padStart(16, "0"),
    platform_info: Object.fromEntries(found.platformInfo),
    signing_keys: [...found.signingKeys].sort(),
    vmpls: [...found.vmpls].sort(),
  };
  if (!equalJson(json, value as Json)) throw bad(": a list is not sorted and distinct");
  return { json, ...found };
}

/** They refuse every processor: the least TCB moves with AMD's security bulletins, and an owner says which. */
export const STRICT: Terms = readTerms({
  author_key: ANY,
  cloud_providers: [],
  family_ids: ANY,
  guest_policy: { ...Object.fromEntries(POLICY_NAMES.map((name) => [name, ANY])), cxl: "refused", smt: "refused" },
  id_key: ANY,
  image_ids: ANY,
  minimum_abi: { major: 0, minor: 0 },
  minimum_firmware: { build: 0, major: 1, minor: 55 },
  minimum_guest_svn: 0,
  minimum_report_version: 3,
  minimum_tcb: {},
  mitigations: "0000000000000000",
  platform_info: {
    ...Object.fromEntries(PLATFORM_NAMES.map((name) => [name, ANY])),
    alias_check_complete: "required",
    ecc: "required",
    tio: "refused",
  },
  signing_keys: ["vcek"],
  vmpls: [0],
});

type Answer = readonly [passed: boolean, seen: string];

const ABOUT_TCB: ReadonlySet<number> = new Set([3, 4, 5, 6, 7]);
const shownHex = (value: bigint) => `0x${value.toString(16)}`;
const shownFirmware = (version: Firmware) => version.join(".");

/** What is not as the words ask. */
function wrongBits(
  words: Iterable<readonly [string, Word]>,
  has: (name: string) => boolean,
  unknown = 0n,
): readonly string[] {
  const wrong = [...words].filter(([name, word]) => word !== ANY && has(name) !== (word === "required"));
  const said = wrong.map(([name, word]) => `${name} is ${word}`);
  return unknown === 0n ? said : [...said, `unknown bits ${shownHex(unknown)}`];
}

/** SP1 to SP15: whether each holds, and what was seen. */
function answers(v: SnpVerified, terms: Terms): readonly Answer[] {
  const { claims, key, processor } = v;
  const lentWell = key.provider === null || terms.cloudProviders === null || terms.cloudProviders.has(key.provider);
  const named = [...terms.minimumTcb.keys()].sort().join(", ") || "none";
  const floor = terms.minimumTcb.get(processor.name);
  const tcbs = [v.reportedTcb, v.committedTcb, v.launchTcb];
  const seen = `reported ${shownTcb(v.reportedTcb)}, committed ${shownTcb(v.committedTcb)}, launch ${shownTcb(v.launchTcb)}`;
  const inOrder =
    isAtLeast(v.committedTcb, v.reportedTcb) &&
    isAtLeast(v.currentTcb, v.committedTcb) &&
    isAtLeast(v.currentTcb, v.launchTcb);
  const firmwares = [claims.current, claims.committed];
  const { launchMitigations: launch, currentMitigations: now } = claims;
  const migrates = allows(claims, "migration_agent");
  const alone = claims.reportIdMa.every((byte) => byte === 0xff);
  const [unknownPolicy, unknownPlatform] = unknownBits(claims);
  const policy = wrongBits(terms.guestPolicy, (name) => allows(claims, name), unknownPolicy);
  const platform = wrongBits(terms.platformInfo, (name) => platformHas(claims, name), unknownPlatform);
  const abi = [Number((claims.policy >> 8n) & 0xffn), Number(claims.policy & 0xffn)];
  const has = new Map([
    ["id_key", !isZero(claims.idKeyDigest)],
    ["author_key", claims.authorKeyEnabled],
  ]);
  const asked = [["id_key", terms.idKey] as const, ["author_key", terms.authorKey] as const];
  const identity = wrongBits(asked, (name) => has.get(name) ?? false);
  const there = Array.from(has, ([name, is]) => `${name} ${is ? "there" : "absent"}`);
  const [family, image] = [hex(claims.familyId), hex(claims.imageId)];
  const isKnown = (terms.familyIds?.has(family) ?? true) && (terms.imageIds?.has(image) ?? true);
  return [
    [claims.version >= terms.minimumReportVersion, `version ${claims.version}`],
    [terms.signingKeys.has(key.kind) && lentWell, `${key.kind} ${key.provider ?? ""}`.trimEnd()],
    [floor !== undefined, `they name ${named}; this is ${processor.name}`],
    floor === undefined ? [false, `${seen}; no least one is named`] : [tcbs.every((tcb) => isAtLeast(tcb, floor)), seen],
    [inOrder, `current ${shownTcb(v.currentTcb)}`],
    [
      firmwares.every((one) => isNotBefore(one, terms.minimumFirmware)),
      `current ${shownFirmware(claims.current)}, committed ${shownFirmware(claims.committed)}`,
    ],
    [(launch & now & terms.mitigations) === terms.mitigations, `at launch ${shownHex(launch)}, now ${shownHex(now)}`],
    [terms.vmpls.has(claims.vmpl), claims.vmpl === HOST_VMPL ? "the host asked for it" : `VMPL ${claims.vmpl}`],
    [!migrates && alone, `${migrates ? "allowed" : "not allowed"}, ${alone ? "none" : "one"} associated`],
    [policy.length === 0, [shownHex(claims.policy), ...policy].join("; ")],
    [isNotBefore(abi, terms.minimumAbi), `ABI ${abi.join(".")}`],
    [platform.length === 0, [shownHex(claims.platformInfo), ...platform].join("; ")],
    [claims.guestSvn >= terms.minimumGuestSvn, `${claims.guestSvn}`],
    [identity.length === 0, [...there, ...identity].join("; ")],
    [isKnown, `family ${family}, image ${image}`],
  ];
}

export function judge(verified: SnpVerified, terms: Terms, _at: number, transcript: Transcript): TrustVector {
  let hardware = AFFIRMED;
  for (const [n, [passed, seen]] of answers(verified, terms).entries()) {
    const aboutTcb = ABOUT_TCB.has(n + 1);
    transcript.record(`SP${n + 1}`, passed, seen, aboutTcb ? "attest.tcb_not_accepted" : "attest.terms_not_met");
    if (aboutTcb && !passed) hardware = UNACCEPTABLE;
  }
  return { ...verified.vector, hardware };
}
