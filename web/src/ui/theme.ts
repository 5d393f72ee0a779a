/** Light or dark: as the system has it, until somebody chooses. The choice is no secret and lies in the clear. */

import { effect, signal } from "@preact/signals";

export type Choice = "system" | "light" | "dark";

const system = matchMedia("(prefers-color-scheme: dark)");
const stored = localStorage.getItem("theme");

export const choice = signal<Choice>(stored === "light" || stored === "dark" ? stored : "system");
export const theme = signal<"light" | "dark">("light");

function apply(): void {
  theme.value = choice.value === "system" ? (system.matches ? "dark" : "light") : choice.value;
  if (choice.value === "system") {
    localStorage.removeItem("theme");
    delete document.documentElement.dataset.theme;
  } else {
    localStorage.setItem("theme", choice.value);
    document.documentElement.dataset.theme = choice.value;
  }
}

export function flipTheme(): void {
  choice.value = theme.value === "dark" ? "light" : "dark";
}

effect(apply);
system.addEventListener("change", apply);
