/**
 * Inference receipts: what an enclave signed about one request, as events. See `spec/inference-receipt.md`.
 *
 * **Untrusted**, until `examine` (`reading.ts`) has looked at it. No event holds a byte of a request or an answer.
 */

import { type Bytes, characters, quoted } from "./bytes.ts";
import { digest } from "./crypto.ts";
import { isOurs, StrongroomError } from "./errors.ts";
import { API_VERSION, type Keyset } from "./keyset.ts";
import { decode, encode, Fields, type Json, matches } from "./wire.ts";

const MAX_RECEIPT_BYTES = 256 << 10;
const MAX_EVENTS = 64;
const MAX_OTHER_BYTES = 16 << 10;
const MAX_GUARDS = 32;
const MAX_MODEL = 256; // characters of a model's name
const MAX_TOKENS = 10 ** 9; // of one request
const [MIN_SIZE, MAX_SIZE, MAX_SIZES] = [64, 16 << 20, 64]; // of padding

const LABEL = /^[!-~]+$/;
const TYPE = /^[!-~]{1,64}$/;
const SESSION = /^[0-9a-f]{64}$/;
const WORDS = /^[a-z](?:[a-z0-9._ ]{0,62}[a-z0-9])?$/;
const PATH = /^\/[!-~]{0,255}$/;
const METHOD = /^[A-Z]{1,16}$/;

export const OBSERVABILITY = ["none", "aggregate", "failures", "full"] as const;
export type Observability = (typeof OBSERVABILITY)[number];
const STAGES = ["input", "output"] as const;
const DECISIONS = ["allowed", "changed", "refused"] as const;

export interface Guard {
  readonly name: string;
  readonly program: string;
  readonly stage: (typeof STAGES)[number];
}

export interface GuardRun extends Guard {
  readonly decision: (typeof DECISIONS)[number];
}

export interface Usage {
  readonly prompt: number;
  readonly completion: number;
  readonly embedding: number;
}

/** An event that is the hash of a body. */
interface Hashed<T extends string> {
  readonly type: T;
  readonly bodyHash: string;
}

export type Event =
  | Hashed<"request.received">
  | Hashed<"request.forwarded">
  | Hashed<"response.returned">
  | Hashed<"response.restored">
  | {
      readonly type: "model.weights";
      readonly name: string;
      readonly weights: string;
      readonly asset: string;
      readonly contract: string;
    }
  | { readonly type: "upstream.verified" }
  | {
      readonly type: "policy.applied";
      readonly policy: string;
      readonly guards: readonly GuardRun[];
      readonly padding: readonly number[];
      readonly observability: Observability;
    }
  | { readonly type: "usage.metered"; readonly usage: Usage }
  | { readonly type: "request.refused"; readonly code: string; readonly step: string }
  | { readonly type: "other"; readonly named: string };

export type Known = Exclude<Event["type"], "other">;
export type Of<T extends Event["type"]> = Extract<Event, { readonly type: T }>;

const bad = (why: string) => new StrongroomError("inference.bad_receipt", why);

/** A member that names something: printable ASCII characters without spaces. */
function label(f: Fields, name: string, most = 128): string {
  const found = f.text(name, most);
  if (!matches(LABEL, found)) {
    throw new StrongroomError("wire.bad_field", `${name} is not 1 to ${most} printable ASCII characters`);
  }
  return found;
}

export function readGuard(f: Fields): Guard {
  const stage = f.choice("stage", STAGES);
  return { stage, name: f.name("name"), program: f.digest("program") };
}

function readGuardRun(value: unknown): GuardRun {
  const f = new Fields(value, "guard");
  const [stage, decision] = [f.choice("stage", STAGES), f.choice("decision", DECISIONS)];
  const found = { name: f.name("name"), program: f.digest("program"), stage, decision };
  f.end();
  return found;
}

