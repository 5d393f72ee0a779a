/** Listens to an answer's plaintext for what a receipt must agree with: its id, its error, the tokens that it states. */

import { type Bytes, concat } from "./bytes.ts";
import { isOurs } from "./errors.ts";
import { type Foreign, loads } from "./json.ts";
import type { Usage } from "./receipt.ts";
import { Fields } from "./wire.ts";

export const MAX_ANSWER_BYTES = 64 << 20;
export const UNNAMED = "unnamed"; // where an error has no code: no receipt says this word

const MAX_TOKENS = 10 ** 9;
const LINE = 0x0a;
const DATA = new TextEncoder().encode("data:");
const EVENT_STREAM = "text/event-stream";

type Members = ReadonlyMap<string, Foreign>;

/** A JSON object, as far as it is one: what is said in no such way is not said. */
function object(data: Bytes): Members {
  try {
    const found = loads(data, MAX_ANSWER_BYTES);
    return found instanceof Map ? found : new Map();
  } catch (error) {
    if (isOurs(error, "wire")) return new Map();
    throw error;
  }
}

/** The model that a request names, or `null`. */
export function modelOf(body: Bytes): string | null {
  const found = object(body).get("model");
  return typeof found === "string" ? found : null;
}

export class Heard {
  readonly #streams: boolean;
  readonly #embeds: boolean;
  #kept: Bytes[] = [];
  chatId: string | null = null;
  refused: string | null = null;
  usage: Usage | null = null;

  /** `embeds`: whether embeddings were asked for, whose `prompt_tokens` are embedding tokens. */
  constructor(contentType: string | null, embeds: boolean) {
    this.#streams = ((contentType ?? "").split(";")[0] ?? "").trim().toLowerCase() === EVENT_STREAM;
    this.#embeds = embeds;
  }

  /** The next bytes of it. */
  feed(piece: Bytes): void {
    if (!this.#streams) {
      this.#kept.push(piece);
      return;
    }
    let from = 0;
    for (let at = piece.indexOf(LINE); at >= 0; at = piece.indexOf(LINE, from)) {
      this.#line(concat(...this.#kept, piece.slice(from, at)));
      this.#kept = [];
      from = at + 1;
    }
    this.#kept.push(piece.slice(from));
  }

  /** It has no more bytes. */
  end(): void {
    const last = concat(...this.#kept);
    this.#kept = [];
    if (this.#streams) this.#line(last);
    else this.#object(object(last));
  }

  #line(line: Bytes): void {
    if (DATA.every((byte, n) => line[n] === byte)) this.#object(object(line.slice(DATA.length)));
  }

  #object(found: Members): void {
    const id = found.get("id");
    if (this.chatId === null && typeof id === "string") this.chatId = id;
    const usage = found.get("usage");
    if (usage instanceof Map) this.usage = readUsage(usage, this.#embeds);
    const error = found.get("error") ?? null;
    if (error !== null && this.refused === null) {
      const code = error instanceof Map ? error.get("code") : null;
      this.refused = typeof code === "string" ? code : UNNAMED;
    }
  }
}

function readUsage(stated: Members, embeds: boolean): Usage | null {
  const f = new Fields(stated, "usage");
  try {
    const prompt = f.integer("prompt_tokens", { high: MAX_TOKENS });
    const completion = f.has("completion_tokens") ? f.integer("completion_tokens", { high: MAX_TOKENS }) : 0;
    return embeds ? { prompt: 0, completion, embedding: prompt } : { prompt, completion, embedding: 0 };
  } catch (error) {
    if (isOurs(error, "wire")) return null;
    throw error;
  }
}
