/**
 * What AMD's certificates say of the key that signs reports: which chip or cloud provider, which product line, which TCB.
 *
 * Names and object identifiers are those of AMD's "VCEK Certificate and KDS Interface Specification" (57230). A VCEK is one
 * chip's, under the ASK; a VLEK is lent to a cloud provider, under the ASVK; both under the ARK.
 */

import { ascii, type Bytes, concat, equal, isZero, quoted, unhex } from "./bytes.ts";
import { ecdsaKey, ecdsaVerifies } from "./crypto.ts";
import { TAG } from "./der.ts";
import { isOurs, StrongroomError } from "./errors.ts";
import { type Claims, componentsOf, type SigningKey, type Tcb } from "./snp_report.ts";
import type { Certificate } from "./x509.ts";

const MAX_ALIKE = 8; // certificates of one name in one list of endorsements
const P384_ORDER = BigInt(
  "0xffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
);

const AMD = "1.3.6.1.4.1.3704.1.";
const [STRUCT_VERSION, PRODUCT, CHIP, PROVIDER] = ["1", "2", "4", "5"] as const;
const PARTS: ReadonlyMap<string, string> = new Map([
  ["bootloader", "3.1"],
  ["tee", "3.2"],
  ["snp", "3.3"],
  ["microcode", "3.8"],
  ["fmc", "3.9"],
]);
const SPARE = ["3.4", "3.5", "3.6", "3.7"]; // components that no processor has; zero where they are named
const KNOWN: ReadonlySet<string> = new Set([STRUCT_VERSION, PRODUCT, CHIP, PROVIDER, ...PARTS.values(), ...SPARE]);
const NEEDED = [STRUCT_VERSION, PRODUCT, "3.1", "3.2", "3.3", "3.8"];
const PRODUCT_NAME = /^(Milan|Genoa|Bergamo|Siena|Turin)(-[A-Z][0-9]{1,2})?$/;
const LINE_OF: Readonly<Record<string, string>> = {
  Milan: "milan",
  Genoa: "genoa",
  Bergamo: "genoa",
  Siena: "genoa",
  Turin: "turin",
};
const LINE_NAME: Readonly<Record<string, string>> = { milan: "Milan", genoa: "Genoa", turin: "Turin" };
const LEAF_NAME = { vcek: "SEV-VCEK", vlek: "SEV-VLEK", none: "" };
const ISSUER_NAME = { vcek: "SEV-", vlek: "SEV-VLEK-", none: "" };

const bad = (why: string) => new StrongroomError("attest.bad_certificate", why);

/** What a VCEK's or VLEK's certificate says of its key. **Untrusted** until a path has led it to a pinned root. */
export interface KeyClaims {
  readonly kind: SigningKey;
  readonly line: string;
  readonly tcb: Tcb; // for which the key was derived
  readonly chip: Bytes | null; // of a VCEK: 64 bytes, on Turin 8
  readonly provider: string | null; // of a VLEK: the cloud provider
}

export type Path = readonly [leaf: Certificate, issuer: Certificate, root: Certificate];

/** The contents of one short DER element. */
function tagged(raw: Bytes, tag: number): Bytes {
  if (raw.length < 2 || raw[0] !== tag || raw[1] !== raw.length - 2 || raw[1] >= 0x80) {
    throw bad("an extension of AMD's is not of its type");
  }
  return raw.slice(2);
}

function number(raw: Bytes): number {
  const contents = tagged(raw, TAG.integer);
  const value = contents.length === 2 && contents[0] === 0 ? contents[1] : contents.length === 1 ? contents[0] : undefined;
  if (value === undefined || contents.length !== (value >= 0x80 ? 2 : 1)) {
    throw bad("an extension of AMD's is not a number from 0 to 255");
  }
  return value;
}

function words(raw: Bytes): string {
  const found = ascii(tagged(raw, TAG.ia5));
  if (found === null || !/^[ -~]+$/.test(found)) throw bad("an extension of AMD's is not a text");
  return found;
}

/** AMD's own extensions by the end of their names. */
function extensionsOf(certificate: Certificate): ReadonlyMap<string, Bytes> {
  const own = [...certificate.extensions].filter(([name]) => name.startsWith(AMD));
  const found = new Map(own.map(([name, { value }]) => [name.slice(AMD.length), value]));
  if (![...found.keys()].every((name) => KNOWN.has(name))) {
    throw bad("a certificate has an extension of AMD's that is not known here");
  }
  const missing = NEEDED.find((name) => !found.has(name));
  if (missing !== undefined) throw bad(`a certificate lacks AMD's extension ${AMD}${missing}`);
  return found;
}

