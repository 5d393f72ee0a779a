/**
 * What this page establishes about a service before it sends a byte of a prompt: checks E1 to E8.
 *
 * No input or output: what was answered goes in. The same checks, names and numbers as `strongroom`'s own client.
 */

import { type AttestationResult, appraise } from "./appraise.ts";
import { type Bytes, equal, hex, quoted } from "./bytes.ts";
import { type Proposal, requireInForce, verifyContract } from "./contract.ts";
import { keyOfConfig, requireRequestKey } from "./ehbp.ts";
import { HINTS, isOurs, StrongroomError } from "./errors.ts";
import { Measurement } from "./evidence.ts";
import { loads } from "./json.ts";
import { type AttestationReport, type Keyset, parseReport } from "./keyset.ts";
import { verifyManifest } from "./manifest.ts";
import type { Agreed } from "./reading.ts";
import { type Guard, readGuard } from "./receipt.ts";
import { paddingSizes, policyDigest, type Serving } from "./serving.ts";
import { type Check, Steps, Transcript } from "./transcript.ts";
import type { Trust } from "./trust.ts";
import { Envelope, Fields, type Json } from "./wire.ts";

const PROGRAM = "serve-llm";
const MAX_REPLY_BYTES = 4 << 20;
const MAX_REFUSAL_BYTES = 64 << 10;

const STEPS = new Steps("E", [
  "the service answers with an attestation report",
  "its evidence affirms its keyset, for this client's nonce (A1 to A15)",
  "the contract that it shows is the expected one, signed by all its parties, and in force",
  "it is a standing contract, and its program serves models",
  "the keyset was made for this contract",
  "what runs there is what the contract names",
  "the keyset has one key for requests, and the well-known address names no other",
  "the contract settles each model's weights, the policy and its guards",
]);

/** What the user relies on: from another channel than the service, or confirmed once and kept. */
export interface Terms {
  readonly trust: Trust;
  /** The digest of the contract; `null` where none is pinned yet: what is shown is then only looked at, and nothing is sent. */
  readonly contract: string | null;
  /** Name of a model to the digest of its weights; needed of those alone whose owner does not show it. */
  readonly weights: ReadonlyMap<string, string>;
}

/** What a service answered to a question. **Untrusted.** */
export interface Reply {
  readonly status: number;
  readonly body: Bytes;
  readonly keyset: string | null; // of the header that names one
}

/** What a service shows of its room. **Untrusted**: a contract is recognised by its digest, a manifest by its owner. */
export interface Shown {
  readonly contract: Envelope;
  readonly manifests: readonly Envelope[];
  readonly guards: readonly Guard[];
}

/** The body of a success. Throws the code that a service of ours says in refusal, else `app.not_found`, `app.internal`. */
function body(reply: Reply, what: string): Bytes {
  if (reply.status === 200) return reply.body;
  const code = codeOf(reply.body) ?? (reply.status === 404 ? "app.not_found" : "app.internal");
  throw new StrongroomError(code, `the service does not show ${what}: HTTP ${reply.status}`);
}

/** The code that a refusal names, where it is one that is known here. */
export function codeOf(data: Bytes): keyof typeof HINTS | null {
  try {
    const code = new Fields(new Fields(loads(data, MAX_REFUSAL_BYTES), "refusal").any("error"), "error").text("code", 64);
    return code in HINTS ? (code as keyof typeof HINTS) : null;
  } catch (error) {
    if (isOurs(error)) return null;
    throw error;
  }
}

/** Members that are for people to read are not looked at. Throws `wire.…`, `app.…`. */
export function readShown(reply: Reply): Shown {
  const f = new Fields(loads(body(reply, "its room"), MAX_REPLY_BYTES), "room");
  const guard = (value: unknown) => {
    const g = new Fields(value, "guard");
    const found = readGuard(g);
    g.end();
    return found;
  };
  return {
    contract: new Envelope(f.any("contract")),
    manifests: f.items("manifests", (item) => new Envelope(item), { high: 64 }),
    guards: f.items("guards", guard, { high: 32 }),
  };
}

export function shownToJson(shown: Shown): Json {
  return {
    contract: shown.contract.toJson(),
    guards: shown.guards.map(({ name, program, stage }) => ({ name, program, stage })),
    manifests: shown.manifests.map((manifest) => manifest.toJson()),
  };
}

/** A service as this page established it. */
export interface Session {
  readonly nonce: Bytes;
  readonly at: number;
  readonly report: Bytes;
  readonly keys: Bytes;
  readonly shown: Shown;
  readonly contract: string; // its digest
  readonly isPinned: boolean; // whether the contract is the pinned one
  readonly proposal: Proposal;
  readonly appraisal: AttestationResult;
  readonly keyset: Keyset;
  readonly key: Bytes; // to which requests are encrypted
  readonly sizes: readonly number[]; // of padding, both ways
  readonly models: ReadonlyMap<string, Agreed>; // what a receipt of an answer by each must say
  readonly until: number; // the last second at which all of it holds
}

