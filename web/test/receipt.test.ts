import { describe, expect, test } from "vitest";
import { appraise } from "../src/verify/appraise.ts";
import { type Answered, type Expected, examine } from "../src/verify/reading.ts";
import { python, question, recorded } from "./python.ts";
import { type Case, cases, fromText } from "./vectors.ts";

function known(value: Case["expected"]): Expected {
  const { asked, answered, agreed } = value;
  const usage = answered?.usage && {
    prompt: answered.usage.prompt_tokens,
    completion: answered.usage.completion_tokens,
    embedding: answered.usage.embedding_tokens,
  };
  const heard: Answered | null = answered && {
    body: answered.body,
    restored: answered.restored,
    chatId: answered.chat_id,
    refused: answered.refused,
    usage: usage ?? null,
  };
  return {
    asked: asked && { ...asked, sentAt: asked.sent_at },
    answered: heard,
    agreed,
    receiptId: value.receipt_id,
  };
}

/** The page asks no log, so that a proof which does not hold is not established here. */
const OF_A_LOG = new Set(["I20"]);

describe("vectors/inference_receipt, check by check as in Python", () => {
  test.each(cases("inference_receipt"))("$name", async (one) => {
    const appraisal = one.appraisal && (await appraise(await question(one.appraisal)));
    const told = { appraisal, expected: known(one.expected), at: one.at };
    const found = await examine(fromText(one.receipt), told);
    expect(recorded(found.checks)).toEqual(python("inference_receipt", one.name));
    if (OF_A_LOG.has(one.number) || one.reader !== "client") return;
    expect(found.ok).toBe(one.expect === "ok");
    if (one.expect === "ok") return;
    const check = found.checks.find(({ number }) => number === one.number);
    expect(check?.status).toBe(one.status);
    expect(check?.code).toBe(one.expect);
  });

  test("every check of a client's has a vector that fails it", () => {
    const failed = new Set(cases("inference_receipt").flatMap((one) => (one.expect === "ok" ? [] : [one.number])));
    for (let n = 1; n <= 19; n++) expect([...failed]).toContain(`I${n}`);
  });
});
