import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import {
  type Answered,
  asMarkdown,
  begun,
  type Conversation,
  grouped,
  history,
  type Proof,
  type Turn,
  titled,
} from "../src/ui/conversation.ts";
import { delta, Events, refused } from "../src/ui/stream.ts";
import { conditions, duration, size, trouble } from "../src/ui/words.ts";
import type { RoomFacts } from "../src/verify/index.ts";

const utf8 = new TextEncoder();

function event(text: string): string {
  return `data: ${JSON.stringify({ choices: [{ delta: { content: text } }] })}\n\n`;
}

function read(pieces: Uint8Array[]): { text: string; ended: boolean } {
  const events = new Events();
  const text = pieces.flatMap((piece) => events.push(piece)).map((one) => one.text);
  return { text: text.join(""), ended: events.ended };
}

describe("events", () => {
  const bytes = utf8.encode(`: a comment\n\n${event("Grüße ")}${event("𝄞\n")}data: [DONE]\n\n`);

  test("are the same however the bytes were cut on their way", () => {
    for (let at = 0; at <= bytes.length; at++) {
      expect(read([bytes.subarray(0, at), bytes.subarray(at)])).toEqual({ text: "Grüße 𝄞\n", ended: true });
    }
    expect(read([...bytes].map((byte) => new Uint8Array([byte])))).toEqual({ text: "Grüße 𝄞\n", ended: true });
  });

  test("end lines as the standard lets them", () => {
    for (const end of ["\n", "\r\n", "\r"]) {
      const other = utf8.encode(`${event("a")}${event("b")}data: [DONE]\n\n`.replaceAll("\n", end));
      for (let at = 0; at <= other.length; at++) {
        expect(read([other.subarray(0, at), other.subarray(at), utf8.encode("\n")]).text).toBe("ab");
      }
    }
  });

  test("that are cut, no JSON or no UTF-8 are not taken for an end", () => {
    expect(read([utf8.encode(event("a"))]).ended).toBe(false);
    expect(() => read([utf8.encode("data: {\n\n")])).toThrow(SyntaxError);
    expect(() => read([new Uint8Array([0xff, 0x0a])])).toThrow(TypeError);
    expect(() => read([utf8.encode("x".repeat(5 << 20))])).toThrow(SyntaxError);
  });

  test("carry errors, reasons and usage", () => {
    expect(refused({ error: { code: "engine.failed", message: "m", hint: "h" } })).toEqual({
      code: "engine.failed",
      message: "m",
      hint: "h",
    });
    expect(refused({})).toBeNull();
    expect(refused({ error: "x" })).toBeNull();
    expect(delta({ usage: { prompt_tokens: 3, completion_tokens: -1 } }).usage).toEqual({ prompt: 3, completion: 0 });
    expect(delta({ choices: [{ message: { content: "all" }, finish_reason: "length" }] })).toMatchObject({
      text: "all",
      finish: "length",
    });
    expect(delta(null).text).toBe("");
  });
});

function asked(text: string): Turn {
  return { role: "user", id: text, text, at: 1 };
}

function answered(text: string, shield: Proof["shield"] | null, more: Partial<Answered> = {}): Answered {
  const proof: Proof | null =
    shield === null ? null : { shield, label: "", line: "", sections: [], facts: [], files: [], at: 1 };
  return {
    role: "assistant",
    id: text,
    text,
    at: 1,
    model: "m",
    state: "whole",
    finish: "stop",
    trouble: null,
    usage: null,
    seconds: 1,
    proof,
    ...more,
  };
}

describe("what is sent next", () => {
  test("is every question with its answer, and the last question", () => {
    const turns = [asked("1"), answered("a", "green"), asked("2"), answered("b", "open", { state: "stopped" }), asked("3")];
    expect(history(turns).map((one) => one.content)).toEqual(["1", "a", "2", "b", "3"]);
  });

  test("leaves out an answer that did not verify, and its question", () => {
    const turns = [asked("1"), answered("forged", "red"), asked("2"), answered("b", "amber"), asked("3")];
    expect(history(turns).map((one) => one.content)).toEqual(["2", "b", "3"]);
  });

  test("leaves out what failed or is empty", () => {
    const turns = [
      asked("1"),
      answered("", null, { state: "failed" }),
      asked("2"),
      answered("", "open", { state: "stopped" }),
      asked("3"),
    ];
    expect(history(turns).map((one) => one.content)).toEqual(["3"]);
  });
});

