/**
 * Standing contracts: what a room's parties agreed to, signed by each of them. See `spec/contract.md`.
 *
 * The digest of the payload says which contract it is. Whether these are the right parties is another question.
 */

import { b64, quoted } from "./bytes.ts";
import { isOurs, StrongroomError } from "./errors.ts";
import { Measurement } from "./evidence.ts";
import { Party } from "./party.ts";
import { type OutputRule, type Policy, permits, readPolicy, readRule, type Serving } from "./serving.ts";
import { decode, type Envelope, equalJson, Fields, isList, type Json, mediaType, pae } from "./wire.ts";

const PROPOSAL_TYPE = mediaType("proposal");
const UNSHOWN = /[\p{Cc}\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/u;

const bad = (why: string) => new StrongroomError("contract.bad_proposal", why);

export interface Asset {
  readonly role: string;
  readonly owner: string;
  readonly manifest: string; // its digest
}

/** One computation, as somebody proposes it. **Untrusted**: nobody's signature is implied. */
export class Proposal {
  readonly title: string;
  readonly notBefore: number; // in force while notBefore <= t < notAfter
  readonly notAfter: number;
  readonly parties: readonly Party[];
  readonly program: { readonly name: string; readonly use: string; readonly parameters: unknown };
  readonly assets: readonly Asset[];
  readonly measurements: readonly Measurement[];
  readonly policy: Policy;

  /** `payload`: canonical JSON in normal form. Throws what `spec/contract.md` lists. */
  constructor(payload: Json) {
    const f = new Fields(payload, "proposal");
    this.title = f.text("title", 200);
    f.hex("nonce", 16);
    const proposer = f.name("proposer");
    f.optional("supersedes", (supersedes) => new Fields({ supersedes }, "proposal").digest("supersedes"));
    f.integer("created_at");
    this.notBefore = f.integer("not_before");
    this.notAfter = f.integer("not_after");
    this.parties = f.items("parties", (item) => new Party(item), { low: 1, high: 64 });
    this.program = readProgram(f.any("program"));
    this.assets = f.items("assets", readAsset, { low: 1, high: 64 });
    const outputs = f.items("outputs", readOutput, { high: 64 });
    this.measurements = readEnclave(f.any("enclave"));
    this.policy = readPolicy(f.any("policy"));
    readLimits(f.any("limits"));
    const payments = f.items("payments", readPayment, { high: 64 });
    f.end();
    const named = [proposer, ...this.assets.map((asset) => asset.owner), ...payments.flatMap(({ parties }) => parties)];
    this.#requireParties([...named, ...outputs.flatMap(({ rule }) => [...(rule.recipients ?? [])])]);
    this.#requireLists(outputs, payments);
    this.#requirePermitted(outputs);
  }

  #requireParties(named: readonly string[]): void {
    const names = this.parties.map((party) => party.name);
    if (!isSorted(names)) throw bad("parties are not sorted and distinct, or there are none");
    const keys = this.parties.flatMap((party) => party.keys.map(b64));
    if (new Set(keys).size !== keys.length) {
      throw bad("two parties or roles share a key: one would sign, or read, for the other");
    }
    const stranger = named.toSorted().find((name) => !names.includes(name));
    if (stranger !== undefined) throw bad(`${quoted(stranger)} has a role but is no party`);
  }

  #requireLists(outputs: readonly Output[], payments: readonly Payment[]): void {
    if (!isSorted(this.assets.map((asset) => asset.role))) throw bad("asset roles are not sorted and distinct");
    if (!isSorted(outputs.map((output) => output.name))) throw bad("outputs are not sorted and distinct");
    if (!isSorted(payments.map((payment) => payment.place))) throw bad("payments are not sorted and distinct");
    const manifests = this.assets.map((asset) => asset.manifest);
    if (new Set(manifests).size !== manifests.length) {
      throw bad("an asset has two roles, but its key is released once for a run");
    }
    if (this.notBefore >= this.notAfter) throw bad("not_before is not earlier than not_after");
    if (UNSHOWN.test(this.title)) throw bad("the title holds characters that are not shown as they are");
    if ((this.policy.serve === null) === (outputs.length === 0)) {
      throw bad("a proposal names an output, or what is served leaves as answers to requests, and not both");
    }
    const unnamed = outputs.find((output) => output.rule.recipients === null);
    if (unnamed !== undefined) throw bad(`output ${unnamed.name} does not name its recipients`);
  }

  #requirePermitted(outputs: readonly Output[]): void {
    const { uses, serve } = this.policy;
    if (uses.length === 0) throw new StrongroomError("policy.empty", "the policy allows no use of the data");
    if (this.policy.outputs.size === 0 && serve === null) {
      throw new StrongroomError("policy.empty", "the policy lets no output leave");
    }
    if (!uses.includes(this.program.use)) {
      const said = `the policy does not allow the use ${quoted(this.program.use)} that the program makes`;
      throw new StrongroomError("policy.not_permitted", said);
    }
    const wider = outputs.find(({ kind, rule }) => !permits(this.policy, kind, rule));
    if (wider !== undefined) {
      throw new StrongroomError("policy.not_permitted", `the policy does not allow output ${quoted(wider.name)}`);
    }
  }

  /** What may be asked, and how it must be answered; `null` of a contract that is no standing one. */
  get serve(): Serving | null {
    return this.policy.serve;
  }

  /** Whether the contract's parties agreed to what runs. */
  names(measurement: { readonly platform: string; readonly registers: Readonly<Record<string, string>> }): boolean {
    return this.measurements.some((one) => equalJson(one.toJson(), measurement));
  }
}

