/**
 * A page and a service, as Python's client and service spoke (`exchanges.json`): the same bytes go out, the same are
 * believed, and whoever stands between gets nowhere.
 */

import { readFileSync } from "node:fs";
import { describe, expect, test, vi } from "vitest";
import { b64, concat, equal, hex, text, utf8 } from "../src/verify/bytes.ts";
import { digest } from "../src/verify/crypto.ts";
import {
  type Answer,
  type Bytes,
  type Found,
  Pins,
  type Request,
  Room,
  StrongroomError,
  shield,
} from "../src/verify/index.ts";
import { PYTHON, type Recorded, recorded } from "./python.ts";
import { fromB64, fromHex, outcome } from "./vectors.ts";

interface Reply {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly pieces: readonly string[];
}

interface Exchange {
  readonly trust: string;
  readonly contract: string;
  readonly origin: string;
  readonly at: number;
  readonly random: readonly string[];
  readonly credential: string;
  readonly path: string;
  readonly accept: string | null;
  readonly body: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly sealed: string;
  readonly restored: string;
  readonly replies: Readonly<Record<string, Reply>>;
  readonly until: number;
  readonly session: Recorded;
  readonly appraisal: Recorded;
  readonly receipt: Recorded;
  readonly kept: string;
}

const EXCHANGES: Readonly<Record<string, Exchange>> = JSON.parse(
  readFileSync(new URL("exchanges.json", import.meta.url), "utf8"),
);
const STREAMED = exchange("streamed");
const REFUSED = exchange("refused");
const REPORT = "/v1/aci/attestation";
const KEYS = "/.well-known/hpke-keys";
const ROOM = "/v1/room";
const RECEIPT = "/v1/aci/receipts/";

function exchange(name: string): Exchange {
  const found = EXCHANGES[name];
  if (found === undefined) throw new Error(`${name} is not in exchanges.json: python vectors/make_web.py`);
  return found;
}

/** Changes one of the service's answers, as somebody on the way could. */
type Tamper = (reply: Reply, path: string) => Reply;

interface Sent {
  readonly path: string;
  readonly headers: Headers;
  readonly body: Bytes;
}

interface Stage {
  readonly world: { fetch: typeof fetch; now: () => number; random: (bytes: number) => Bytes };
  readonly sent: Sent[];
}

/** The service of an exchange, its time, and the page's "random" bytes. */
function stage(one: Exchange, tamper: Tamper = (reply) => reply, at = one.at): Stage {
  const sent: Sent[] = [];
  const random = [...one.random];
  const answer: typeof fetch = async (input, init) => {
    const url = String(input);
    expect(url.startsWith(one.origin)).toBe(true);
    expect(init?.credentials).toBe("omit");
    expect(init?.redirect).toBe("error");
    const path = url.slice(one.origin.length);
    const body = init?.body === undefined ? new Uint8Array() : (init.body as Bytes);
    sent.push({ path, headers: new Headers(init?.headers), body });
    const reply = one.replies[path];
    if (reply === undefined) throw new TypeError("no such host");
    const { status, headers, pieces } = tamper(reply, path);
    const stream = new ReadableStream({
      start(controller) {
        for (const piece of pieces) controller.enqueue(fromB64(piece));
        controller.close();
      },
    });
    return await Promise.resolve(new Response(stream, { status, headers }));
  };
  const world = {
    fetch: answer,
    now: () => at,
    random: (bytes: number) => {
      const found = fromHex(random.shift() ?? "");
      expect(found.length).toBe(bytes);
      return found;
    },
  };
  return { world, sent };
}

async function verify(one: Exchange, { world }: Stage, contract: string | null = one.contract): Promise<Found> {
  return await Room.verify({ origin: one.origin, pins: await Pins.parse(one.trust, contract), world });
}

function request(one: Exchange): Request {
  const accept = one.accept === null ? {} : { accept: one.accept };
  return { path: one.path, body: fromB64(one.body), credential: one.credential, ...accept };
}

async function send(one: Exchange, on: Stage): Promise<{ found: Found; answer: Answer }> {
  const found = await verify(one, on);
  if (found.room === null) throw found.error ?? new Error("there is no room");
  return { found, answer: await found.room.send(request(one)) };
}

