/**
 * Certificates, their paths to a pinned root, and revocation lists, judged at a time that is an argument (RFC 5280).
 *
 * A hardware vendor's path is short, comes in order, and ends at a root that the verifier pins by its key. The rules are
 * those of `strongroom.attest.x509`: validity, names, signatures, basic constraints, key usage, path length, and no critical
 * extension that nobody has looked at.
 */

import { ascii, type Bytes, unb64 } from "./bytes.ts";
import { digest } from "./crypto.ts";
import { boolean, Der, integer, oid, sequence, TAG, time } from "./der.ts";
import { isOurs, StrongroomError } from "./errors.ts";
import { Name } from "./x509_name.ts";
import {
  type KeyInfo,
  type PublicKey,
  readKey,
  readKeyInfo,
  readSigned,
  requireAlike,
  requireSigned,
  type Signed,
} from "./x509_signed.ts";

const MAX_CERTIFICATE_BYTES = 16 << 10;
const MAX_CRL_BYTES = 1 << 20;
const MAX_PATH = 8;

const BASIC_CONSTRAINTS = "2.5.29.19";
const KEY_USAGE = "2.5.29.15";
const CERT_SIGN = 5; // bits of key usage
const CRL_SIGN = 6;

const bad = (why: string) => new StrongroomError("attest.bad_certificate", why);

interface Extension {
  readonly critical: boolean;
  readonly value: Bytes;
}

/** The extensions; `null` where one stands there twice, which is a problem of whoever asks for them. */
function readExtensions(der: Der): ReadonlyMap<string, Extension> | null {
  const found = new Map<string, Extension>();
  let isTwice = false;
  for (const all = der.inside(TAG.sequence, "extensions"); !all.done; ) {
    const one = all.inside(TAG.sequence, "an extension");
    const name = oid(one.any());
    const critical = one.isNext(TAG.boolean) && boolean(one.any());
    const value = one.take(TAG.octets, "an extension").value;
    one.end("an extension");
    isTwice ||= found.has(name);
    found.set(name, { critical, value });
  }
  der.end("extensions");
  return isTwice ? null : found;
}

/** One certificate. **Untrusted** until `requirePath` has led it to a pinned root. */
export class Certificate {
  readonly der: Bytes;
  readonly serial: bigint; // 0 is allowed (AMD's VCEKs)
  readonly subjectName: Name;
  readonly issuerName: Name;
  readonly notBefore: number;
  readonly notAfter: number;
  readonly #signed: Signed;
  readonly #keyInfo: KeyInfo;
  readonly #extensions: ReadonlyMap<string, Extension> | null; // null where they cannot be read

