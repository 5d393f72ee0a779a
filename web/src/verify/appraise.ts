/**
 * `appraise()`: the one maker of an `AttestationResult`. Evidence from an untrusted machine goes in, a verdict comes out.
 *
 * No I/O, no clock. Bytes never make it throw; they make a result that is not affirming, in which the failed check is named.
 * See `spec/appraisal.md`; the checks A1 to A15 are numbered as there. What only the Python verifier can look at (other
 * platforms, devices beside the processor, event logs) is not established here, and nothing is affirmed without it.
 */

import { type Bytes, hex, quoted } from "./bytes.ts";
import { type Code, isOurs, StrongroomError } from "./errors.ts";
import { type Endorsement, type Evidence, FOREVER, type Platform, Roots, type Verified } from "./evidence.ts";
import { type Keyset, NONCE_BYTES, reportData } from "./keyset.ts";
import type { AppraisalPolicy } from "./policy.ts";
import { DEVICES, isVerifiedElsewhere, verifier } from "./registry.ts";
import { type Check, firstProblem, type Status, Steps, Transcript } from "./transcript.ts";
import {
  AFFIRMED,
  APPROVED_AT_START,
  CRYPTO_FAILED,
  NO_CLAIMS,
  type Tier,
  type TrustVector,
  UNACCEPTABLE,
  UNRECOGNIZED_EXECUTABLES,
  worse,
  worstClaim,
  worstTier,
} from "./vector.ts";
import type { Json } from "./wire.ts";

const MAX_CLOCK_SKEW_S = 300;
const MAX_KEYSET_S = 366 * 86_400;
const EAR_PROFILE = "tag:github.com,2023:veraison/ear";
const BESIDE = new Set(["A14", "A15"]); // about the devices: no part of the processor's own tier

const STEPS = new Steps("A", [
  "the appraisal policy names the platform of the evidence",
  "this version can verify evidence of that platform",
  "the evidence passes every check of its platform",
  "the enclave cannot be debugged",
  "the verifier's nonce is 32 bytes",
  "the evidence binds this keyset to this nonce",
  "the evidence is no older than the policy allows",
  "the keyset has not expired, and expires within a year",
  "the keyset has exactly one usable key for each role",
  "the policy accepts the measurement",
  "the evidence meets the policy's terms for its platform",
  "the policy accepts the machine",
  "the event log, where there is one, leads to the measured registers",
  "the devices are genuine, and those that the policy asks for",
  "every device's evidence is bound to the processor's",
]);

export interface Question {
  readonly evidence: Evidence; // untrusted
  readonly endorsements: readonly Endorsement[]; // untrusted
  readonly keyset: Keyset; // untrusted; what the evidence must bind
  readonly policy: AppraisalPolicy; // the verifier's own
  readonly nonce: Bytes; // the 32 bytes that this verifier gave for this one question
  readonly at: number; // the time in question, unix seconds
}

const MAKER = Symbol("appraise");

interface Findings {
  readonly transcript: Transcript;
  readonly platformTranscript: Transcript | null;
  readonly termsTranscript: Transcript | null;
  readonly label: string;
  readonly build: string;
  readonly verified: Verified | null;
  readonly vector: TrustVector;
  readonly toleratedUntil: number | null;
  readonly policyDigest: string;
}

function tierOf(checks: readonly Check[]): Tier {
  const found = new Set<Status>(checks.map((check) => check.status));
  if (found.has("failed")) return "contraindicated";
  return found.has("not established") ? "none" : "affirming";
}

/** What an appraisal found (RFC 9334). Only `appraise` makes one. */
export class AttestationResult {
  readonly #found: Findings;
  readonly #question: Question;
  readonly status: Tier; // by the checks alone: this decides
  readonly checks: readonly Check[]; // each list before the check that sums it up: A1, A2, the platform's own, A3 …
  readonly validUntil: number | null; // the last second at which keyset and endorsements hold; null unless affirming

  constructor(question: Question, found: Findings, maker: symbol) {
    if (maker !== MAKER) throw new TypeError("only appraise() makes an AttestationResult");
    this.#question = question;
    this.#found = found;
    const a = found.transcript.checks;
    const own = found.platformTranscript?.checks ?? [];
    const terms = found.termsTranscript?.checks ?? [];
    this.checks = [...a.slice(0, 2), ...own, ...a.slice(2, 10), ...terms, ...a.slice(10)];
    this.status = tierOf(a);
    const ends = [question.keyset.notAfter, found.verified?.validUntil ?? 0, found.toleratedUntil ?? FOREVER];
    this.validUntil = this.affirming ? Math.min(...ends) : null;
  }

