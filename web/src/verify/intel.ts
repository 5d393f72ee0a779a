/**
 * Is a quote of Intel's genuine, and how current is the processor: Q1 to Q20.
 *
 * The quote itself brings the certificates of the PCK; TCB information, the QE identity, the certificate that signs both and
 * the two revocation lists are endorsements. See `spec/evidence-intel.md`; the checks are numbered as there.
 */

import { type Bytes, concat, equal, hex, unhex } from "./bytes.ts";
import { PCK_CHAIN, parseQuote, pointOf, type Quote, requireBound, requireSignature } from "./dcap.ts";
import { certificates, digests, revocationLists } from "./endorsements.ts";
import { isOurs, StrongroomError } from "./errors.ts";
import type { Endorsement, Evidence, Roots } from "./evidence.ts";
import {
  type Document,
  type Level,
  levelOfQe,
  parseQeIdentity,
  parseTcbInfo,
  type QeIdentity,
  type Tcb,
  type TcbInfo,
  tcbOf,
} from "./intel_collateral.ts";
import { PCK_EXTENSION, type PckExtension, parsePckExtension } from "./intel_pck.ts";
import { Steps, type Transcript } from "./transcript.ts";
import { type Certificate, fromPem, type RevocationList, requirePath } from "./x509.ts";

export const STEPS = new Steps("Q", [
  "the evidence is one well-formed quote of this platform, and only zero bytes follow it",
  "the quote names Intel as its quoting enclave's vendor",
  "the quote is signed by its attestation key",
  "the quoting enclave's report is of that attestation key",
  "the quote brings the certificates of the PCK",
  "they lead from a PCK of Intel's to a pinned root, all valid at the time in question",
  "the quoting enclave's report is signed by the PCK",
  "the root's revocation list is current and names no issuer of the PCK",
  "the PCK issuer's revocation list is current and does not name the PCK",
  "a TCB signing certificate of Intel's leads to the same root, valid and not revoked",
  "TCB information came along for this kind of processor and platform",
  "the TCB information is signed by Intel",
  "the TCB information is current",
  "an identity came along for the quoting enclave of this platform",
  "the identity of the quoting enclave is signed by Intel",
  "the identity of the quoting enclave is current",
  "the quoting enclave is the one that Intel describes",
  "the processor, and the TDX module where there is one, reach a level that Intel lists",
  "no level that they reach is revoked",
  "no second verifier that is installed comes to another end",
]);

const INTEL_QE_VENDOR = unhex("939a7233f79c4ca9940a0db3957f0607");
const PCK_NAME = "Intel SGX PCK Certificate";
const PCK_ISSUERS: ReadonlySet<string> = new Set(["Intel SGX PCK Platform CA", "Intel SGX PCK Processor CA"]);
const TCB_SIGNER_NAME = "Intel SGX TCB Signing";
const TCB_INFO_TYPE = "application/vnd.intel.tcb-info+json";
const QE_IDENTITY_TYPE = "application/vnd.intel.enclave-identity+json";
const TCB_INFO_VERSION = 3;
const QE_IDENTITY_VERSION = 2;
const QE_ID = "TD_QE";
const MAX_CANDIDATES = 8; // of one kind of Intel's endorsements
const REPORTS: ReadonlyMap<number, string> = new Map([
  [1, "an enclave's report"],
  [2, "a TD's report 1.0"],
  [3, "a TD's report 1.5"],
]);

/** What Intel vouches for, of a processor that signed a quote. */
export interface Processor {
  readonly pck: PckExtension;
  readonly tcb: Tcb;
  readonly evaluation: number; // the lower of the TCB information's and the QE identity's
  readonly validUntil: number;
  readonly collateral: readonly string[];
}

/** Q1 to Q20, in order, each recorded. Throws a StrongroomError for the first that did not pass. */
export async function verifyQuote(
  evidence: Evidence,
  endorsements: readonly Endorsement[],
  roots: Roots,
  at: number,
  transcript: Transcript,
): Promise<{ quote: Quote; processor: Processor }> {
  const found = new Verification(evidence.data, endorsements, roots, at);
  const steps = found.steps();
  for (const [n, number] of STEPS.numbers.entries()) {
    try {
      transcript.record(number, true, await steps[n]?.());
    } catch (error) {
      if (isOurs(error)) {
        const passed = error.code === "attest.endorsement_missing" ? null : false;
        transcript.record(number, passed, error.message, error.code);
      }
      throw error;
    }
  }
  return await found.result();
}

