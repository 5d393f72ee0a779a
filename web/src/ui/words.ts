/** What the page says: facts and failures, in words for people. */

import type { AttestationResult, RoomFacts, Shield } from "../verify/index.ts";
import type { Check } from "./conversation.ts";

export interface Trouble {
  readonly code: string;
  readonly line: string; // what is wrong, in one line
  readonly todo: string; // what to do about it
}

/** A shield's name, as it stands beside it. */
export function shieldName(colour: Shield | "open" | "busy", label = ""): string {
  switch (colour) {
    case "green":
      return "Verified";
    case "amber":
      return label.includes("simulated") ? "Simulated" : "Verified, with a warning";
    case "red":
      return "Not verified";
    case "open":
      return "Not examined";
    default:
      return "Verifying";
  }
}

/** What the colour means, in a sentence. */
export function meaning(colour: Shield | "open", label: string): string {
  if (colour === "green")
    return "This page itself checked the hardware's evidence, the keys, the encryption and the receipt over the bytes that it sent and received.";
  if (colour === "amber") {
    return label.includes("simulated")
      ? "Everything was checked and fits, but the platform is simulated: no hardware protects this room, and whoever owns the machine can read what is said in it."
      : "Everything was checked and fits, with a warning about the platform. The checks below say which.";
  }
  if (colour === "red") return "A check failed or could not be made. Do not rely on this answer.";
  return "There was no whole answer to examine. What is shown was authentic as it came, but no receipt was checked over it.";
}

export function duration(seconds: number): string {
  for (const [size, name] of [
    [86_400, "day"],
    [3600, "hour"],
    [60, "minute"],
  ] as const) {
    if (seconds >= size && seconds % size === 0) return `${seconds / size} ${name}${seconds === size ? "" : "s"}`;
  }
  return `${seconds.toLocaleString("en")} second${seconds === 1 ? "" : "s"}`;
}

export function date(seconds: number): string {
  const at = new Date(seconds * 1000);
  return Number.isNaN(at.getTime()) ? "without end" : at.toLocaleString("en-GB", { dateStyle: "long", timeStyle: "short" });
}

export function size(bytes: number): string {
  return bytes < 1024
    ? `${bytes} bytes`
    : bytes < 1 << 20
      ? `${(bytes / 1024).toFixed(1)} KiB`
      : `${(bytes / (1 << 20)).toFixed(1)} MiB`;
}

const SEES: Record<RoomFacts["observability"], string> = {
  none: "Nothing of what happens inside the room.",
  aggregate: "Counts and latencies over all requests. No text, and no single request.",
  failures: "Counts and latencies, and at which line of code something failed. No text.",
  full: "Everything: your messages and the answers too.",
};

const GUARDS: Record<string, string> = { injection: "prompt injection", model: "a guard model", pii: "personal data" };

function guards(names: readonly string[]): string {
  return names.length === 0 ? "none" : names.map((name) => GUARDS[name] ?? name).join(", ");
}

/** What the contract says about a user's messages, row by row. */
export function conditions(facts: RoomFacts): [string, string][] {
  const padded = facts.padding
    ? `Sizes are rounded up to powers of two from ${facts.padding.toLocaleString("en")} bytes.`
    : "Sizes are not padded: whoever carries your messages can see how long they are.";
  const kept = facts.retentionSeconds
    ? `Receipts for ${duration(facts.retentionSeconds)}: hashes and counts, no text.`
    : "Receipts on no disk: they stay in memory for some minutes.";
  return [
    ["The operator sees", SEES[facts.observability]],
    ["The room keeps", kept],
    [
      "Guards",
      `Before the model: ${guards(facts.inputGuards)}. After it: ${guards(facts.outputGuards)}. They run inside the room.`,
    ],
    ["On the way", `That you ask, when, and roughly how much can be seen; not what. ${padded}`],
  ];
}

/** Begins large and ends with a full stop. */
export function sentence(text: string): string {
  const end = /[.!?]$/.test(text) ? "" : ".";
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${end}`;
}

/** What befell an answer on its way, as people say it. */
const ON_ITS_WAY: Record<string, string> = {
  "ehbp.frame_altered": "The answer was changed on its way.",
  "ehbp.not_ended": "The answer was cut off on its way.",
  "ehbp.truncated": "The answer was cut off on its way.",
  "ehbp.after_end": "Something was added to the answer on its way.",
};

/** Why nothing may be sent, and what to do. */
export function trouble(code: string, message: string, hint: string): Trouble {
  const befell = ON_ITS_WAY[code];
  if (befell !== undefined) return { code, line: befell, todo: todo(code) };
  return { code, line: sentence(message || "the room could not be verified"), todo: sentence(hint || todo(code)) };
}

function todo(code: string): string {
  if (code === "attest.measurement_not_accepted")
    return "It runs something that you did not agree to. Ask its operator; pin a new trust document only if the change is meant.";
  if (code.startsWith("contract.") || code === "inference.other_contract")
    return "The terms have changed. Read what is offered now before you send anything.";
  if (code === "attest.platform_not_accepted")
    return "Your trust document does not accept this platform. Import one that does, or use another room.";
  if (code === "attest.keyset_expired" || code === "attest.not_fresh")
    return "Verify again; if it stays, the clock here or there is wrong.";
  return "Verify again. If it stays, do not use this room, and keep the evidence.";
}

/** A check that did not pass, as a line. */
export function said(check: Check): string {
  const what = check.status === "failed" ? "failed" : "not established";
  return `${check.number} ${what}: ${check.detail || check.name}`;
}

/** The line beside a shield. */
export function line(colour: Shield | "open", problem: Check | null, result: AttestationResult | null): string {
  if (colour === "red") return problem ? said(problem) : "not every check passed";
  return result?.label ?? "";
}