async function read(answer: Answer): Promise<Bytes> {
  const pieces: Bytes[] = [];
  for await (const piece of answer.body) pieces.push(piece);
  return concat(...pieces);
}

/** A tamper of the answer at one path. */
function at(path: string, change: (reply: Reply) => Reply): Tamper {
  return (reply, where) => (where.startsWith(path) ? change(reply) : reply);
}

/** A tamper of a JSON answer; what comes out is canonical where what went in was, since members keep their order. */
// biome-ignore lint/suspicious/noExplicitAny: a forged document is whatever its test makes of it
function edit(path: string, change: (document: any) => void): Tamper {
  return at(path, (reply) => {
    const document = JSON.parse(text(body(reply)));
    change(document);
    return { ...reply, pieces: [b64(utf8(JSON.stringify(document)))] };
  });
}

const body = (reply: Reply) => concat(...reply.pieces.map(fromB64));
const status = (path: string, code: number, said = "") =>
  at(path, () => ({ status: code, headers: {}, pieces: [b64(utf8(said))] }));

describe.each(Object.keys(EXCHANGES))("%s, as Python's client makes and believes it", (name) => {
  const one = exchange(name);

  test("every check, byte and file", async () => {
    const on = stage(one);
    const { found, answer } = await send(one, on);
    expect(recorded(found.checks)).toEqual(one.session);
    expect(found.result && recorded(found.result.checks)).toEqual(one.appraisal);
    expect(found.room?.until).toBe(one.until);
    expect(found.facts?.pinned).toBe(true);
    expect(found.facts?.contract).toBe(one.contract);

    const asked = on.sent.find((each) => each.path === one.path);
    expect(asked && equal(asked.body, fromB64(one.sealed))).toBe(true);
    for (const [header, value] of Object.entries(one.headers)) expect(asked?.headers.get(header)).toBe(value);

    expect(await read(answer)).toEqual(fromB64(one.restored));
    const receipt = await answer.receipt();
    expect(recorded(receipt.checks)).toEqual(one.receipt);
    expect(receipt.ok).toBe(true);
    expect(shield(found, receipt)).toBe("amber"); // simulated: verified, and protected from nobody who owns the machine
    const kept = answer.kept();
    expect(kept && (await digest(kept))).toBe(one.kept);
  });
});

