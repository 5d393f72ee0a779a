/**
 * The attestation report of AMD SEV-SNP, versions 2 to 5: its layout, and the forms of a TCB version. None is believed here.
 *
 * Layout and names are those of AMD's "SEV Secure Nested Paging Firmware ABI Specification" (56860). Numbers are
 * little-endian. See `spec/evidence-sev-snp.md`.
 */

import { type Bytes, isZero, little } from "./bytes.ts";
import { StrongroomError } from "./errors.ts";
import { Fields, type Json } from "./wire.ts";

export const REPORT_BYTES = 1184;
export const SIGNED_BYTES = 672;
const VERSIONS = { low: 2, high: 5 };
export const MAX_VMPL = 3;
export const HOST_VMPL = 0xffffffff; // the host asked for the report, and no guest chose its report data
const SIGNING_KEYS: ReadonlyMap<number, SigningKey> = new Map([
  [0, "vcek"],
  [1, "vlek"],
  [7, "none"],
]);
const RESERVED: readonly (readonly [number, number])[] = [
  [76, 80],
  [395, 416],
  [491, 492],
  [495, 496],
  [520, SIGNED_BYTES],
  [816, REPORT_BYTES],
];

export type SigningKey = "vcek" | "vlek" | "none";

// What each bit of GUEST_POLICY (from bit 16; below is the least ABI) and of PLATFORM_INFO says.
export const POLICY_BITS: ReadonlyMap<string, number> = new Map([
  ["smt", 16],
  ["migration_agent", 18],
  ["debug", 19],
  ["single_socket", 20],
  ["cxl", 21],
  ["aes_256_xts", 22],
  ["rapl_disabled", 23],
  ["ciphertext_hiding", 24],
  ["page_swap_disabled", 25],
]);
const ALWAYS_ONE = 17; // a reserved bit of GUEST_POLICY
export const PLATFORM_BITS: ReadonlyMap<string, number> = new Map([
  ["smt", 0],
  ["tsme", 1],
  ["ecc", 2],
  ["rapl_disabled", 3],
  ["ciphertext_hiding", 4],
  ["alias_check_complete", 5], // no two addresses reach one cell of memory (BadRAM, CVE-2024-21944)
  ["iommu_write_safe", 6],
  ["tio", 7],
]);
const all = (bits: Iterable<number>) => [...bits].reduce((found, bit) => found | (1n << BigInt(bit)), 0n);
const KNOWN_POLICY = 0xffffn | all([ALWAYS_ONE, ...POLICY_BITS.values()]);
const KNOWN_PLATFORM = all(PLATFORM_BITS.values());

const bad = (why: string) => new StrongroomError("attest.bad_evidence", why);

// --- TCB and firmware versions ----------------------------------------------------------------------------------------

/** The security version numbers of what AMD's protection rests on, by their names, sorted; `fmc` on Turin alone, and last. */
export type Tcb = ReadonlyMap<string, number>;

const OLDER: ReadonlyMap<string, number> = new Map([
  ["bootloader", 0],
  ["microcode", 7],
  ["snp", 6],
  ["tee", 1],
]);
const TURIN: ReadonlyMap<string, number> = new Map([
  ["bootloader", 1],
  ["microcode", 7],
  ["snp", 3],
  ["tee", 2],
  ["fmc", 0],
]);

/** The names of a product line's components, in their order. */
export function componentsOf(isTurin: boolean): readonly string[] {
  return [...(isTurin ? TURIN : OLDER).keys()];
}

/** The 8 bytes of a TCB_VERSION in the order of the product line. Throws `attest.bad_evidence`: a reserved byte is not zero. */
export function decodeTcb(raw: Bytes, isTurin: boolean): Tcb {
  const places = isTurin ? TURIN : OLDER;
  const named = new Set(places.values());
  if (raw.some((byte, n) => byte !== 0 && !named.has(n))) throw bad("a reserved byte of a TCB version is not zero");
  return new Map(Array.from(places, ([name, place]) => [name, raw[place] ?? 0]));
}

