/** The vectors, verified in a real browser: `tests/test_web_verifier.py` asks it, and holds it against Python's transcripts. */

import { appraise } from "../../src/verify/appraise.ts";
import { unb64, unhex, utf8 } from "../../src/verify/bytes.ts";
import { isOurs } from "../../src/verify/errors.ts";
import { endorsementsFromJson, evidenceFromJson, type Platform, Roots } from "../../src/verify/evidence.ts";
import { Keyset } from "../../src/verify/keyset.ts";
import { VerifyKey } from "../../src/verify/party.ts";
import { AppraisalPolicy } from "../../src/verify/policy.ts";
import { verifier } from "../../src/verify/registry.ts";
import { ClientExchange, parseRequestHead } from "../../src/verify/sealed.ts";
import { type Check, Transcript } from "../../src/verify/transcript.ts";
import { encode, type Json } from "../../src/verify/wire.ts";

type Recorded = readonly (readonly [string, string, string, string])[];

function recorded(checks: readonly Check[]): Recorded {
  const reached = checks.filter((check) => check.detail !== "not reached");
  return reached.map((check) => [check.number, check.status, check.code, check.detail]);
}

interface Appraised {
  readonly evidence: unknown;
  readonly endorsements: unknown;
  readonly keyset: unknown;
  readonly policy: unknown;
  readonly nonce: string | null;
  readonly at: number;
}

async function appraisal(one: Appraised): Promise<Recorded> {
  const result = await appraise({
    evidence: evidenceFromJson(one.evidence),
    endorsements: endorsementsFromJson(one.endorsements),
    keyset: await Keyset.fromJson(one.keyset),
    policy: AppraisalPolicy.fromJson(one.policy),
    nonce: unhex(one.nonce ?? ""),
    at: one.at,
  });
  return recorded(result.checks);
}

interface Quoted {
  readonly evidence: string;
  readonly endorsements: unknown;
  readonly roots: readonly string[];
  readonly terms: unknown;
  readonly at: number;
}

async function hardware(name: string, one: Quoted): Promise<Recorded> {
  const by = verifier(name) as Platform;
  const none = new Uint8Array();
  const evidence = { platform: name, data: unb64(one.evidence), eventLog: none, devices: [], deviceBinding: none };
  const [own, terms] = [new Transcript(by.steps), new Transcript(by.termsSteps ?? by.steps)];
  try {
    const documents = endorsementsFromJson(one.endorsements);
    const verified = await by.verify(evidence, documents, new Roots([], one.roots), one.at, own);
    by.judge(verified, one.terms ? by.readTerms(one.terms) : by.strictTerms, one.at, terms);
  } catch (error) {
    if (!isOurs(error)) throw error;
  }
  return recorded([...own.checks, ...terms.checks]);
}

interface Sealed {
  readonly public_key: string;
  readonly request: Json;
  readonly seed: string;
  readonly nonces: readonly string[];
  readonly status: number;
  readonly max_body: number;
  readonly body: string;
}

/** The code that a sealed response ends with, or its plaintext's text. */
async function response(one: Sealed): Promise<string> {
  try {
    const exchange = await ClientExchange.to(
      unhex(one.public_key),
      parseRequestHead(encode(one.request)),
      unhex(one.seed),
      [],
    );
    const nonces = one.nonces.length === 0 ? null : one.nonces.join(", ");
    const reader = await exchange.response(nonces, one.status, one.max_body);
    await reader.feed(unhex(one.body));
    reader.end();
    return "ok";
  } catch (error) {
    if (!isOurs(error)) throw error;
    return error.code;
  }
}

/** The code that an Ed25519 signature ends with. */
async function signature(one: {
  readonly key: string;
  readonly signature: string;
  readonly message: string;
}): Promise<string> {
  try {
    await new VerifyKey(unhex(one.key)).verifyBytes(unhex(one.signature), unhex(one.message));
    return "ok";
  } catch (error) {
    if (!isOurs(error)) throw error;
    return error.code;
  }
}

Object.assign(globalThis, { vectors: { appraisal, hardware, response, signature }, ready: utf8("ready").length });
