/**
 * The Encrypted HTTP Body Protocol (EHBP), a client's half: keys, frames, and both directions of one exchange.
 *
 * A request's body is encrypted by HPKE (RFC 9180, base mode, X25519, HKDF-SHA256, AES-256-GCM) to a key that an enclave's
 * keyset attests; the response under a key that is exported from the same HPKE context. See `spec/ehbp.md`.
 */

import { Aes256Gcm, CipherSuite, DhkemX25519HkdfSha256, HkdfSha256, type SenderContext } from "@hpke/core";
import { type Bytes, concat, equal, u32, u32Bytes, unhex, utf8 } from "./bytes.ts";
import { isSmallOrderX25519 } from "./crypto.ts";
import { StrongroomError } from "./errors.ts";

export const KEYS_PATH = "/.well-known/hpke-keys";
export const ENCAPSULATED_KEY_HEADER = "Ehbp-Encapsulated-Key";
export const RESPONSE_NONCE_HEADER = "Ehbp-Response-Nonce";

const KEY_BYTES = 32;
const NONCE_BYTES = 32;
const TAG_BYTES = 16;
const LENGTH_BYTES = 4;
const MAX_KEYS_BYTES = 4096;
export const MAX_FRAME_BYTES = (16 << 20) + TAG_BYTES; // of ciphertext
const MAX_EMPTY_FRAMES = 1 << 14;

const INFO = utf8("ehbp request");
const EXPORT_LABEL = utf8("ehbp response");
const KEM = unhex("0020"); // X25519 with HKDF-SHA256; these as in the registries of RFC 9180 section 7
const SUITES = unhex("000400010002"); // four bytes: HKDF-SHA256 with AES-256-GCM
const SUITE = new CipherSuite({ kem: new DhkemX25519HkdfSha256(), kdf: new HkdfSha256(), aead: new Aes256Gcm() });

// --- keys and headers -------------------------------------------------------------------------------------------------

/** Require a usable X25519 key for requests. Throws `ehbp.bad_key_config`. */
export function requireRequestKey(raw: Bytes): Bytes {
  const bad = (why: string) => new StrongroomError("ehbp.bad_key_config", `a key for requests ${why}`);
  if (raw.length !== KEY_BYTES) throw bad(`is not ${KEY_BYTES} bytes long`);
  if (isSmallOrderX25519(raw)) throw bad("has small order");
  return raw;
}

/** The key of the first configuration at the well-known address: good for comparing with the attested one, and nothing else. */
export function keyOfConfig(data: Bytes): Bytes {
  const bad = (why: string) => new StrongroomError("ehbp.bad_key_config", why);
  const other = (why: string) => new StrongroomError("ehbp.unsupported_suite", why);
  if (data.length > MAX_KEYS_BYTES) throw bad(`a key configuration is longer than ${MAX_KEYS_BYTES} bytes`);
  if (data.length < 3) throw bad("a key configuration ends before its key");
  if (!equal(data.slice(1, 3), KEM)) {
    throw other("the key configuration is for another KEM than X25519 with HKDF-SHA256");
  }
  const [raw, suites] = [data.slice(3, 3 + KEY_BYTES), data.slice(3 + KEY_BYTES)];
  const size = ((suites[0] ?? 0) << 8) | (suites[1] ?? 0);
  if (suites.length < 2 + size || size === 0 || size % 4 !== 0) {
    throw bad("a key configuration ends before its suites, or has none");
  }
  if (!equal(suites.slice(0, 2 + size), SUITES)) {
    throw other("the key configuration does not have HKDF-SHA256 with AES-256-GCM as its only suite");
  }
  return requireRequestKey(raw);
}

/** A response's nonce, from the header as `fetch` gives it: a second value makes it longer. Throws `ehbp.bad_response_nonce`. */
export function responseNonce(header: string | null): Bytes {
  const bad = (why: string) => new StrongroomError("ehbp.bad_response_nonce", `${RESPONSE_NONCE_HEADER} ${why}`);
  if (header === null) throw bad("stands 0 times, not once");
  if (!/^[0-9a-f]{64}$/.test(header)) throw bad("is not 64 lowercase hex digits");
  return unhex(header);
}

