/** What the keyboard does beside Tab, Enter and Escape where they always work. */

import { retry, stop } from "./asking.ts";
import { conversations, current, dialog, growing, panel, phase, railOpen, shown } from "./desk.ts";
import { show } from "./keeping.ts";
import { showRoom } from "./trusting.ts";

export const SHORTCUTS: readonly { readonly keys: readonly string[]; readonly words: string }[] = [
  { keys: ["Enter"], words: "Send" },
  { keys: ["Shift", "Enter"], words: "A new line" },
  { keys: ["Esc"], words: "Stop the answer, or close what is open" },
  { keys: ["/"], words: "To the message box" },
  { keys: ["↑"], words: "Edit the last message (in an empty box)" },
  { keys: ["Alt", "N"], words: "New conversation" },
  { keys: ["Alt", "↑"], words: "The conversation above in the list" },
  { keys: ["Alt", "↓"], words: "The conversation below in the list" },
  { keys: ["Alt", "R"], words: "Ask again for the last answer" },
  { keys: ["Alt", "C"], words: "The checks of the last answer" },
  { keys: ["Alt", "E"], words: "Export or delete the conversation" },
  { keys: ["?"], words: "This list" },
];

function typing(): boolean {
  return document.activeElement?.matches("input, textarea, select") ?? false;
}

function neighbour(step: 1 | -1): void {
  const all = [...conversations.value].sort((a, b) => b.changed - a.changed);
  const place = all.findIndex((one) => one.id === current.value);
  const next = all[place < 0 ? 0 : place + step];
  if (next) show(next.id);
}

function lastChecks(): void {
  const turn = shown()?.turns.findLast((one) => one.role === "assistant");
  if (turn?.role === "assistant" && turn.proof) panel.value = { title: "This answer", proof: turn.proof };
  else void showRoom();
}

const WITH_ALT: Record<string, () => void> = {
  KeyN: () => show(null),
  KeyC: lastChecks,
  KeyE: () => {
    if (shown()) dialog.value = "conversation";
  },
  KeyR: () => {
    const turn = shown()?.turns.at(-1);
    if (turn?.role === "assistant") retry(turn.id);
  },
  ArrowUp: () => neighbour(-1),
  ArrowDown: () => neighbour(1),
};

export function onKey(event: KeyboardEvent): void {
  if (phase.value !== "ready" || event.ctrlKey || event.metaKey) return;
  if (event.key === "Escape") {
    if (railOpen.value) railOpen.value = false;
    else if (panel.value === null && dialog.value === null && growing.value.has(current.value ?? "")) stop();
    return;
  }
  if (panel.value !== null || dialog.value !== null) return;
  const act = event.altKey ? WITH_ALT[event.code] : undefined;
  if (act) {
    event.preventDefault();
    act();
  } else if (!event.altKey && !typing()) {
    if (event.key === "/") {
      event.preventDefault();
      document.getElementById("message")?.focus();
    } else if (event.key === "?") {
      dialog.value = "keys";
    }
  }
}
