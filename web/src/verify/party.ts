/** Parties' keys and cards: `spec/party.md`. */

import { type Bytes, b64, equal } from "./bytes.ts";
import { digest, ed25519Verifies, isSmallOrderX25519, requireEd25519Key } from "./crypto.ts";
import { StrongroomError } from "./errors.ts";
import { decode, type Envelope, encode, Fields, type Json, matches, pae } from "./wire.ts";

const MLKEM_PUBLIC = 1184;
const MLKEM_COEFFICIENTS = 1152; // bytes of them, before the seed
const MLKEM_Q = 3329;
export const ENCRYPTION_KEY_BYTES = MLKEM_PUBLIC + 32;
const ORIGIN = /^(?:https?:\/\/(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:]{2,45}\])(?::[1-9][0-9]{0,4})?)?$/;

/** An Ed25519 public key. Throws `party.bad_key` for a weak or malformed one. */
export class VerifyKey {
  readonly raw: Bytes;

  constructor(raw: Bytes) {
    requireEd25519Key(raw);
    this.raw = raw;
  }

  /** `sha256:` and the hex SHA-256 of the raw key. */
  async keyid(): Promise<string> {
    return await digest(this.raw);
  }

  /** Throws `wire.bad_signature`. */
  async verifyBytes(signature: Bytes, message: Bytes): Promise<void> {
    if (!(await ed25519Verifies(this.raw, signature, message))) {
      throw new StrongroomError("wire.bad_signature", "the signature does not verify");
    }
  }

  /** The payload of an envelope that this key, and no other, signed. Throws `wire.bad_envelope`, `wire.bad_signature`. */
  async verify(envelope: Envelope, payloadType: string): Promise<Bytes> {
    const payload = envelope.expect(payloadType);
    const [only, ...more] = envelope.signatures;
    if (!only || more.length > 0 || only.keyid !== (await this.keyid())) {
      throw new StrongroomError("wire.bad_signature", "the envelope is not signed by exactly the expected key");
    }
    await this.verifyBytes(only.sig, pae(payloadType, payload));
    return payload;
  }
}

/** Refuse what is no MLKEM768-X25519 public key that anybody should encrypt to. Throws `party.bad_key`. */
export function requireEncryptionKey(raw: Bytes): void {
  const bad = (why: string) => new StrongroomError("party.bad_key", why);
  if (raw.length !== ENCRYPTION_KEY_BYTES) throw bad(`an encryption key is not ${ENCRYPTION_KEY_BYTES} bytes long`);
  const at = (n: number) => raw[n] ?? 0;
  for (let n = 0; n < MLKEM_COEFFICIENTS; n += 3) {
    // Two coefficients of 12 bits (FIPS 203, section 7.2: each must be reduced).
    const low = at(n) | ((at(n + 1) & 0x0f) << 8);
    const high = (at(n + 1) >> 4) | (at(n + 2) << 4);
    if (low >= MLKEM_Q || high >= MLKEM_Q) throw bad("an encryption key is malformed");
  }
  if (isSmallOrderX25519(raw.slice(MLKEM_PUBLIC))) throw bad("an encryption key's X25519 part has small order");
}

/** A party's card: its name and keys. What makes it the party's is that somebody compared its fingerprint. */
export class Party {
  readonly name: string;
  readonly signingKey: VerifyKey;
  readonly keys: readonly Bytes[]; // all of them, which no other party or role may have
  readonly #members: { readonly [member: string]: Json }; // of the fingerprint

  constructor(value: unknown) {
    const f = new Fields(value, "party");
    this.name = f.name("name");
    this.signingKey = new VerifyKey(f.base64("signing_key"));
    const encryption = f.base64("encryption_key");
    requireEncryptionKey(encryption);
    const broker = new VerifyKey(f.base64("broker_key"));
    const url = f.text("broker_url", 256);
    if (equal(broker.raw, this.signingKey.raw)) {
      const said = "a party's signing key and its broker's key must differ: one key per role";
      throw new StrongroomError("party.bad_key", said);
    }
    f.end();
    if (!matches(ORIGIN, url)) {
      throw new StrongroomError("wire.bad_field", "party.broker_url is not http(s)://host or http(s)://host:port");
    }
    this.keys = [this.signingKey.raw, broker.raw, encryption];
    this.#members = {
      broker_key: b64(broker.raw),
      encryption_key: b64(encryption),
      name: this.name,
      signing_key: b64(this.signingKey.raw),
    };
  }

  static parse(data: Bytes): Party {
    return new Party(decode(data, 16 << 10));
  }

  /** The digest of the card without the broker's address: a broker can move. */
  async fingerprint(): Promise<string> {
    return await digest(encode(this.#members));
  }
}
