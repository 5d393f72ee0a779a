/** Conversations as the page keeps them, and what can be made of them. */

import type { Shield, Status } from "../verify/index.ts";
import type { Refused, Usage } from "./stream.ts";
import { freshId } from "./vault.ts";

export interface Conversation {
  readonly id: string;
  readonly title: string;
  readonly model: string;
  readonly created: number; // unix seconds
  readonly changed: number;
  readonly turns: readonly Turn[];
}

export type Turn = Asked | Answered;

export interface Asked {
  readonly role: "user";
  readonly id: string;
  readonly text: string;
  readonly at: number;
}

export interface Answered {
  readonly role: "assistant";
  readonly id: string;
  readonly text: string;
  readonly at: number;
  readonly model: string;
  readonly state: "whole" | "stopped" | "failed" | "growing";
  readonly finish: string | null; // "length" where it was cut at its limit
  readonly trouble: Refused | null;
  readonly usage: Usage | null;
  readonly seconds: number;
  readonly proof: Proof | null;
}

/** A check as it is kept: one of `verify`, or what became of an exchange. */
export interface Check {
  readonly number: string;
  readonly name: string;
  readonly status: Status;
  readonly detail: string;
  readonly code: string;
}

/** What this page established about one answer, kept with it. */
export interface Proof {
  readonly shield: Shield | "open"; // open: not examined, because the answer was stopped or none came
  readonly label: string; // of the platform
  readonly line: string; // the reason, for people
  readonly sections: readonly { readonly title: string; readonly checks: readonly Check[] }[];
  readonly facts: readonly (readonly [string, string])[];
  readonly files: readonly FileRef[];
  readonly at: number;
}

/** Raw evidence, kept once under its own digest. */
export interface FileRef {
  readonly name: string;
  readonly what: string;
  readonly media: string;
  readonly bytes: number;
  readonly digest: string;
}

export function begun(model: string, at: number): Conversation {
  return { id: freshId(), title: "New conversation", model, created: at, changed: at, turns: [] };
}

const TITLE = 52;

/** The first words of what was asked first. */
export function titled(text: string): string {
  const line = text.trim().split("\n", 1)[0]?.trim() ?? "";
  if (line.length <= TITLE) return line || "New conversation";
  const cut = line.slice(0, TITLE);
  const space = cut.lastIndexOf(" ");
  return `${(space > TITLE - 16 ? cut.slice(0, space) : cut).trimEnd()}…`;
}

/** Whether an answer may be part of what is sent next: nothing that did not verify, and nothing empty. */
export function counts(turn: Answered): boolean {
  return turn.text !== "" && turn.proof?.shield !== "red" && turn.state !== "failed" && turn.state !== "growing";
}

/** The messages of a request: questions with an answer that counts, and the last question. */
export function history(turns: readonly Turn[]): { role: "user" | "assistant"; content: string }[] {
  const found: { role: "user" | "assistant"; content: string }[] = [];
  turns.forEach((turn, place) => {
    if (turn.role === "assistant") {
      if (counts(turn)) found.push({ role: "assistant", content: turn.text });
      return;
    }
    const next = turns[place + 1];
    if (next === undefined || (next.role === "assistant" && (counts(next) || next.state === "growing"))) {
      found.push({ role: "user", content: turn.text });
    }
  });
  return found;
}

/** By when they were last changed: today, yesterday, the last seven days, earlier. */
export function grouped(all: readonly Conversation[], now: Date): { title: string; members: Conversation[] }[] {
  const midnight = new Date(now.getFullYear(), now.getMonth(), now.getDate()).getTime() / 1000;
  const names = ["Today", "Yesterday", "Last seven days", "Earlier"];
  const groups: { title: string; members: Conversation[] }[] = names.map((title) => ({ title, members: [] }));
  for (const one of [...all].sort((a, b) => b.changed - a.changed)) {
    const days = Math.ceil((midnight - one.changed) / 86_400);
    groups[days <= 0 ? 0 : days === 1 ? 1 : days <= 7 ? 2 : 3]?.members.push(one);
  }
  return groups.filter((group) => group.members.length > 0);
}

/** For people: markdown. */
export function asMarkdown(one: Conversation): string {
  const parts = [`# ${one.title}`];
  for (const turn of one.turns) {
    if (turn.role === "user") {
      parts.push("## You", turn.text);
    } else {
      const shield = turn.proof === null ? "not examined" : `${turn.proof.shield}: ${turn.proof.line}`;
      parts.push(`## ${turn.model}`, turn.text || (turn.trouble?.message ?? ""), `*Shield ${shield}*`);
    }
  }
  return `${parts.join("\n\n")}\n`;
}
