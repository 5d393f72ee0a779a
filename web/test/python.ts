/** What the Python verifier says of the vectors, check by check: written by `vectors/make_web.py`. */

import { readFileSync } from "node:fs";
import { expect } from "vitest";
import type { Question } from "../src/verify/appraise.ts";
import { endorsementsFromJson, evidenceFromJson } from "../src/verify/evidence.ts";
import { Keyset } from "../src/verify/keyset.ts";
import { AppraisalPolicy } from "../src/verify/policy.ts";
import type { Check } from "../src/verify/transcript.ts";
import { type Case, fromHex } from "./vectors.ts";

export type Recorded = readonly (readonly [number: string, status: string, code: string, detail: string])[];
export const PYTHON: {
  readonly names: Readonly<Record<string, string>>;
  readonly hints: Readonly<Record<string, string>>;
  readonly appraisal: Readonly<Record<string, Recorded>>;
  readonly sev_snp: Readonly<Record<string, Recorded>>;
  readonly tdx: Readonly<Record<string, Recorded>>;
  readonly inference_receipt: Readonly<Record<string, Recorded>>;
} = JSON.parse(readFileSync(new URL("transcripts.json", import.meta.url), "utf8"));

/** A transcript as the file has it: what was never reached is left out. */
export function recorded(checks: readonly Check[]): Recorded {
  for (const check of checks) expect(check.name).toBe(PYTHON.names[check.number]);
  return unspelled(
    checks
      .filter((check) => check.detail !== "not reached")
      .map((check) => [check.number, check.status, check.code, check.detail]),
  );
}

/** What Python recorded of a case. */
export function python(folder: "appraisal" | "inference_receipt" | "sev_snp" | "tdx", name: string): Recorded {
  const found = PYTHON[folder][name];
  if (found === undefined) throw new Error(`${folder}/${name} is not in transcripts.json: python vectors/make_web.py`);
  return unspelled(found);
}

/** How a document is not in its one spelling, the two parsers say in their own words. */
function unspelled(found: Recorded): Recorded {
  return found.map(([number, status, code, detail]) => [number, status, code, code === "wire.not_canonical" ? "" : detail]);
}

/** What a case asks of an appraisal. */
export async function question(one: Omit<Case, "name" | "description" | "expect">): Promise<Question> {
  return {
    evidence: evidenceFromJson(one.evidence),
    endorsements: endorsementsFromJson(one.endorsements),
    keyset: await Keyset.fromJson(one.keyset),
    policy: AppraisalPolicy.fromJson(one.policy),
    nonce: fromHex(one.nonce ?? ""),
    at: one.at as number,
  };
}
