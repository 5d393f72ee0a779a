/** The enclave's half of EHBP, for the tests alone: what a page talks to. */

import { Aes256Gcm, CipherSuite, DhkemX25519HkdfSha256, HkdfSha256, type RecipientContext } from "@hpke/core";
import { type Bytes, hex, unhex, utf8 } from "../src/verify/bytes.ts";
import { isSmallOrderX25519 } from "../src/verify/crypto.ts";
import { type Opens, ResponseKey } from "../src/verify/ehbp.ts";
import { StrongroomError } from "../src/verify/errors.ts";
import { parseRequestHead, RecordReader, type RequestHead, Writer } from "../src/verify/sealed.ts";
import { encode, type Json } from "../src/verify/wire.ts";

const SUITE = new CipherSuite({ kem: new DhkemX25519HkdfSha256(), kdf: new HkdfSha256(), aead: new Aes256Gcm() });

export class Recipient implements Opens {
  readonly encapsulated: Bytes;
  readonly #context: RecipientContext;
  #opened = false;

  private constructor(encapsulated: Bytes, context: RecipientContext) {
    this.encapsulated = encapsulated;
    this.#context = context;
  }

  static async of(privateKey: Bytes, headers: readonly string[]): Promise<Recipient> {
    const [only = ""] = headers;
    const enc = unhex(only);
    if (headers.length !== 1 || !/^[0-9a-f]{64}$/.test(only) || isSmallOrderX25519(enc)) {
      throw new StrongroomError("ehbp.bad_encapsulated_key", "not one usable key");
    }
    const recipientKey = await SUITE.kem.deserializePrivateKey(privateKey);
    return new Recipient(enc, await SUITE.createRecipientContext({ recipientKey, enc, info: utf8("ehbp request") }));
  }

  async open(ciphertext: Bytes): Promise<Bytes> {
    try {
      const found = new Uint8Array(await this.#context.open(ciphertext));
      this.#opened = true;
      return found;
    } catch {
      throw new StrongroomError(this.#opened ? "ehbp.frame_altered" : "ehbp.key_config_mismatch", "it does not open");
    }
  }

  async respond(nonce: Bytes): Promise<ResponseKey> {
    if (!this.#opened) throw new StrongroomError("ehbp.no_body", "nothing was authenticated");
    const secret = new Uint8Array(await this.#context.export(utf8("ehbp response"), 32));
    return await ResponseKey.derive(secret, this.encapsulated, nonce);
  }
}

export interface Serves {
  readonly privateKey: Bytes;
  readonly keyset: string;
  readonly contract: string | null;
  readonly seen: Set<string>;
  readonly capacity: number;
}

/** Reads one sealed request; its `head` is there once it was accepted. */
export class EnclaveExchange extends RecordReader {
  readonly recipient: Recipient;
  #head: RequestHead | null = null;

  private constructor(recipient: Recipient, serves: Serves, method: string, path: string, maxBody: number) {
    super(recipient, (data) => this.#take(data, serves, method, path), maxBody);
    this.recipient = recipient;
  }

  static async of(serves: Serves, headers: readonly string[], target: readonly [string, string], maxBody: number) {
    return new EnclaveExchange(await Recipient.of(serves.privateKey, headers), serves, ...target, maxBody);
  }

  get head(): RequestHead {
    if (this.#head === null) throw new Error("no request was accepted");
    return this.#head;
  }

  #take(data: Bytes, serves: Serves, method: string, path: string): void {
    const head = parseRequestHead(data);
    const key = hex(this.recipient.encapsulated);
    if (head.method !== method || head.path !== path) throw new StrongroomError("ehbp.wrong_target", "another target");
    if (head.keyset !== serves.keyset) throw new StrongroomError("ehbp.wrong_keyset", "another keyset");
    if (head.contract !== null && head.contract !== serves.contract) {
      throw new StrongroomError("ehbp.wrong_contract", "another contract");
    }
    if (serves.seen.size >= serves.capacity) throw new StrongroomError("ehbp.seen_keys_full", "full");
    if (serves.seen.has(key)) throw new StrongroomError("ehbp.replayed", "again");
    serves.seen.add(key);
    this.#head = head;
  }

  async respond(head: Json, nonce: Bytes, sizes: readonly number[]): Promise<Writer> {
    return new Writer(await this.recipient.respond(nonce), encode(head), sizes);
  }
}
