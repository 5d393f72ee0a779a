/** Questions and answers: what is sent, what comes of it, and what is established about that. */

import { signal } from "@preact/signals";
import { type Answer, type Bytes, type Found, StrongroomError, shield } from "../verify/index.ts";
import { type Answered, type Asked, begun, history, type Proof, type Turn, titled } from "./conversation.ts";
import {
  announced,
  apiKey,
  conversations,
  current,
  type Growing,
  growing,
  model,
  type Standing,
  shown,
  standing,
  world,
} from "./desk.ts";
import { utf8 } from "./evidence.ts";
import { change, changeAnswer, show } from "./keeping.ts";
import { answerProof, failedProof, openProof } from "./proofs.ts";
import { type Delta, delta, Events, type Refused, refused } from "./stream.ts";
import { asTrouble, open } from "./trusting.ts";
import { freshId } from "./vault.ts";
import { shieldName, trouble } from "./words.ts";

const PATH = "/v1/chat/completions";

/** Asks something new in the shown conversation, or in a new one. */
export function ask(text: string): void {
  if (standing.value.at !== "open" || text.trim() === "") return;
  let one = shown();
  if (one === null) {
    one = { ...begun(model.value, world.now()), title: titled(text) };
    conversations.value = [one, ...conversations.value];
    show(one.id);
  }
  if (growing.value.has(one.id)) return;
  answer(one.id, [...one.turns, question(text)]);
}

function question(text: string): Asked {
  return { role: "user", id: freshId(), text, at: world.now() };
}

/** Asks again for one answer, in place of it and of all after it. */
export function retry(turn: string): void {
  const one = shown();
  const place = one?.turns.findIndex((now) => now.id === turn) ?? -1;
  if (one && place > 0 && !growing.value.has(one.id)) answer(one.id, one.turns.slice(0, place));
}

/** Asks something else in the place of a question, and of all after it. */
export function edit(turn: string, text: string): void {
  const one = shown();
  const place = one?.turns.findIndex((now) => now.id === turn) ?? -1;
  if (!one || place < 0 || text.trim() === "" || growing.value.has(one.id)) return;
  if (place === 0) change(one.id, (now) => ({ ...now, title: titled(text) }));
  answer(one.id, [...one.turns.slice(0, place), question(text)]);
}

export function stop(): void {
  growing.value.get(current.value ?? "")?.abort.abort();
}

function answer(id: string, turns: readonly Turn[]): void {
  if (standing.value.at !== "open") return;
  const reply: Answered = {
    role: "assistant",
    id: freshId(),
    text: "",
    at: world.now(),
    model: model.value,
    state: "growing",
    finish: null,
    trouble: null,
    usage: null,
    seconds: 0,
    proof: null,
  };
  change(id, (one) => ({ ...one, model: model.value, changed: world.now(), turns: [...turns, reply] }));
  const grows: Growing = { turn: reply.id, text: signal(""), examining: signal(false), abort: new AbortController() };
  growing.value = new Map(growing.value).set(id, grows);
  announced.value = "The answer begins";
  void exchange(id, reply, turns, grows).finally(() => {
    const left = new Map(growing.value);
    left.delete(id);
    growing.value = left;
  });
}

/** What came of one exchange. */
interface Came {
  text: string;
  finish: string | null;
  usage: Answered["usage"];
  trouble: Refused | null;
  body: Bytes[];
  found: Found | null;
}

async function exchange(id: string, reply: Answered, turns: readonly Turn[], grows: Growing): Promise<void> {
  const began = performance.now();
  const came: Came = { text: "", finish: null, usage: null, trouble: null, body: [], found: null };
  const body = utf8(
    JSON.stringify({ messages: history(turns), model: reply.model, stream: true, stream_options: { include_usage: true } }),
  );
  let proof: Proof | null = null;
  let state: Answered["state"] = "whole";
  try {
    const sent = await send(body, grows, came);
    await take(sent, came, grows);
    if (came.trouble !== null) state = "failed";
    grows.examining.value = true;
    proof = await examine(sent, came.found as Found);
  } catch (error) {
    state = grows.abort.signal.aborted ? "stopped" : "failed";
    proof = state === "stopped" ? await openProof(came.found, STOPPED) : await blame(error, came, body);
  }
  const { text, finish, usage } = came;
  const seconds = (performance.now() - began) / 1000;
  changeAnswer(id, reply.id, (turn) => ({ ...turn, text, finish, usage, trouble: came.trouble, state, seconds, proof }));
  announced.value =
    state === "stopped"
      ? "Stopped"
      : came.trouble
        ? `The answer failed: ${came.trouble.message}`
        : `The answer is complete. Shield: ${shieldName(proof?.shield ?? "open", proof?.label)}`;
}