// --- frames -----------------------------------------------------------------------------------------------------------

/** What encrypts one body's frames, in order: each its length, then the ciphertext. */
export interface Seals {
  seal(plaintext: Bytes): Promise<Bytes>;
}

/** What decrypts one body's frames, in order. */
export interface Opens {
  open(ciphertext: Bytes): Promise<Bytes>;
}

function frame(ciphertext: Bytes): Bytes {
  return concat(u32Bytes(ciphertext.length), ciphertext);
}

/** Bytes that arrived and are not taken apart yet. */
class Queue {
  #pieces: Bytes[] = [];
  size = 0;

  push(piece: Bytes): void {
    if (piece.length > 0) this.#pieces.push(piece);
    this.size += piece.length;
  }

  /** The first so many bytes, which are there. */
  peek(size: number): Bytes {
    if ((this.#pieces[0]?.length ?? 0) < size) this.#pieces = [concat(...this.#pieces)];
    return (this.#pieces[0] ?? new Uint8Array()).slice(0, size);
  }

  take(size: number): Bytes {
    const found = this.peek(size);
    const rest = this.#pieces[0]?.subarray(size) ?? new Uint8Array();
    if (rest.length > 0) this.#pieces[0] = rest;
    else this.#pieces.shift();
    this.size -= size;
    return found;
  }
}

interface Limits {
  readonly maxBytes: number; // of the whole body as it is sent, lengths and tags included
  readonly maxFrame?: number; // of a frame's ciphertext
  readonly maxEmpty?: number; // frames without ciphertext that are passed over
}

/** Takes a body apart into the plaintexts of its frames, however its bytes arrive. */
export class FrameReader {
  readonly #opener: Opens;
  readonly #queue = new Queue();
  readonly #maxFrame: number;
  #left: number;
  #emptyLeft: number;

  constructor(opener: Opens, { maxBytes, maxFrame = MAX_FRAME_BYTES, maxEmpty = MAX_EMPTY_FRAMES }: Limits) {
    this.#opener = opener;
    this.#left = maxBytes;
    this.#maxFrame = maxFrame;
    this.#emptyLeft = maxEmpty;
  }

  get pending(): number {
    return this.#queue.size;
  }

  feed(data: Bytes): void {
    this.#queue.push(data);
  }

  /** The next frame's plaintext, or `null` where more bytes are needed first. After an error it is not asked again. */
  async next(): Promise<Bytes | null> {
    while (this.#queue.size >= LENGTH_BYTES) {
      const size = u32(this.#queue.peek(LENGTH_BYTES));
      if (size > this.#maxFrame) {
        const said = `a frame of ${size} bytes, where at most ${this.#maxFrame} are allowed`;
        throw new StrongroomError("ehbp.frame_too_large", said);
      }
      if (LENGTH_BYTES + size > this.#left) {
        const said = "the body is longer than is allowed, frames and padding included";
        throw new StrongroomError("ehbp.body_too_large", said);
      }
      if (this.#queue.size < LENGTH_BYTES + size) return null;
      const ciphertext = this.#queue.take(LENGTH_BYTES + size).slice(LENGTH_BYTES);
      this.#left -= LENGTH_BYTES + size;
      if (size > 0) return await this.#opener.open(ciphertext);
      if (this.#emptyLeft === 0) {
        const said = "the body has more frames without ciphertext than are passed over";
        throw new StrongroomError("ehbp.empty_frames", said);
      }
      this.#emptyLeft--;
    }
    return null;
  }

  /** The body has no more bytes. Plain EHBP cannot tell a whole body from one whose last frames were cut off. */
  end(): void {
    if (this.#queue.size > 0) throw new StrongroomError("ehbp.truncated", "the body ends inside a frame");
  }
}

// --- the exchange -----------------------------------------------------------------------------------------------------

/** AES-256-GCM with the nonces of RFC 9180 section 5.2, under the key of one response. */
export class ResponseKey implements Opens, Seals {
  readonly #key: CryptoKey;
  readonly #base: Bytes;
  #count = 0;

  private constructor(key: CryptoKey, base: Bytes) {
    this.#key = key;
    this.#base = base;
  }

  /** From the exported secret: HKDF-SHA256 (RFC 5869) with the salt of both sides' public values (RFC 9458 section 4.4). */
  static async derive(secret: Bytes, encapsulated: Bytes, nonce: Bytes): Promise<ResponseKey> {
    if (nonce.length !== NONCE_BYTES) {
      throw new StrongroomError("ehbp.bad_response_nonce", `a response nonce is not ${NONCE_BYTES} bytes long`);
    }
    const prk = await crypto.subtle.importKey("raw", secret, "HKDF", false, ["deriveBits"]);
    const expand = async (label: string, bytes: number) => {
      const how = { name: "HKDF", hash: "SHA-256", salt: concat(encapsulated, nonce), info: utf8(label) };
      return new Uint8Array(await crypto.subtle.deriveBits(how, prk, 8 * bytes));
    };
    const key = await crypto.subtle.importKey("raw", await expand("key", 32), "AES-GCM", false, ["encrypt", "decrypt"]);
    return new ResponseKey(key, await expand("nonce", 12));
  }

  #nonce(): { name: string; iv: Bytes } {
    const iv = this.#base.slice();
    const count = u32Bytes(this.#count++);
    for (let n = 0; n < LENGTH_BYTES; n++) iv[8 + n] = (iv[8 + n] ?? 0) ^ (count[n] ?? 0);
    return { name: "AES-GCM", iv };
  }

  async open(ciphertext: Bytes): Promise<Bytes> {
    try {
      return new Uint8Array(await crypto.subtle.decrypt(this.#nonce(), this.#key, ciphertext));
    } catch (error) {
      const said = "a frame is not the next one of the answer to this request";
      throw new StrongroomError("ehbp.frame_altered", said, { cause: error });
    }
  }

  async seal(plaintext: Bytes): Promise<Bytes> {
    return frame(new Uint8Array(await crypto.subtle.encrypt(this.#nonce(), this.#key, plaintext)));
  }
}

/** A client's half of one exchange. */
export class Sender implements Seals {
  readonly encapsulatedKey: Bytes;
  readonly #context: SenderContext;

  private constructor(context: SenderContext) {
    this.#context = context;
    this.encapsulatedKey = new Uint8Array(context.enc);
  }

  /**
   * `to`: the enclave's raw key, from a verified keyset. `seed`: 32 secret random bytes, used for this exchange and never
   * again; the ephemeral key is derived from them (RFC 9180, DeriveKeyPair).
   */
  static async to(to: Bytes, seed: Bytes): Promise<Sender> {
    const recipientPublicKey = await SUITE.kem.deserializePublicKey(requireRequestKey(to));
    const ekm = await SUITE.kem.deriveKeyPair(seed);
    return new Sender(await SUITE.createSenderContext({ recipientPublicKey, info: INFO, ekm }));
  }

  /** The request's next frame. */
  async seal(plaintext: Bytes): Promise<Bytes> {
    return frame(new Uint8Array(await this.#context.seal(plaintext)));
  }

  /** What decrypts the answer's frames. */
  async response(nonce: Bytes): Promise<ResponseKey> {
    const secret = new Uint8Array(await this.#context.export(EXPORT_LABEL, 32));
    return await ResponseKey.derive(secret, this.encapsulatedKey, nonce);
  }
}

/** Whether an answer says that the key was another. **Untrusted**: a reason to verify the attestation again, and no more. */
export function isKeyProblem(status: number, contentType: string, body: string): boolean {
  const [kind = ""] = contentType.split(";");
  if (status !== 422 || kind.trim().toLowerCase() !== "application/problem+json") return false;
  try {
    const found: unknown = JSON.parse(body);
    const type = typeof found === "object" && found !== null && "type" in found ? found.type : null;
    return type === "urn:ietf:params:ehbp:error:key-config";
  } catch {
    return false;
  }
}
