/** What a verifier asks of evidence, as a document that its owner signs. An empty list in it accepts nothing: `spec/appraisal.md`. */

import { type Bytes, hex } from "./bytes.ts";
import { digest } from "./crypto.ts";
import { isOurs, StrongroomError } from "./errors.ts";
import { Measurement, PLATFORM_NAME, Roots } from "./evidence.ts";
import type { VerifyKey } from "./party.ts";
import { DEVICES, isVerifiedElsewhere, verifier } from "./registry.ts";
import { decode, type Envelope, encode, equalJson, Fields, isList, type Json, matches, mediaType } from "./wire.ts";

const POLICY_TYPE = mediaType("appraisal-policy");
const MAX_POLICY_BYTES = 1 << 20;
const MAX_REFERENCES = 1024;
const MAX_MACHINES = 4096;
const MAX_DEVICES = 16;
const ANY_MACHINE = "any-machine"; // said in words: an empty list of machines accepts none
const MACHINE = /^[a-z]{1,16}:[0-9a-f]{2,256}$/;

const bad = (why: string) => new StrongroomError("attest.bad_policy", why);

/** What may run, what people call it, and the build that it comes from. */
export class Reference {
  readonly measurement: Measurement;
  readonly name: string;
  readonly build: string;

  constructor(measurement: Measurement, name = "", build = "") {
    this.measurement = measurement;
    this.name = name;
    this.build = build;
  }

  static fromJson(value: unknown): Reference {
    const f = new Fields(value, "reference");
    const measurement = Measurement.fromJson(f.any("measurement"));
    const found = new Reference(measurement, f.text("name", 128), f.text("build", 512));
    f.end();
    return found;
  }

  toJson(): Json {
    return { build: this.build, measurement: this.measurement.toJson(), name: this.name };
  }
}

interface Parts {
  readonly platforms: ReadonlySet<string>;
  readonly roots: ReadonlyMap<string, Roots>;
  readonly references: readonly Reference[];
  readonly maxAgeSeconds: number;
  readonly machines: ReadonlySet<string> | null; // null: the word "any-machine"
  readonly devices: ReadonlyMap<string, number>; // kind to how many, exactly
  readonly terms: ReadonlyMap<string, unknown>; // platform to its terms, as the platform read them
}

const NOTHING: Parts = {
  platforms: new Set(),
  roots: new Map(),
  references: [],
  maxAgeSeconds: 300,
  machines: null,
  devices: new Map(),
  terms: new Map(),
};

export class AppraisalPolicy {
  readonly parts: Parts;
  readonly #json: Json;

