/** What was established about a room or an answer, put together to be shown and kept. */

import type { Answer, Bytes, Found, Shield, Verification } from "../verify/index.ts";
import type { Proof } from "./conversation.ts";
import { theVault, world } from "./desk.ts";
import { JSON_TYPE, keep, type RawFile, utf8 } from "./evidence.ts";
import { line, type Trouble } from "./words.ts";

function json(name: string, what: string, content: Bytes): RawFile {
  return { name, what, media: JSON_TYPE, content };
}

function pretty(value: unknown): Bytes {
  return utf8(`${JSON.stringify(value, null, 2)}\n`);
}

function keyset(report: Bytes): Bytes | null {
  try {
    const read = JSON.parse(new TextDecoder().decode(report)) as { attestation?: { workload_keyset?: unknown } };
    const found = read.attestation?.workload_keyset;
    return found === undefined ? null : pretty(found);
  } catch {
    return null;
  }
}

function roomFacts({ facts, result }: Found): [string, string][] {
  const rows: [string, string][] = [];
  if (result) {
    rows.push(["Platform", result.label.replace(/^platform: /, "")], ["Keyset", result.keysetDigest]);
    for (const [name, value] of Object.entries(result.measurement?.registers ?? {})) rows.push([`Measured ${name}`, value]);
  }
  if (facts) {
    rows.push(["Contract", facts.contract]);
    if (!facts.pinned) rows.push(["Is it the pinned one", facts.problem?.message ?? "no"]);
  }
  return rows;
}

function roomFiles({ facts, report, result }: Found): RawFile[] {
  const files: RawFile[] = [];
  if (report) {
    files.push(json("attestation.json", "the report with the evidence, as it came", report));
    const keys = keyset(report);
    if (keys) files.push(json("keyset.json", "the enclave's keys, out of the report", keys));
  }
  if (result) files.push(json("appraisal.json", "what this page found, check by check", pretty(result.toJson())));
  if (facts) files.push(json("room.json", "what the room says of itself, with its contract", facts.raw));
  return files;
}

function roomSections({ checks, result }: Found): Proof["sections"] {
  const room = checks.length ? [{ title: "The room", checks }] : [];
  return result ? [...room, { title: "Its evidence", checks: result.checks }] : room;
}

async function whole(pieces: readonly Bytes[]): Promise<Bytes> {
  return new Uint8Array(await new Blob([...pieces]).arrayBuffer());
}

async function exchangeFiles(found: Found | null, sent: Bytes, received: readonly Bytes[]): Promise<RawFile[]> {
  const files = found ? roomFiles(found) : [];
  files.push(json("request.json", "the request's body, as it was before encryption", sent));
  const content = await whole(received);
  if (content.length)
    files.push({ name: "response.txt", what: "the response's body, as it was decrypted", media: "text/plain", content });
  return files;
}

function about(found: Found | null, shield: Proof["shield"], reason: string): Omit<Proof, "files"> {
  return {
    shield,
    label: found?.result?.label ?? "",
    line: reason,
    sections: found ? roomSections(found) : [],
    facts: found ? roomFacts(found) : [],
    at: world.now(),
  };
}

export async function roomProof(found: Found, colour: Shield, reason: string): Promise<Proof> {
  return { ...about(found, colour, reason), files: await keep(theVault(), roomFiles(found)) };
}

/** Of an answer that came whole, with its receipt. */
export async function answerProof(found: Found, colour: Shield, answer: Answer, receipt: Verification): Promise<Proof> {
  const files = [
    json("receipt.json", "the receipt of this answer, signed by the enclave", receipt.raw),
    ...roomFiles(found),
  ];
  const kept = answer.kept();
  if (kept) files.unshift(json("answer.json", "everything, for strongroom verify: as secret as the question", kept));
  const room = about(found, colour, line(colour, receipt.problem ?? found.result?.problem ?? null, found.result));
  return {
    ...room,
    sections: [...room.sections, { title: "This answer's receipt", checks: receipt.checks }],
    files: await keep(theVault(), files),
  };
}

/** Of an answer that no receipt was held against. */
export async function openProof(found: Found | null, why: string): Promise<Proof> {
  const files = found ? await keep(theVault(), roomFiles(found)) : [];
  return { ...about(found, "open", why), files };
}

/** Of an exchange that was tampered with, or cut. */
export async function failedProof(
  found: Found | null,
  wrong: Trouble,
  sent: Bytes,
  received: readonly Bytes[],
): Promise<Proof> {
  const room = about(found, "red", wrong.line);
  const check = {
    number: "–",
    name: "the answer is encrypted to this page, whole and in its order",
    status: "failed" as const,
    detail: wrong.line,
    code: wrong.code,
  };
  return {
    ...room,
    sections: [...room.sections, { title: "This exchange", checks: [check] }],
    files: await keep(theVault(), await exchangeFiles(found, sent, received)),
  };
}