describe("before anything is sent", () => {
  const refused: readonly (readonly [attack: string, check: string, code: string, tamper: Tamper])[] = [
    ["no report", "E1", "app.not_found", status(REPORT, 404)],
    ["a login page instead of a report", "E1", "attest.bad_evidence", status(REPORT, 200, "<html>")],
    ["a report of another keyset than its header names", "E1", "ehbp.wrong_keyset", at(REPORT, otherKeysetHeader)],
    ["a debugged enclave's report, edited", "E2", "attest.not_affirming", edit(REPORT, edited)],
    ["no room", "E3", "app.internal", status(ROOM, 500)],
    ["another contract", "E3", "inference.other_contract", edit(ROOM, otherContract)],
    ["a contract without an approval", "E3", "contract.signature_missing", edit(ROOM, (of) => of.contract.signatures.pop())],
    ["an approval twice", "E3", "contract.signature_doubled", edit(ROOM, (of) => doubled(of.contract.signatures))],
    ["an approval of other bytes", "E3", "contract.signature_invalid", edit(ROOM, (of) => forged(of.contract.signatures))],
    ["an approval by a stranger", "E3", "contract.signature_from_stranger", edit(ROOM, strange)],
    ["no well-known key", "E7", "app.not_found", status(KEYS, 404)],
    ["another well-known key", "E7", "ehbp.wrong_keyset", at(KEYS, otherKey)],
    ["a well-known key for another suite", "E7", "ehbp.unsupported_suite", at(KEYS, otherSuite)],
    ["a manifest that is not shown", "E8", "inference.other_weights", edit(ROOM, (of) => of.manifests.pop())],
    [
      "a manifest that its owner did not sign",
      "E8",
      "wire.bad_signature",
      edit(ROOM, (of) => forged(of.manifests[0].signatures)),
    ],
    ["a guard left out", "E8", "inference.other_policy", edit(ROOM, (of) => of.guards.pop())],
  ];

  test.each(refused)("%s: %s", async (_attack, number, code, tamper) => {
    const on = stage(STREAMED, tamper);
    const found = await verify(STREAMED, on);
    const bad = found.checks.find((check) => check.status !== "passed");
    expect([bad?.number, bad?.status, bad?.code]).toEqual([number, "failed", code]);
    expect(found.room).toBeNull();
    expect(found.error?.code).toBe(code);
    expect(shield(found, null)).toBe("red");
    expect(on.sent.map((each) => each.path)).not.toContain(STREAMED.path);
  });

  test("a replayed report is for another nonce", async () => {
    const found = await verify(STREAMED, replayed());
    expect(found.result?.problem?.number).toBe("A6");
    expect(found.result?.problem?.code).toBe("attest.not_bound");
  });

  test("a contract that is over", async () => {
    const found = await verify(STREAMED, stage(STREAMED, undefined, STREAMED.until + 40 * 86_400));
    expect(found.room).toBeNull();
    expect(shield(found, null)).toBe("red");
  });

  test("a root that is not pinned", async () => {
    const trust = JSON.parse(STREAMED.trust);
    trust.roots = [];
    const pins = await Pins.parse(JSON.stringify(trust), STREAMED.contract);
    const found = await Room.verify({ origin: STREAMED.origin, pins, world: stage(STREAMED).world });
    expect(found.result?.problem?.code).toBe("attest.platform_not_accepted");
    expect(found.room).toBeNull();
  });

  test("a browser without the algorithms says so, and asks nothing", async () => {
    const without = vi.spyOn(crypto.subtle, "generateKey").mockRejectedValue(new DOMException("", "NotSupportedError"));
    const on = stage(STREAMED);
    const found = await verify(STREAMED, on);
    without.mockRestore();
    expect(found.error?.message).toContain("this browser lacks Ed25519");
    expect([found.room, shield(found, null), on.sent]).toEqual([null, "red", []]);
  });

  test("a service out of reach", async () => {
    const found = await verify({ ...STREAMED, replies: {} }, stage({ ...STREAMED, replies: {} }));
    expect(found.error?.code).toBe("app.unreachable");
    expect(shield(found, null)).toBe("red");
  });

  test("where no contract is pinned, the room is looked at and nothing is sent", async () => {
    const on = stage(STREAMED);
    const found = await verify(STREAMED, on, null);
    const check = found.checks.find(({ number }) => number === "E3");
    expect([check?.status, check?.code]).toEqual(["not established", "inference.other_contract"]);
    expect(found.facts?.contract).toBe(STREAMED.contract);
    expect(found.facts?.pinned).toBe(false);
    expect(await outcome(() => found.room?.send(request(STREAMED)))).toBe("inference.other_contract");
    expect(on.sent.map((each) => each.path)).not.toContain(STREAMED.path);
  });

  test("weights that the user was told of, and that are others", async () => {
    const pinned = async (weights: string) => {
      const pins = await Pins.parse(STREAMED.trust, STREAMED.contract, { "example/small": weights });
      return await Room.verify({ origin: STREAMED.origin, pins, world: stage(STREAMED).world });
    };
    const shown =
      STREAMED.session
        .find(([number]) => number === "E8")?.[3]
        .split(" ")
        .at(-1) ?? "";
    expect((await pinned(shown)).error).toBeNull();
    const found = await pinned(`sha256:${"0".repeat(64)}`);
    expect([found.room, found.error?.code]).toEqual([null, "inference.other_weights"]);
    expect(await outcome(() => pinned("sha256:0"))).toBe("wire.bad_field");
    expect(await outcome(() => Pins.parse(STREAMED.trust, "sha256:0"))).toBe("wire.bad_field");
  });

  test("after its time a room sends nothing", async () => {
    const on = stage(STREAMED);
    const found = await verify(STREAMED, on);
    on.world.now = () => STREAMED.until + 1;
    expect(await outcome(() => found.room?.send(request(STREAMED)))).toBe("attest.not_fresh");
  });
});