  constructor(der: Bytes) {
    if (der.length > MAX_CERTIFICATE_BYTES) throw bad(`a certificate is longer than ${MAX_CERTIFICATE_BYTES} bytes`);
    this.der = der;
    try {
      this.#signed = readSigned(der);
      const tbs = new Der(this.#signed.tbs.value);
      const version = tbs.isNext(0xa0) ? integer(tbs.inside(0xa0, "a version").any()) : 0n;
      this.serial = integer(tbs.any());
      const inner = tbs.take(TAG.sequence, "an algorithm");
      requireAlike(inner, this.#signed);
      this.issuerName = new Name(tbs.any());
      const validity = tbs.inside(TAG.sequence, "its validity");
      this.notBefore = time(validity.any());
      this.notAfter = time(validity.any());
      validity.end("its validity");
      this.subjectName = new Name(tbs.any());
      this.#keyInfo = readKeyInfo(tbs.take(TAG.sequence, "its key"));
      if (tbs.isNext(0x81)) tbs.any(); // unique identifiers, which nobody reads
      if (tbs.isNext(0x82)) tbs.any();
      this.#extensions = tbs.isNext(0xa3) ? readExtensions(tbs.inside(0xa3, "extensions")) : new Map();
      tbs.end("it");
      if (version !== 2n && version !== 0n) throw bad("it is of another version");
    } catch (error) {
      throw isOurs(error) ? bad(`not a certificate: ${error.message}`) : error;
    }
  }

  async digest(): Promise<string> {
    return await digest(this.der);
  }

  /** The digest of its SubjectPublicKeyInfo: what a policy pins of a root. Throws for a key that nobody should use. */
  async keyDigest(): Promise<string> {
    readKey(this.#keyInfo);
    return await digest(this.#keyInfo.der);
  }

  get key(): PublicKey {
    return readKey(this.#keyInfo);
  }

  get subject(): string {
    return this.subjectName.shown;
  }

  get commonName(): string {
    return this.subjectName.commonName;
  }

  get extensions(): ReadonlyMap<string, Extension> {
    if (this.#extensions === null) throw bad("a certificate's extensions cannot be read");
    return this.#extensions;
  }

  /** The contents of an extension, or `null`. */
  extension(name: string): Bytes | null {
    return this.extensions.get(name)?.value ?? null;
  }

  /** Whether its key may do what a bit of key usage says; yes where it does not say (RFC 5280 section 4.2.1.3). */
  may(bit: number): boolean {
    const usage = this.extension(KEY_USAGE);
    if (usage === null) return true;
    const { tag, value } = new Der(usage).any();
    if (tag !== TAG.bits) throw bad("a certificate's extensions cannot be read");
    return (((value[1 + (bit >> 3)] ?? 0) >> (7 - (bit & 7))) & 1) === 1;
  }

  /** Whether it names this issuer; the signature is another question. */
  names(issuer: Certificate): boolean {
    return this.issuerName.equals(issuer.subjectName);
  }

  async requireIssuedBy(issuer: Certificate): Promise<void> {
    if (!this.names(issuer)) {
      throw bad(`${this.subject} names another issuer than ${issuer.subject}`);
    }
    await requireSigned(issuer.key, issuer.subject, this.#signed);
  }

  /** Require that it may issue others, with so many issuers between it and the leaf. */
  requireIssuer(below: number): void {
    const basic = this.extension(BASIC_CONSTRAINTS);
    if (basic === null) throw bad(`${this.subject} is no certificate authority`);
    const fields = sequence(basic);
    const isAuthority = fields.isNext(TAG.boolean) && boolean(fields.any());
    const most = fields.done ? null : integer(fields.any());
    if (!isAuthority || (most !== null && most < BigInt(below))) throw bad(`${this.subject} may not issue what it issued`);
    if (!this.may(CERT_SIGN)) throw bad(`the key of ${this.subject} may not sign certificates`);
  }

  requireValid(at: number): void {
    if (at < this.notBefore) {
      const said = `${this.subject} is valid from ${this.notBefore}, after ${at}`;
      throw new StrongroomError("attest.endorsement_not_yet_valid", said);
    }
    if (at > this.notAfter) {
      throw new StrongroomError(
        "attest.endorsement_expired",
        `${this.subject} was valid until ${this.notAfter}, before ${at}`,
      );
    }
  }
}

/**
 * Require that a path leads, link by link, from its first certificate to a pinned root, at a time.
 *
 * `selfSigned`: whether the last one must be its own issuer. Where not, it is pinned by its key, whoever issued it.
 * Returns the last second at which every certificate of the path is valid.
 */
export async function requirePath(
  path: readonly Certificate[],
  { roots, at, selfSigned = true }: { roots: readonly string[]; at: number; selfSigned?: boolean },
): Promise<number> {
  const root = path.at(-1);
  if (!root || path.length < 2 || path.length > MAX_PATH) {
    throw bad(`a path of ${path.length} certificates, where 2 to ${MAX_PATH} are allowed`);
  }
  const pinned = await root.keyDigest();
  if (!roots.includes(pinned)) {
    throw new StrongroomError("attest.unknown_root", `${root.subject} with key ${pinned} is not pinned`);
  }
  for (const [place, certificate] of path.entries()) {
    if (place > 0) certificate.requireIssuer(place - 1);
    for (const [name, { critical }] of certificate.extensions) {
      if (critical && name !== BASIC_CONSTRAINTS && name !== KEY_USAGE) {
        throw bad(`${certificate.subject} has a critical extension that is not known here: ${name}`);
      }
    }
    if (place < path.length - 1 || selfSigned) await certificate.requireIssuedBy(path[place + 1] ?? root);
    certificate.requireValid(at);
  }
  return Math.min(...path.map((certificate) => certificate.notAfter));
}

/** The certificates of a PEM text, in its order; zero bytes after it are ignored (C strings). */
export function fromPem(data: Bytes): readonly Certificate[] {
  let end = data.length;
  while (end > 0 && data[end - 1] === 0) end--;
  if (end > MAX_PATH * 2 * MAX_CERTIFICATE_BYTES) throw bad("a PEM text is too long");
  const said = ascii(data.slice(0, end));
  if (said === null) throw bad("not a PEM text");
  const blocks = said.split("-----BEGIN CERTIFICATE-----").slice(1);
  if (blocks.length < 1 || blocks.length > MAX_PATH) {
    throw bad(`a PEM text holds ${blocks.length} certificates, where 1 to ${MAX_PATH} are allowed`);
  }
  return blocks.map((block) => {
    const [body, rest] = block.split("-----END CERTIFICATE-----", 2);
    if (body === undefined || rest === undefined) throw bad("a PEM text ends early");
    let der: Bytes;
    try {
      der = unb64(body.replace(/\s+/g, ""));
    } catch (error) {
      throw isOurs(error, "wire") ? bad("not a PEM text") : error;
    }
    return new Certificate(der);
  });
}

// --- revocation lists -------------------------------------------------------------------------------------------------

/** A certificate revocation list. **Untrusted** until `requireCurrent` has passed. */
export class RevocationList {
  readonly der: Bytes;
  readonly thisUpdate: number;
  readonly nextUpdate: number; // the last second at which it counts
  readonly #issuerName: Name;
  readonly #signed: Signed;
  readonly #revoked: ReadonlySet<bigint>;
  readonly #extensions: ReadonlyMap<string, Extension> | null;

  constructor(der: Bytes) {
    if (der.length > MAX_CRL_BYTES) throw bad(`a revocation list is longer than ${MAX_CRL_BYTES} bytes`);
    this.der = der;
    try {
      this.#signed = readSigned(der);
      const tbs = new Der(this.#signed.tbs.value);
      if (tbs.isNext(TAG.integer) && integer(tbs.any()) !== 1n) throw bad("it is of another version");
      const inner = tbs.take(TAG.sequence, "an algorithm");
      requireAlike(inner, this.#signed);
      this.#issuerName = new Name(tbs.any());
      this.thisUpdate = time(tbs.any());
      if (!tbs.isNext(TAG.utcTime, TAG.time)) {
        throw bad("a revocation list does not say until when it counts");
      }
      this.nextUpdate = time(tbs.any());
      this.#revoked = tbs.isNext(TAG.sequence) ? readRevoked(tbs.inside(TAG.sequence, "entries")) : new Set();
      this.#extensions = tbs.isNext(0xa0) ? readExtensions(tbs.inside(0xa0, "extensions")) : new Map();
      tbs.end("it");
    } catch (error) {
      throw isOurs(error) ? bad(`not a revocation list: ${error.message}`) : error;
    }
  }

  async digest(): Promise<string> {
    return await digest(this.der);
  }

  /** Whether it names this issuer; its signature is another question. */
  issuedBy(issuer: Certificate): boolean {
    return this.#issuerName.equals(issuer.subjectName);
  }

  /** Require that the issuer signed it and that it counts; returns the last second at which it does. */
  async requireCurrent(issuer: Certificate, at: number): Promise<number> {
    if (!this.issuedBy(issuer)) throw bad(`a revocation list names another issuer than ${issuer.subject}`);
    if (!issuer.may(CRL_SIGN)) throw bad(`the key of ${issuer.subject} may not sign revocation lists`);
    await requireSigned(issuer.key, issuer.subject, this.#signed);
    if (this.#extensions === null) throw bad("a revocation list's extensions cannot be read");
    for (const [name, { critical }] of this.#extensions) {
      if (critical) throw bad(`a revocation list has a critical extension that is not known here: ${name}`);
    }
    if (at < this.thisUpdate) {
      const said = `the revocation list of ${issuer.subject} is from ${this.thisUpdate}, after ${at}`;
      throw new StrongroomError("attest.endorsement_not_yet_valid", said);
    }
    if (at > this.nextUpdate) {
      const said = `the revocation list of ${issuer.subject} counted until ${this.nextUpdate}, before ${at}`;
      throw new StrongroomError("attest.endorsement_expired", said);
    }
    return this.nextUpdate;
  }

  /** Require that it does not name the certificate's serial number. */
  requireNotRevoked(certificate: Certificate): void {
    if (this.#revoked.has(certificate.serial)) {
      const number =
        certificate.serial < 0n ? `-0x${(-certificate.serial).toString(16)}` : `0x${certificate.serial.toString(16)}`;
      throw new StrongroomError("attest.revoked", `${certificate.subject} with serial number ${number} is revoked`);
    }
  }
}

function readRevoked(all: Der): ReadonlySet<bigint> {
  const found = new Set<bigint>();
  while (!all.done) {
    const entry = all.inside(TAG.sequence, "an entry");
    found.add(integer(entry.any()));
    time(entry.any());
    if (!entry.done) {
      const extensions = entry.take(TAG.sequence, "extensions of an entry");
      readExtensions(new Der(extensions.der));
    }
    entry.end("an entry");
  }
  return found;
}