  get affirming(): boolean {
    return this.status === "affirming" && this.#found.verified !== null;
  }

  /** How to name the platform to people; show it wherever a result is shown. */
  get label(): string {
    return this.#found.label;
  }

  get platform(): string {
    return this.#question.evidence.platform;
  }

  get measurement(): { readonly platform: string; readonly registers: Readonly<Record<string, string>> } | null {
    return this.#found.verified?.measurement.toJson() ?? null;
  }

  /** The name and build of the reference value that the measurement equals, or "". */
  get build(): string {
    return this.#found.build;
  }

  get keysetDigest(): string {
    return this.#question.keyset.digest;
  }

  get nonce(): Bytes {
    return this.#question.nonce;
  }

  get policyDigest(): string {
    return this.#found.policyDigest;
  }

  get at(): number {
    return this.#question.at;
  }

  get vector(): TrustVector {
    return this.#found.vector;
  }

  /** The last second at which the terms tolerate what the processor is; null where they were not met, or say no end. */
  get toleratedUntil(): number | null {
    return this.#found.toleratedUntil;
  }

  /** The first check that failed, else the first that is not established, else null. */
  get problem(): Check | null {
    return firstProblem(this.checks);
  }

  /** What an EAR says of the whole: the worse of the checks and the worst claim. Nothing here decides by it. */
  get earStatus(): Tier {
    return worstTier(this.status, this.#processorStatus);
  }

  get #processorStatus(): Tier {
    const own = this.#found.transcript.checks.filter((check) => !BESIDE.has(check.number));
    return worstTier(tierOf(own), worstClaim(this.vector));
  }

  /** The attested keyset. Throws `attest.not_affirming` with the first check that did not pass. */
  require(): Keyset {
    if (!this.affirming) {
      const problem = this.problem;
      const said = problem
        ? `${problem.number} ${problem.status}: ${problem.name}: ${problem.detail}`
        : "nothing was affirmed";
      throw new StrongroomError("attest.not_affirming", said);
    }
    return this.#question.keyset;
  }

  /** The result in the shape of an EAR claims-set; our own claims begin with `strongroom.`. */
  toJson(): Json {
    const submod: Json = {
      "ear.appraisal-policy-id": this.policyDigest,
      "ear.status": this.#processorStatus,
      "ear.trustworthiness-vector": { ...this.vector },
      "strongroom.build": this.build,
      "strongroom.collateral": this.#found.verified?.collateral ?? [],
      "strongroom.label": this.label,
      "strongroom.machine": this.#found.verified?.machine ?? null,
      "strongroom.measurement": this.measurement,
    };
    return {
      "ear.status": this.earStatus,
      "ear.verifier-id": { build: "strongroom web", developer: "strongroom" },
      eat_nonce: hex(this.nonce),
      eat_profile: EAR_PROFILE,
      iat: this.at,
      "strongroom.affirming": this.affirming,
      "strongroom.checks": this.checks.map((check) => ({ ...check })),
      "strongroom.keyset_digest": this.keysetDigest,
      "strongroom.valid_until": this.validUntil,
      submods: { [this.platform]: submod },
    };
  }
}

/** A check that did not pass, already in the transcript: nothing after it is established. */
class Stop extends Error {}

class Appraisal {
  readonly #q: Question;
  readonly #transcript = new Transcript(STEPS);
  #platformTranscript: Transcript | null = null;
  #termsTranscript: Transcript | null = null;
  #verified: Verified | null = null;
  #toleratedUntil: number | null = null;
  #build = "";
  #label: string;
  #vector: TrustVector = NO_CLAIMS;

  constructor(question: Question) {
    this.#q = question;
    this.#label = `platform: ${question.evidence.platform}`;
  }