describe("an answer on its way", () => {
  const path = STREAMED.path;
  const header = (name: string, value: string) =>
    at(path, (one) => ({ ...one, headers: { ...one.headers, [name]: value } }));
  const pieces = (change: (all: string[]) => string[]) => at(path, (one) => ({ ...one, pieces: change([...one.pieces]) }));

  const broken: readonly (readonly [attack: string, code: string, tamper: Tamper])[] = [
    ["in the open", "ehbp.bad_response_nonce", status(path, 200, "{}")],
    ["under another nonce", "ehbp.frame_altered", header("Ehbp-Response-Nonce", "00".repeat(32))],
    ["under no usable nonce", "ehbp.bad_response_nonce", header("Ehbp-Response-Nonce", "zz")],
    ["with another status", "ehbp.wrong_status", at(path, (one) => ({ ...one, status: 201 }))],
    ["with a piece altered", "ehbp.frame_altered", pieces((all) => all.map(flipped))],
    ["with its pieces in another order", "ehbp.frame_altered", pieces((all) => all.toReversed())],
    ["with a piece twice", "ehbp.frame_altered", pieces(([first = "", ...rest]) => [first, first, ...rest])],
    ["with a piece left out", "ehbp.frame_altered", pieces(([first = "", _, ...rest]) => [first, ...rest])],
    ["cut at a frame", "ehbp.not_ended", pieces((all) => all.slice(0, -1))],
    [
      "cut inside a frame",
      "ehbp.truncated",
      pieces((all) => [...all.slice(0, -1), b64(fromB64(all.at(-1) ?? "").slice(0, -3))]),
    ],
    ["with bytes after its end", "ehbp.after_end", pieces((all) => [...all, b64(new Uint8Array([0, 0, 0, 0]))])],
    ["that never begins", "ehbp.not_ended", pieces(() => [])],
    ["refused in the open", "ehbp.refused_in_the_open", status(path, 503, '{"error":{"code":"engine.busy"}}')],
    ["of a service that lost its keys", "ehbp.key_config_mismatch", at(path, keyProblem)],
    ["of a service with another keyset", "ehbp.wrong_keyset", status(path, 400, '{"error":{"code":"ehbp.wrong_keyset"}}')],
  ];

  test.each(broken)("%s: %s", async (_attack, code, tamper) => {
    expect(
      await outcome(async () => {
        const { answer } = await send(STREAMED, stage(STREAMED, tamper));
        await read(answer);
      }),
    ).toBe(code);
  });

  test("to another request", async () => {
    const [nonce = ""] = STREAMED.random;
    const other = { ...STREAMED, random: [nonce, "dd".repeat(16), "ee".repeat(32)] };
    expect(await outcome(() => send(other, stage(other)))).toBe("ehbp.frame_altered");
  });

  test("what was not whole has no receipt", async () => {
    const { answer } = await send(
      STREAMED,
      stage(
        STREAMED,
        pieces((all) => all.slice(0, -1)),
      ),
    );
    await expect(read(answer)).rejects.toThrow(StrongroomError);
    expect(await outcome(() => answer.receipt())).toBe("ehbp.not_ended");
    expect(answer.kept()).toBeNull();
  });

  test("a piece is authentic before the next one came", async () => {
    const { answer } = await send(STREAMED, stage(STREAMED));
    const [first] = [await answer.body[Symbol.asyncIterator]().next()];
    expect(text(first?.value ?? new Uint8Array())).toContain("Cells");
  });
});

describe("a receipt", () => {
  const bad: readonly (readonly [attack: string, check: string, code: string, tamper: Tamper])[] = [
    ["that is none", "I1", "wire.not_json", status(RECEIPT, 200, "no")],
    ["altered", "I4", "wire.bad_signature", edit(RECEIPT, later)],
    ["of another request", "I7", "inference.other_request", at(RECEIPT, () => reply(REFUSED, RECEIPT))],
    ["of another enclave's keyset", "I2", "inference.other_keyset", edit(RECEIPT, otherKeyset)],
    ["by a key of another role", "I3", "attest.bad_keyset", edit(RECEIPT, byRunKey)],
  ];

  test.each(bad)("%s: %s", async (_attack, number, code, tamper) => {
    const { found, answer } = await send(STREAMED, stage(STREAMED, tamper));
    await read(answer);
    const receipt = await answer.receipt();
    expect([receipt.problem?.number, receipt.problem?.code]).toEqual([number, code]);
    expect(receipt.ok).toBe(false);
    expect(receipt.usage).toBeNull();
    expect(shield(found, receipt)).toBe("red");
  });

  test("that is not handed out", async () => {
    const { answer } = await send(STREAMED, stage(STREAMED, status(RECEIPT, 404)));
    await read(answer);
    expect(await outcome(() => answer.receipt())).toBe("inference.no_receipt");
  });

  test("is asked for with the credential of its request alone", async () => {
    const on = stage(STREAMED);
    const { answer } = await send(STREAMED, on);
    await read(answer);
    await answer.receipt();
    const shown = on.sent.filter((each) => each.headers.get("Authorization") !== null).map((each) => each.path);
    expect(shown).toEqual([STREAMED.path, `${RECEIPT}${answer.receiptId}`]);
  });
});