function isSorted(items: readonly string[]): boolean {
  return items.every((item, n) => n === 0 || (items[n - 1] ?? "") < item);
}

function readProgram(value: unknown): Proposal["program"] {
  const f = new Fields(value, "program");
  const parameters = f.any("parameters");
  if (typeof parameters !== "object" || parameters === null || isList(parameters)) {
    throw new StrongroomError("wire.bad_field", "program.parameters is not an object");
  }
  const name = f.name("name");
  f.digest("digest");
  const found = { name, use: f.name("use"), parameters };
  f.end();
  return found;
}

function readAsset(value: unknown): Asset {
  const f = new Fields(value, "asset");
  const found = { role: f.name("role"), owner: f.name("owner"), manifest: f.digest("manifest") };
  f.end();
  return found;
}

function readEnclave(value: unknown): readonly Measurement[] {
  const f = new Fields(value, "enclave");
  const platforms = f.names("platforms", { low: 1, high: 8 });
  const measurements = f.items("measurements", Measurement.fromJson, { low: 1, high: 64 });
  const sandbox = f.choice("sandbox", ["isolated", "process"]);
  f.end();
  const spelled = measurements.map((one) => new TextDecoder().decode(one.encode()));
  if (!isSorted(spelled)) throw bad("measurements are not sorted and distinct");
  if (!equalJson([...new Set(measurements.map((one) => one.platform))].sort(), platforms)) {
    throw bad("platforms and measurements do not name the same platforms");
  }
  if (sandbox === "process" && !equalJson(platforms, ["simulated"])) {
    throw bad("sandbox: process is allowed on the simulated platform alone");
  }
  return measurements;
}

function readLimits(value: unknown): void {
  const f = new Fields(value, "limits");
  f.integer("runs", { low: 1, high: 1_000_000 });
  f.integer("seconds", { low: 1, high: 604_800 });
  f.integer("memory_bytes", { low: 2 ** 20, high: 2 ** 45 });
  f.end();
}

interface Payment {
  readonly parties: readonly string[];
  readonly place: string; // by which payments are sorted; the names hold no space
}

function readPayment(value: unknown): Payment {
  const f = new Fields(value, "payment");
  const parties = [f.name("payer"), f.name("payee")];
  f.integer("amount", { low: 1 });
  const currency = f.text("currency", 3);
  f.end();
  if (!/^[A-Z]{3}$/.test(currency)) throw bad("payment.currency is not an ISO 4217 code");
  if (parties[0] === parties[1]) throw bad("a payment goes from a party to itself");
  return { parties, place: [...parties, currency].join(" ") };
}

interface Output {
  readonly name: string;
  readonly kind: string;
  readonly rule: OutputRule;
}

function readOutput(value: unknown): Output {
  const f = new Fields(value, "output");
  const found = { name: f.name("name"), kind: f.name("kind"), rule: readRule(f.any("rule")) };
  f.end();
  return found;
}

// --- signatures -------------------------------------------------------------------------------------------------------

/** A proposal that exactly its parties have signed, each once. Throws what `spec/contract.md` lists. */
export async function verifyContract(envelope: Envelope): Promise<Proposal> {
  const payload = envelope.expect(PROPOSAL_TYPE);
  const proposal = new Proposal(decode(payload));
  if (!isSorted(envelope.signatures.map((signature) => signature.keyid))) {
    throw new StrongroomError("contract.signature_doubled", "the signatures are not sorted and distinct");
  }
  const keyids = new Map<string, Party>();
  for (const party of proposal.parties) keyids.set(await party.signingKey.keyid(), party);
  for (const { keyid, sig } of envelope.signatures) {
    const party = keyids.get(keyid);
    if (party === undefined) {
      throw new StrongroomError("contract.signature_from_stranger", "a signature is by no party's key");
    }
    try {
      await party.signingKey.verifyBytes(sig, pae(PROPOSAL_TYPE, payload));
    } catch (error) {
      if (!isOurs(error, "wire")) throw error;
      const said = `the approval of ${quoted(party.name)} is not of these bytes`;
      throw new StrongroomError("contract.signature_invalid", said);
    }
    keyids.delete(keyid);
  }
  if (keyids.size > 0) {
    const names = Array.from(keyids.values(), (party) => party.name).sort();
    throw new StrongroomError("contract.signature_missing", `the approval of ${names.join(", ")} is missing`);
  }
  return proposal;
}

/** Throws `contract.expired`, `contract.not_yet_valid`. */
export function requireInForce({ notBefore, notAfter }: Proposal, at: number): void {
  if (at >= notAfter) throw new StrongroomError("contract.expired", "the contract's not_after has passed");
  if (at < notBefore) throw new StrongroomError("contract.not_yet_valid", "the contract's not_before has not come");
}