  /** The policy without arguments refuses everything. Throws `attest.bad_policy`. */
  constructor(parts: Partial<Parts> = {}) {
    const found = { ...NOTHING, ...parts };
    const { platforms, roots, devices, terms, machines } = found;
    if (found.maxAgeSeconds < 1 || found.maxAgeSeconds > 86_400) {
      throw bad("the greatest age of evidence is not 1 second to a day");
    }
    const names = [...platforms, ...roots.keys(), ...devices.keys(), ...terms.keys()];
    if (!names.every((name) => matches(PLATFORM_NAME, name))) {
      throw bad("the policy names something that is no platform's name");
    }
    if ([...platforms].some((name) => DEVICES.has(name)) || ![...devices.keys()].every((name) => DEVICES.has(name))) {
      throw bad("the policy takes a device for a processor, or the other way round");
    }
    if (![...devices.values()].every((count) => count >= 1 && count <= MAX_DEVICES)) {
      throw bad(`the policy does not ask for 1 to ${MAX_DEVICES} devices of a kind`);
    }
    if (machines && (machines.size > MAX_MACHINES || ![...machines].every((one) => matches(MACHINE, one)))) {
      throw bad(`more than ${MAX_MACHINES} machines, or one that is no machine's identity`);
    }
    const byBytes = new Map(found.references.map((one) => [hex(encode(one.toJson())), one]));
    if (byBytes.size > MAX_REFERENCES) throw bad(`more than ${MAX_REFERENCES} reference values`);
    const references = [...byBytes].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, one]) => one);
    this.parts = { ...found, references };
    this.#json = {
      devices: Object.fromEntries(devices),
      machines: machines === null ? ANY_MACHINE : [...machines].sort(),
      max_age_s: found.maxAgeSeconds,
      platforms: [...platforms].sort(),
      references: references.map((one) => one.toJson()),
      roots: Object.fromEntries(Array.from(roots, ([name, of]) => [name, of.toJson()])),
      terms: Object.fromEntries(Array.from(terms, ([name, of]) => [name, writeTerms(name, of)])),
    };
  }

  /** The first reference value whose every register is equal, or `null`. */
  accepts(measurement: Measurement): Reference | null {
    return this.parts.references.find((one) => equalJson(one.measurement.toJson(), measurement.toJson())) ?? null;
  }

  toJson(): Json {
    return this.#json;
  }

  /** The digest of the canonical form, which results name. */
  async digest(): Promise<string> {
    return await digest(encode(this.#json));
  }

  static fromJson(value: unknown): AppraisalPolicy {
    const f = new Fields(value, "appraisal policy");
    const found = new AppraisalPolicy({
      platforms: new Set(f.names("platforms", { high: 32 })),
      roots: mapped(f, "roots", (_, of) => Roots.fromJson(of)),
      references: f.items("references", Reference.fromJson, { high: MAX_REFERENCES }),
      maxAgeSeconds: f.integer("max_age_s"),
      machines: readMachines(f),
      devices: mapped(f, "devices", (_, n) => new Fields({ n }, "appraisal policy.devices").integer("n")),
      terms: mapped(f, "terms", readTerms),
    });
    f.end();
    if (!equalJson(found.toJson(), value as Json)) {
      throw bad("machines, reference values or roots are not sorted and distinct");
    }
    return found;
  }

  static parse(data: Bytes): AppraisalPolicy {
    return AppraisalPolicy.fromJson(decode(data, MAX_POLICY_BYTES));
  }

  /** The policy that an owner signed. Throws `wire.…`, `attest.bad_policy`, `attest.bad_measurement`, `party.bad_key`. */
  static async verify(document: Envelope, owner: VerifyKey): Promise<AppraisalPolicy> {
    return AppraisalPolicy.parse(await owner.verify(document, POLICY_TYPE));
  }
}

function mapped<T>(f: Fields, name: string, read: (name: string, value: unknown) => T): Map<string, T> {
  const found = f.any(name);
  if (typeof found !== "object" || found === null || isList(found)) {
    throw new StrongroomError("wire.bad_field", `appraisal policy.${name} is not an object`);
  }
  return new Map(Object.entries(found).map(([key, value]) => [key, read(key, value)]));
}

function readMachines(f: Fields): ReadonlySet<string> | null {
  const machines = f.any("machines");
  if (machines === ANY_MACHINE) return null;
  const one = (machine: unknown) => new Fields({ machine }, "machines").text("machine");
  return new Set(new Fields({ machines }, "appraisal policy").items("machines", one, { high: MAX_MACHINES }));
}

/** Terms of a platform that only the Python verifier knows are kept as they stand: nothing here is ever held against them. */
function readTerms(name: string, value: unknown): unknown {
  const known = verifier(name);
  if (known === null && isVerifiedElsewhere(name)) return value;
  if (known === null) throw bad(`the policy has terms for '${name.slice(0, 64)}', which this version does not know`);
  try {
    return known.readTerms(value);
  } catch (error) {
    if (!isOurs(error)) throw error;
    throw bad(`the policy's terms for ${name}: ${error.message}`);
  }
}

function writeTerms(name: string, terms: unknown): Json {
  return verifier(name)?.writeTerms(terms) ?? (terms as Json);
}