/** Whether every component is at least the floor's; of another product line's form, none is. */
export function isAtLeast(tcb: Tcb, floor: Tcb): boolean {
  return tcb.size === floor.size && [...floor].every(([name, least]) => (tcb.get(name) ?? -1) >= least);
}

export function isSameTcb(one: Tcb, other: Tcb): boolean {
  return isAtLeast(one, other) && isAtLeast(other, one);
}

export function shownTcb(tcb: Tcb): string {
  return Array.from(tcb, ([name, value]) => `${name} ${value}`).join(" ");
}

export function readTcb(value: unknown): Tcb {
  const f = new Fields(value, "TCB");
  const found = new Map(componentsOf(f.has("fmc")).map((name) => [name, f.integer(name, { high: 255 })]));
  f.end();
  return found;
}

/** A version of the SNP firmware: major, minor, build. */
export type Firmware = readonly [major: number, minor: number, build: number];

export function readFirmware(value: unknown): Firmware {
  const f = new Fields(value, "firmware");
  const found = [
    f.integer("major", { high: 255 }),
    f.integer("minor", { high: 255 }),
    f.integer("build", { high: 255 }),
  ] as const;
  f.end();
  return found;
}

export function firmwareToJson([major, minor, build]: Firmware): Json {
  return { build, major, minor };
}

/** Whether a version, part by part from the left, is at least another. */
export function isNotBefore(one: readonly number[], other: readonly number[]): boolean {
  const differs = one.findIndex((part, n) => part !== other[n]);
  return differs < 0 || (one[differs] ?? 0) > (other[differs] ?? 0);
}

// --- processors -------------------------------------------------------------------------------------------------------

/** A kind of processor, as far as it has microcode and thus a TCB of its own, and the line whose keys endorse it. */
export interface Processor {
  readonly name: string;
  readonly line: string;
}

export const PROCESSORS: ReadonlyMap<string, Processor> = new Map(
  [
    { name: "milan", line: "milan" },
    { name: "milan_x", line: "milan" },
    { name: "genoa", line: "genoa" },
    { name: "genoa_x", line: "genoa" },
    { name: "bergamo", line: "genoa" },
    { name: "turin", line: "turin" },
    { name: "turin_dense", line: "turin" },
  ].map((one) => [one.name, one]),
);

/** The processor of a combined CPUID family, model and stepping; `null` for one that is not known here. */
function processorOf(family: number, model: number, stepping: number): Processor | null {
  const known: Readonly<Record<number, string>> =
    family === 0x19 ? { 0: "milan", 1: "genoa", 10: "bergamo" } : family === 0x1a ? { 0: "turin", 1: "turin_dense" } : {};
  const isX = family === 0x19 && stepping === 2 && (model === 0x01 || model === 0x11);
  return PROCESSORS.get(`${known[model >> 4]}${isX ? "_x" : ""}`) ?? null;
}

// --- the report -------------------------------------------------------------------------------------------------------

/** What an attestation report says. **Untrusted**: `snp.ts` finds out whether AMD's hardware signed it. */
export interface Claims {
  readonly version: number;
  readonly guestSvn: number;
  readonly policy: bigint; // GUEST_POLICY
  readonly familyId: Bytes;
  readonly imageId: Bytes;
  readonly vmpl: number;
  readonly signatureAlgorithm: number;
  readonly currentTcb: Bytes; // raw TCB_VERSION, as the three others
  readonly reportedTcb: Bytes;
  readonly committedTcb: Bytes;
  readonly launchTcb: Bytes;
  readonly platformInfo: bigint;
  readonly authorKeyEnabled: boolean;
  readonly unsigned: boolean; // the host had MASK_CHIP_KEY set: the firmware signs nothing
  readonly signingKey: SigningKey;
  readonly reportData: Bytes;
  readonly measurement: Bytes;
  readonly hostData: Bytes;
  readonly idKeyDigest: Bytes;
  readonly authorKeyDigest: Bytes;
  readonly reportIdMa: Bytes; // of the migration agent
  readonly cpuid: Bytes;
  readonly processor: Processor | null; // null for an unknown one, and in version 2
  readonly chipId: Bytes; // zero where masked; on Turin the first 8 bytes
  readonly current: Firmware;
  readonly committed: Firmware;
  readonly launchMitigations: bigint;
  readonly currentMitigations: bigint;
  readonly r: bigint; // the signature's numbers, as they stand there
  readonly s: bigint;
}

