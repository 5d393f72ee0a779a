/** What is pinned, and what a room is found to be under it. */

import { type Found, Pins, Room, StrongroomError, shield } from "../verify/index.ts";
import {
  announced,
  config,
  dialog,
  model,
  models,
  offer,
  origin,
  type Pinned,
  panel,
  phase,
  pinned,
  standing,
  theVault,
  world,
} from "./desk.ts";
import { stopAll } from "./keeping.ts";
import { roomProof } from "./proofs.ts";
import { said, type Trouble, trouble } from "./words.ts";

export function asTrouble(error: unknown): Trouble {
  if (error instanceof StrongroomError) return trouble(error.code, error.message, error.hint);
  if (error instanceof SyntaxError)
    return trouble("engine.failed", "The answer is not in a form that this page reads.", "Ask again.");
  return trouble(
    "app.unreachable",
    "The room does not answer.",
    "See whether its host runs and can be reached, then try again.",
  );
}

export function offeredFrom(): string {
  return config.value.servedBy === "proxy" ? "your own proxy's trust file" : "the host of this page";
}

/** Looks at a room as a trust document would have it, and pins nothing. Only a nonce is sent. */
export async function consider(trust: string, from: string): Promise<void> {
  offer.value = "looking";
  let described: readonly string[] = [];
  try {
    const pins = await Pins.parse(trust, config.value.contract);
    described = await pins.describe();
    const found = await Room.verify({ origin: origin(), pins, world });
    offer.value = { trust, from, described, found, trouble: problem(found, config.value.contract !== null) };
  } catch (error) {
    offer.value = { trust, from, described, found: null, trouble: asTrouble(error) };
  }
}

/** Why nothing may be sent to what was found; `null` where something may. */
function problem(found: Found, contractPinned: boolean): Trouble | null {
  const { error, facts, result } = found;
  const check = result !== null && !result.affirming ? result.problem : found.checks.find((one) => one.status === "failed");
  if (check) return trouble(check.code, said(check), error?.code === check.code ? error.hint : "");
  if (error !== null) return asTrouble(error);
  if (facts === null) return trouble("contract.incomplete", "The room does not show its contract.", "");
  if (contractPinned && !facts.pinned) {
    return trouble("inference.other_contract", "The room serves another contract than the one that you pinned.", "");
  }
  return found.room === null || shield(found, null) === "red" ? NOT_AFFIRMED : null;
}

const NOT_AFFIRMED = trouble("attest.not_affirming", "Not every check of the room passed.", "");

/** Pins what is offered, and goes in. */
export async function accept(): Promise<void> {
  const taken = offer.value;
  if (taken === null || taken === "looking" || !taken.found?.facts || taken.trouble !== null) return;
  const pins: Pinned = { trust: taken.trust, contract: taken.found.facts.contract, from: taken.from, at: world.now() };
  await theVault().put("settings", "trust", pins);
  pinned.value = pins;
  offer.value = null;
  phase.value = "ready";
  await open();
}

/** Back to what is trusted, to look at it again or to change it. */
export async function review(): Promise<void> {
  stopAll();
  dialog.value = null;
  panel.value = null;
  standing.value = { at: "closed" };
  phase.value = "welcome";
  if (config.value.trust !== null) await consider(config.value.trust, offeredFrom());
  else if (pinned.value !== null) await consider(pinned.value.trust, pinned.value.from);
  else offer.value = null;
}

/** Leaves the review without a change. */
export async function keepPinned(): Promise<void> {
  offer.value = null;
  phase.value = "ready";
  await open();
}

let opening: Promise<void> | null = null;

/** Verifies the room anew, with a fresh nonce. */
export function open(): Promise<void> {
  opening ??= verifyRoom().finally(() => {
    opening = null;
  });
  return opening;
}

async function verifyRoom(): Promise<void> {
  const pins = pinned.value;
  if (pins === null) return;
  standing.value = { at: "opening" };
  let found: Found;
  try {
    found = await Room.verify({ origin: origin(), pins: await Pins.parse(pins.trust, pins.contract), world });
  } catch (error) {
    standing.value = { at: "unreachable", trouble: asTrouble(error) };
    return;
  }
  const colour = shield(found, null);
  const wrong = problem(found, true);
  if (wrong === null && found.room !== null && colour !== "red") {
    standing.value = { at: "open", found, room: found.room, colour };
    const names = models();
    if (!names.includes(model.value)) model.value = names[0] ?? "";
    return;
  }
  const reason = wrong ?? NOT_AFFIRMED;
  if (found.result === null && silent(found)) standing.value = { at: "unreachable", trouble: reason };
  else standing.value = { at: "refused", trouble: reason, proof: await roomProof(found, "red", reason.line) };
  announced.value = `Nothing is sent. ${reason.line}`;
}

/** Nobody answered, or a server that has no room open: nothing was claimed that could be false. */
function silent(found: Found): boolean {
  return found.report === null && (found.error === null || /^(?:app|enclave)\./.test(found.error.code));
}

/** Opens the checks of the room itself. */
export async function showRoom(): Promise<void> {
  const now = standing.value;
  if (now.at === "open")
    panel.value = { title: "The room", proof: await roomProof(now.found, now.colour, now.found.result?.label ?? "") };
  else if (now.at === "refused") panel.value = { title: "The room", proof: now.proof };
}
