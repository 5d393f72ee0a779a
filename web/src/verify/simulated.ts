/**
 * The simulated platform: evidence signed by a key on disk. It protects nothing from the machine's owner, and says so.
 *
 * See `spec/appraisal.md`; the checks P1 to P5 are numbered as there.
 */

import { type Bytes, equal, first, quoted } from "./bytes.ts";
import { isOurs, StrongroomError } from "./errors.ts";
import {
  type Endorsement,
  type Evidence,
  FOREVER,
  Measurement,
  type Platform,
  REPORT_DATA_BYTES,
  type Roots,
  type Verified,
} from "./evidence.ts";
import { VerifyKey } from "./party.ts";
import { Steps, type Transcript } from "./transcript.ts";
import { AFFIRMED, NO_CLAIMS } from "./vector.ts";
import { decode, Envelope, Fields, instead, mediaType } from "./wire.ts";

const PLATFORM = "simulated";
const EVIDENCE_TYPE = mediaType("simulated-evidence");
const ENDORSEMENT_TYPE = mediaType("platform-endorsement");

const STEPS = new Steps("P", [
  "the evidence is a well-formed simulated quote",
  "exactly one endorsement names the key that signed it",
  "the endorsement is signed by a root that the policy pins",
  "the endorsement is valid at the time in question",
  "the evidence is signed by the endorsed platform key",
]);

interface Quote {
  readonly envelope: Envelope;
  readonly signer: string; // the key id that the one signature names
  readonly reportData: Bytes;
  readonly measurement: Measurement;
  readonly debug: boolean;
  readonly producedAt: number;
}

function readQuote(data: Bytes): Quote {
  const bad = "not a simulated quote: ";
  const found = instead(
    () => {
      const envelope = Envelope.parse(data);
      const f = new Fields(decode(envelope.expect(EVIDENCE_TYPE)), "quote");
      const claims = {
        reportData: f.hex("report_data", REPORT_DATA_BYTES),
        measurement: Measurement.fromJson(f.any("measurement")),
        debug: f.boolean("debug"),
        producedAt: f.integer("produced_at"),
      };
      f.end();
      return { envelope, ...claims };
    },
    ["wire", "attest"],
    "attest.bad_evidence",
    bad,
  );
  if (found.measurement.platform !== PLATFORM) {
    throw new StrongroomError("attest.bad_evidence", `${bad}the measurement is another platform's`);
  }
  const [signature, ...more] = found.envelope.signatures;
  if (!signature || more.length > 0) throw new StrongroomError("attest.bad_evidence", `${bad}not exactly one signature`);
  return { ...found, signer: signature.keyid };
}

interface PlatformEndorsement {
  readonly envelope: Envelope;
  readonly platformKey: VerifyKey;
  readonly notBefore: number;
  readonly notAfter: number;
}

function readEndorsement(document: Endorsement): PlatformEndorsement {
  const { mediaType: kind, data } = document;
  if (kind !== ENDORSEMENT_TYPE) {
    const said = `a simulated platform has no endorsements of type ${quoted(first(kind, 80))}`;
    throw new StrongroomError("attest.bad_endorsement", said);
  }
  const envelope = instead(() => Envelope.parse(data), ["wire"], "attest.bad_endorsement", "not an endorsement: ");
  const payload = instead(
    () => envelope.expect(ENDORSEMENT_TYPE),
    ["wire"],
    "attest.bad_endorsement",
    "not an endorsement: ",
  );
  return instead(
    () => {
      const f = new Fields(decode(payload, 4096), "endorsement");
      f.literal("platform", PLATFORM);
      const found = {
        envelope,
        platformKey: new VerifyKey(f.base64("platform_key")),
        notBefore: f.integer("not_before"),
        notAfter: f.integer("not_after"),
      };
      f.hex("serial", 16);
      f.end();
      return found;
    },
    ["wire", "party"],
    "attest.bad_endorsement",
    "not an endorsement of a simulated platform's key: ",
  );
}