/** One verification under way. Each method makes one check and says what was seen; what it found, the later ones use. */
class Verification {
  readonly #data: Bytes;
  readonly #endorsements: readonly Endorsement[];
  readonly #roots: Roots;
  readonly #at: number;
  readonly #until: number[] = [];
  readonly #used: { readonly der: Bytes }[] = [];
  #quote!: Quote;
  #pck!: Certificate;
  #issuer!: Certificate;
  #root!: Certificate;
  #extension!: PckExtension;
  #lists!: readonly RevocationList[];
  #rootList!: RevocationList;
  #signers: { readonly certificate: Certificate; readonly until: number }[] = [];
  #info!: TcbInfo;
  #identity!: QeIdentity;
  #qeLevel!: Level;
  #tcb!: Tcb;

  constructor(data: Bytes, endorsements: readonly Endorsement[], roots: Roots, at: number) {
    this.#data = data;
    this.#endorsements = endorsements;
    this.#roots = roots;
    this.#at = at;
  }

  /** Q1 to Q20. */
  steps(): readonly (() => string | Promise<string>)[] {
    return [
      () => this.#wellFormed(),
      () => this.#vendor(),
      () => this.#signed(),
      () => this.#bound(),
      () => this.#bringsCertificates(),
      () => this.#leadsToRoot(),
      () => this.#qeSigned(),
      () => this.#issuerNotRevoked(),
      () => this.#pckNotRevoked(),
      () => this.#tcbSigner(),
      () => this.#tcbInfoCame(),
      async () => `by ${await this.#signedByIntel(this.#info, "TCB information")}`,
      () => this.#current(this.#info, "TCB information"),
      () => this.#identityCame(),
      async () => `by ${await this.#signedByIntel(this.#identity, "identity of the quoting enclave")}`,
      () => this.#current(this.#identity, "identity of the quoting enclave"),
      () => this.#qeDescribed(),
      () => this.#levelReached(),
      () => this.#levelNotRevoked(),
      () => "none was asked",
    ];
  }

