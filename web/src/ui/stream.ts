/** Server-sent events as `/v1/chat/completions` writes them: bytes in, pieces of the answer out. */

export interface Delta {
  readonly text: string;
  readonly finish: string | null;
  readonly usage: Usage | null;
  readonly error: Refused | null;
}

export interface Usage {
  readonly prompt: number;
  readonly completion: number;
}

/** An error in OpenAI's shape, with our stable code. */
export interface Refused {
  readonly code: string;
  readonly message: string;
  readonly hint: string;
}

const MAX_LINE = 4 << 20;

function record(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function count(value: unknown): number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0 ? value : 0;
}

/** Reads `{"error": {...}}`; `null` where it is none. */
export function refused(value: unknown): Refused | null {
  const error = record(value).error;
  if (typeof error !== "object" || error === null) return null;
  const said = record(error);
  return {
    code: text(said.code),
    message: text(said.message) || "the room refused without a word",
    hint: text(said.hint),
  };
}

/** What one event, or a whole answer that is not streamed, adds. */
export function delta(value: unknown): Delta {
  const choice = record((record(value).choices as unknown[] | undefined)?.[0]);
  const part = record(choice.delta ?? choice.message);
  const usage = record(value).usage;
  const said = record(usage);
  return {
    text: text(part.content),
    finish: text(choice.finish_reason) || null,
    usage: usage ? { prompt: count(said.prompt_tokens), completion: count(said.completion_tokens) } : null,
    error: refused(value),
  };
}

/** Cuts bytes into the data of events, over any cutting of the bytes on their way. */
export class Events {
  readonly #decoder = new TextDecoder("utf-8", { fatal: true });
  #rest = "";
  ended = false; // `[DONE]` came

  /** Throws SyntaxError on what is no JSON, TypeError on what is no UTF-8. */
  push(bytes: Uint8Array): Delta[] {
    this.#rest += this.#decoder.decode(bytes, { stream: true });
    const lines = this.#rest.split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() ?? "";
    if (this.#rest.length > MAX_LINE) throw new SyntaxError("an event without end");
    const found: Delta[] = [];
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") this.ended = true;
      else found.push(delta(JSON.parse(data)));
    }
    return found;
  }
}