test("no prompt leaves in the clear", async () => {
  const on = stage(STREAMED);
  await send(STREAMED, on);
  for (const { body: went, path } of on.sent) {
    expect(hex(went)).not.toContain(hex(utf8("What do cells do?")));
    expect(path).not.toContain("cells");
  }
});

test("errors say what Python's say, with its hints", () => {
  for (const [code, hint] of Object.entries(PYTHON.hints)) expect(new StrongroomError(code as never, "").hint).toBe(hint);
  expect(Object.keys(PYTHON.hints).length).toBeGreaterThan(50);
});

// --- forgeries --------------------------------------------------------------------------------------------------------

function reply(one: Exchange, path: string): Reply {
  const found = Object.entries(one.replies).find(([where]) => where.startsWith(path));
  if (!found) throw new Error(`nothing was answered at ${path}`);
  return found[1];
}

/** The page asks with another nonce, and is answered the report of the old one. */
function replayed(): Stage {
  const fresh = "bb".repeat(32);
  const replies = { ...STREAMED.replies, [`${REPORT}?nonce=${fresh}`]: reply(STREAMED, REPORT) };
  return stage({ ...STREAMED, random: [fresh], replies });
}

function otherKeysetHeader(one: Reply): Reply {
  return { ...one, headers: { ...one.headers, "x-aci-keyset-digest": `sha256:${"0".repeat(64)}` } };
}

function otherKey(one: Reply): Reply {
  const config = body(one);
  config[10] = (config[10] ?? 0) ^ 1;
  return { ...one, pieces: [b64(config)] };
}

function otherSuite(one: Reply): Reply {
  const config = body(one);
  config[config.length - 1] = 3;
  return { ...one, pieces: [b64(config)] };
}

function keyProblem(): Reply {
  const problem = { title: "key configuration mismatch", type: "urn:ietf:params:ehbp:error:key-config" };
  const headers = { "Content-Type": "application/problem+json" };
  return { status: 422, headers, pieces: [b64(utf8(JSON.stringify(problem)))] };
}

function flipped(piece: string): string {
  const found = fromB64(piece);
  const last = found.length - 1;
  found[last] = (found[last] ?? 0) ^ 1;
  return b64(found);
}

interface Signed {
  keyid: string;
  sig: string;
}

function forged(signatures: Signed[]): void {
  for (const one of signatures) one.sig = flipped(one.sig);
}

function doubled(signatures: Signed[]): void {
  const [first] = signatures;
  if (first) signatures.unshift({ ...first });
}

function strange(of: { contract: { signatures: Signed[] } }): void {
  const [first] = of.contract.signatures;
  if (first) first.keyid = `sha256:${"0".repeat(64)}`;
}

function otherContract(of: { contract: { payload: string } }): void {
  const proposal = JSON.parse(text(fromB64(of.contract.payload)));
  proposal.title = "A larger model, served";
  of.contract.payload = b64(utf8(JSON.stringify(proposal)));
}

function later(of: { served_at: number }): void {
  of.served_at += 1;
}

function byRunKey(of: { key_id: string }): void {
  of.key_id = "runs";
}

function otherKeyset(of: { workload_keyset_digest: string }): void {
  of.workload_keyset_digest = `sha256:${"0".repeat(64)}`;
}

/** The evidence says something else than what was signed. */
function edited(of: { attestation: { evidence: { data: string } } }): void {
  const envelope = JSON.parse(text(fromB64(of.attestation.evidence.data)));
  const quote = JSON.parse(text(fromB64(envelope.payload)));
  quote.produced_at += 1;
  envelope.payload = b64(utf8(JSON.stringify(quote)));
  of.attestation.evidence.data = b64(utf8(JSON.stringify(envelope)));
}
