/**
 * Numbered checks: what was looked at, in order, and how each ended.
 *
 * A list of checks is declared once; the numbers are the same in `spec/`, in the Python verifier and here. A check that was
 * never reached is *not established*, and that is not a pass.
 */

import { characters, first } from "./bytes.ts";
import type { Code } from "./errors.ts";

const MAX_DETAIL = 2000; // characters

export type Status = "passed" | "failed" | "not established";

export interface Check {
  readonly number: string; // a letter for the list and the check's place in it ("A3")
  readonly name: string; // what must be true
  readonly status: Status;
  readonly detail: string; // what was seen; one line, no secrets
  readonly code: string; // the stable code of what did not pass, else ""
}

/** The declaration of a list of checks: check n is `letter` and n, from 1. */
export class Steps {
  readonly letter: string;
  readonly names: ReadonlyMap<string, string>;

  constructor(letter: string, names: readonly string[]) {
    this.letter = letter;
    this.names = new Map(names.map((name, n) => [`${letter}${n + 1}`, name]));
  }

  get numbers(): string[] {
    return [...this.names.keys()];
  }
}

/** No line ends, no escape sequences: others chose some of it. */
function oneLine(said: string): string {
  const cut = characters(said) > MAX_DETAIL ? `${first(said, MAX_DETAIL - 1)}…` : said;
  return Array.from(cut, (c) => (c === " " || !/[\p{C}\p{Z}]/u.test(c) ? c : "\ufffd")).join("");
}

/** Collects the outcome of every declared check. */
export class Transcript {
  readonly #steps: Steps;
  readonly #found = new Map<string, Check>();

  constructor(steps: Steps) {
    this.#steps = steps;
  }

  /** Set a check: `true` passed, `false` failed, `null` not established. Each is set once. Returns whether it passed. */
  record(number: string, passed: boolean | null, detail = "", code: Code | "" = ""): boolean {
    const name = this.#steps.names.get(number);
    if (name === undefined || this.#found.has(number)) throw new Error(`check ${number} was set twice, or is none`);
    const status = passed === null ? "not established" : passed ? "passed" : "failed";
    this.#found.set(number, { number, name, status, detail: oneLine(detail), code: passed === true ? "" : code });
    return passed === true;
  }

  /** Every declared check in order; those never reached are not established. */
  get checks(): readonly Check[] {
    return Array.from(
      this.#steps.names,
      ([number, name]) =>
        this.#found.get(number) ?? { number, name, status: "not established", detail: "not reached", code: "" },
    );
  }

  get ok(): boolean {
    return this.checks.every((check) => check.status === "passed");
  }

  get failed(): boolean {
    return this.checks.some((check) => check.status === "failed");
  }
}

/** The first failed check, else the first that is not established, else `null`. */
export function firstProblem(checks: readonly Check[]): Check | null {
  return (
    checks.find((check) => check.status === "failed") ?? checks.find((check) => check.status === "not established") ?? null
  );
}
