/** Bytes that somebody chose: they make a result that is not affirming, and never an error that nobody expects. */

import { describe, expect, test } from "vitest";
import { AttestationResult, appraise, type Question } from "../src/verify/appraise.ts";
import { concat, utf8 } from "../src/verify/bytes.ts";
import { isOurs } from "../src/verify/errors.ts";
import { endorsementsFromJson, type Platform, Roots } from "../src/verify/evidence.ts";
import { parseReport } from "../src/verify/keyset.ts";
import { examine, Verification } from "../src/verify/reading.ts";
import { Room } from "../src/verify/room.ts";
import { establish } from "../src/verify/session.ts";
import { snp } from "../src/verify/snp.ts";
import { tdx } from "../src/verify/tdx.ts";
import { Transcript } from "../src/verify/transcript.ts";
import { Trust } from "../src/verify/trust.ts";
import { question } from "./python.ts";
import { cases, fromB64, fromText } from "./vectors.ts";

const none = new Uint8Array();

function named(folder: string, name: string) {
  const found = cases(folder).find((one) => one.name === name);
  if (found === undefined) throw new Error(`there is no vector ${folder}/${name}`);
  return found;
}

const intact = async () => await question(named("appraisal", "intact"));

/** The bytes with one of them changed, here and there: always the same places. */
function* flips(data: Uint8Array<ArrayBuffer>, many: number): Generator<[number, Uint8Array<ArrayBuffer>]> {
  for (let n = 0; n < many; n++) {
    const at = Math.floor((n * data.length) / many);
    const found = data.slice();
    found[at] = (found[at] ?? 0) ^ (1 << (n % 8));
    yield [at, found];
  }
}

/** A generator of bytes that is the same in every run (xorshift). */
function* noise(sizes: readonly number[]): Generator<Uint8Array<ArrayBuffer>> {
  let state = 0x9e3779b9;
  for (const size of sizes) {
    yield Uint8Array.from({ length: size }, () => {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      return state & 0xff;
    });
  }
}

describe("what is verified only elsewhere is not established here", () => {
  const asked = async (change: (question: Question) => Question) => await appraise(change(await intact()));

  test.each(["azure_snp", "azure_tdx", "dstack", "nitro", "sgx", "tpm"])("%s", async (platform) => {
    const result = await asked((q) => {
      const { parts } = q.policy;
      const policy = new (q.policy.constructor as new (of: object) => typeof q.policy)({
        ...parts,
        platforms: new Set([platform]),
      });
      return { ...q, policy, evidence: { ...q.evidence, platform } };
    });
    expect([result.problem?.number, result.problem?.status]).toEqual(["A2", "not established"]);
    expect(result.status).toBe("none");
    expect(result.affirming).toBe(false);
    expect(() => result.require()).toThrow();
  });

  test("a platform that nobody knows is refused", async () => {
    const result = await asked((q) => {
      const policy = new (q.policy.constructor as new (of: object) => typeof q.policy)({ platforms: new Set(["abacus"]) });
      return { ...q, policy, evidence: { ...q.evidence, platform: "abacus" } };
    });
    expect([result.problem?.number, result.problem?.status]).toEqual(["A2", "failed"]);
  });
});

