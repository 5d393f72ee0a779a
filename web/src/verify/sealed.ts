/**
 * Sealed requests and responses: EHBP with its gaps closed inside its own plaintext.
 *
 * The head binds a request to its method, path, keyset and contract, and a response to its request; the last record says that
 * a body is whole; padding hides its size. To whoever stands between, it is EHBP. See `spec/ehbp.md`.
 */

import { type Bytes, concat, hex, isZero, u32, u32Bytes } from "./bytes.ts";
import {
  ENCAPSULATED_KEY_HEADER,
  FrameReader,
  MAX_FRAME_BYTES,
  type Opens,
  responseNonce,
  type Seals,
  Sender,
} from "./ehbp.ts";
import { isOurs, StrongroomError } from "./errors.ts";
import { decode, encode, Fields, type Json, matches } from "./wire.ts";

export const MEDIA_TYPE = "application/vnd.strongroom.ehbp.v1";
const REQUEST_FORMAT = "strongroom.ehbp.request.v1";
const RESPONSE_FORMAT = "strongroom.ehbp.response.v1";

const RECORD_BYTES = 5; // before the data: a flag and the data's length
const MAX_HEAD_BYTES = 16 << 10;
const UNPADDED_RECORD_BYTES = 1 << 16;
const [MORE, LAST] = [0, 1];

const METHOD = /^[A-Z]{1,16}$/;
const PATH = /^\/[!-~]*$/;
const HEADER = /^[!-~](?:[ -~]{0,254}[!-~])?$/;
const ID = /^[!-~]{1,128}$/;

// --- heads ------------------------------------------------------------------------------------------------------------

function matching(f: Fields, name: string, pattern: RegExp, what: string, most = 256): string {
  const value = f.text(name, most);
  if (!matches(pattern, value)) throw new StrongroomError("wire.bad_field", `head.${name} is not ${what}`);
  return value;
}

function header(f: Fields, name: string): string | null {
  const what = "1 to 256 printable ASCII characters";
  return f.optional(name, (item) => matching(new Fields({ [name]: item }, "head"), name, HEADER, what));
}

/** What a sealed request is for. */
export interface RequestHead {
  readonly method: string;
  readonly path: string; // as in the HTTP request line, with the query
  readonly contentType: string | null;
  readonly accept: string | null;
  readonly requestId: Bytes; // 16 random bytes
  readonly keyset: string; // the digest of the keyset that was verified
  readonly contract: string | null;
}

export function encodeRequestHead(head: RequestHead): Bytes {
  const found: Json = {
    accept: head.accept,
    content_type: head.contentType,
    contract: head.contract,
    format: REQUEST_FORMAT,
    keyset: head.keyset,
    method: head.method,
    path: head.path,
    request_id: hex(head.requestId),
  };
  return encode(found);
}

export function parseRequestHead(data: Bytes): RequestHead {
  const f = new Fields(decode(data, MAX_HEAD_BYTES), "head");
  f.literal("format", REQUEST_FORMAT);
  const found = {
    method: matching(f, "method", METHOD, "an upper-case method"),
    path: matching(f, "path", PATH, "a path of printable ASCII", 8192),
    contentType: header(f, "content_type"),
    accept: header(f, "accept"),
    requestId: f.hex("request_id", 16),
    keyset: f.digest("keyset"),
    contract: f.optional("contract", (contract) => new Fields({ contract }, "head").digest("contract")),
  };
  f.end();
  return found;
}

/** What a sealed response answers. */
export interface ResponseHead {
  readonly status: number;
  readonly contentType: string | null;
  readonly requestId: Bytes;
  readonly receiptId: string | null;
  readonly keyset: string;
}

export function parseResponseHead(data: Bytes): ResponseHead {
  const f = new Fields(decode(data, MAX_HEAD_BYTES), "head");
  f.literal("format", RESPONSE_FORMAT);
  const id = (item: unknown) => matching(new Fields({ receipt_id: item }, "head"), "receipt_id", ID, "an id");
  const found = {
    status: f.integer("status", { low: 200, high: 599 }),
    contentType: header(f, "content_type"),
    requestId: f.hex("request_id", 16),
    receiptId: f.optional("receipt_id", id),
    keyset: f.digest("keyset"),
  };
  f.end();
  return found;
}

// --- records ----------------------------------------------------------------------------------------------------------

/** Turns a head and the pieces of a body into frames. `sizes`: of padding, ascending; none for none. */
export class Writer {
  readonly #sealer: Seals;
  readonly #sizes: readonly number[];
  #head: Bytes;

  constructor(sealer: Seals, head: Bytes, sizes: readonly number[]) {
    this.#sealer = sealer;
    this.#sizes = sizes;
    this.#head = concat(u32Bytes(head.length), head);
  }

