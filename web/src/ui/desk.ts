/**
 * What the page knows at this moment. The parts of the page read these signals; what changes them is in `entering`, `trusting`,
 * `keeping` and `asking`. What is believed of a room comes from `verify` alone.
 */

import { type Signal, signal } from "@preact/signals";
import type { Found, Room, Shield, World } from "../verify/index.ts";
import type { Conversation, Proof } from "./conversation.ts";
import type { Vault } from "./vault.ts";
import type { Trouble } from "./words.ts";

/** Who serves this page, and where the room's routes are: `/config.json`. */
export interface Config {
  readonly base: "" | "/raw";
  readonly servedBy: "proxy" | "host";
  readonly room: string; // the room's address, for people
  readonly trust: string | null; // a trust document that is offered, as text
  readonly contract: string | null; // the only one that may be pinned
}

export interface Pinned {
  readonly trust: string;
  readonly contract: string;
  readonly from: string;
  readonly at: number;
}

/** How it stands with the room. Only `open` sends. */
export type Standing =
  | { readonly at: "closed" | "opening" }
  | { readonly at: "open"; readonly found: Found; readonly room: Room; readonly colour: Exclude<Shield, "red"> }
  | { readonly at: "refused"; readonly trouble: Trouble; readonly proof: Proof }
  | { readonly at: "unreachable"; readonly trouble: Trouble };

/** An answer that is being written. */
export interface Growing {
  readonly turn: string;
  readonly text: Signal<string>;
  readonly examining: Signal<boolean>;
  readonly abort: AbortController;
}

/** What the user could pin, and what this page found with it. */
export interface Offer {
  readonly trust: string;
  readonly from: string;
  readonly described: readonly string[];
  readonly found: Found | null;
  readonly trouble: Trouble | null;
}

export const world: World = {
  fetch: (...given) => fetch(...given),
  now: () => Math.floor(Date.now() / 1000),
  random: (bytes) => crypto.getRandomValues(new Uint8Array(bytes)),
};

export const phase = signal<"starting" | "impossible" | "locked" | "welcome" | "ready">("starting");
export const impossible = signal("");
export const config = signal<Config>({ base: "", servedBy: "host", room: "", trust: null, contract: null });
export const pinned = signal<Pinned | null>(null);
export const offer = signal<Offer | "looking" | null>(null);
export const standing = signal<Standing>({ at: "closed" });
export const conversations = signal<readonly Conversation[]>([]);
export const current = signal<string | null>(null);
export const growing = signal<ReadonlyMap<string, Growing>>(new Map()); // by conversation
export const model = signal("");
export const apiKey = signal("");
export const protectedBy = signal(false); // a passphrase
export const panel = signal<{ readonly title: string; readonly proof: Proof } | null>(null);
export const dialog = signal<"settings" | "keys" | "conversation" | "apikey" | null>(null);
export const railOpen = signal(false);
export const announced = signal("");
export const toast = signal("");

let held: Vault | null = null;

export function holdVault(vault: Vault): void {
  held = vault;
}

export function theVault(): Vault {
  if (held === null) throw new Error("nothing is open yet");
  return held;
}

export function shown(): Conversation | null {
  return conversations.value.find((one) => one.id === current.value) ?? null;
}

/** Where the room's routes begin. */
export function origin(): string {
  return location.origin + config.value.base;
}

/** The models that can be asked, by the pinned contract. */
export function models(): string[] {
  const now = standing.value;
  return now.at === "open"
    ? (now.found.facts?.models ?? []).filter((one) => one.role !== "guard").map((one) => one.name)
    : [];
}

let toastTimer = 0;

/** A word that passes. */
export function tell(text: string): void {
  toast.value = text;
  announced.value = text;
  clearTimeout(toastTimer);
  toastTimer = window.setTimeout(() => {
    toast.value = "";
  }, 2400);
}
