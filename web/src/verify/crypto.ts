/** Digests and signatures, by WebCrypto. */

import { type Bytes, big, hex, little } from "./bytes.ts";
import { StrongroomError } from "./errors.ts";

export type Hash = "SHA-256" | "SHA-384" | "SHA-512";
export type Curve = "P-256" | "P-384";

export async function sha256(data: Bytes): Promise<Bytes> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", data));
}

/** `sha256:` and the lowercase hex SHA-256 of the bytes. */
export async function digest(data: Bytes): Promise<string> {
  return `sha256:${hex(await sha256(data))}`;
}

/** What this browser lacks of what verification needs, in words; `null` where nothing is missing. */
export async function lacking(): Promise<string | null> {
  // A page that came over plain HTTP from another machine has no WebCrypto at all.
  if (globalThis.crypto?.subtle === undefined) return "WebCrypto, which a page has over HTTPS or from its own machine";
  for (const name of ["Ed25519", "X25519"]) {
    try {
      await crypto.subtle.generateKey(name, false, name === "Ed25519" ? ["sign", "verify"] : ["deriveBits"]);
    } catch {
      return `${name}: use a current Chromium, Firefox or Safari`;
    }
  }
  return null;
}

const P = 2n ** 255n - 19n;
const L = 2n ** 252n + 27742317777372353535851937790883648493n; // the order of Ed25519's group
const D = (P - 121665n) * power(121666n, P - 2n);
const EVEN_SIGN = 2n ** 255n - 1n; // all bits of y but the sign of x
// The y coordinates of the eight points of small order on edwards25519.
const SMALL_ORDER_Y = new Set([
  0n,
  1n,
  P - 1n,
  2707385501144840649318225287225658788936804267575313519463743609750303402022n,
  55188659117513257062467267217118295137698188065244968500265048394206261417927n,
]);
// The u coordinates of small order on Curve25519 (and its twist), reduced.
const SMALL_ORDER_U = new Set([
  0n,
  1n,
  P - 1n,
  325606250916557431795983626356110631294008115727848805560023387167927233504n,
  39382357235489614581723060781553021112529911719440698176882885853963445705823n,
]);

function power(base: bigint, exponent: bigint): bigint {
  let found = 1n;
  let square = base % P;
  for (let left = exponent; left > 0n; left >>= 1n) {
    if (left & 1n) found = (found * square) % P;
    square = (square * square) % P;
  }
  return found;
}

/** Refuse what is no Ed25519 public key that anybody should use: it would verify almost anything. Throws `party.bad_key`. */
export function requireEd25519Key(raw: Bytes): void {
  const bad = (why: string) => new StrongroomError("party.bad_key", `an Ed25519 public key ${why}`);
  if (raw.length !== 32) throw bad("is not 32 bytes long");
  const y = little(raw) & EVEN_SIGN;
  if (y >= P) throw bad("is not in canonical form");
  if (SMALL_ORDER_Y.has(y)) throw bad("has small order");
  const xSquared = (y * y - 1n) * power(D * y * y + 1n, P - 2n);
  if (power(((xSquared % P) + P) % P, (P - 1n) / 2n) > 1n) throw bad("is not a point on the curve");
}

/** Whether an X25519 public key of 32 bytes has small order, so that everybody shares its secrets. */
export function isSmallOrderX25519(raw: Bytes): boolean {
  return SMALL_ORDER_U.has((little(raw) & EVEN_SIGN) % P);
}

/** Whether it is the key's Ed25519 signature (RFC 8032). The key has passed `requireEd25519Key`. */
export async function ed25519Verifies(raw: Bytes, signature: Bytes, data: Bytes): Promise<boolean> {
  if (signature.length !== 64 || little(signature.subarray(32)) >= L) return false;
  const key = await crypto.subtle.importKey("raw", raw, "Ed25519", false, ["verify"]);
  return await crypto.subtle.verify("Ed25519", key, signature, data);
}

/** A key on a NIST curve, from the point `04 ‖ x ‖ y`; `null` where that is no point of it. */
export async function ecdsaKey(curve: Curve, point: Bytes): Promise<CryptoKey | null> {
  try {
    return await crypto.subtle.importKey("raw", point, { name: "ECDSA", namedCurve: curve }, false, ["verify"]);
  } catch {
    return null;
  }
}

/** Whether `r ‖ s`, each as long as the curve's numbers, is the key's ECDSA signature. */
export async function ecdsaVerifies(key: CryptoKey, hash: Hash, signature: Bytes, data: Bytes): Promise<boolean> {
  const half = signature.length / 2;
  if (big(signature.subarray(0, half)) === 0n || big(signature.subarray(half)) === 0n) return false;
  return await crypto.subtle.verify({ name: "ECDSA", hash }, key, signature, data);
}
