import { describe, expect, test } from "vitest";
import { requireInForce, verifyContract } from "../src/verify/contract.ts";
import { verifyManifest } from "../src/verify/manifest.ts";
import { VerifyKey } from "../src/verify/party.ts";
import { paddingSizes, readPolicy } from "../src/verify/serving.ts";
import { Envelope } from "../src/verify/wire.ts";
import { type Case, cases, expectOutcome, fromB64, outcome } from "./vectors.ts";

const chosen = (folder: string, ...operations: readonly string[]): readonly Case[] => {
  const found = cases(folder).filter((one) => operations.includes(one.operation));
  if (found.length === 0) throw new Error(`there are no vectors in ${folder} for ${operations.join(", ")}`);
  return found;
};

// What only runs have, and never a room: the page knows none of it, and refuses it.
const OF_RUNS = /"(charges|observed|release|schema|success|table|tensors|trial|values)"/;
const payload = (one: Case) => new TextDecoder().decode(fromB64(one.envelope.payload));

async function expectRefused(work: () => unknown): Promise<void> {
  expect(await outcome(work)).not.toBe("ok");
}

describe("vectors/contract", () => {
  test.each(chosen("contract", "verify", "in force"))("$name", async (one) => {
    if (OF_RUNS.test(payload(one))) {
      await expectRefused(() => verifyContract(new Envelope(one.envelope)));
      return;
    }
    await expectOutcome(one, async () => {
      const envelope = new Envelope(one.envelope);
      const proposal = await verifyContract(envelope);
      if (one.operation === "in force") requireInForce(proposal, one.at);
      else expect(await envelope.digest()).toBe(one.digest);
    });
  });
});

describe("vectors/policy, as far as they are read", () => {
  test.each(chosen("policy", "parse"))("$name", async (one) => {
    if (OF_RUNS.test(JSON.stringify(one.policy))) await expectRefused(() => readPolicy(one.policy));
    else await expectOutcome(one, () => readPolicy(one.policy));
  });
});

describe("vectors/manifest", () => {
  test.each(cases("manifest"))("$name", async (one) => {
    await expectOutcome(one, async () => {
      await verifyManifest(new Envelope(one.envelope), new VerifyKey(fromB64(one.owner_key)));
    });
  });
});

test.each([
  [0, []],
  [1024, Array.from({ length: 11 }, (_, n) => 1 << (n + 10))],
  [1 << 22, [1 << 22]],
])("padding from %d bytes is to powers of two", (padding, sizes) => {
  const [one] = chosen("policy", "parse").filter(({ name }) => name === "parse-serve");
  expect(
    paddingSizes({ ...readPolicy({ ...one?.policy, serve: { ...one?.policy.serve, padding } }).serve } as never),
  ).toEqual(sizes);
});