  async #records(data: Bytes, flag: number): Promise<Bytes> {
    const most = (this.#sizes.at(-1) ?? UNPADDED_RECORD_BYTES) - RECORD_BYTES;
    const found: Bytes[] = [];
    let rest = data;
    do {
      const piece = concat(this.#head, rest.slice(0, most - this.#head.length));
      rest = rest.slice(most - this.#head.length);
      this.#head = new Uint8Array();
      found.push(await this.#sealer.seal(this.#record(piece, rest.length > 0 ? MORE : flag)));
    } while (rest.length > 0);
    return concat(...found);
  }

  #record(piece: Bytes, flag: number): Bytes {
    const size = RECORD_BYTES + piece.length;
    const padded = this.#sizes.find((one) => one >= size) ?? size;
    return concat(new Uint8Array([flag]), u32Bytes(piece.length), piece, new Uint8Array(padded - size));
  }

  /** The frames of a piece that more follows. */
  async write(data: Bytes): Promise<Bytes> {
    return await this.#records(data, MORE);
  }

  /** The frames of the last piece, or of a whole body. */
  async last(data: Bytes = new Uint8Array()): Promise<Bytes> {
    return await this.#records(data, LAST);
  }
}

/** Gives out a body's data as its records arrive, once the head was accepted; refuses one that is not whole. */
export class RecordReader {
  readonly #frames: FrameReader;
  #accept: ((head: Bytes) => void) | null;
  #left: number;
  #last = false;
  #failed: StrongroomError | null = null;

  /** `accept` is given the first record's head before anything is given out; it throws what it refuses with. */
  constructor(opener: Opens, accept: (head: Bytes) => void, maxBody: number) {
    this.#frames = new FrameReader(opener, { maxBytes: 2 * (maxBody + MAX_FRAME_BYTES), maxEmpty: 0 });
    this.#accept = accept;
    this.#left = maxBody;
  }

  /** Take what arrived; the data of the records that are whole now. After an error it repeats that error. */
  async feed(data: Bytes): Promise<Bytes> {
    if (this.#failed !== null) throw this.#failed;
    try {
      this.#frames.feed(data);
      const found: Bytes[] = [];
      while (!this.#last) {
        const record = await this.#frames.next();
        if (record === null) break;
        found.push(this.#read(record));
      }
      if (this.#last && this.#frames.pending > 0) {
        throw new StrongroomError("ehbp.after_end", "the body goes on after its last record");
      }
      return concat(...found);
    } catch (error) {
      if (isOurs(error)) this.#failed = error;
      throw error;
    }
  }

  #read(record: Bytes): Bytes {
    const flag = record[0];
    const end = RECORD_BYTES + (record.length < RECORD_BYTES ? 0 : u32(record.subarray(1, RECORD_BYTES)));
    if ((flag !== MORE && flag !== LAST) || record.length < end) {
      throw new StrongroomError("ehbp.bad_record", "a frame holds no record");
    }
    if (!isZero(record.subarray(end))) throw new StrongroomError("ehbp.bad_padding", "a record's padding is not zeros");
    let data = record.slice(RECORD_BYTES, end);
    if (this.#accept !== null) {
      data = readHead(data, this.#accept);
      this.#accept = null;
    }
    this.#left -= data.length;
    if (this.#left < 0) throw new StrongroomError("ehbp.body_too_large", "the body has more data than is allowed");
    this.#last = flag === LAST;
    return data;
  }

  /** The body has no more bytes: it must have been whole. */
  end(): void {
    if (this.#failed !== null) throw this.#failed;
    if (this.#last) return;
    this.#frames.end();
    throw new StrongroomError("ehbp.not_ended", "the body ends before its last record");
  }
}

function readHead(data: Bytes, accept: (head: Bytes) => void): Bytes {
  const end = data.length < 4 ? Number.POSITIVE_INFINITY : 4 + u32(data);
  if (data.length < end || end > 4 + MAX_HEAD_BYTES) {
    throw new StrongroomError("ehbp.bad_record", "the first record does not begin with a head");
  }
  accept(data.slice(4, end));
  return data.slice(end);
}

// --- the exchange -----------------------------------------------------------------------------------------------------

/** One sealed request and its response, as a client makes and reads them. */
export class ClientExchange {
  readonly headers: Readonly<Record<string, string>>; // what the HTTP request must carry
  readonly request: Writer;
  readonly #head: RequestHead;
  readonly #sender: Sender;

  private constructor(head: RequestHead, sender: Sender, request: Writer) {
    this.#head = head;
    this.#sender = sender;
    this.request = request;
    this.headers = { "Content-Type": MEDIA_TYPE, [ENCAPSULATED_KEY_HEADER]: hex(sender.encapsulatedKey) };
  }

  /** `to`: the raw key of the keyset that `head` names, verified. `seed`: 32 secret random bytes for this exchange alone. */
  static async to(to: Bytes, head: RequestHead, seed: Bytes, sizes: readonly number[]): Promise<ClientExchange> {
    const encoded = encodeRequestHead(head);
    parseRequestHead(encoded); // a head that no enclave would read is refused here
    const sender = await Sender.to(to, seed);
    return new ClientExchange(head, sender, new Writer(sender, encoded, sizes));
  }

  /** What reads the response. `nonce`: the header as it came. Throws `ehbp.bad_response_nonce`: it is not encrypted. */
  async response(nonce: string | null, status: number, maxBody: number): Promise<SealedResponse> {
    const opener = await this.#sender.response(responseNonce(nonce));
    return new SealedResponse(this.#head, opener, status, maxBody);
  }
}

/** The response to one request. */
export class SealedResponse extends RecordReader {
  #head: ResponseHead | null = null;

  constructor(request: RequestHead, opener: Opens, status: number, maxBody: number) {
    super(opener, (data) => this.#take(data, request, status), maxBody);
  }

  /** The response's head, once it was accepted. */
  get head(): ResponseHead | null {
    return this.#head;
  }

  #take(data: Bytes, request: RequestHead, status: number): void {
    const head = parseResponseHead(data);
    if (hex(head.requestId) !== hex(request.requestId)) {
      throw new StrongroomError("ehbp.wrong_request", "the answer is to another request");
    }
    if (head.keyset !== request.keyset) {
      const said = "the answer comes from another keyset than the request was for";
      throw new StrongroomError("ehbp.wrong_keyset", said);
    }
    if (head.status !== status) {
      const said = `the answer's status was ${head.status} and arrived as ${status}`;
      throw new StrongroomError("ehbp.wrong_status", said);
    }
    this.#head = head;
  }
}
