/** Quotes and reports that others' hardware signed. They are not part of the project: without them these tests are left out, and say so. */

import { describe, expect, test } from "vitest";
import { type Bytes, hex, text, unb64 } from "../src/verify/bytes.ts";
import { isOurs } from "../src/verify/errors.ts";
import { type Endorsement, Roots } from "../src/verify/evidence.ts";
import { snp } from "../src/verify/snp.ts";
import { tdx } from "../src/verify/tdx.ts";
import { Transcript } from "../src/verify/transcript.ts";
import { Certificate, fromPem, RevocationList } from "../src/verify/x509.ts";
import { read, shared } from "./vectors.ts";

const FOLDER = "vectors/evidence/";
const INTEL = new Roots([], ["sha256:a0af031289f5d5d4132f9186068a7fc13628633ba235777472e29b6b6c67a49e"]);
const SIGNERS = ["intel_tcb_signing_2018-2025.pem", "intel_tcb_signing_2025-2032.pem"];
// What another verifier refuses, and at which check we do (none: genuine, and what it refuses is for terms and appraisal).
const REFUSALS: readonly (readonly [string, string])[] = [
  ["REJECT: Failed to verify certificate chain Caused by: CertNotValidYet", "Q6"],
  ["REJECT: No matching TCB level found", "Q18"],
  ["REJECT: Debug mode is enabled", ""],
  ["REJECT: Invalid MR service TD", ""],
];

interface Entry {
  readonly at: number;
  readonly tcb_info: string;
  readonly qe_identity: string;
  readonly pck_crl: string;
  readonly root_crl: string;
  readonly dcap_qvl_0_7_0: string;
  readonly advisories: readonly string[];
}

interface RealCase {
  readonly file: string;
  readonly tee?: string;
  readonly debug: boolean;
  readonly report_data: string;
  readonly mrtd: string;
  readonly tcb?: readonly Entry[];
}

function file(name: string) {
  const found = shared(FOLDER + name);
  if (found === null) throw new Error(`${name} is not among the real evidence`);
  return read(found);
}

/** Reports of AMD's, and what is known of them. */
interface SnpCase {
  readonly kind: string;
  readonly report: string;
  readonly key_cert: string;
  readonly product: string;
  readonly signature?: boolean;
  readonly report_data: string;
  readonly measurement: string;
  readonly debug: boolean;
}

const AMD = new Roots(
  [],
  [
    "sha256:9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9",
    "sha256:429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831",
    "sha256:4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08",
  ],
);
const others = shared(`${FOLDER}cases_other.json`);
const reports: readonly SnpCase[] = others
  ? (JSON.parse(text(read(others))) as SnpCase[]).filter((one) => one.kind === "snp" && one.signature !== undefined)
  : [];

/** The bytes within the armour of a PEM text. */
function unarmoured(data: Bytes): Bytes {
  return unb64(
    text(data)
      .replace(/-----[^-]+-----/g, "")
      .replace(/\s+/g, ""),
  );
}

describe.skipIf(others === null)("real reports of SEV-SNP (left out where shared/vectors/evidence is not here)", () => {
  test("are there", () => expect(reports.length).toBeGreaterThan(5));

  test.each(reports)("$report", async (one) => {
    const line = (one.product.split("-")[0] ?? "").toLowerCase();
    const given = file(one.key_cert);
    const [leaf = given] = one.key_cert.endsWith(".pem") ? fromPem(given).map((each) => each.der) : [];
    const list = unarmoured(file(`snp/kds_${line}.crl.pem`));
    const at = Math.max(new Certificate(leaf).notBefore, new RevocationList(list).thisUpdate) + 86_400;
    const documents = [
      { mediaType: "application/pkix-cert", data: leaf },
      { mediaType: "application/pem-certificate-chain", data: file(`snp/ca_${line}_ask_ark_asvk.pem`) },
      { mediaType: "application/pkix-crl", data: list },
    ];
    const none = new Uint8Array();
    const evidence = { platform: "sev_snp", data: file(one.report), eventLog: none, devices: [], deviceBinding: none };
    const transcript = new Transcript(snp.steps);
    try {
      const verified = await snp.verify(evidence, documents, AMD, at, transcript);
      expect(hex(verified.reportData)).toBe(one.report_data);
      expect(verified.measurement.registers.measurement).toBe(`sha384:${one.measurement}`);
      expect(verified.debug).toBe(one.debug);
    } catch (error) {
      // Of 2026; the kept list of Genoa's root counted until November 2025.
      if (!isOurs(error) || one.report !== "snp/ms_genoa.report") throw error;
      expect(error.code).toBe("attest.endorsement_expired");
      expect(transcript.checks.find((check) => check.status === "failed")?.number).toBe("S5");
    }
  });
});

const index = shared(`${FOLDER}cases_dcap.json`);
const found: readonly RealCase[] = index ? JSON.parse(text(read(index))) : [];
const entries = found.flatMap((one) =>
  one.tee === "TDX" ? (one.tcb ?? []).map((entry) => [one.file, entry, one] as const) : [],
);

function documents(entry: Entry): readonly Endorsement[] {
  const one = (mediaType: string, name: string) => ({ mediaType, data: file(`collateral/${name}`) });
  return [
    one("application/vnd.intel.tcb-info+json", entry.tcb_info),
    one("application/vnd.intel.enclave-identity+json", entry.qe_identity),
    one("application/pkix-crl", entry.pck_crl),
    one("application/pkix-crl", entry.root_crl),
    ...SIGNERS.map((name) => one("application/pem-certificate-chain", name)),
  ];
}

describe.skipIf(index === null)("real quotes of TDX (left out where shared/vectors/evidence is not here)", () => {
  test("are there", () => expect(entries.length).toBeGreaterThan(50));

  test.each(entries)("%s", async (name, entry, one) => {
    const whole = file(name);
    // Bytes that are not zero follow this one: refused for that alone, and else as the others.
    const data = name === "tdx/google_spr_e4_v4.quote" ? whole.slice(0, -39) : whole;
    const none = new Uint8Array();
    const evidence = { platform: "tdx", data, eventLog: none, devices: [], deviceBinding: none };
    const transcript = new Transcript(tdx.steps);
    const said = entry.dcap_qvl_0_7_0;
    const refused = REFUSALS.find(([start]) => said.startsWith(start))?.[1];
    try {
      const verified = await tdx.verify(evidence, documents(entry), INTEL, entry.at, transcript);
      expect(refused ?? "").toBe("");
      expect(hex(verified.reportData)).toBe(one.report_data);
      expect(verified.debug).toBe(one.debug);
      expect(verified.measurement.registers.mrtd).toBe(`sha384:${one.mrtd}`);
      expect(verified.validUntil).toBeGreaterThanOrEqual(entry.at);
      if (refused === undefined) {
        expect(verified.processor.tcb.status).toBe(said);
        expect(verified.processor.tcb.advisories.toSorted()).toEqual(entry.advisories.toSorted());
      }
    } catch (error) {
      if (!isOurs(error)) throw error;
      const bad = transcript.checks.find((check) => check.status === "failed");
      expect([bad?.number, bad?.detail]).toEqual([refused, bad?.detail]);
    }
  });
});