/** What a report of 1184 bytes says, believed by nobody yet. Throws `attest.bad_evidence`. */
export function parseReport(data: Bytes): Claims {
  if (data.length !== REPORT_BYTES) throw bad(`an SEV-SNP report is ${REPORT_BYTES} bytes long, not ${data.length}`);
  const take = (at: number, size: number) => data.slice(at, at + size);
  const number = (at: number, size: number) => Number(little(take(at, size)));
  const byte = (at: number) => data[at] ?? 0;
  const version = number(0, 4);
  if (version < VERSIONS.low || version > VERSIONS.high) {
    throw bad(`an SEV-SNP report of version ${version}, where 2 to 5 are known`);
  }
  if (RESERVED.some(([from, to]) => !isZero(data.subarray(from, to)))) {
    throw bad("a reserved byte of the SEV-SNP report is not zero");
  }
  const keyInfo = number(72, 4);
  const cpuid = take(392, 3);
  const claims = {
    version,
    guestSvn: number(4, 4),
    policy: little(take(8, 8)),
    familyId: take(16, 16),
    imageId: take(32, 16),
    vmpl: number(48, 4),
    signatureAlgorithm: number(52, 4),
    currentTcb: take(56, 8),
    platformInfo: little(take(64, 8)),
    authorKeyEnabled: (keyInfo & 1) !== 0,
    unsigned: (keyInfo & 2) !== 0,
    reportData: take(80, 64),
    measurement: take(144, 48),
    hostData: take(192, 32),
    idKeyDigest: take(224, 48),
    authorKeyDigest: take(272, 48),
    reportIdMa: take(352, 32),
    reportedTcb: take(384, 8),
    cpuid,
    processor: processorOf(byte(392), byte(393), byte(394)),
    chipId: take(416, 64),
    committedTcb: take(480, 8),
    current: [byte(490), byte(489), byte(488)] as const,
    committed: [byte(494), byte(493), byte(492)] as const,
    launchTcb: take(496, 8),
    launchMitigations: little(take(504, 8)),
    currentMitigations: little(take(512, 8)),
    r: little(take(672, 72)),
    s: little(take(744, 72)),
  };
  if (version < 3 && !isZero(cpuid)) throw bad("an SEV-SNP report of version 2 names a processor");
  if (version < 4 && (claims.launchMitigations | claims.currentMitigations) !== 0n) {
    throw bad(`an SEV-SNP report of version ${version} lists mitigations`);
  }
  if (((claims.policy >> BigInt(ALWAYS_ONE)) & 1n) === 0n) throw bad("bit 17 of the guest's policy is not set");
  if (claims.vmpl > MAX_VMPL && claims.vmpl !== HOST_VMPL) throw bad(`no privilege level has the number ${claims.vmpl}`);
  const signingKey = SIGNING_KEYS.get(keyInfo >>> 2);
  if (signingKey === undefined) throw bad(`no key is known by the field 0x${keyInfo.toString(16)}`);
  if (claims.authorKeyEnabled === isZero(claims.authorKeyDigest)) {
    throw bad("an author's key is named and not enabled, or the other way round");
  }
  return { ...claims, signingKey };
}

/** Whether a bit of GUEST_POLICY is set, by its name. */
export function allows({ policy }: Claims, name: string): boolean {
  return ((policy >> BigInt(POLICY_BITS.get(name) ?? 0)) & 1n) === 1n;
}

/** Whether a bit of PLATFORM_INFO is set, by its name. */
export function platformHas({ platformInfo }: Claims, name: string): boolean {
  return ((platformInfo >> BigInt(PLATFORM_BITS.get(name) ?? 0)) & 1n) === 1n;
}

/** The bits of GUEST_POLICY and of PLATFORM_INFO whose meaning is not known here. */
export function unknownBits({ policy, platformInfo }: Claims): readonly [bigint, bigint] {
  return [policy & ~KNOWN_POLICY, platformInfo & ~KNOWN_PLATFORM];
}
