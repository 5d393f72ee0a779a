/** The policies under which requests are answered: `spec/policy.md`. What is not known could not be enforced, and is refused. */

import { quoted } from "./bytes.ts";
import { digest } from "./crypto.ts";
import { StrongroomError } from "./errors.ts";
import { OBSERVABILITY, type Observability } from "./receipt.ts";
import { encode, Fields, isList, type Json } from "./wire.ts";

const LARGEST_PADDING = 1 << 20; // of one record, unless more padding is asked for
const PADDINGS = [0, ...Array.from({ length: 17 }, (_, n) => 1 << (n + 8))];
const ANY_PARTY = "any-party";
const OUTPUT_KINDS = ["report", "picture", "records", "log"];
const ROUTES = ["chat", "completions", "embeddings"];
const GUARDS = ["injection", "model", "pii"];
const SERVE = [
  "input_guards",
  "lease_s",
  "observability",
  "output_guards",
  "padding",
  "plain_bodies",
  "retention_s",
  "routes",
];

const unknown = (why: string) => new StrongroomError("policy.unknown_dimension", why);

/** The dimension of a policy that opens a room for many requests. */
export interface Serving {
  readonly routes: readonly string[];
  readonly padding: number; // bodies are padded to a power of two of at least this many bytes; 0 for none
  readonly observability: Observability; // what the operator may see
  readonly retentionSeconds: number; // for how long receipts are kept
  readonly inputGuards: readonly string[];
  readonly outputGuards: readonly string[];
}

export interface Policy {
  readonly json: Json;
  readonly uses: readonly string[];
  readonly outputs: ReadonlyMap<string, OutputRule>;
  readonly serve: Serving | null;
}

function refuseUnknown(value: unknown, members: readonly string[], what: string): void {
  if (typeof value !== "object" || value === null || isList(value)) return; // Fields says so
  const strange = Object.keys(value)
    .sort()
    .find((member) => !members.includes(member));
  if (strange !== undefined) throw unknown(`${what} ${quoted(strange.slice(0, 40))} is not known`);
}

function known(f: Fields, name: string, all: readonly string[], low = 0): readonly string[] {
  const found = f.names(name, { low, high: all.length });
  const strange = found.find((one) => !all.includes(one));
  if (strange !== undefined) throw unknown(`serve: ${quoted(strange)} is not one of ${all.join(", ")}`);
  return found;
}

function readServing(value: unknown): Serving {
  refuseUnknown(value, SERVE, "serve: the member");
  const f = new Fields(value, "serve");
  const routes = known(f, "routes", ROUTES, 1);
  f.integer("lease_s", { low: 60, high: 604_800 });
  f.boolean("plain_bodies");
  const padding = f.integer("padding", { high: 1 << 24 });
  const level = f.text("observability", 16);
  const retentionSeconds = f.integer("retention_s", { high: 31_622_400 });
  const inputGuards = known(f, "input_guards", GUARDS);
  const outputGuards = known(f, "output_guards", GUARDS);
  const observability = OBSERVABILITY.find((one) => one === level);
  if (observability === undefined) throw unknown(`serve: observability is not one of ${OBSERVABILITY.join(", ")}`);
  if (!PADDINGS.includes(padding)) {
    throw new StrongroomError("wire.bad_field", "serve.padding is neither 0 nor a power of two from 256");
  }
  return { routes, padding, observability, retentionSeconds, inputGuards, outputGuards };
}

/** What one kind of output must keep to, so that it may leave. `recipients`: `null` for any party. */
export interface OutputRule {
  readonly recipients: ReadonlySet<string> | null;
  readonly maxBytes: number;
  readonly minGroup: number;
  readonly decimals: number;
}

export function readRule(value: unknown): OutputRule {
  refuseUnknown(value, ["decimals", "max_bytes", "min_group", "recipients"], "the rule's member");
  const f = new Fields(value, "rule");
  const given = f.any("recipients");
  const named =
    given === ANY_PARTY ? [] : new Fields({ recipients: given }, "rule").names("recipients", { low: 1, high: 256 });
  if (named.includes(ANY_PARTY)) {
    throw new StrongroomError("wire.bad_field", `rule.recipients names a party '${ANY_PARTY}', which is a reserved word`);
  }
  return {
    recipients: given === ANY_PARTY ? null : new Set(named),
    maxBytes: f.integer("max_bytes", { low: 1 }),
    minGroup: f.integer("min_group", { low: 1 }),
    decimals: f.integer("decimals", { high: 15 }),
  };
}

/** Whether what a rule lets out, another lets out too. */
function isWithin(rule: OutputRule, wide: OutputRule): boolean {
  const { recipients } = wide;
  const named =
    recipients === null || (rule.recipients !== null && [...rule.recipients].every((one) => recipients.has(one)));
  return named && rule.maxBytes <= wide.maxBytes && rule.minGroup >= wide.minGroup && rule.decimals <= wide.decimals;
}

/** Whether a policy lets an output of this kind leave under this rule. */
export function permits({ outputs }: Policy, kind: string, rule: OutputRule): boolean {
  if (!OUTPUT_KINDS.includes(kind)) throw unknown(`output kind ${quoted(kind)} is not one of ${OUTPUT_KINDS.join(", ")}`);
  const wide = outputs.get(kind);
  return wide !== undefined && isWithin(rule, wide);
}

/** Every dimension must be known: what is not could not be enforced. Throws `wire.bad_field`, `policy.unknown_dimension`. */
export function readPolicy(value: unknown): Policy {
  refuseUnknown(value, ["egress", "outputs", "serve", "uses"], "the policy's dimension");
  const f = new Fields(value, "policy");
  const given = f.any("outputs");
  if (typeof given !== "object" || given === null || isList(given)) {
    throw new StrongroomError("wire.bad_field", "policy.outputs is not an object");
  }
  refuseUnknown(given, OUTPUT_KINDS, "output kind");
  const uses = f.names("uses", { high: 256 });
  const outputs = new Map(Object.entries(given).map(([kind, rule]) => [kind, readRule(rule)]));
  const egress = f.any("egress");
  if (!isList(egress)) throw new StrongroomError("wire.bad_field", "policy.egress is not a list");
  if (egress.length > 0) throw unknown("egress to a host cannot be enforced by this version; only [] is accepted");
  const serve = f.has("serve") ? readServing(f.any("serve")) : null;
  return { json: value as Json, uses, outputs, serve };
}

/** The sizes to which what is sent encrypted is padded, ascending: powers of two; none where it is not. */
export function paddingSizes({ padding }: Serving): readonly number[] {
  if (padding === 0) return [];
  const high = Math.max(padding, LARGEST_PADDING);
  return Array.from({ length: 25 }, (_, n) => 1 << n).filter((size) => size >= padding && size <= high);
}

export async function policyDigest(policy: Policy): Promise<string> {
  return await digest(encode(policy.json));
}
