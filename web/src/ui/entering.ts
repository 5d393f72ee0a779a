/** From an open tab to an open vault. */

import type { Conversation } from "./conversation.ts";
import {
  apiKey,
  type Config,
  config,
  conversations,
  current,
  holdVault,
  impossible,
  type Pinned,
  phase,
  pinned,
  protectedBy,
  shown,
  tell,
  theVault,
} from "./desk.ts";
import { readAgain, settled, sweep, tabs } from "./keeping.ts";
import { consider, offeredFrom, open } from "./trusting.ts";
import { Vault } from "./vault.ts";

async function settings(): Promise<Config> {
  const answer = await fetch("/config.json", { cache: "no-store" });
  if (!answer.ok) throw new Error("no configuration");
  const read = (await answer.json()) as Record<string, unknown>;
  const { base, contract, room } = read;
  if (base !== "" && base !== "/raw") throw new Error("a strange configuration");
  const trust = read.trust === true ? await fetch("/trust.json", { cache: "no-store" }) : null;
  return {
    base,
    servedBy: read.served_by === "proxy" ? "proxy" : "host",
    room: typeof room === "string" ? room : "",
    trust: trust?.ok ? await trust.text() : null,
    contract: typeof contract === "string" ? contract : null,
  };
}

function stopHere(why: string): void {
  impossible.value = why;
  phase.value = "impossible";
}

export async function begin(): Promise<void> {
  if (!window.isSecureContext) {
    stopHere(
      "A browser lets a page encrypt only where it came over HTTPS or from your own machine (http://localhost). Open this page so.",
    );
    return;
  }
  try {
    config.value = await settings();
  } catch {
    stopHere("The server of this page does not say where the room is. Start it again, and reload.");
    return;
  }
  try {
    holdVault(await Vault.open());
  } catch {
    stopHere("This browser keeps nothing for this page, as some private windows do. Open it in an ordinary window.");
    return;
  }
  tabs.onmessage = (event) => {
    if (event.data !== "saved") location.reload();
    else if (!theVault().locked) void readAgain();
  };
  protectedBy.value = theVault().protected;
  if (theVault().locked) phase.value = "locked";
  else await enter();
}

/** Throws WrongPassphrase. */
export async function unlock(passphrase: string): Promise<void> {
  await theVault().unlock(passphrase);
  await enter();
}

async function enter(): Promise<void> {
  const vault = theVault();
  const { values, damaged } = await vault.all("conversation");
  conversations.value = (values as Conversation[]).map(settled);
  if (damaged) tell(`${damaged} conversation${damaged === 1 ? "" : "s"} could not be decrypted`);
  else await sweep();
  pinned.value = ((await vault.get("settings", "trust")) as Pinned | undefined) ?? null;
  apiKey.value = ((await vault.get("settings", "apikey")) as string | undefined) ?? "";
  if (pinned.value === null) {
    phase.value = "welcome";
    if (config.value.trust !== null) await consider(config.value.trust, offeredFrom());
    return;
  }
  current.value = location.hash.slice(1) || null;
  if (shown() === null) current.value = null;
  phase.value = "ready";
  await open();
}
