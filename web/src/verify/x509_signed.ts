/** Keys and signatures of certificates and revocation lists (RFC 5280, 5480, 4055). */

import { type Bytes, equal } from "./bytes.ts";
import { type Curve, ecdsaKey, ecdsaVerifies, type Hash } from "./crypto.ts";
import { Der, type Element, integer, oid, sequence, TAG, wholeBits } from "./der.ts";
import { isOurs, StrongroomError } from "./errors.ts";

const CURVES: ReadonlyMap<string, Curve> = new Map([
  ["1.2.840.10045.3.1.7", "P-256"],
  ["1.3.132.0.34", "P-384"],
]);
const EC_KEY = "1.2.840.10045.2.1";
const RSA_KEY = "1.2.840.113549.1.1.1";
const RSA_PSS = "1.2.840.113549.1.1.10";
const MGF1 = "1.2.840.113549.1.1.8";
const DIGESTS: ReadonlyMap<string, Hash> = new Map([
  ["2.16.840.1.101.3.4.2.1", "SHA-256"],
  ["2.16.840.1.101.3.4.2.2", "SHA-384"],
  ["2.16.840.1.101.3.4.2.3", "SHA-512"],
]);
const ECDSA_SIGNATURES: ReadonlyMap<string, Hash> = new Map([
  ["1.2.840.10045.4.3.2", "SHA-256"],
  ["1.2.840.10045.4.3.3", "SHA-384"],
  ["1.2.840.10045.4.3.4", "SHA-512"],
]);
const RSA_SIGNATURES: ReadonlyMap<string, Hash> = new Map([
  ["1.2.840.113549.1.1.11", "SHA-256"],
  ["1.2.840.113549.1.1.12", "SHA-384"],
  ["1.2.840.113549.1.1.13", "SHA-512"],
]);

const bad = (why: string) => new StrongroomError("attest.bad_certificate", why);

export type PublicKey =
  | { readonly kind: "ec"; readonly curve: Curve; readonly point: Bytes }
  | { readonly kind: "rsa"; readonly spki: Bytes };

/** A SubjectPublicKeyInfo, taken apart; whether anybody should use the key is for `readKey`. */
export interface KeyInfo {
  readonly der: Bytes;
  readonly kind: string;
  readonly parameters: Element | null;
  readonly bits: Bytes;
}

export function readKeyInfo({ value, der }: Element): KeyInfo {
  const all = new Der(value);
  const algorithm = all.inside(TAG.sequence, "a key's algorithm");
  const bits = wholeBits(all.any());
  all.end("a key");
  const kind = oid(algorithm.any());
  const parameters = algorithm.done ? null : algorithm.any();
  algorithm.end("a key's algorithm");
  return { der, kind, parameters, bits };
}

/** Throws `attest.bad_certificate` for another kind of key, and for one of RSA of a strange size or a large exponent. */
export function readKey({ der, kind, parameters, bits }: KeyInfo): PublicKey {
  if (kind === RSA_KEY) {
    const numbers = sequence(bits);
    const [modulus, exponent] = [integer(numbers.any()), integer(numbers.any())];
    numbers.end("an RSA key");
    const size = modulus.toString(2).length;
    if (size < 2048 || size > 8192) {
      throw bad(`a certificate's RSA key has ${size} bits, which is too weak, or too slow to use`);
    }
    if (exponent < 3n || exponent >= 1n << 32n) {
      throw bad("a certificate's RSA key has an exponent that makes it too slow to use");
    }
    return { kind: "rsa", spki: der };
  }
  if (kind !== EC_KEY) throw bad("a certificate's key is neither on an elliptic curve nor RSA");
  const curve = parameters?.tag === TAG.oid ? CURVES.get(oid(parameters)) : undefined;
  if (curve === undefined || bits[0] !== 4) throw bad("a certificate's key cannot be read");
  return { kind: "ec", curve, point: bits };
}

/** `r ‖ s` of an ECDSA signature in DER, each as long as the curve's numbers; `null` where it is none. */
function rawSignature(der: Bytes, size: number): Bytes | null {
  const found = new Uint8Array(2 * size);
  const numbers = sequence(der);
  for (const place of [0, size]) {
    let value = integer(numbers.any());
    if (value <= 0n || value >= 1n << BigInt(8 * size)) return null;
    for (let n = place + size - 1; value > 0n; n--, value >>= 8n) found[n] = Number(value & 0xffn);
  }
  numbers.end("a signature");
  return found;
}

/** How something was signed; `hash` is `null` where it is a weak or unknown one. */
interface Algorithm {
  readonly der: Bytes; // as it is named
  readonly name: "ECDSA" | "RSA-PSS" | "RSASSA-PKCS1-v1_5" | null;
  readonly hash: Hash | null;
  readonly saltLength: number; // of RSA-PSS
}

