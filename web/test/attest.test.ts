import { describe, expect, test } from "vitest";
import { appraise } from "../src/verify/appraise.ts";
import { hex } from "../src/verify/bytes.ts";
import { isOurs, StrongroomError } from "../src/verify/errors.ts";
import { endorsementsFromJson, type Platform, Roots } from "../src/verify/evidence.ts";
import { Keyset, statement } from "../src/verify/keyset.ts";
import { Party } from "../src/verify/party.ts";
import { AppraisalPolicy } from "../src/verify/policy.ts";
import { snp } from "../src/verify/snp.ts";
import { tdx } from "../src/verify/tdx.ts";
import { Transcript } from "../src/verify/transcript.ts";
import { Trust } from "../src/verify/trust.ts";
import { encode } from "../src/verify/wire.ts";
import { python, question, recorded } from "./python.ts";
import { type Case, cases, expectOutcome, fromB64, fromHex, fromText } from "./vectors.ts";

describe("vectors/keyset", () => {
  test.each(cases("keyset"))("$name", async (one) => {
    await expectOutcome(one, async () => {
      const keyset = await Keyset.parse(fromText(one.keyset));
      keyset.requireRoles();
      expect(keyset.digest).toBe(one.digest);
      const said = (nonce: string | null) =>
        new TextDecoder().decode(statement(keyset.digest, nonce === null ? null : fromHex(nonce)));
      for (const { nonce, statement: expected } of one.statements) expect(said(nonce)).toBe(expected);
    });
  });
});

describe("vectors/trust", () => {
  test.each(cases("trust"))("$name", async (one) => {
    await expectOutcome(one, async () => {
      const trust = await Trust.parse(fromText(JSON.stringify(one.trust)));
      if (one.operation === "check") await trust.check((one.parties as unknown[]).map((card) => new Party(card)));
      else expect(one.operation).toBe("parse");
    });
  });
});

describe("vectors/appraisal, check by check as in Python", () => {
  test.each(cases("appraisal"))("$name", async (one) => {
    const result = await appraise(await question(one));
    const problem = result.problem;
    expect(problem?.code ?? "ok").toBe(one.expect);
    expect(result.affirming).toBe(one.expect === "ok");
    expect(result.affirming).toBe(result.status === "affirming");
    expect(recorded(result.checks)).toEqual(python("appraisal", one.name));
    if (one.expect === "ok") expect(result.require().digest).toBe(result.keysetDigest);
    else expect(() => result.require()).toThrow(StrongroomError);
  });
});

/** A vector of a platform's, without an appraisal around it. */
async function look(by: Platform, name: string, one: Case): Promise<void> {
  if (by.termsSteps === null) throw new Error(`${name} has no terms`);
  const [own, terms] = [new Transcript(by.steps), new Transcript(by.termsSteps)];
  const evidence = { platform: name, data: fromB64(one.evidence), eventLog: none, devices: [], deviceBinding: none };
  let code = "ok";
  try {
    const documents = endorsementsFromJson(one.endorsements);
    const verified = await by.verify(evidence, documents, new Roots([], one.roots), one.at, own);
    expect(own.ok).toBe(true);
    by.judge(verified, one.terms ? by.readTerms(one.terms) : by.strictTerms, one.at, terms);
    expect(terms.checks.every((check) => check.detail !== "not reached")).toBe(true);
  } catch (error) {
    if (!isOurs(error)) throw error;
    code = error.code;
  }
  const checks = [...own.checks, ...terms.checks];
  const bad = checks.find((check) => check.status !== "passed");
  expect(bad?.number ?? "").toBe(one.fails);
  expect(code === "ok" ? (bad?.code ?? "ok") : code).toBe(one.expect);
  expect(recorded(checks)).toEqual(python(name as "tdx", one.name));
}

describe("vectors/tdx, check by check as in Python", () => {
  test.each(cases("tdx"))("$name", async (one) => await look(tdx as unknown as Platform, "tdx", one));
});

describe("vectors/sev_snp, check by check as in Python", () => {
  test.each(cases("sev_snp"))("$name", async (one) => await look(snp as unknown as Platform, "sev_snp", one));
});

const none = new Uint8Array();

test("a policy is the one form that its digest is of", async () => {
  const [one] = cases("appraisal").filter((each) => each.name === "intact");
  const policy = AppraisalPolicy.fromJson(one?.policy);
  expect(hex(encode(policy.toJson()))).toBe(hex(encode(one?.policy)));
  expect(await policy.digest()).toMatch(/^sha256:/);
});