export interface Established {
  readonly checks: readonly Check[]; // E1 to E8
  readonly appraisal: AttestationResult | null;
  readonly session: Session | null;
  readonly error: StrongroomError | null; // of the first check that did not pass
}

interface Question {
  readonly terms: Terms;
  readonly nonce: Bytes; // what the report was asked for with
  readonly at: number;
  readonly report: Reply;
  readonly keys: Reply;
  readonly room: Reply;
}

/** The checks in their order; the first that does not pass ends it. */
class Establishing {
  readonly #q: Question;
  readonly #transcript = new Transcript(STEPS);
  #appraisal: AttestationResult | null = null;

  constructor(question: Question) {
    this.#q = question;
  }

  async #check<T>(number: string, work: () => readonly [T, string] | Promise<readonly [T, string]>): Promise<T> {
    try {
      const [found, said] = await work();
      this.#transcript.record(number, true, said);
      return found;
    } catch (error) {
      if (isOurs(error)) this.#transcript.record(number, false, error.message, error.code);
      throw error;
    }
  }

  async run(): Promise<Established> {
    let session: Session | null = null;
    let problem: StrongroomError | null = null;
    try {
      session = await this.#session();
    } catch (error) {
      if (!isOurs(error)) throw error;
      problem = error;
    }
    return { checks: this.#transcript.checks, appraisal: this.#appraisal, session, error: problem };
  }

  async #session(): Promise<Session> {
    const { nonce, at, report, keys, terms } = this.#q;
    const read = await this.#check("E1", () => this.#report());
    const appraisal = await this.#check("E2", () => this.#affirmed(read));
    const keyset = appraisal.require();
    const { shown, contract, proposal } = await this.#contract();
    const serve = await this.#check("E4", () => served(proposal));
    await this.#check("E5", () => madeFor(keyset, contract));
    await this.#check("E6", () => named(appraisal, proposal));
    const key = await this.#check("E7", () => requestKey(keyset, keys));
    const models = await this.#check("E8", () => settled(shown, contract, proposal, serve, terms.weights));
    return {
      nonce,
      at,
      report: report.body,
      keys: keys.body,
      shown,
      contract,
      isPinned: terms.contract === contract,
      proposal,
      appraisal,
      keyset,
      key,
      sizes: paddingSizes(serve),
      models,
      until: Math.min(appraisal.validUntil ?? 0, keyset.notAfter, proposal.notAfter - 1),
    };
  }

  async #report(): Promise<readonly [AttestationReport, string]> {
    const data = body(this.#q.report, "its attestation report");
    let found: AttestationReport;
    try {
      found = await parseReport(data);
    } catch (error) {
      if (!isOurs(error) || error.code !== "wire.not_json") throw error;
      throw new StrongroomError("attest.bad_evidence", "what it answers is no attestation report");
    }
    const header = this.#q.report.keyset;
    if (header !== null && header !== found.keyset.digest) {
      const said = "the report is of another keyset than the one that its own header names";
      throw new StrongroomError("ehbp.wrong_keyset", said);
    }
    return [found, `${found.evidence.platform}, ${found.keyset.digest}`];
  }

  async #affirmed(report: AttestationReport): Promise<readonly [AttestationResult, string]> {
    const { terms, nonce, at } = this.#q;
    this.#appraisal = await appraise({ ...report, policy: terms.trust.appraisalPolicy(), nonce, at });
    this.#appraisal.require();
    return [this.#appraisal, this.#appraisal.label];
  }

  /** E3. Where no contract is pinned yet, what is shown is looked at, and the check is not established. */
  async #contract(): Promise<{ shown: Shown; contract: string; proposal: Proposal }> {
    const expected = this.#q.terms.contract;
    const look = async () => {
      const shown = readShown(this.#q.room);
      const contract = await shown.contract.digest();
      if (expected !== null && contract !== expected) {
        throw new StrongroomError("inference.other_contract", `it serves under ${contract}, and ${expected} is expected`);
      }
      const proposal = await verifyContract(shown.contract);
      requireInForce(proposal, this.#q.at);
      return [{ shown, contract, proposal }, contract] as const;
    };
    if (expected !== null) return await this.#check("E3", look);
    let found: Awaited<ReturnType<typeof look>>;
    try {
      found = await look();
    } catch (error) {
      if (isOurs(error)) this.#transcript.record("E3", false, error.message, error.code);
      throw error;
    }
    this.#transcript.record("E3", null, `no contract is pinned; it shows ${found[1]}`, "inference.other_contract");
    return found[0];
  }
}