/** Too many guards, one twice, or one of the input after one of the output. Throws `inference.bad_receipt`. */
function requireInOrder(guards: readonly Guard[]): void {
  const names = new Set(guards.map((guard) => `${guard.stage} ${guard.name}`));
  if (guards.length > MAX_GUARDS || names.size !== guards.length) {
    throw bad(`more than ${MAX_GUARDS} guards, or one twice at a stage`);
  }
  if (guards.some((guard, n) => guard.stage === "input" && guards[n - 1]?.stage === "output")) {
    throw bad("a guard of the input stands after one of the output");
  }
}

function requireSizes(padding: readonly number[]): void {
  if (padding.length > MAX_SIZES || padding.some((size, n) => n > 0 && size <= (padding[n - 1] ?? 0))) {
    throw bad(`the sizes of padding are not ascending, or over ${MAX_SIZES}`);
  }
  if (padding.some((size) => size < MIN_SIZE || size > MAX_SIZE)) {
    throw bad(`a size of padding is not from ${MIN_SIZE} to ${MAX_SIZE} bytes`);
  }
}

function readWeights(f: Fields): Of<"model.weights"> {
  const name = f.text("name", MAX_MODEL);
  const found = { weights: f.digest("weights"), asset: f.digest("asset"), contract: f.digest("contract") };
  label(new Fields({ name }, "model.weights"), "name", MAX_MODEL);
  return { type: "model.weights", name, ...found };
}

/** How a service that passes requests on found the one behind it (ACI section 7.5). Ours never does. */
function readUpstream(f: Fields): Of<"upstream.verified"> {
  f.boolean("required");
  f.text("model_id", 256);
  if (f.choice("result", ["failed", "verified"]) === "verified") {
    if (!matches(SESSION, f.text("session_id", 64))) {
      throw bad("upstream.verified.session_id is not 64 lowercase hex digits");
    }
  } else {
    if (f.has("upstream_name")) f.text("upstream_name", 256);
    f.text("reason");
  }
  return { type: "upstream.verified" };
}

function readPolicy(f: Fields): Of<"policy.applied"> {
  const policy = f.digest("policy");
  const guards = f.items("guards", readGuardRun, { high: MAX_GUARDS });
  const size = (item: unknown) => new Fields({ size: item }, "padding").integer("size");
  const padding = f.items("padding", size, { high: MAX_SIZES });
  const observability = f.choice("observability", OBSERVABILITY);
  requireSizes(padding);
  requireInOrder(guards);
  return { type: "policy.applied", policy, guards, padding, observability };
}

function readUsage(f: Fields): Of<"usage.metered"> {
  f.literal("unit", "token");
  const tokens = (name: string) => f.integer(name, { high: MAX_TOKENS });
  const prompt = tokens("prompt_tokens");
  const completion = tokens("completion_tokens");
  return { type: "usage.metered", usage: { prompt, completion, embedding: tokens("embedding_tokens") } };
}

function readRefused(f: Fields): Of<"request.refused"> {
  const found = { code: f.text("code"), step: f.text("step") };
  const g = new Fields(found, "request.refused");
  for (const name of ["code", "step"]) {
    if (!matches(WORDS, g.text(name, 64))) throw bad(`${name} is not a few lower-case words`);
  }
  return { type: "request.refused", ...found };
}

/** How each known event is read, in the order in which a receipt's events stand. */
const READERS: ReadonlyMap<string, (f: Fields) => Event> = new Map<Known, (f: Fields) => Event>([
  ["request.received", (f) => ({ type: "request.received", bodyHash: f.digest("body_hash") })],
  ["model.weights", readWeights],
  ["request.forwarded", (f) => ({ type: "request.forwarded", bodyHash: f.digest("body_hash") })],
  ["upstream.verified", readUpstream],
  ["policy.applied", readPolicy],
  ["usage.metered", readUsage],
  ["request.refused", readRefused],
  ["response.returned", (f) => ({ type: "response.returned", bodyHash: f.digest("body_hash") })],
  ["response.restored", (f) => ({ type: "response.restored", bodyHash: f.digest("body_hash") })],
]);

