/** Conversations in the vault: every change is written, in order, one conversation at a time. */

import type { Answered, Conversation } from "./conversation.ts";
import {
  apiKey,
  conversations,
  current,
  growing,
  model,
  models,
  protectedBy,
  railOpen,
  shown,
  tell,
  theVault,
  world,
} from "./desk.ts";

/** The other tabs of this page. */
export const tabs = new BroadcastChannel("strongroom");

const saving = new Map<string, Promise<void>>();

export function change(id: string, how: (one: Conversation) => Conversation): void {
  conversations.value = conversations.value.map((one) => (one.id === id ? how(one) : one));
  const before = saving.get(id) ?? Promise.resolve();
  const saved = before.then(async () => {
    const now = conversations.value.find((one) => one.id === id);
    if (now) await theVault().put("conversation", id, now);
    tabs.postMessage("saved");
  });
  saving.set(
    id,
    saved.catch(() => tell("This conversation could not be saved; the disk may be full")),
  );
}

export function changeAnswer(id: string, turn: string, how: (one: Answered) => Answered): void {
  change(id, (one) => ({
    ...one,
    changed: world.now(),
    turns: one.turns.map((now) => (now.id === turn && now.role === "assistant" ? how(now) : now)),
  }));
}

/** An answer that was growing when its page was closed has stopped. */
export function settled(one: Conversation): Conversation {
  const turns = one.turns.map((turn) =>
    turn.role === "assistant" && turn.state === "growing" ? { ...turn, state: "stopped" as const } : turn,
  );
  return { ...one, turns };
}

/** What another tab wrote; what grows here stays. */
export async function readAgain(): Promise<void> {
  const { values } = await theVault().all("conversation");
  const own = growing.value;
  conversations.value = (values as Conversation[]).map(
    (read) => conversations.value.find((one) => own.has(one.id) && one.id === read.id) ?? read,
  );
}

export function show(id: string | null): void {
  current.value = id;
  railOpen.value = false;
  history.replaceState(null, "", id === null ? location.pathname : `#${id}`);
  const one = shown();
  if (one && models().includes(one.model)) model.value = one.model;
}

export function rename(id: string, title: string): void {
  const text = title.trim().slice(0, 120);
  if (text) change(id, (one) => ({ ...one, title: text }));
}

export async function remove(id: string): Promise<void> {
  growing.value.get(id)?.abort.abort();
  await saving.get(id);
  const gone = conversations.value.find((one) => one.id === id);
  conversations.value = conversations.value.filter((one) => one.id !== id);
  if (current.value === id) show(null);
  const left = new Set(conversations.value.flatMap(evidence));
  await theVault().delete([id, ...(gone ? evidence(gone) : []).filter((digest) => !left.has(digest))]);
  tabs.postMessage("saved");
  tell("Conversation deleted");
}

function evidence(one: Conversation): string[] {
  return one.turns.flatMap((turn) =>
    turn.role === "assistant" ? (turn.proof?.files.map((file) => file.digest) ?? []) : [],
  );
}

/** Evidence that belongs to no answer any more: it was asked again, or only looked at. */
export async function sweep(): Promise<void> {
  const used = new Set(conversations.value.flatMap(evidence));
  await theVault().delete((await theVault().ids("evidence")).filter((id) => !used.has(id)));
}

export function stopAll(): void {
  for (const one of growing.value.values()) one.abort.abort();
}

export async function eraseAll(): Promise<void> {
  stopAll();
  await Promise.all(saving.values());
  await theVault().erase();
  history.replaceState(null, "", location.pathname);
  tabs.postMessage("erased");
  location.reload();
}

export async function setPassphrase(passphrase: string | null): Promise<void> {
  stopAll();
  await Promise.all(saving.values());
  await theVault().protect(passphrase);
  protectedBy.value = theVault().protected;
  tabs.postMessage("sealed anew");
  tell(passphrase === null ? "The passphrase is gone" : "Everything is sealed anew under your passphrase");
}

export async function setApiKey(key: string): Promise<void> {
  apiKey.value = key.trim();
  await theVault().put("settings", "apikey", apiKey.value);
}
