/**
 * AMD SEV-SNP: is a report genuine (S1 to S9)?
 *
 * A report is signed by a key of the chip (VCEK) or of the cloud provider (VLEK), derived for one TCB; AMD's certificate says
 * for which. Its path ends at the ARK of the product line, which the verifier pins. See `spec/evidence-sev-snp.md`.
 */

import { type Bytes, concat, equal, hex, isZero } from "./bytes.ts";
import { certificates, digests, revocationLists } from "./endorsements.ts";
import { isOurs, StrongroomError } from "./errors.ts";
import {
  type Endorsement,
  type Evidence,
  FOREVER,
  Measurement,
  type Platform,
  type Roots,
  type Verified,
} from "./evidence.ts";
import { type KeyClaims, type Path, pickPath, readKey, requireNames, requireSignedReport } from "./snp_key.ts";
import {
  allows,
  type Claims,
  decodeTcb,
  isSameTcb,
  PROCESSORS,
  type Processor,
  parseReport,
  SIGNED_BYTES,
  shownTcb,
  type Tcb,
} from "./snp_report.ts";
import { judge, readTerms, STRICT, TERMS_STEPS, type Terms } from "./snp_terms.ts";
import { Steps, type Transcript } from "./transcript.ts";
import { AFFIRMED, NO_CLAIMS, UNACCEPTABLE } from "./vector.ts";
import { type RevocationList, requirePath } from "./x509.ts";

const ECDSA_P384_SHA384 = 1;

const STEPS = new Steps("S", [
  "the evidence is a well-formed SEV-SNP report",
  "the report says that a VCEK or VLEK signed it, with ECDSA on P-384",
  "a certificate of such a key came along, with those above it",
  "they lead to a pinned AMD root, by AMD's names for keys of that kind",
  "the root's revocation list is current and names none of them",
  "the certificate is for the processor's product line",
  "the certificate is for the TCB that the report states",
  "the certificate is for the report's chip, or for a cloud provider",
  "the report is signed by the certified key",
]);

/** A report that AMD's hardware signed. */
export interface SnpVerified extends Verified {
  readonly claims: Claims;
  readonly key: KeyClaims;
  readonly processor: Processor; // in version 2 of the report, the plain one of the certificate's product line
  readonly currentTcb: Tcb; // that runs
  readonly reportedTcb: Tcb; // that the host lets the firmware state
  readonly committedTcb: Tcb; // below which it cannot be taken back
  readonly launchTcb: Tcb; // that ran when the guest was launched
}

const forged = (why: string) => new StrongroomError("attest.forged", why);

/** The report itself says that nothing signed it, or what is no signature of AMD's. */
function requireSignatureNamed(claims: Claims): void {
  if (claims.unsigned || claims.signingKey === "none") throw forged("the host had the firmware sign nothing");
  if (claims.signatureAlgorithm !== ECDSA_P384_SHA384) {
    throw forged(`the report's signature is of algorithm ${claims.signatureAlgorithm}, which is not ECDSA P-384`);
  }
}

/**
 * Every list that names the root is the root's own, and none of them names one of the path; one must be current.
 *
 * AMD gives all VCEKs the serial number 0, so that a list can revoke an ASK and not one chip's key; what is wrong with a chip
 * shows in its TCB.
 */
async function requireNotRevoked(
  path: Path,
  endorsements: readonly Endorsement[],
  at: number,
): Promise<{ lists: readonly RevocationList[]; until: number }> {
  const root = path[2];
  const lists = revocationLists(endorsements).filter((one) => one.issuedBy(root));
  if (lists.length === 0) {
    const said = `no revocation list of ${root.commonName} came along`;
    throw new StrongroomError("attest.endorsement_missing", said);
  }
  const counted: number[] = [];
  let late: StrongroomError | null = null;
  for (const one of lists) {
    try {
      counted.push(await one.requireCurrent(root, at));
    } catch (error) {
      // Only of its date, which is looked at after its signature was found good.
      if (!isOurs(error) || !error.code.startsWith("attest.endorsement_")) throw error;
      late = error;
    }
    for (const certificate of path) one.requireNotRevoked(certificate);
  }
  if (counted.length === 0 && late !== null) throw late;
  return { lists, until: Math.max(...counted) };
}

