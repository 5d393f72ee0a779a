/** Drawn here, so that no picture is ever loaded. Decoration: what they mean stands beside them in words. */

import type { Shield as Colour } from "../verify/index.ts";

const PATHS = {
  plus: "M8 3v10M3 8h10",
  menu: "M2.5 4.5h11M2.5 8h11M2.5 11.5h11",
  close: "M4 4l8 8M12 4l-8 8",
  up: "M8 13V3.5M3.8 7.5L8 3.3l4.2 4.2",
  down: "M8 3v9.5M3.8 8.5L8 12.7l4.2-4.2",
  copy: "M5.5 5.5v-2a1 1 0 0 1 1-1h6a1 1 0 0 1 1 1v6a1 1 0 0 1-1 1h-2M3.5 5.5h6a1 1 0 0 1 1 1v6a1 1 0 0 1-1 1h-6a1 1 0 0 1-1-1v-6a1 1 0 0 1 1-1z",
  again: "M13 8a5 5 0 1 1-1.6-3.7M13 2.5v3h-3",
  edit: "M10.8 2.9l2.3 2.3-7.6 7.6-3 .7.7-3z",
  bin: "M3 4.5h10M6.5 4.5v-2h3v2M4.5 4.5l.6 9h5.8l.6-9M6.8 7v4M9.2 7v4",
  save: "M8 2.5v7.5M4.8 7L8 10.2 11.2 7M3 13h10",
  sun: "M8 5.2a2.8 2.8 0 1 1 0 5.6 2.8 2.8 0 0 1 0-5.6zM8 1.5v1.4M8 13.1v1.4M1.5 8h1.4M13.1 8h1.4M3.4 3.4l1 1M11.6 11.6l1 1M3.4 12.6l1-1M11.6 4.4l1-1",
  moon: "M13.2 9.6A5.6 5.6 0 0 1 6.4 2.8a5.6 5.6 0 1 0 6.8 6.8z",
  gear: "M2.5 5h5M11.5 5h2M2.5 11h2M8.5 11h5M9.5 3.3a1.7 1.7 0 1 1 0 3.4 1.7 1.7 0 0 1 0-3.4zM6.5 9.3a1.7 1.7 0 1 1 0 3.4 1.7 1.7 0 0 1 0-3.4z",
  keyboard:
    "M2.5 4h11a1 1 0 0 1 1 1v6a1 1 0 0 1-1 1h-11a1 1 0 0 1-1-1V5a1 1 0 0 1 1-1zM4.3 6.5h.01M6.8 6.5h.01M9.2 6.5h.01M11.7 6.5h.01M5 9.6h6",
  more: "M3.5 8h.01M8 8h.01M12.5 8h.01",
  lock: "M4.5 7.5h7a1 1 0 0 1 1 1v4a1 1 0 0 1-1 1h-7a1 1 0 0 1-1-1v-4a1 1 0 0 1 1-1zM5.5 7.5V5a2.5 2.5 0 0 1 5 0v2.5",
  tick: "M3.2 8.4l3.1 3.1 6.5-7",
  cross: "M4.2 4.2l7.6 7.6M11.8 4.2l-7.6 7.6",
  question: "M5.9 5.9a2.1 2.1 0 1 1 3 2c-.6.3-.9.7-.9 1.4M8 11.7h.01",
  pick: "M4.5 6.5L8 10l3.5-3.5",
  chevron: "M5.5 3.5L10 8l-4.5 4.5",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name, size = 16, weight = 1.5 }: { name: IconName; size?: number; weight?: number }) {
  return (
    <svg
      width={size}
      height={size}
      viewBox="0 0 16 16"
      fill="none"
      stroke="currentColor"
      stroke-width={name === "more" ? 2.2 : weight}
      stroke-linecap="round"
      stroke-linejoin="round"
      aria-hidden="true"
    >
      <path d={PATHS[name]} />
    </svg>
  );
}

const INSIDE: Record<Colour | "open" | "busy", string> = {
  green: "M5.6 8l1.8 1.8 3.2-3.5",
  amber: "M8 5v3.4M8 10.7h.01",
  red: "M6.2 6.1l3.6 3.6M9.8 6.1L6.2 9.7",
  open: "M5.8 7.9h4.4",
  busy: "M5.6 7.9h.01M8 7.9h.01M10.4 7.9h.01",
};

/** The shield's colour is also its sign, for who does not see colours. */
export function ShieldIcon({ colour, size = 17 }: { colour: Colour | "open" | "busy"; size?: number }) {
  return (
    <svg
      width={size}
      height={size}
      viewBox="0 0 16 16"
      fill="none"
      stroke="currentColor"
      stroke-width="1.35"
      stroke-linecap="round"
      stroke-linejoin="round"
      aria-hidden="true"
    >
      <path
        d="M8 1.4l5.4 1.9v4.2c0 3.4-2.2 5.8-5.4 7.1-3.2-1.3-5.4-3.7-5.4-7.1V3.3z"
        fill="currentColor"
        fill-opacity="0.1"
      />
      <path d={INSIDE[colour]} stroke-width="1.5" />
    </svg>
  );
}

/** The mark of the house: a door that is shut. */
export function Mark({ size = 20 }: { size?: number }) {
  return (
    <svg width={size} height={size} viewBox="0 0 20 20" fill="none" aria-hidden="true">
      <rect x="1.25" y="1.25" width="17.5" height="17.5" rx="5" stroke="currentColor" stroke-width="1.6" />
      <circle cx="10" cy="10" r="3.4" stroke="currentColor" stroke-width="1.6" />
      <path
        d="M10 3.9v2.6M10 13.5v2.6M3.9 10h2.6M13.5 10h2.6"
        stroke="currentColor"
        stroke-width="1.6"
        stroke-linecap="round"
      />
    </svg>
  );
}