/** What a certificate of this kind says, by AMD's extensions. Throws `attest.bad_certificate`: anything out of place. */
export function readKey(certificate: Certificate, kind: SigningKey): KeyClaims {
  const found = extensionsOf(certificate);
  const raw = (name: string) => found.get(name) ?? new Uint8Array();
  const product = PRODUCT_NAME.exec(words(raw(PRODUCT)));
  const line = LINE_OF[product?.[1] ?? ""];
  if (line === undefined) throw bad("a certificate is for a product that is not known here");
  const isTurin = line === "turin";
  if (number(raw(STRUCT_VERSION)) !== (isTurin ? 1 : 0) || found.has("3.9") !== isTurin) {
    throw bad("a certificate's TCB is of another product line's form");
  }
  if (SPARE.some((name) => found.has(name) && number(raw(name)) !== 0)) {
    throw bad("a certificate is for a TCB with components that are not known here");
  }
  const tcb = new Map(componentsOf(isTurin).map((part) => [part, number(raw(PARTS.get(part) ?? ""))]));
  if (found.has(CHIP) !== (kind === "vcek") || found.has(PROVIDER) !== (kind === "vlek")) {
    const whose = kind === "vcek" ? "one chip" : "one cloud provider";
    throw bad(`a ${kind.toUpperCase()} is ${whose}'s, and nothing else's`);
  }
  const chip = kind === "vcek" ? chipOf(raw(CHIP), isTurin ? 8 : 64) : null;
  return { kind, line, tcb, chip, provider: kind === "vlek" ? words(raw(PROVIDER)) : null };
}

/** A chip's identity, which stands there bare, or as an octet string. */
function chipOf(raw: Bytes, size: number): Bytes {
  const chip = raw.length === size ? raw : tagged(raw, TAG.octets);
  if (chip.length !== size || isZero(chip)) throw bad("a certificate does not name a chip");
  return chip;
}

function p384Bytes(value: bigint): Bytes {
  return unhex(value.toString(16).padStart(96, "0"));
}

/** Require an ECDSA signature (P-384, SHA-384) by the certificate's key. Throws `attest.bad_certificate`, `attest.forged`. */
export async function requireSignedReport(certificate: Certificate, signed: Bytes, { r, s }: Claims): Promise<void> {
  const { key } = certificate;
  if (key.kind !== "ec" || key.curve !== "P-384") throw bad("the key that signs reports is not on the curve P-384");
  if (![r, s].every((one) => one > 0n && one < P384_ORDER)) {
    throw new StrongroomError("attest.forged", "a number of the report's signature is out of range");
  }
  const found = await ecdsaKey("P-384", key.point);
  if (found === null || !(await ecdsaVerifies(found, "SHA-384", concat(p384Bytes(r), p384Bytes(s)), signed))) {
    throw new StrongroomError("attest.forged", "the report is not signed by the key that was certified");
  }
}

/** The first of several for which something holds; else the first of them all. */
async function preferred(found: readonly Certificate[], holds: (one: Certificate) => Promise<void>): Promise<Certificate> {
  const [first] = found;
  if (first === undefined) throw new Error("there is none");
  for (const one of found.length > 1 ? found : []) {
    try {
      await holds(one);
      return one;
    } catch (error) {
      if (!isOurs(error)) throw error;
    }
  }
  return first;
}

/** The certificate of the report's key, out of what came along: of several, the one whose key signed it, else the first. */
async function pickLeaf(certificates: readonly Certificate[], signed: Bytes, claims: Claims): Promise<Certificate> {
  const found = certificates.filter((one) => one.commonName === LEAF_NAME[claims.signingKey]);
  const kind = claims.signingKey.toUpperCase();
  if (found.length === 0) {
    throw new StrongroomError("attest.endorsement_missing", `no ${kind} certificate came along`);
  }
  if (found.length > MAX_ALIKE) {
    const said = `${found.length} ${kind} certificates, where at most ${MAX_ALIKE} are read`;
    throw new StrongroomError("attest.bad_endorsement", said);
  }
  return await preferred(found, (one) => requireSignedReport(one, signed, claims));
}

/** Leaf, issuer and root, each the one that signed the one before; of several of that name that did not, the first. */
export async function pickPath(certificates: readonly Certificate[], signed: Bytes, claims: Claims): Promise<Path> {
  const leaf = await pickLeaf(certificates, signed, claims);
  const issuer = await issuerOf(leaf, certificates);
  return [leaf, issuer, await issuerOf(issuer, certificates)];
}

async function issuerOf(certificate: Certificate, certificates: readonly Certificate[]): Promise<Certificate> {
  const others = certificates.filter((one) => !equal(one.der, certificate.der));
  const alike = others.filter((one) => equal(one.subjectName.der, certificate.issuerName.der));
  const found = alike.length > 0 ? alike : others.filter((one) => certificate.names(one)); // another spelling of the name
  const named = certificate.issuerName.shown;
  if (found.length === 0) {
    throw new StrongroomError("attest.endorsement_missing", `the certificate of ${named} did not come along`);
  }
  if (found.length > MAX_ALIKE) {
    const said = `${found.length} certificates of ${named}, where at most ${MAX_ALIKE} are read`;
    throw new StrongroomError("attest.bad_endorsement", said);
  }
  return await preferred(found, (one) => certificate.requireIssuedBy(one));
}

/** AMD's names for the keys of this kind and line: an ASVK vouches for no chip, an ASK for no cloud provider. */
export function requireNames([, issuer, root]: Path, { kind, line: short }: KeyClaims): void {
  const line = LINE_NAME[short] ?? "";
  const [named, above] = [issuer.commonName, root.commonName];
  if (named !== ISSUER_NAME[kind] + line || above !== `ARK-${line}`) {
    const under = `${quoted(named.slice(0, 64))} and ${quoted(above.slice(0, 64))}`;
    throw bad(`a ${kind.toUpperCase()} for ${line} is under ${under}`);
  }
}