function readAlgorithm(element: Element): Algorithm {
  const fields = new Der(element.value);
  const kind = oid(fields.any());
  const named = { der: element.der, saltLength: 0 };
  if (kind === RSA_PSS) return { ...named, name: "RSA-PSS", ...readPss(fields) };
  if (!fields.done) fields.any(); // of other algorithms, parameters that say nothing
  fields.end("an algorithm");
  const ecdsa = ECDSA_SIGNATURES.get(kind);
  if (ecdsa !== undefined) return { ...named, name: "ECDSA", hash: ecdsa };
  const rsa = RSA_SIGNATURES.get(kind);
  return { ...named, name: rsa === undefined ? null : "RSASSA-PKCS1-v1_5", hash: rsa ?? null };
}

/** The parameters of RSASSA-PSS (RFC 4055 section 3.1): all of them said, and the same hash throughout, or they are unknown. */
function readPss(algorithm: Der): { readonly hash: Hash | null; readonly saltLength: number } {
  const unknown = { hash: null, saltLength: 0 };
  const fields = algorithm.inside(TAG.sequence, "parameters of a signature");
  const hashed = (of: Der) => DIGESTS.get(oid(of.inside(TAG.sequence, "a digest").any()));
  if (!fields.isNext(0xa0)) return unknown;
  const hash = hashed(fields.inside(0xa0, "a digest"));
  if (!fields.isNext(0xa1)) return unknown;
  const mask = fields.inside(0xa1, "a mask").inside(TAG.sequence, "a mask");
  const isMgf1 = oid(mask.any()) === MGF1;
  if (!isMgf1 || hash === undefined || hashed(mask) !== hash || !fields.isNext(0xa2)) return unknown;
  const saltLength = integer(fields.inside(0xa2, "a salt").any());
  if (fields.isNext(0xa3) && integer(fields.inside(0xa3, "a trailer").any()) !== 1n) return unknown;
  fields.end("parameters of a signature");
  return saltLength < 0n || saltLength > 512n ? unknown : { hash, saltLength: Number(saltLength) };
}

/** What was signed, the algorithm named beside it, and the signature: alike for certificates and lists. */
export interface Signed {
  readonly tbs: Element;
  readonly algorithm: Algorithm;
  readonly signature: Bytes;
}

export function readSigned(data: Bytes): Signed {
  const whole = sequence(data);
  const tbs = whole.any();
  if (tbs.tag !== TAG.sequence) throw bad("it does not begin with what was signed");
  const algorithm = readAlgorithm(whole.take(TAG.sequence, "an algorithm"));
  const found = { tbs, algorithm, signature: wholeBits(whole.any()) };
  whole.end("it");
  return found;
}

/** The algorithm is named twice, and only once under the signature (RFC 5280 sections 4.1.1.2 and 5.1.1.2). */
export function requireAlike(inside: Element, { algorithm }: Signed): void {
  if (!equal(inside.der, algorithm.der)) throw bad("it names two algorithms for its one signature");
}

/** Require a key's signature, by the algorithm that the document names. Throws `attest.bad_certificate`, naming whose key it is. */
export async function requireSigned(key: PublicKey, whose: string, signed: Signed): Promise<void> {
  const { name, hash } = signed.algorithm;
  if (hash === null) throw bad(`${whose} signed with a weak or unknown digest`);
  const isFitting = (name === "ECDSA") === (key.kind === "ec");
  const verifies = key.kind === "ec" ? verifiesEcdsa(key, hash, signed) : verifiesRsa(key, signed);
  if (!isFitting || !(await verifies)) throw bad(`not signed by ${whose}`);
}

async function verifiesEcdsa(key: PublicKey & { kind: "ec" }, hash: Hash, { tbs, signature }: Signed): Promise<boolean> {
  const found = await ecdsaKey(key.curve, key.point);
  try {
    const raw = rawSignature(signature, key.curve === "P-256" ? 32 : 48);
    return found !== null && raw !== null && (await ecdsaVerifies(found, hash, raw, tbs.der));
  } catch (error) {
    if (isOurs(error)) return false;
    throw error;
  }
}

async function verifiesRsa(key: PublicKey & { kind: "rsa" }, { algorithm, tbs, signature }: Signed): Promise<boolean> {
  const { name, hash, saltLength } = algorithm;
  if (hash === null || name === null || name === "ECDSA") return false;
  let found: CryptoKey;
  try {
    found = await crypto.subtle.importKey("spki", key.spki, { name, hash }, false, ["verify"]);
  } catch {
    throw bad("a certificate's key cannot be read");
  }
  return await crypto.subtle.verify({ name, saltLength }, found, signature, tbs.der);
}