/** P2: every document must be an endorsement, and exactly one there: what else came along could be changed by anybody. */
async function endorsementOf(keyid: string, documents: readonly Endorsement[]): Promise<PlatformEndorsement> {
  const found: PlatformEndorsement[] = [];
  for (const document of documents) {
    const endorsement = readEndorsement(document);
    if ((await endorsement.platformKey.keyid()) === keyid) found.push(endorsement);
  }
  const [only] = found;
  if (only && found.length === 1 && documents.length === 1) return only;
  const said = `${found.length} endorsements, where exactly one must name the key that signed the evidence`;
  throw new StrongroomError("attest.endorsement_missing", said);
}

/** P3: the root's key id. */
async function byPinnedRoot(endorsement: PlatformEndorsement, roots: readonly VerifyKey[]): Promise<string> {
  const signers = endorsement.envelope.signatures.map((signature) => signature.keyid);
  for (const root of roots) {
    const keyid = await root.keyid();
    if (signers.length !== 1 || signers[0] !== keyid) continue;
    if (roots.some((one) => equal(one.raw, endorsement.platformKey.raw))) {
      const said = "a root endorses a root as a platform key: one key per role";
      throw new StrongroomError("attest.bad_endorsement", said);
    }
    try {
      await root.verify(endorsement.envelope, ENDORSEMENT_TYPE);
    } catch (error) {
      if (!isOurs(error, "wire")) throw error;
      throw new StrongroomError("attest.bad_endorsement", "the endorsement is not signed by the root that it names");
    }
    return keyid;
  }
  const said = "the endorsement is not signed by exactly one root, and that one pinned";
  throw new StrongroomError("attest.unknown_root", said);
}

function requireValid({ notBefore, notAfter }: PlatformEndorsement, at: number): void {
  if (at < notBefore) {
    const said = `the endorsement is valid from ${notBefore}, after ${at}`;
    throw new StrongroomError("attest.endorsement_not_yet_valid", said);
  }
  if (at > notAfter) {
    throw new StrongroomError("attest.endorsement_expired", `the endorsement was valid until ${notAfter}, before ${at}`);
  }
}

async function verify(
  evidence: Evidence,
  endorsements: readonly Endorsement[],
  roots: Roots,
  at: number,
  transcript: Transcript,
): Promise<Verified> {
  let number = "P1";
  try {
    const quote = readQuote(evidence.data);
    transcript.record(number, true);

    number = "P2";
    const endorsement = await endorsementOf(quote.signer, endorsements);
    transcript.record(number, true, `platform key ${await endorsement.platformKey.keyid()}`);

    number = "P3";
    transcript.record(number, true, `root ${await byPinnedRoot(endorsement, roots.keys)}`);

    number = "P4";
    requireValid(endorsement, at);
    transcript.record(number, true, `until ${endorsement.notAfter}`);

    number = "P5";
    try {
      await endorsement.platformKey.verify(quote.envelope, EVIDENCE_TYPE);
    } catch (error) {
      if (!isOurs(error, "wire")) throw error;
      throw new StrongroomError("attest.forged", "the evidence is not signed by the key that it names");
    }
    transcript.record(number, true);
    return {
      reportData: quote.reportData,
      measurement: quote.measurement,
      debug: quote.debug,
      producedAt: quote.producedAt,
      validUntil: endorsement.notAfter,
      collateral: [await endorsement.envelope.digest()],
      vector: { ...NO_CLAIMS, "instance-identity": AFFIRMED },
      machine: null,
    };
  } catch (error) {
    if (isOurs(error)) transcript.record(number, false, error.message, error.code);
    throw error;
  }
}

export const simulated: Platform<Verified, Record<string, never>> = {
  label: "platform: simulated (no hardware protection)",
  steps: STEPS,
  termsSteps: null, // nothing can be asked of a platform that protects nothing
  readTerms: (value) => {
    new Fields(value, "terms of simulated").end();
    return {};
  },
  writeTerms: () => ({}),
  strictTerms: {},
  verify,
  judge: (verified) => verified.vector,
  toleratedUntil: () => FOREVER,
};
