/**
 * What a client makes of an inference receipt: the checks I1 to I20, numbered as in `spec/inference-receipt.md`.
 *
 * A client knows the bytes that it sent and received. What it does not know is *not established*, and that is not a pass.
 */

import type { AttestationResult } from "./appraise.ts";
import type { Bytes } from "./bytes.ts";
import { quoted } from "./bytes.ts";
import { type Code, isOurs, StrongroomError } from "./errors.ts";
import type { Keyset } from "./keyset.ts";
import { asNamed, type Guard, InferenceReceipt, type Observability, ORDER, type Usage } from "./receipt.ts";
import { type Check, Steps, Transcript } from "./transcript.ts";
import { equalJson, type Json } from "./wire.ts";

const MAX_CLOCK_SKEW_S = 300;
export const EMBEDDINGS = "/v1/embeddings";

/** The request, as this client sent it. */
export interface Asked {
  readonly method: string;
  readonly endpoint: string;
  readonly model: string | null;
  readonly body: string; // the digest of the body, before it was encrypted
  readonly sentAt: number;
}

/** The response, as this client received it. */
export interface Answered {
  readonly body: string; // the digest of the bytes off the wire
  readonly restored: string | null; // of the plaintext; null where it was not encrypted
  readonly chatId: string | null;
  readonly refused: string | null; // the code of the error in it; null where it is an answer
  readonly usage: Usage | null; // the tokens that it states
}

/** What the contract says. */
export interface Agreed {
  readonly contract: string;
  readonly model: string;
  readonly weights: string;
  readonly asset: string;
  readonly policy: string;
  readonly guards: readonly Guard[];
  readonly padding: readonly number[];
  readonly observability: Observability;
}

/** What the reader knows of its own. What is `null` it does not know, and no check about it passes. */
export interface Expected {
  readonly asked: Asked | null;
  readonly answered: Answered | null;
  readonly agreed: Agreed | null;
  readonly receiptId: string | null; // the id that came sealed with the response
}

const STEPS = new Steps("I", [
  "the receipt is well formed",
  "its keyset is the one that an affirming appraisal is about",
  "the key that it names is one of that keyset's for inference receipts",
  "it is signed by that key",
  "it was served while the appraisal holds, and not after now",
  "its events stand in their order, each once, from the request to the response",
  "the request that the enclave received is the one that was sent",
  "the response that the enclave sent is the one that was received",
  "the plaintext of an encrypted response is the one that was restored",
  "the request was answered or refused, as the response says",
  "what was forwarded is what was received, or what a guard made of it",
  "the model is the one that was asked for",
  "the contract is the expected one",
  "the weights are those that the contract names",
  "the policy that was applied is the contract's",
  "the tokens that were metered fit the route and the response",
  "the route is the one that was asked for",
  "the receipt's id is the one that came with the response",
  "the chat's id is the one in the response",
  "the receipt is in a log that the verifier trusts",
]);
const GATE = 6; // the checks that say whose word the rest is: where one of them does not pass, nothing after it is looked at
const CLIENT: ReadonlySet<string> = new Set(STEPS.numbers.slice(0, 19)); // a client does not wait for the log

/** What is needed for a check is not there. */
class Unknown extends Error {}

function need<T>(value: T | null, what: string): T {
  if (value === null) throw new Unknown(`${what} is not known here`);
  return value;
}

function require(holds: boolean, code: Code, otherwise: string): void {
  if (!holds) throw new StrongroomError(code, otherwise);
}

const said = (code: string | null) => (code === null ? "answered" : `refused with ${code}`);
const alike = (a: unknown, b: unknown) => equalJson(a as Json, b as Json);

/** One receipt on its way through the checks. Each says what was seen, or throws why it did not pass. */
class Reading {
  readonly #data: Bytes;
  readonly #appraisal: AttestationResult | null;
  readonly #expected: Expected;
  readonly #at: number;
  #read: InferenceReceipt | null = null;
  #keyset: Keyset | null = null;

  constructor(data: Bytes, appraisal: AttestationResult | null, expected: Expected, at: number) {
    this.#data = data;
    this.#appraisal = appraisal;
    this.#expected = expected;
    this.#at = at;
  }

  get read(): InferenceReceipt | null {
    return this.#read;
  }

  get #receipt(): InferenceReceipt {
    if (this.#read === null) throw new Error("I1 did not pass");
    return this.#read;
  }