  #wellFormed(): string {
    this.#quote = parseQuote(this.#data);
    const { tee, version, bodyType, padding } = this.#quote;
    if (tee !== "TDX") {
      throw new StrongroomError("attest.bad_evidence", `a quote of ${tee}, where one of TDX is expected`);
    }
    const said = `version ${version}, ${REPORTS.get(bodyType)}`;
    return padding > 0 ? `${said}, ${padding} zero bytes after it` : said;
  }

  #vendor(): string {
    const vendor = this.#quote.qeVendor;
    if (!equal(vendor, INTEL_QE_VENDOR)) {
      const said = `the quoting enclave's vendor is ${hex(vendor)}, which is not Intel`;
      throw new StrongroomError("attest.bad_evidence", said);
    }
    return hex(vendor);
  }

  async #signed(): Promise<string> {
    const { attestationKey, signature, signed } = this.#quote;
    const otherwise = "the quote is not signed by its attestation key";
    await requireSignature(pointOf(attestationKey), signature, signed, otherwise);
    return "";
  }

  async #bound(): Promise<string> {
    await requireBound(this.#quote);
    return "";
  }

  async #bringsCertificates(): Promise<string> {
    const kind = this.#quote.certificationType;
    if (kind !== PCK_CHAIN) {
      const said = `certification data of type ${kind}, where only 5 (the certificates of the PCK) is supported`;
      throw new StrongroomError("attest.bad_evidence", said);
    }
    const path = fromPem(this.#quote.certificationData);
    const [pck, issuer, root] = path;
    if (!pck || !issuer || !root || path.length !== 3) {
      const said = `${path.length} certificates, where a PCK, its issuer and a root are expected`;
      throw new StrongroomError("attest.bad_certificate", said);
    }
    [this.#pck, this.#issuer, this.#root] = [pck, issuer, root];
    return `PCK certificate ${await pck.digest()}`;
  }

  async #leadsToRoot(): Promise<string> {
    const [pck, issuer, root] = [this.#pck, this.#issuer, this.#root];
    const until = await requirePath([pck, issuer, root], { roots: this.#roots.certificates, at: this.#at });
    this.#until.push(until);
    if (pck.commonName !== PCK_NAME || !PCK_ISSUERS.has(issuer.commonName)) {
      const said = `${pck.subject}, issued by ${issuer.subject}, is no PCK of Intel's`;
      throw new StrongroomError("attest.bad_certificate", said);
    }
    const extension = pck.extension(PCK_EXTENSION);
    if (extension === null) {
      throw new StrongroomError("attest.bad_certificate", "the PCK certificate does not say which processor's it is");
    }
    this.#extension = parsePckExtension(extension);
    return `root ${await root.keyDigest()}, until ${until}`;
  }

  async #qeSigned(): Promise<string> {
    const { qeSignature, qeReport } = this.#quote;
    const otherwise = "the quoting enclave's report is not signed by the PCK";
    await requireSignature(p256(this.#pck), qeSignature, qeReport, otherwise);
    return "";
  }

  async #issuerNotRevoked(): Promise<string> {
    this.#lists = revocationLists(this.#endorsements);
    this.#rootList = await this.#listOf(this.#root);
    this.#rootList.requireNotRevoked(this.#root);
    this.#rootList.requireNotRevoked(this.#issuer);
    return `until ${this.#until.at(-1)}`;
  }

  async #pckNotRevoked(): Promise<string> {
    const list = await this.#listOf(this.#issuer);
    list.requireNotRevoked(this.#pck);
    return `until ${this.#until.at(-1)}`;
  }

  async #listOf(issuer: Certificate): Promise<RevocationList> {
    const own = this.#lists.filter((one) => one.issuedBy(issuer));
    const found = this.#newest(own, (one) => one.thisUpdate, `revocation list of ${issuer.commonName}`);
    this.#until.push(await found.requireCurrent(issuer, this.#at));
    this.#used.push(found);
    return found;
  }

  /** Intel has had two such certificates at a time: whichever passes may sign. Where none does, the newest one's problem is said. */
  async #tcbSigner(): Promise<string> {
    const named = certificates(this.#endorsements).filter((one) => one.commonName === TCB_SIGNER_NAME);
    const newest = named.toSorted((a, b) => b.notBefore - a.notBefore).slice(0, MAX_CANDIDATES);
    let problem: StrongroomError | null = null;
    for (const certificate of newest) {
      try {
        // The root's own signature is good since Q6, and it is the same certificate.
        const path = [certificate, this.#root];
        const until = await requirePath(path, { roots: this.#roots.certificates, at: this.#at, selfSigned: false });
        this.#rootList.requireNotRevoked(certificate);
        p256(certificate);
        this.#signers.push({ certificate, until });
      } catch (error) {
        if (!isOurs(error)) throw error;
        problem ??= error;
      }
    }
    if (this.#signers.length === 0) {
      throw problem ?? missing("TCB signing certificate of Intel's");
    }
    const digests = await Promise.all(this.#signers.map((one) => one.certificate.digest()));
    return digests.join(", ");
  }

  #tcbInfoCame(): string {
    const read = this.#answers(TCB_INFO_TYPE).map(parseTcbInfo);
    const { fmspc, pceId } = this.#extension;
    const own = read.filter(
      (one) => one.id === "TDX" && one.version === TCB_INFO_VERSION && equal(one.fmspc, fmspc) && equal(one.pceId, pceId),
    );
    const about = `TDX processors of FMSPC ${hex(fmspc)} and PCE ${hex(pceId)}`;
    const [other] = read;
    if (other && own.length === 0) {
      const seen = `${other.id || "SGX"} version ${other.version}, FMSPC ${hex(other.fmspc)}, PCE ${hex(other.pceId)}`;
      const said = `no TCB information of version ${TCB_INFO_VERSION} for ${about}, but for ${seen}`;
      throw new StrongroomError("attest.bad_endorsement", said);
    }
    this.#info = this.#newest(own, (one) => one.issued, `TCB information for ${about}`);
    return `FMSPC ${hex(this.#info.fmspc)}, evaluation ${this.#info.evaluation}`;
  }

  #identityCame(): string {
    const read = this.#answers(QE_IDENTITY_TYPE).map(parseQeIdentity);
    const own = read.filter((one) => one.id === QE_ID && one.version === QE_IDENTITY_VERSION);
    const [other] = read;
    if (other && own.length === 0) {
      const said = `no identity of ${QE_ID}, but of ${other.id} in version ${other.version}`;
      throw new StrongroomError("attest.bad_endorsement", said);
    }
    this.#identity = this.#newest(own, (one) => one.issued, `identity of ${QE_ID}`);
    return `${this.#identity.id}, evaluation ${this.#identity.evaluation}`;
  }

  /** The answers of Intel's PCS of one type, distinct. */
  #answers(mediaType: string): readonly Bytes[] {
    const found: Bytes[] = [];
    for (const one of this.#endorsements) {
      if (one.mediaType === mediaType && !found.some((known) => equal(known, one.data))) found.push(one.data);
    }
    if (found.length > MAX_CANDIDATES) {
      const said = `${found.length} endorsements of type ${mediaType}, where at most ${MAX_CANDIDATES} are read`;
      throw new StrongroomError("attest.bad_endorsement", said);
    }
    return found;
  }

  /** What was issued last, but not after the time in question where there is such a one. */
  #newest<T>(found: readonly T[], issued: (one: T) => number, what: string): T {
    const past = found.filter((one) => issued(one) <= this.#at);
    const [head, ...rest] = past.length > 0 ? past : found;
    if (head === undefined) throw missing(what);
    return rest.reduce((newest, one) => (issued(one) > issued(newest) ? one : newest), head);
  }

  async #signedByIntel(document: Document, what: string): Promise<string> {
    for (const { certificate, until } of this.#signers) {
      try {
        await requireSignature(p256(certificate), document.signature, document.signed, "");
      } catch (error) {
        if (isOurs(error) && error.code === "attest.forged") continue;
        throw error;
      }
      this.#until.push(until);
      this.#used.push(certificate, document);
      return await certificate.digest();
    }
    const said = `the ${what} is not signed by Intel's TCB signing certificate`;
    throw new StrongroomError("attest.bad_endorsement", said);
  }

  #current({ issued, nextUpdate }: Document, what: string): string {
    if (this.#at < issued) {
      throw new StrongroomError("attest.endorsement_not_yet_valid", `the ${what} is from ${issued}, after ${this.#at}`);
    }
    if (this.#at > nextUpdate) {
      const said = `the ${what} counted until ${nextUpdate}, before ${this.#at}`;
      throw new StrongroomError("attest.endorsement_expired", said);
    }
    this.#until.push(nextUpdate);
    return `from ${issued} until ${nextUpdate}`;
  }

  #qeDescribed(): string {
    const { qe } = this.#quote;
    this.#qeLevel = levelOfQe(this.#identity, qe);
    return `product ${qe.isvProdId}, version ${qe.isvSvn}: ${this.#qeLevel.status}`;
  }

  #levelReached(): string {
    this.#tcb = tcbOf(this.#info, this.#extension, this.#quote.td, this.#qeLevel);
    return `${this.#tcb.status}, ${namedAdvisories(this.#tcb)}`;
  }

  #levelNotRevoked(): string {
    if (this.#tcb.status === "Revoked") {
      const said = `Intel has revoked the TCB that this machine has, ${namedAdvisories(this.#tcb)}`;
      throw new StrongroomError("attest.revoked", said);
    }
    return "";
  }

  async result(): Promise<{ quote: Quote; processor: Processor }> {
    const processor: Processor = {
      pck: this.#extension,
      tcb: this.#tcb,
      evaluation: Math.min(this.#info.evaluation, this.#identity.evaluation),
      validUntil: Math.min(...this.#until),
      collateral: await digests(...this.#used),
    };
    return { quote: this.#quote, processor };
  }
}

function missing(what: string): StrongroomError {
  return new StrongroomError("attest.endorsement_missing", `no ${what} came along`);
}

/** The point of a certificate's key, which must be on P-256. */
function p256(certificate: Certificate): Bytes {
  const key = certificate.key;
  if (key.kind !== "ec" || key.curve !== "P-256") {
    throw new StrongroomError("attest.bad_certificate", `the key of ${certificate.subject} is not on P-256`);
  }
  return concat(key.point);
}

/** The advisories' numbers, for people. */
export function namedAdvisories(tcb: Tcb): string {
  return tcb.advisories.length > 0 ? tcb.advisories.toSorted().join(", ") : "no advisories";
}