function processorOf(claims: Claims, key: KeyClaims): Processor {
  const found = claims.version < 3 ? PROCESSORS.get(key.line) : claims.processor;
  if (!found) {
    const said = `the processor with CPUID ${hex(claims.cpuid)} is not known here`;
    throw new StrongroomError("attest.bad_evidence", said);
  }
  if (found.line !== key.line) {
    const said = `the certificate is for ${key.line}; the report is of ${found.name}`;
    throw new StrongroomError("attest.bad_certificate", said);
  }
  return found;
}

function requireChip({ chipId }: Claims, { chip }: KeyClaims): void {
  if (chip === null || isZero(chipId)) return;
  if (!equal(chipId, concat(chip, new Uint8Array(chipId.length - chip.length)))) {
    throw forged("the certificate is another chip's than the report names");
  }
}

function measurementOf(claims: Claims): Measurement {
  return new Measurement("sev_snp", {
    author_key_digest: `sha384:${hex(claims.authorKeyDigest)}`,
    host_data: `sha256:${hex(claims.hostData)}`,
    id_key_digest: `sha384:${hex(claims.idKeyDigest)}`,
    measurement: `sha384:${hex(claims.measurement)}`,
  });
}

/** The chip, as AMD's certificate names it; `null` where the report masks it, and of a VLEK. */
function machineOf({ chipId }: Claims, { chip }: KeyClaims): string | null {
  return chip === null || isZero(chipId) ? null : `chip:${hex(chip)}`;
}

async function verify(
  evidence: Evidence,
  endorsements: readonly Endorsement[],
  roots: Roots,
  at: number,
  transcript: Transcript,
): Promise<SnpVerified> {
  let number = "S1";
  const passed = (detail: string, next: string) => {
    transcript.record(number, true, detail);
    number = next;
  };
  try {
    const claims = parseReport(evidence.data);
    const signed: Bytes = evidence.data.slice(0, SIGNED_BYTES);
    passed(`version ${claims.version}`, "S2");

    requireSignatureNamed(claims);
    passed(claims.signingKey.toUpperCase(), "S3");

    const path = await pickPath(certificates(endorsements), signed, claims);
    const [leaf, , root] = path;
    passed(`certificate ${await leaf.digest()}`, "S4");

    const valid = await requirePath(path, { roots: roots.certificates, at });
    const key = readKey(leaf, claims.signingKey);
    requireNames(path, key);
    passed(`root ${await root.keyDigest()}, until ${valid}`, "S5");

    const { lists, until } = await requireNotRevoked(path, endorsements, at);
    passed(`until ${until}`, "S6");

    const processor = processorOf(claims, key);
    const tcb = (raw: Bytes) => decodeTcb(raw, key.line === "turin");
    const currentTcb = tcb(claims.currentTcb);
    const reportedTcb = tcb(claims.reportedTcb);
    const committedTcb = tcb(claims.committedTcb);
    const launchTcb = tcb(claims.launchTcb);
    passed(processor.name, "S7");

    if (!isSameTcb(key.tcb, reportedTcb)) {
      throw forged(`the certificate is for the TCB ${shownTcb(key.tcb)}; the report states ${shownTcb(reportedTcb)}`);
    }
    passed(shownTcb(reportedTcb), "S8");

    requireChip(claims, key);
    passed(key.provider ?? hex(key.chip ?? new Uint8Array()), "S9");

    await requireSignedReport(leaf, signed, claims);
    passed("", "");
    const debug = allows(claims, "debug");
    return {
      claims,
      key,
      processor,
      currentTcb,
      reportedTcb,
      committedTcb,
      launchTcb,
      reportData: claims.reportData,
      measurement: measurementOf(claims),
      debug,
      producedAt: null, // a report says nothing of when it was made
      validUntil: Math.min(valid, until),
      collateral: await digests(...path, ...lists),
      machine: machineOf(claims, key),
      vector: { ...NO_CLAIMS, "instance-identity": AFFIRMED, "runtime-opaque": debug ? UNACCEPTABLE : AFFIRMED },
    };
  } catch (error) {
    if (isOurs(error)) {
      const isMissing = error.code === "attest.endorsement_missing";
      transcript.record(number, isMissing ? null : false, error.message, error.code);
    }
    throw error;
  }
}

export const snp: Platform<SnpVerified, Terms> = {
  label: "platform: sev_snp (AMD SEV-SNP)",
  steps: STEPS,
  termsSteps: TERMS_STEPS,
  readTerms,
  writeTerms: (terms) => terms.json,
  strictTerms: STRICT,
  verify,
  judge,
  toleratedUntil: () => FOREVER,
};