/** A new credential each time, where none is asked for: two questions are not known for one person's. */
function credential(): string {
  return apiKey.value || `anon-${freshId()}`;
}

async function send(body: Bytes, grows: Growing, came: Came): Promise<Answer> {
  const request = {
    path: PATH,
    body,
    accept: "text/event-stream",
    credential: credential(),
    signal: grows.abort.signal,
  };
  const room = await usable();
  came.found = room.found;
  try {
    return await room.room.send(request);
  } catch (error) {
    if (!(error instanceof StrongroomError) || !["ehbp.key_config_mismatch", "ehbp.wrong_keyset"].includes(error.code))
      throw error;
    await open(); // its keys may have changed, as they do when a model is swapped: verified anew, or refused
    const again = await usable();
    came.found = again.found;
    return again.room.send(request);
  }
}

/** The room, verified anew where its time is up. */
async function usable(): Promise<Extract<Standing, { at: "open" }>> {
  const before = standing.value;
  if (before.at === "open" && world.now() >= before.room.until - 5) await open();
  const now = standing.value;
  if (now.at === "open") return now;
  throw new NotOpen("the room is not verified");
}

class NotOpen extends Error {}

async function take(sent: Answer, came: Came, grows: Growing): Promise<void> {
  const streamed = sent.contentType?.startsWith("text/event-stream") ?? false;
  const events = new Events();
  let frame = 0;
  const paint = () => {
    frame = 0;
    grows.text.value = came.text;
  };
  try {
    for await (const piece of sent.body) {
      came.body.push(piece);
      if (!streamed) continue;
      for (const one of events.push(piece)) add(came, one);
      frame ||= requestAnimationFrame(paint);
    }
  } finally {
    cancelAnimationFrame(frame);
    paint();
  }
  if (streamed) {
    if (!events.ended && came.trouble === null)
      came.trouble = { code: "engine.failed", message: "The answer ended in the middle.", hint: "Ask again." };
    return;
  }
  const whole: unknown = JSON.parse(await new Blob(came.body).text());
  if (sent.status >= 400 || refused(whole) !== null)
    came.trouble = refused(whole) ?? { code: "", message: `The room answered with status ${sent.status}.`, hint: "" };
  else add(came, delta(whole));
}

function add(came: Came, one: Delta): void {
  came.text += one.text;
  came.finish = one.finish ?? came.finish;
  came.usage = one.usage ?? came.usage;
  came.trouble = one.error ?? came.trouble;
}

async function examine(sent: Answer, found: Found): Promise<Proof> {
  const receipt = await sent.receipt();
  const colour = shield(found, receipt);
  const proof = await answerProof(found, colour, sent, receipt);
  if (colour === "red") refuse(proof, receipt.problem?.code ?? "inference.not_verified", proof.line, "");
  return proof;
}

const STOPPED = "stopped before its end, so its receipt was not examined";

/** Failures that say nothing against the room: it is busy, out of reach, asks for a key, or refused the question. */
const HARMLESS = /^(?:app|engine|request)\.|^ehbp\.(?:refused_in_the_open|seen_keys_full)$/;

async function blame(error: unknown, came: Came, body: Bytes): Promise<Proof | null> {
  const now = standing.value;
  const wrong = error instanceof NotOpen && "trouble" in now ? now.trouble : asTrouble(error);
  came.trouble = { code: wrong.code, message: wrong.line, hint: wrong.todo };
  if (!(error instanceof StrongroomError) || HARMLESS.test(error.code)) {
    return came.body.length ? openProof(came.found, "its receipt could not be fetched, so nothing was examined") : null;
  }
  const proof = await failedProof(came.found, wrong, body, came.body);
  refuse(proof, wrong.code, wrong.line, wrong.todo);
  return proof;
}

/** From here on nothing is sent, until the room was verified anew. */
function refuse(proof: Proof, code: string, line: string, todo: string): void {
  standing.value = { at: "refused", trouble: trouble(code, line, todo), proof };
}