describe("a changed byte is refused, or nobody signed it", () => {
  const platforms: readonly (readonly [string, Platform, string])[] = [
    ["tdx", tdx as unknown as Platform, "good"],
    ["sev_snp", snp as unknown as Platform, cases("sev_snp").find((one) => one.expect === "ok")?.name ?? ""],
  ];

  test.each(platforms)("of evidence of %s", async (name, by, good) => {
    const one = named(name, good);
    const data = fromB64(one.evidence);
    const documents = endorsementsFromJson(one.endorsements);
    const accepts = async (changed: Uint8Array<ArrayBuffer>) => {
      const evidence = { platform: name, data: changed, eventLog: none, devices: [], deviceBinding: none };
      try {
        await by.verify(evidence, documents, new Roots([], one.roots), one.at, new Transcript(by.steps));
        return true;
      } catch (error) {
        if (!isOurs(error)) throw error;
        return false;
      }
    };
    expect(await accepts(data)).toBe(true);
    for (const [at, changed] of flips(data, 150)) {
      if (!(await accepts(changed))) continue;
      // White space between the lines of PEM, and the text around its armour, are nobody's word (spec/evidence-intel.md).
      expect(String.fromCharCode(data[at] ?? 0)).toMatch(/\s/);
    }
  });

  test("of the endorsements of either", async () => {
    for (const [name, by, good] of platforms) {
      const one = named(name, good);
      const evidence = { platform: name, data: fromB64(one.evidence), eventLog: none, devices: [], deviceBinding: none };
      const documents = endorsementsFromJson(one.endorsements);
      for (const [place, document] of documents.entries()) {
        for (const [, changed] of flips(document.data, 12)) {
          const given = documents.map((each, n) => (n === place ? { ...each, data: changed } : each));
          try {
            await by.verify(evidence, given, new Roots([], one.roots), one.at, new Transcript(by.steps));
          } catch (error) {
            if (!isOurs(error)) throw error;
          }
        }
      }
    }
  });

  test("of a simulated quote", async () => {
    const q = await intact();
    expect((await appraise(q)).affirming).toBe(true);
    for (const [, data] of flips(q.evidence.data, 200)) {
      const result = await appraise({ ...q, evidence: { ...q.evidence, data } });
      expect(result.affirming).toBe(false);
    }
  });

  test("of a receipt", async () => {
    const one = named("inference_receipt", "ok-plain");
    const appraisal = await appraise(await question(one.appraisal));
    const expected = { asked: null, answered: null, agreed: null, receiptId: null };
    const passes = async (data: Uint8Array<ArrayBuffer>) => {
      const found = await examine(data, { appraisal, expected, at: one.at });
      return found.checks.slice(0, 6).every((check) => check.status === "passed");
    };
    const data = fromText(one.receipt);
    expect(await passes(data)).toBe(true);
    for (const [, changed] of flips(data, 200)) expect(await passes(changed)).toBe(false);
  });
});

describe("noise", () => {
  const sizes = [0, 1, 2, 3, 7, 16, 48, 584, 636, 1024, 1184, 4096, 5006];

  test("as evidence", async () => {
    const q = await intact();
    for (const platform of ["simulated", "tdx", "sev_snp"]) {
      const policy = new (q.policy.constructor as new (of: object) => typeof q.policy)({
        ...q.policy.parts,
        platforms: new Set([platform]),
      });
      for (const data of noise(sizes)) {
        const result = await appraise({ ...q, policy, evidence: { ...q.evidence, platform, data } });
        expect(result.status).toBe("contraindicated");
        expect(result.problem?.detail).not.toContain("the platform's verifier failed");
      }
    }
  });

  test("as a report, a receipt, and all that a service says", async () => {
    const trust = await Trust.fromJson({
      appraisal_policy: null,
      format: "strongroom.trust.v1",
      logs: [],
      measurements: [],
      parties: [],
      roots: [],
    });
    const deep = utf8("[".repeat(30_000));
    const wide = utf8(`{"a":${"[".repeat(31)}${"]".repeat(31)}}`);
    for (const data of [...noise(sizes), deep, wide, concat(deep, deep), utf8('{"__proto__":{}}'), utf8("null")]) {
      await expect(parseReport(data)).rejects.toSatisfy((error) => isOurs(error));
      const told = { appraisal: null, expected: { asked: null, answered: null, agreed: null, receiptId: null }, at: 0 };
      expect((await examine(data, told)).ok).toBe(false);
      const reply = { status: 200, body: data, keyset: null };
      const terms = { trust, contract: null, weights: new Map<string, string>() };
      const found = await establish({ terms, nonce: new Uint8Array(32), at: 0, report: reply, keys: reply, room: reply });
      expect(found.session).toBeNull();
    }
  });
});

test("only the functions that verify make what says that something was verified", async () => {
  const q = await intact();
  const result = await appraise(q);
  expect(() => new AttestationResult(q, {} as never, Symbol("appraise"))).toThrow(TypeError);
  expect(() => new Verification([], "", none, null, Symbol("examine"))).toThrow(TypeError);
  expect(() => new Room({} as never, null, "", {} as never, Symbol("Room.verify"))).toThrow(TypeError);
  expect(result.affirming).toBe(true);
});