  get #attested(): Keyset {
    if (this.#keyset === null) throw new Error("I2 did not pass");
    return this.#keyset;
  }

  get #isRefused(): boolean {
    return this.#receipt.one("request.refused") !== null;
  }

  /** How each check is made, and the code of one that could not be made. */
  checks(): readonly (readonly [() => string | Promise<string>, Code])[] {
    return [
      [() => this.#wellFormed(), "inference.bad_receipt"],
      [() => this.#ofAttestedKeyset(), "inference.other_keyset"],
      [() => this.#key(), "attest.bad_keyset"],
      [() => this.#signed(), "wire.bad_signature"],
      [() => this.#inTime(), "inference.other_time"],
      [() => this.#inOrder(), "inference.bad_events"],
      [() => this.#request(), "inference.other_request"],
      [() => this.#response(), "inference.other_response"],
      [() => this.#plaintext(), "inference.other_response"],
      [() => this.#outcome(), "inference.other_outcome"],
      [() => this.#forwarded(), "inference.rewritten"],
      [() => this.#model(), "inference.other_model"],
      [() => this.#contract(), "inference.other_contract"],
      [() => this.#weights(), "inference.other_weights"],
      [() => this.#policy(), "inference.other_policy"],
      [() => this.#usage(), "inference.bad_usage"],
      [() => this.#route(), "inference.other_route"],
      [() => this.#receiptId(), "inference.other_id"],
      [() => this.#chatId(), "inference.other_id"],
      [() => need<string>(null, "a proof from the log"), "ledger.bad_proof"],
    ];
  }

  #wellFormed(): string {
    this.#read = new InferenceReceipt(this.#data);
    return `${this.#read.receiptId}, ${this.#read.eventLog.length} events`;
  }

  #ofAttestedKeyset(): string {
    if (this.#appraisal === null || this.#appraisal.status === "none") throw new Unknown("nothing affirms a keyset");
    const keyset = this.#appraisal.require();
    const named = this.#receipt.keysetDigest;
    const otherwise = `the receipt is of the keyset ${named}, and ${keyset.digest} is attested`;
    require(named === keyset.digest, "inference.other_keyset", otherwise);
    this.#keyset = keyset;
    return `${keyset.digest}; ${this.#appraisal.label}`;
  }

  #key(): string {
    this.#attested.inferenceReceiptKey(this.#receipt.keyId);
    return this.#receipt.keyId;
  }

  async #signed(): Promise<string> {
    await this.#receipt.checkSignature(this.#attested);
    return await this.#receipt.digest();
  }

  #inTime(): string {
    const served = this.#receipt.servedAt;
    const until = this.#appraisal?.validUntil ?? Number.NEGATIVE_INFINITY;
    const late = `served at ${served}, and the keyset is attested until ${until}`;
    require(served <= until, "inference.other_time", late);
    const early = `served at ${served}, which is after now, ${this.#at}`;
    require(served <= this.#at + MAX_CLOCK_SKEW_S, "inference.other_time", early);
    return `at ${served}`;
  }

  /** Events of other types may stand anywhere between the first and the last; only upstreams may stand twice. */
  #inOrder(): string {
    const log = this.#receipt.eventLog;
    const known = log.filter((event) => event.type !== "other").map((event) => event.type);
    const sorted = known.every((type, n) => n === 0 || ORDER.indexOf(known[n - 1] ?? "") <= ORDER.indexOf(type));
    const once = known.filter((type) => type !== "upstream.verified");
    const distinct = new Set(once).size === once.length;
    require(sorted && distinct, "inference.bad_events", "an event stands twice, or out of its order");
    const last = log.at(-1)?.type === "response.restored" && log.length > 1 ? log.at(-2) : log.at(-1);
    const framed = log[0]?.type === "request.received" && last?.type === "response.returned";
    const otherwise = "the events do not begin with the request and end with the response";
    require(framed, "inference.bad_events", otherwise);
    return `${log.length} events`;
  }

  #request(): string {
    const asked = need(this.#expected.asked, "the request");
    const received = this.#receipt.one("request.received")?.bodyHash ?? "";
    require(received === asked.body, "inference.other_request", "the enclave received other bytes than were sent");
    const late = this.#receipt.servedAt >= asked.sentAt - MAX_CLOCK_SKEW_S;
    const otherwise = "it was served before it was sent: the receipt is of an earlier request";
    require(late, "inference.other_request", otherwise);
    return received;
  }

  #response(): string {
    const answered = need(this.#expected.answered, "the response");
    const returned = this.#receipt.one("response.returned")?.bodyHash ?? "";
    require(returned === answered.body, "inference.other_response", "the enclave sent other bytes than were received");
    return returned;
  }

  #plaintext(): string {
    const answered = need(this.#expected.answered, "the response");
    const found = this.#receipt.one("response.restored")?.bodyHash ?? null;
    const otherwise = "the response was encrypted on one side alone";
    require((found === null) === (answered.restored === null), "inference.other_response", otherwise);
    const other = "the plaintext is another than the one that was restored";
    require(found === answered.restored, "inference.other_response", other);
    return found ?? "not encrypted";
  }

  #outcome(): string {
    const answered = need(this.#expected.answered, "the response");
    const found = this.#receipt.one("request.refused")?.code ?? null;
    const otherwise = `the receipt says ${said(found)}, the response ${said(answered.refused)}`;
    require(found === answered.refused, "inference.other_outcome", otherwise);
    return said(found);
  }

  #forwarded(): string {
    const forwarded = this.#receipt.one("request.forwarded");
    if (forwarded === null) {
      require(this.#isRefused, "inference.rewritten", "the request was answered, and nothing was forwarded");
      return "nothing was forwarded";
    }
    if (forwarded.bodyHash === this.#receipt.one("request.received")?.bodyHash) return "as it was received";
    const guards = this.#receipt.one("policy.applied")?.guards ?? [];
    const changed = guards.find((run) => run.stage === "input" && run.decision === "changed");
    if (changed) return `changed by the guard ${changed.name}`;
    const otherwise = "the request was changed on its way to the model, and by no guard";
    throw new StrongroomError("inference.rewritten", otherwise);
  }

  #model(): string {
    const named = asNamed(need(this.#expected.asked, "the request").model);
    require(this.#receipt.model === named, "inference.other_model", "another model was asked for");
    const weights = this.#receipt.one("model.weights");
    if (weights !== null && named !== null) {
      const otherwise = `${quoted(weights.name)} answered, and another was asked for`;
      require(weights.name === named, "inference.other_model", otherwise);
    }
    return named ?? "none was named";
  }

  /** `null` where the request was refused before a model was chosen. */
  #chosen() {
    const weights = this.#receipt.one("model.weights");
    const otherwise = "the receipt does not say which model answered";
    require(weights !== null || this.#isRefused, "inference.other_weights", otherwise);
    return weights;
  }

  #contract(): string {
    const agreed = need(this.#expected.agreed, "the contract");
    const chosen = this.#chosen();
    if (chosen === null) return "refused before a model was chosen";
    const otherwise = "the model answered under another contract";
    require(chosen.contract === agreed.contract, "inference.other_contract", otherwise);
    return chosen.contract;
  }

  #weights(): string {
    const agreed = need(this.#expected.agreed, "the contract");
    const chosen = this.#chosen();
    if (chosen === null) return "refused before a model was chosen";
    const same = chosen.name === agreed.model && chosen.weights === agreed.weights && chosen.asset === agreed.asset;
    const otherwise = "the model that answered is not the one that the contract names";
    require(same, "inference.other_weights", otherwise);
    return `${chosen.name}, ${chosen.weights}`;
  }

  /** All guards of the contract ran; where the request was refused, the first of them. */
  #policy(): string {
    const agreed = need(this.#expected.agreed, "the contract");
    const applied = this.#receipt.one("policy.applied");
    const refused = this.#isRefused;
    if (applied === null) {
      require(refused, "inference.other_policy", "the receipt does not say which policy was applied");
      return "refused before the policy was applied";
    }
    const terms = ({ policy, padding, observability }: Pick<Agreed, "policy" | "padding" | "observability">) => [
      policy,
      padding,
      observability,
    ];
    require(alike(terms(applied), terms(agreed)), "inference.other_policy", "another policy was applied");
    const plain = ({ name, program, stage }: Guard) => ({ name, program, stage });
    const ran = applied.guards.map(plain);
    const due = (refused ? agreed.guards.slice(0, ran.length) : agreed.guards).map(plain);
    require(alike(ran, due), "inference.other_policy", "the guards that ran are not those of the policy");
    const stopped = applied.guards.findIndex((run) => run.decision === "refused");
    const went = stopped >= 0 && (!refused || stopped !== ran.length - 1);
    require(!went, "inference.other_policy", "a guard refused, and the request went on");
    return `${applied.policy}, ${ran.length} guards, observability ${applied.observability}`;
  }

  #usage(): string {
    const usage = this.#receipt.one("usage.metered")?.usage;
    if (usage === undefined) {
      require(this.#isRefused, "inference.bad_usage", "the request was answered, and nothing was metered");
      return "nothing was metered";
    }
    const given = this.#receipt.one("request.forwarded") !== null && this.#receipt.one("model.weights") !== null;
    require(given, "inference.bad_usage", "tokens were metered of what no model was given");
    const embeds = this.#receipt.endpoint === EMBEDDINGS;
    const strange = embeds ? usage.prompt + usage.completion > 0 : usage.embedding > 0;
    require(!strange, "inference.bad_usage", "the kind of the tokens does not fit the route");
    const stated = this.#expected.answered?.usage ?? null;
    const otherwise = "the response states other figures than were metered";
    require(stated === null || alike(usage, stated), "inference.bad_usage", otherwise);
    return `${usage.prompt} prompt, ${usage.completion} completion, ${usage.embedding} embedding tokens`;
  }

  #route(): string {
    const asked = need(this.#expected.asked, "the request");
    const { method, endpoint } = this.#receipt;
    const same = method === asked.method && endpoint === asked.endpoint;
    require(same, "inference.other_route", "another route was served than was asked for");
    return `${method} ${endpoint}`;
  }

  #receiptId(): string {
    const named = need(this.#expected.receiptId, "the id that came with the response");
    require(this.#receipt.receiptId === named, "inference.other_id", "the receipt has another id");
    return this.#receipt.receiptId;
  }

  #chatId(): string {
    const answered = need(this.#expected.answered, "the response");
    require(this.#receipt.chatId === answered.chatId, "inference.other_id", "the receipt is of another chat");
    return answered.chatId ?? "the response has none";
  }
}

const MAKER = Symbol("examine");

/** What `examine` saw. Made by it alone. */
export class Verification {
  readonly checks: readonly Check[]; // I1 to I20
  readonly label: string; // how to name the platform to people
  readonly raw: Bytes; // the receipt, as it came
  readonly usage: Usage | null; // what a verified receipt says was used

  constructor(checks: readonly Check[], label: string, raw: Bytes, usage: Usage | null, maker: symbol) {
    if (maker !== MAKER) throw new TypeError("only examine() makes a Verification");
    this.checks = checks;
    this.label = label;
    this.raw = raw;
    this.usage = this.ok ? usage : null;
  }

  /** The first check that failed, whosever it is; else the first of a client's that is not established. */
  get problem(): Check | null {
    const failed = this.checks.find((check) => check.status === "failed");
    const missing = this.checks.find((check) => check.status !== "passed" && CLIENT.has(check.number));
    return failed ?? missing ?? null;
  }

  /** Whether a client may rely on the receipt: every check of its column passed, and none at all failed. */
  get ok(): boolean {
    return this.problem === null;
  }
}

/** Look at a receipt and write down every check, whatever it shows. Bytes never make it throw. */
export async function examine(
  data: Bytes,
  { appraisal, expected, at }: { appraisal: AttestationResult | null; expected: Expected; at: number },
): Promise<Verification> {
  const transcript = new Transcript(STEPS);
  const reading = new Reading(data, appraisal, expected, at);
  let reached = true;
  const checks = reading.checks();
  for (const [n, number] of STEPS.numbers.entries()) {
    const [check, code] = checks[n] ?? missing(number);
    if (!reached) {
      transcript.record(number, null, "not reached", code);
      continue;
    }
    let passed = false;
    try {
      passed = transcript.record(number, true, await check());
    } catch (error) {
      if (error instanceof Unknown) transcript.record(number, null, error.message, code);
      else if (isOurs(error)) transcript.record(number, false, error.message, error.code);
      else throw error;
    }
    reached = passed || n + 1 > GATE;
  }
  const usage = reading.read?.one("usage.metered")?.usage ?? null;
  return new Verification(transcript.checks, appraisal?.label ?? "platform: not established", data, usage, MAKER);
}

function missing(number: string): never {
  throw new Error(`check ${number} is not made`);
}