/** Make a session of what a service answered. Bytes never make it throw. */
export async function establish(question: Question): Promise<Established> {
  return await new Establishing(question).run();
}

function served({ serve, program }: Proposal): readonly [Serving, string] {
  if (serve === null || program.name !== PROGRAM) {
    const said = "the contract is not one under which models are served";
    throw new StrongroomError("policy.not_permitted", said);
  }
  return [serve, serve.routes.join(", ")];
}

function madeFor(keyset: Keyset, contract: string): readonly [null, string] {
  const subject = keyset.subject ?? "";
  if (!subject.startsWith(`strongroom-run://${contract.slice("sha256:".length)}/`)) {
    const said = "the keyset is attested, and was made for something else than this contract";
    throw new StrongroomError("broker.keyset_of_another_run", said);
  }
  return [null, subject];
}

async function named(appraisal: AttestationResult, proposal: Proposal): Promise<readonly [null, string]> {
  const { measurement } = appraisal;
  if (measurement === null || !proposal.names(measurement)) {
    const said = "what runs there is trusted here, but is not what the contract's parties agreed to";
    throw new StrongroomError("broker.enclave_not_named", said);
  }
  return [null, await new Measurement(measurement.platform, measurement.registers).digest()];
}

function requestKey(keyset: Keyset, reply: Reply): readonly [Bytes, string] {
  const found = requireRequestKey(keyset.requestKey);
  const data = body(reply, "its key for requests");
  let shown: Bytes;
  try {
    shown = keyOfConfig(data);
  } catch (error) {
    if (!isOurs(error) || error.code !== "ehbp.bad_key_config") throw error;
    throw new StrongroomError("ehbp.bad_key_config", `the well-known address names no key: ${error.message}`);
  }
  if (!equal(shown, found)) {
    const said = "the well-known address names another key than the attested keyset";
    throw new StrongroomError("ehbp.wrong_keyset", said);
  }
  return [found, hex(found)];
}

/** E8: what a receipt of an answer by each model must say. */
async function settled(
  shown: Shown,
  contract: string,
  proposal: Proposal,
  serve: Serving,
  told: Terms["weights"],
): Promise<readonly [ReadonlyMap<string, Agreed>, string]> {
  const other = (why: string) => new StrongroomError("inference.other_weights", why);
  const guards = requireGuards(shown.guards, serve.inputGuards, serve.outputGuards);
  const manifests = new Map<string, Envelope>();
  for (const envelope of shown.manifests) manifests.set(await envelope.digest(), envelope);
  const policy = await policyDigest(proposal.policy);
  const models = new Map<string, Agreed>();
  for (const { name, role } of modelsOf(proposal)) {
    const asset = proposal.assets.find((one) => one.role === role);
    const envelope = asset && manifests.get(asset.manifest);
    const owner = asset && proposal.parties.find((party) => party.name === asset.owner);
    if (!asset || !envelope || !owner) throw other(`the manifest of ${quoted(name)} is not shown`);
    const manifest = await verifyManifest(envelope, owner.signingKey);
    if (manifest.owner !== asset.owner) throw other(`the manifest of ${quoted(name)} is of another owner's asset`);
    const weights = manifest.sha256 ?? told.get(name);
    if (weights === undefined) throw other(`the owner of ${quoted(name)} does not show the digest of its weights`);
    if (weights !== (told.get(name) ?? weights))
      throw other(`the contract's ${quoted(name)} has other weights than are expected`);
    models.set(name, {
      contract,
      model: name,
      weights,
      asset: asset.manifest,
      policy,
      guards,
      padding: paddingSizes(serve),
      observability: serve.observability,
    });
  }
  return [models, Array.from(models, ([name, { weights }]) => `${name} ${weights}`).join(", ")];
}

/** The models of a contract: name and role. Throws `wire.bad_field`. */
export function modelsOf(proposal: Proposal): readonly { readonly name: string; readonly role: string }[] {
  const one = (value: unknown) => {
    const f = new Fields(value, "model");
    return { name: f.text("name", 256), role: f.name("role") };
  };
  return new Fields(proposal.program.parameters, "parameters").items("models", one, { low: 1, high: 64 });
}

/** The guards as the service says that they run: exactly those that the policy names. */
function requireGuards(shown: readonly Guard[], inputs: readonly string[], outputs: readonly string[]): readonly Guard[] {
  for (const [stage, expected] of [["input", inputs] as const, ["output", outputs] as const]) {
    const found = shown.filter((guard) => guard.stage === stage).map((guard) => guard.name);
    if (found.sort().join() !== expected.toSorted().join()) {
      const said = `the guards of the ${stage} that run are not those of the policy`;
      throw new StrongroomError("inference.other_policy", said);
    }
  }
  return shown;
}
