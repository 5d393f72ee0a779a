/** One sealed answer, as it comes, and its receipt: what is held against what this page sent and received. */

import { type Bytes, b64, concat, hex } from "./bytes.ts";
import { digest } from "./crypto.ts";
import { isKeyProblem } from "./ehbp.ts";
import { StrongroomError } from "./errors.ts";
import { Heard, UNNAMED } from "./heard.ts";
import { ask, pieces, readWhole, type World } from "./http.ts";
import { type Asked, EMBEDDINGS, examine, type Verification } from "./reading.ts";
import type { ResponseHead, SealedResponse } from "./sealed.ts";
import { codeOf, type Session, shownToJson } from "./session.ts";
import { encode } from "./wire.ts";

const RECEIPTS_PATH = "/v1/aci/receipts/";
const MAX_REPLY_BYTES = 4 << 20;
const MAX_REFUSAL_BYTES = 64 << 10;
const ANSWER_FORMAT = "strongroom.answer.v1";

export interface Request {
  readonly path: string; // "/v1/chat/completions"
  readonly body: Bytes; // the exact JSON bytes
  readonly accept?: string; // "text/event-stream"
  readonly credential: string; // the bearer token, without "Bearer "
  readonly signal?: AbortSignal;
}

/** What is made of an answer that is not encrypted: nobody's word, and never an answer. */
export async function inTheOpen(response: Response): Promise<StrongroomError> {
  const { status } = response;
  if (status < 400) {
    return new StrongroomError("ehbp.bad_response_nonce", `the service answered HTTP ${status} without encryption`);
  }
  const body = await readWhole(response, MAX_REFUSAL_BYTES);
  const code = codeOf(body);
  const type = response.headers.get("Content-Type") ?? "";
  if (isKeyProblem(status, type, new TextDecoder().decode(body)) || code === "ehbp.key_config_mismatch") {
    const said = "the service cannot read what is encrypted to the key that it attests";
    return new StrongroomError("ehbp.key_config_mismatch", said);
  }
  if (code === "ehbp.wrong_keyset") return new StrongroomError(code, "the service has another keyset by now");
  const more = code === null ? "" : `, which says ${code}`;
  const said = `the service, or somebody before it, refused with HTTP ${status}${more}`;
  return new StrongroomError("ehbp.refused_in_the_open", said);
}

interface Exchange {
  readonly session: Session;
  readonly world: World;
  readonly origin: string;
  readonly request: Request;
  readonly asked: Asked;
  readonly response: Response;
  readonly reader: SealedResponse;
}

/** One sealed answer. Every piece is authentic and in its place; only where `body` ends without throwing is it whole. */
export class Answer {
  readonly #x: Exchange;
  readonly #pieces: AsyncGenerator<Bytes>;
  readonly #returned: Bytes[] = []; // as it came
  readonly #restored: Bytes[] = []; // its plaintext
  #heard = new Heard(null, false);
  #state: "begun" | "whole" | "broken" = "begun";
  #first: Bytes = new Uint8Array();
  #receipt: { readonly raw: Bytes; readonly receivedAt: number } | null = null;
  readonly body: AsyncIterable<Bytes>;

  constructor(exchange: Exchange) {
    this.#x = exchange;
    this.#pieces = pieces(exchange.response);
    this.body = this.#read();
  }

  /** Read until the sealed head was accepted. */
  async begin(): Promise<void> {
    try {
      while (this.#x.reader.head === null) {
        const { done, value } = await this.#pieces.next();
        if (done) {
          this.#x.reader.end();
          throw new StrongroomError("ehbp.not_ended", "the body ends before its last record");
        }
        this.#first = await this.#feed(value);
      }
    } catch (error) {
      await this.#pieces.return(undefined); // nothing more of it is read
      throw error;
    }
  }

  async #feed(piece: Bytes): Promise<Bytes> {
    this.#returned.push(piece);
    const before = this.#x.reader.head;
    const found = await this.#x.reader.feed(piece);
    const head = this.#x.reader.head;
    if (before === null && head !== null) {
      this.#heard = new Heard(head.contentType, this.#x.asked.endpoint === EMBEDDINGS);
    }
    this.#restored.push(found);
    this.#heard.feed(found);
    return found;
  }

  async *#read(): AsyncGenerator<Bytes> {
    this.#state = "broken";
    if (this.#first.length > 0) yield this.#first;
    for await (const piece of this.#pieces) {
      const found = await this.#feed(piece);
      if (found.length > 0) yield found;
    }
    this.#x.reader.end();
    this.#heard.end();
    this.#state = "whole";
  }

  get #head(): ResponseHead {
    const { head } = this.#x.reader;
    if (head === null) throw new Error("the answer has not begun");
    return head;
  }

  get status(): number {
    return this.#head.status;
  }

  get contentType(): string | null {
    return this.#head.contentType;
  }

  get receiptId(): string | null {
    return this.#head.receiptId;
  }

  /** Fetches the receipt and examines it over what was sent and received: I1 to I20. Only after `body` ended. */
  async receipt(): Promise<Verification> {
    const { session, world, origin, request, asked } = this.#x;
    if (this.#state !== "whole") throw new StrongroomError("ehbp.not_ended", "the answer is not whole");
    if (this.receiptId === null) throw new StrongroomError("inference.no_receipt", "the answer names no receipt");
    const url = `${origin}${RECEIPTS_PATH}${encodeURIComponent(this.receiptId)}`;
    const response = await ask(world, url, { headers: { Authorization: `Bearer ${request.credential}` } });
    const raw = await readWhole(response, MAX_REPLY_BYTES);
    if (response.status !== 200) {
      const said = `the service does not hand out the answer's receipt: HTTP ${response.status}`;
      throw new StrongroomError("inference.no_receipt", said);
    }
    const at = world.now();
    this.#receipt = { raw, receivedAt: at };
    const { chatId, usage } = this.#heard;
    const refused = this.#heard.refused ?? (this.status < 400 ? null : UNNAMED);
    const [first = null] = session.models.values();
    const expected = {
      asked,
      answered: {
        body: await digest(concat(...this.#returned)),
        restored: await digest(concat(...this.#restored)),
        chatId,
        refused,
        usage,
      },
      agreed: session.models.get(asked.model ?? "") ?? first,
      receiptId: this.receiptId,
    };
    return await examine(raw, { appraisal: session.appraisal, expected, at });
  }

  /**
   * Everything that it takes to examine the answer again, elsewhere and offline: a file for `strongroom verify`, as secret as
   * the prompt. `null` before the receipt came.
   */
  kept(): Bytes | null {
    if (this.#receipt === null) return null;
    const { session, origin, request, asked } = this.#x;
    return encode({
      attested_at: session.at,
      content_type: this.contentType,
      endpoint: asked.endpoint,
      format: ANSWER_FORMAT,
      keys: b64(session.keys),
      method: asked.method,
      nonce: hex(session.nonce),
      receipt: b64(this.#receipt.raw),
      receipt_id: this.receiptId,
      received_at: this.#receipt.receivedAt,
      report: b64(session.report),
      request: b64(request.body),
      restored: b64(concat(...this.#restored)),
      returned: b64(concat(...this.#returned)),
      sent_at: asked.sentAt,
      shown: shownToJson(session.shown),
      status: this.status,
      url: origin,
    });
  }
}
