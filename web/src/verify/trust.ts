/** What a verifier trusts, and nothing else: its own file, never what is being verified. See `spec/trust.md`. */

import { type Bytes, concat, hex, unb64, utf8 } from "./bytes.ts";
import { sha256 } from "./crypto.ts";
import { isOurs, StrongroomError } from "./errors.ts";
import { Measurement, Roots } from "./evidence.ts";
import { type Foreign, loads } from "./json.ts";
import { Party, VerifyKey } from "./party.ts";
import { AppraisalPolicy, Reference } from "./policy.ts";
import { Envelope, equalJson, Fields, type Json } from "./wire.ts";

const FORMAT = "strongroom.trust.v1";

/** A key that vouches for a platform's keys. */
interface Root {
  readonly platform: string;
  readonly key: VerifyKey;
}

export class Trust {
  readonly parties: readonly Party[];
  readonly roots: readonly Root[];
  readonly measurements: readonly Measurement[];
  readonly appraisal: Envelope | null;
  #policy: AppraisalPolicy;

  private constructor(
    parties: readonly Party[],
    roots: readonly Root[],
    measurements: readonly Measurement[],
    appraisal: Envelope | null,
  ) {
    this.parties = parties;
    this.roots = roots;
    this.measurements = measurements;
    this.appraisal = appraisal;
    this.#policy = new AppraisalPolicy();
  }

  /** Read a trust file, in any spelling: it is not signed, and people may edit it. Throws what `spec/trust.md` lists. */
  static async parse(data: Bytes): Promise<Trust> {
    return await Trust.fromJson(plain(loads(data)));
  }

  static async fromJson(value: unknown): Promise<Trust> {
    const f = new Fields(value, "trust");
    f.literal("format", FORMAT);
    const parties = f.items("parties", (item) => new Party(item));
    const roots = f.items("roots", readRoot);
    const measurements = f.items("measurements", Measurement.fromJson);
    const logs = f.items("logs", (log) => new Fields({ log }, "trust").text("log", 512));
    for (const log of logs) await requireVerifierKey(log);
    const appraisal = f.optional("appraisal_policy", (item) => new Envelope(item));
    if (new Set(parties.map((party) => party.name)).size !== parties.length) {
      throw new StrongroomError("wire.bad_field", "the trust file pins a name twice");
    }
    const found = new Trust(parties, roots, measurements, appraisal);
    found.#policy = await found.#signedPolicy();
    f.end();
    return found;
  }

  /** Require that each party's keys are those pinned under its name. Throws `party.not_pinned`, `party.pin_mismatch`. */
  async check(parties: readonly Party[]): Promise<void> {
    if (parties.length === 0) throw new StrongroomError("party.not_pinned", "there are no parties to check");
    for (const party of parties) {
      const pinned = this.parties.find((one) => one.name === party.name);
      if (!pinned) throw new StrongroomError("party.not_pinned", `'${party.name}' is not pinned`);
      if ((await pinned.fingerprint()) !== (await party.fingerprint())) {
        const said = `the keys of '${party.name}' are not those pinned under that name`;
        throw new StrongroomError("party.pin_mismatch", said);
      }
    }
  }

  async #signedPolicy(): Promise<AppraisalPolicy> {
    if (this.appraisal === null) return new AppraisalPolicy();
    const signers = this.appraisal.signatures.map((signature) => signature.keyid);
    for (const party of this.parties) {
      if (signers.length === 1 && signers[0] === (await party.signingKey.keyid())) {
        return await AppraisalPolicy.verify(this.appraisal, party.signingKey);
      }
    }
    const said = "the appraisal policy is not signed by exactly one party, and that one pinned";
    throw new StrongroomError("party.not_pinned", said);
  }

  /** What this verifier asks of evidence: the signed policy, and the platforms it has roots and measurements for. */
  appraisalPolicy(): AppraisalPolicy {
    const signed = this.#policy.parts;
    const measured = new Set(this.measurements.map((one) => one.platform));
    const own = new Set(this.roots.map((root) => root.platform).filter((name) => measured.has(name)));
    // What a signed policy holds of a platform that it does not name counts for nothing, also where this file names it.
    const unnamed = new Set([...own].filter((name) => !signed.platforms.has(name)));
    const roots = new Map([...signed.roots].filter(([name]) => !unnamed.has(name)));
    for (const { platform, key } of this.roots) {
      const before = roots.get(platform) ?? new Roots();
      roots.set(platform, new Roots([...before.keys, key], before.certificates));
    }
    const kept = signed.references.filter((one) => !unnamed.has(one.measurement.platform));
    const isNamed = (found: Measurement) => kept.some((one) => equalJson(one.measurement.toJson(), found.toJson()));
    const more = this.measurements.filter((one) => !isNamed(one)).map((one) => new Reference(one));
    return new AppraisalPolicy({
      ...signed,
      platforms: new Set([...signed.platforms, ...own]),
      roots,
      references: [...kept, ...more],
    });
  }

  /** What is pinned, for people: one line each. */
  async describe(): Promise<readonly string[]> {
    const found: string[] = [];
    for (const party of this.parties) found.push(`party ${party.name}: ${await party.fingerprint()}`);
    const { platforms, roots, references } = this.appraisalPolicy().parts;
    for (const name of [...platforms].sort()) {
      for (const key of roots.get(name)?.keys ?? []) found.push(`root of ${name}: ${await key.keyid()}`);
      for (const key of roots.get(name)?.certificates ?? []) found.push(`root of ${name}: ${key}`);
    }
    for (const { measurement, name, build } of references) {
      const known = [name, build].filter((part) => part !== "").join(" ");
      found.push(`measurement of ${measurement.platform}: ${await measurement.digest()}${known && ` (${known})`}`);
    }
    return found;
  }
}

function readRoot(value: unknown): Root {
  const f = new Fields(value, "root");
  const found = { platform: f.name("platform"), key: new VerifyKey(f.base64("key")) };
  f.end();
  return found;
}

/** A verifier key of a log, `name+id+key` (C2SP signed-note). This page asks no log; the file must be sound all the same. */
async function requireVerifierKey(said: string): Promise<void> {
  const bad = (why: string) => new StrongroomError("party.bad_key", why);
  const [name, id, ...rest] = said.split("+");
  if (name === undefined || id === undefined || rest.length === 0) {
    throw bad("a log's verifier key is not name+id+key, or its id is not that of the key");
  }
  let raw: Bytes;
  try {
    raw = unb64(rest.join("+"));
  } catch (error) {
    throw isOurs(error) ? bad("a log's verifier key is not canonical base64") : error;
  }
  if (raw[0] !== 1) throw bad("a log's verifier key is not an Ed25519 key");
  new VerifyKey(raw.slice(1));
  if (name === "" || /\s/.test(name)) throw bad("a log's name is empty, or holds white space or '+'");
  if (id !== hex((await sha256(concat(utf8(`${name}\n`), raw))).slice(0, 4))) {
    throw bad("a log's verifier key is not name+id+key, or its id is not that of the key");
  }
}

/** Foreign JSON as our own forms have it. Throws `wire.bad_field` for numbers that no document of ours has. */
function plain(value: Foreign): Json {
  if (Array.isArray(value)) return value.map(plain);
  if (value instanceof Map) return Object.fromEntries(Array.from(value, ([name, item]) => [name, plain(item)]));
  if (value !== null && typeof value === "object") {
    throw new StrongroomError("wire.bad_field", "a number in the trust file is not an integer");
  }
  if (typeof value === "bigint") throw new StrongroomError("wire.bad_field", "a number in the trust file is too large");
  return value;
}