  /** Record a check; where it did not pass, claim what follows and stop. */
  #check(
    number: string,
    passed: boolean | null,
    code: Code,
    problem: string,
    { seen = "", claim = {} }: { seen?: string; claim?: Partial<TrustVector> } = {},
  ): void {
    if (this.#transcript.record(number, passed, passed ? seen : problem, code)) return;
    this.#claim(claim);
    throw new Stop();
  }

  #claim(more: Partial<TrustVector>): void {
    this.#vector = { ...this.#vector, ...more };
  }

  async run(): Promise<AttestationResult> {
    try {
      const [by, verified] = await this.#platform();
      const debug = "the enclave was started for debugging";
      this.#check("A4", !verified.debug, "attest.debug", debug, { claim: { configuration: UNACCEPTABLE } });
      await this.#bound(verified);
      this.#fresh(verified);
      this.#keys();
      await this.#measured(verified);
      await this.#terms(by, verified);
      this.#machine(verified);
      this.#eventLog();
      this.#devices();
      this.#check("A15", this.#q.evidence.devices.length === 0, "attest.device_not_bound", "not reached", {
        seen: "there are none",
      });
    } catch (error) {
      if (!(error instanceof Stop)) throw error;
    }
    const found: Findings = {
      transcript: this.#transcript,
      platformTranscript: this.#platformTranscript,
      termsTranscript: this.#termsTranscript,
      label: this.#label,
      build: this.#build,
      verified: this.#verified,
      vector: this.#vector,
      toleratedUntil: this.#toleratedUntil,
      policyDigest: await this.#q.policy.digest(),
    };
    return new AttestationResult(this.#q, found, MAKER);
  }

  /** A1 to A3. */
  async #platform(): Promise<[Platform, Verified]> {
    const { evidence, policy, endorsements, at } = this.#q;
    const name = evidence.platform;
    const accepted = policy.parts.platforms.has(name);
    const refused = `the policy does not name ${quoted(name)}`;
    this.#check("A1", accepted, "attest.platform_not_accepted", refused, { seen: name });
    const by = DEVICES.has(name) ? null : verifier(name);
    if (by === null) {
      const elsewhere = isVerifiedElsewhere(name) && !DEVICES.has(name);
      const said = elsewhere
        ? `this page cannot verify evidence of ${quoted(name)}; strongroom proxy can`
        : `this version cannot verify evidence of ${quoted(name)}`;
      this.#check("A2", elsewhere ? null : false, "attest.unknown_platform", said);
      throw new Stop();
    }
    this.#check("A2", true, "attest.unknown_platform", "");
    this.#label = by.label;
    const transcript = new Transcript(by.steps);
    this.#platformTranscript = transcript;
    try {
      this.#verified = await by.verify(evidence, endorsements, policy.parts.roots.get(name) ?? new Roots(), at, transcript);
      if (!transcript.ok) throw new StrongroomError("attest.bad_evidence", "a check of the platform was not made");
    } catch (error) {
      this.#verified = null;
      // A fault of ours is no pass either: whoever knows bytes that find one must gain nothing by it.
      const fault = error instanceof Error ? error.name : "error";
      const [code, said]: [Code, string] = isOurs(error)
        ? [error.code, error.message]
        : ["attest.bad_evidence", `the platform's verifier failed on it: ${fault}`];
      const missing = !transcript.failed;
      this.#check("A3", missing ? null : false, code, said, {
        claim: missing ? {} : { "instance-identity": CRYPTO_FAILED },
      });
    }
    this.#transcript.record("A3", true, by.label);
    const verified = this.#verified as Verified;
    this.#vector = verified.vector;
    return [by, verified];
  }

  /** A5 and A6. */
  async #bound(verified: Verified): Promise<void> {
    const { nonce, keyset } = this.#q;
    const usable = nonce.length === NONCE_BYTES;
    this.#check("A5", usable, "attest.bad_nonce", `the verifier's nonce is not ${NONCE_BYTES} bytes long`);
    const expected = await reportData(keyset.digest, nonce);
    this.#check(
      "A6",
      hex(verified.reportData) === hex(expected),
      "attest.not_bound",
      "the evidence is for another nonce or another keyset",
      { seen: `keyset ${keyset.digest}, nonce ${hex(nonce)}` },
    );
  }

  /** A7. */
  #fresh(verified: Verified): void {
    const { at, policy } = this.#q;
    const { producedAt, validUntil } = verified;
    if (at > validUntil) {
      const said = `what vouches for the evidence held until ${validUntil}, before ${at}`;
      this.#check("A7", false, "attest.not_fresh", said);
    }
    if (producedAt === null) {
      this.#transcript.record("A7", true, "the platform has no clock: fresh by the nonce alone");
      return;
    }
    const age = at - producedAt;
    const most = policy.parts.maxAgeSeconds;
    const stale = `the evidence is ${age} s old by its platform's clock; at most ${most} s are allowed`;
    const fresh = age >= -MAX_CLOCK_SKEW_S && age <= most;
    this.#check("A7", fresh, "attest.not_fresh", stale, { seen: `${age} s old` });
  }

  /** A8 and A9. */
  #keys(): void {
    const { at, keyset } = this.#q;
    const until = keyset.notAfter;
    const late = until < at;
    const said = late
      ? `the keyset was valid until ${until}, before ${at}`
      : `the keyset claims to be valid until ${until}, more than a year after ${at}`;
    const code = late ? "attest.keyset_expired" : "attest.bad_keyset";
    this.#check("A8", !late && until <= at + MAX_KEYSET_S, code, said, { seen: `until ${until}` });
    try {
      keyset.requireRoles();
    } catch (error) {
      if (!isOurs(error)) throw error;
      this.#check("A9", false, error.code, error.message);
    }
    this.#transcript.record("A9", true);
  }

  /** A10. */
  async #measured(verified: Verified): Promise<void> {
    const found = await verified.measurement.digest();
    const reference = this.#q.policy.accepts(verified.measurement);
    if (reference) this.#build = [reference.name, reference.build].filter((part) => part !== "").join(" ");
    this.#check("A10", reference !== null, "attest.measurement_not_accepted", `the policy does not accept ${found}`, {
      seen: `${found} ${this.#build}`.trimEnd(),
      claim: { executables: UNRECOGNIZED_EXECUTABLES },
    });
    this.#claim({ executables: APPROVED_AT_START });
  }

  /** A11: every term is judged, whatever became of the others. */
  async #terms(by: Platform, verified: Verified): Promise<void> {
    const { policy, evidence, at } = this.#q;
    if (by.termsSteps === null) {
      this.#transcript.record("A11", true, "the platform has no terms");
      this.#claim({ configuration: worse(this.#vector.configuration, AFFIRMED) });
      return;
    }
    const transcript = new Transcript(by.termsSteps);
    const terms = policy.parts.terms.get(evidence.platform) ?? by.strictTerms;
    const judged = by.judge(verified, terms, at, transcript);
    const until = transcript.ok ? by.toleratedUntil(verified, terms) : FOREVER;
    this.#toleratedUntil = until === FOREVER ? null : until;
    this.#termsTranscript = transcript;
    const problem = firstProblem(transcript.checks);
    const configuration = worse(this.#vector.configuration, problem ? UNACCEPTABLE : AFFIRMED);
    this.#vector = { ...judged, executables: this.#vector.executables, configuration };
    if (problem !== null) {
      this.#check("A11", false, (problem.code || "attest.terms_not_met") as Code, `${problem.number}: ${problem.detail}`);
    }
    this.#transcript.record("A11", true, `policy ${await policy.digest()}`);
  }

  /** A12. */
  #machine(verified: Verified): void {
    const allowed = this.#q.policy.parts.machines;
    const seen = verified.machine ?? "the platform does not say which";
    const accepted = allowed === null || (verified.machine !== null && allowed.has(verified.machine));
    const refused = `the policy does not name this machine: ${seen}`;
    this.#check("A12", accepted, "attest.machine_not_accepted", refused, { seen });
  }

  /** A13. */
  #eventLog(): void {
    const { platform, eventLog } = this.#q.evidence;
    if (eventLog.length > 0) {
      const none = platform === "simulated";
      const said = none
        ? `there is no event log for evidence of ${quoted(platform)}`
        : "this page does not replay event logs; strongroom proxy does";
      this.#check("A13", none ? false : null, "attest.bad_event_log", said);
    }
    this.#transcript.record("A13", true, "there is none");
  }

  /** A14: this page verifies no devices, so that it accepts none. */
  #devices(): void {
    const code = "attest.devices_not_accepted";
    const expected = this.#q.policy.parts.devices;
    for (const { platform } of this.#q.evidence.devices) {
      if (!DEVICES.has(platform) || !expected.has(platform)) {
        this.#check("A14", false, code, `the policy does not ask for a device of kind ${quoted(platform)}`);
      }
      this.#check("A14", null, code, `this page cannot verify a device of kind ${quoted(platform)}; strongroom proxy can`);
    }
    const asked = [...expected].sort(([a], [b]) => (a < b ? -1 : 1)).map(([kind, count]) => `${count} ${kind}`);
    const there = [...expected.keys()].sort().map((kind) => `0 ${kind}`);
    const said = `the policy asks for ${asked.join(", ")}, and there is ${there.join(", ")}`;
    this.#check("A14", expected.size === 0, code, said, { seen: "none" });
  }
}

/** Appraise evidence under a policy: checks A1 to A15, in order, up to the first that does not pass. */
export async function appraise(question: Question): Promise<AttestationResult> {
  return await new Appraisal(question).run();
}