describe("conversations", () => {
  test("are named by the first words", () => {
    expect(titled("  hello\nworld ")).toBe("hello");
    expect(titled("")).toBe("New conversation");
    expect(titled("word ".repeat(40)).length).toBeLessThanOrEqual(53);
    expect(titled("x".repeat(200))).toBe(`${"x".repeat(52)}…`);
  });

  test("are grouped by the day, newest first", () => {
    const now = new Date(2026, 5, 15, 12);
    const at = (days: number): Conversation => ({
      ...begun("m", 0),
      title: String(days),
      changed: now.getTime() / 1000 - days * 86_400,
    });
    const groups = grouped([at(30), at(0), at(1), at(0.1), at(6)], now);
    expect(groups.map((group) => [group.title, group.members.map((one) => one.title)])).toEqual([
      ["Today", ["0", "0.1"]],
      ["Yesterday", ["1"]],
      ["Last seven days", ["6"]],
      ["Earlier", ["30"]],
    ]);
  });

  test("say in an export what each answer's shield was", () => {
    const one = { ...begun("m", 0), title: "t", turns: [asked("q"), answered("a", "amber")] };
    expect(asMarkdown(one)).toBe("# t\n\n## You\n\nq\n\n## m\n\na\n\n*Shield amber: *\n");
  });
});

describe("words", () => {
  test("give times and sizes in whole units", () => {
    expect([1, 60, 7200, 86_400, 90, 172_800].map(duration)).toEqual([
      "1 second",
      "1 minute",
      "2 hours",
      "1 day",
      "90 seconds",
      "2 days",
    ]);
    expect([0, 2048, 3 << 20].map(size)).toEqual(["0 bytes", "2.0 KiB", "3.0 MiB"]);
  });

  test("say of each level what an operator sees", () => {
    const facts = { retentionSeconds: 0, padding: 0, inputGuards: [], outputGuards: ["pii"] } as unknown as RoomFacts;
    const said = (["none", "aggregate", "failures", "full"] as const).map(
      (observability) => conditions({ ...facts, observability })[0]?.[1],
    );
    expect(new Set(said).size).toBe(4);
    expect(said[3]).toContain("your messages and the answers");
    expect(conditions({ ...facts, observability: "none" }).map(([, text]) => text)).toContain(
      "Receipts on no disk: they stay in memory for some minutes.",
    );
  });

  test("always say what to do", () => {
    for (const code of [
      "attest.measurement_not_accepted",
      "contract.expired",
      "inference.other_response",
      "",
      "attest.keyset_expired",
    ]) {
      expect(trouble(code, "m", "").todo).not.toBe("");
    }
    expect(trouble("x", "no key", "do this")).toEqual({ code: "x", line: "No key.", todo: "Do this." });
  });
});

describe("the design system", () => {
  const css = readFileSync(new URL("../src/styles/room.css", import.meta.url), "utf8");
  const tokens = new Map(
    [...css.matchAll(/--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)/g)].map(([, name, light, dark]) => [
      name,
      { light, dark },
    ]),
  );

  function luminance(colour: string): number {
    const parts = [1, 3, 5].map((at) => Number.parseInt(colour.slice(at, at + 2), 16) / 255);
    const [r, g, b] = parts.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)) as [
      number,
      number,
      number,
    ];
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  }

  function contrast(text: string, ground: string, scheme: "light" | "dark"): number {
    const [one, other] = [text, ground].map((name) => luminance(tokens.get(name)?.[scheme] ?? "")) as [number, number];
    return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  }

  const grounds = ["ground", "raised", "sunken"];
  const pairs = [
    ...["ink", "ink-2", "ink-3", "accent", "green", "amber", "red"].flatMap((text) =>
      grounds.map((ground) => [text, ground]),
    ),
    ...["ink", "ink-2"].flatMap((text) => ["soft", "green-soft", "amber-soft", "red-soft"].map((ground) => [text, ground])),
    ...["green", "amber", "red"].map((text) => [text, `${text}-soft`]),
    ["on-solid", "solid"],
  ] as [string, string][];

  test.each(["light", "dark"] as const)("has text of at least 4.5 to 1 where it is %s", (scheme) => {
    expect(tokens.size).toBeGreaterThan(15);
    const faint = pairs.filter(([text, ground]) => !(contrast(text, ground, scheme) >= 4.5));
    expect(faint.map(([text, ground]) => `${text} on ${ground}: ${contrast(text, ground, scheme).toFixed(2)}`)).toEqual([]);
  });
});