export const ORDER: readonly string[] = [...READERS.keys()];

function readEvent(value: unknown): Event {
  const f = new Fields(value, "event");
  const type = f.text("type", 64);
  const read = READERS.get(type);
  if (read === undefined) return readOther(type, value as Json);
  try {
    const found = read(f);
    f.end();
    return found;
  } catch (error) {
    throw isOurs(error, "wire") ? bad(`the event ${type}: ${error.message}`) : error;
  }
}

/** An event of a type that is not known here is kept, and taken for nothing that is known. */
function readOther(named: string, value: Json): Event {
  if (!matches(TYPE, named)) {
    throw bad("an event's type is not 1 to 64 printable ASCII characters, or is a known one");
  }
  if (encode(value).length > MAX_OTHER_BYTES) {
    throw bad(`an event of the type ${quoted(named)} is longer than ${MAX_OTHER_BYTES} bytes`);
  }
  return { type: "other", named };
}

/** What a receipt calls the model that a request names: nothing where the name is too long, or no text. */
export function asNamed(model: string | null): string | null {
  return model === null || characters(model) > MAX_MODEL || !model.isWellFormed() ? null : model;
}

export class InferenceReceipt {
  readonly receiptId: string;
  readonly chatId: string | null;
  readonly model: string | null;
  readonly keysetDigest: string;
  readonly endpoint: string;
  readonly method: string;
  readonly servedAt: number; // unix seconds by the enclave's clock, which is its host's
  readonly eventLog: readonly Event[];
  readonly keyId: string;
  readonly signature: Bytes;
  readonly payload: Bytes; // what is signed: the canonical form without `signature`

  /** Read the canonical spelling. Throws `wire.…`, `inference.bad_receipt`. */
  constructor(data: Bytes) {
    const value = decode(data, MAX_RECEIPT_BYTES);
    const f = new Fields(value, "receipt");
    const optional = (name: string, most: number) =>
      f.optional(name, (item) => new Fields({ [name]: item }, "receipt").text(name, most));
    f.literal("api_version", API_VERSION);
    this.receiptId = f.text("receipt_id", 128);
    this.chatId = optional("chat_id", 128);
    this.model = optional("model", MAX_MODEL);
    this.keysetDigest = f.digest("workload_keyset_digest");
    this.endpoint = f.text("endpoint", 256);
    this.method = f.text("method", 16);
    this.servedAt = f.integer("served_at");
    this.eventLog = f.items("event_log", readEvent, { low: 1, high: MAX_EVENTS });
    this.keyId = f.text("key_id", 128);
    this.signature = f.hex("signature", 64);
    if (!matches(PATH, this.endpoint) || !matches(METHOD, this.method)) {
      throw new StrongroomError("wire.bad_field", "receipt.endpoint is not a path, or receipt.method is not an HTTP method");
    }
    const named = new Fields({ chat_id: this.chatId, key_id: this.keyId, receipt_id: this.receiptId }, "receipt");
    label(named, "receipt_id");
    label(named, "key_id");
    if (this.chatId !== null) label(named, "chat_id");
    f.end();
    const { signature: _, ...unsigned } = value as { readonly [member: string]: Json };
    this.payload = encode(unsigned);
  }

  /** The payload's digest: the receipt's identity. */
  async digest(): Promise<string> {
    return await digest(this.payload);
  }

  /** The first event of this type, or `null`. That there is no second one is a check of its own (I6). */
  one<T extends Event["type"]>(type: T): Of<T> | null {
    return (this.eventLog.find((event) => event.type === type) as Of<T> | undefined) ?? null;
  }

  /** Require that the key which the receipt names signed it. Throws `attest.bad_keyset`, `wire.bad_signature`. */
  async checkSignature(keyset: Keyset): Promise<void> {
    await keyset.inferenceReceiptKey(this.keyId).verifyBytes(this.signature, this.payload);
  }
}
