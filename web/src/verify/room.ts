/**
 * A room that this page verified, and what is asked in it: attestation of the page's own nonce, sealed requests and answers,
 * and receipts over the bytes that this page sent and received.
 */

import { Answer, inTheOpen, type Request } from "./answer.ts";
import type { AttestationResult } from "./appraise.ts";
import { type Bytes, hex } from "./bytes.ts";
import { verifyContract } from "./contract.ts";
import { digest, lacking } from "./crypto.ts";
import { KEYS_PATH, RESPONSE_NONCE_HEADER } from "./ehbp.ts";
import { isOurs, StrongroomError } from "./errors.ts";
import { MAX_ANSWER_BYTES, modelOf } from "./heard.ts";
import { ask, readWhole, type World } from "./http.ts";
import type { Asked, Verification } from "./reading.ts";
import type { Observability } from "./receipt.ts";
import { ClientExchange } from "./sealed.ts";
import { establish, modelsOf, type Reply, readShown, type Session, type Terms } from "./session.ts";
import type { Check } from "./transcript.ts";
import { Trust } from "./trust.ts";
import { Fields } from "./wire.ts";

const ATTESTATION_PATH = "/v1/aci/attestation";
const ROOM_PATH = "/v1/room";
const KEYSET_HEADER = "X-ACI-Keyset-Digest";
const MAX_REPLY_BYTES = 4 << 20;
const MAX_REFUSAL_BYTES = 64 << 10;

/** What the user pinned: the trust file, and the one contract that this page talks under. Kept by the page as its text. */
export class Pins {
  readonly terms: Terms;

  private constructor(terms: Terms) {
    this.terms = terms;
  }

  /**
   * Read a trust file (`strongroom.trust.v1`). Throws StrongroomError.
   *
   * `contract`: a digest, or null where none is pinned yet. `weights`: name of a model to the digest of its weights; needed of
   * those alone whose owner does not show it.
   */
  static async parse(trust: string, contract: string | null, weights: Readonly<Record<string, string>> = {}): Promise<Pins> {
    for (const digest of [...(contract === null ? [] : [contract]), ...Object.values(weights)]) {
      new Fields({ digest }, "terms").digest("digest");
    }
    const read = await Trust.parse(new TextEncoder().encode(trust) as Bytes);
    return new Pins({ trust: read, contract, weights: new Map(Object.entries(weights)) });
  }

  get contract(): string | null {
    return this.terms.contract;
  }

  /** For people: names of parties, roots and measurements, one line each. */
  async describe(): Promise<readonly string[]> {
    return await this.terms.trust.describe();
  }
}

/** What a room shows of itself: believed only as far as a pinned contract's digest goes. */
export interface RoomFacts {
  readonly raw: Bytes; // for the download
  readonly contract: string; // the digest of the contract's payload, computed here
  readonly pinned: boolean; // it is the pinned contract, signed by all of its parties, and everything about it was checked
  readonly problem: StrongroomError | null; // why it is not
  readonly title: string;
  readonly models: readonly { readonly name: string; readonly role: string }[];
  readonly routes: readonly string[];
  readonly observability: Observability; // show it before the first message
  readonly retentionSeconds: number;
  readonly padding: number;
  readonly inputGuards: readonly string[];
  readonly outputGuards: readonly string[];
  readonly parties: readonly string[];
  readonly notAfter: number;
}

/** What the verification of a service found. */
export interface Found {
  readonly result: AttestationResult | null; // null: no report could be read
  readonly checks: readonly Check[]; // E1 to E8, of which A1 to A15 (`result.checks`) are E2
  readonly report: Bytes | null; // the raw report, for the download
  readonly nonce: Bytes; // this page's own
  readonly room: Room | null; // only where every check passed; without a pinned contract, one that sends nothing
  readonly facts: RoomFacts | null;
  readonly error: StrongroomError | null; // why there is no room
}

async function reply(world: World, url: string): Promise<Reply> {
  const response = await ask(world, url, {});
  const body = await readWhole(response, response.ok ? MAX_REPLY_BYTES : MAX_REFUSAL_BYTES);
  return { status: response.status, body, keyset: response.headers.get(KEYSET_HEADER) };
}

/** What the host says of its room, whatever it is worth; `null` where it cannot be read. */
async function readFacts(answer: Reply, session: Session | null, error: StrongroomError | null): Promise<RoomFacts | null> {
  try {
    const shown = readShown(answer);
    const proposal = await verifyContract(shown.contract);
    const { serve } = proposal;
    if (serve === null) return null;
    const isPinned = session?.isPinned ?? false;
    return {
      raw: answer.body,
      contract: await shown.contract.digest(),
      pinned: isPinned,
      problem: isPinned ? null : (error ?? new StrongroomError("inference.other_contract", "no contract is pinned")),
      title: proposal.title,
      models: modelsOf(proposal),
      routes: serve.routes,
      observability: serve.observability,
      retentionSeconds: serve.retentionSeconds,
      padding: serve.padding,
      inputGuards: serve.inputGuards,
      outputGuards: serve.outputGuards,
      parties: proposal.parties.map((party) => party.name),
      notAfter: proposal.notAfter,
    };
  } catch (problem) {
    if (isOurs(problem)) return null;
    throw problem;
  }
}

const MAKER = Symbol("Room.verify");

/** A service as this page established it, for as long as that holds. Made by `Room.verify` alone. */
export class Room {
  readonly facts: RoomFacts | null;
  readonly #session: Session;
  readonly #origin: string;
  readonly #world: World;

  constructor(session: Session, facts: RoomFacts | null, origin: string, world: World, maker: symbol) {
    if (maker !== MAKER) throw new TypeError("only Room.verify() makes a Room");
    this.#session = session;
    this.facts = facts;
    this.#origin = origin;
    this.#world = world;
  }

  /** Ask a service for its attestation with a nonce of this page's own, and establish what it is. Bytes never make it throw. */
  static async verify(options: { readonly origin: string; readonly pins: Pins; readonly world: World }): Promise<Found> {
    const { pins, world } = options;
    const origin = options.origin.replace(/\/$/, "");
    const nonce = world.random(32);
    let replies: [Reply, Reply, Reply];
    try {
      const lack = await lacking();
      if (lack !== null) throw new StrongroomError("app.internal", `this browser lacks ${lack}`);
      const paths = [`${ATTESTATION_PATH}?nonce=${hex(nonce)}`, KEYS_PATH, ROOM_PATH] as const;
      replies = await Promise.all([
        reply(world, origin + paths[0]),
        reply(world, origin + paths[1]),
        reply(world, origin + paths[2]),
      ]);
    } catch (error) {
      if (!isOurs(error)) throw error;
      return { result: null, checks: [], report: null, nonce, room: null, facts: null, error };
    }
    const [report, keys, room] = replies;
    const found = await establish({ terms: pins.terms, nonce, at: world.now(), report, keys, room });
    const facts = await readFacts(room, found.session, found.error);
    return {
      result: found.appraisal,
      checks: found.checks,
      report: report.status === 200 ? report.body : null,
      nonce,
      room: found.session && new Room(found.session, facts, origin, world, MAKER),
      facts,
      error: found.error,
    };
  }

  get result(): AttestationResult {
    return this.#session.appraisal;
  }

  /** The digest of the attested keyset. */
  get keyset(): string {
    return this.#session.keyset.digest;
  }

  /** The last second, unix, at which this room may be used; verify anew then. */
  get until(): number {
    return this.#session.until;
  }

  /**
   * Send one sealed request. Resolves when the answer's sealed head was accepted.
   *
   * Throws `ehbp.key_config_mismatch` and `ehbp.wrong_keyset` where the service has other keys by now: verify it anew, and
   * send again. Throws `ehbp.refused_in_the_open` for a refusal that anybody may have written.
   */
  async send(request: Request): Promise<Answer> {
    const session = this.#session;
    const sentAt = this.#world.now();
    if (!session.isPinned) {
      throw new StrongroomError("inference.other_contract", "no contract is pinned, so that nothing is sent");
    }
    if (sentAt > this.until) {
      throw new StrongroomError("attest.not_fresh", `what was verified held until ${this.until}, before ${sentAt}`);
    }
    const head = {
      method: "POST",
      path: request.path,
      contentType: "application/json",
      accept: request.accept ?? null,
      requestId: this.#world.random(16),
      keyset: session.keyset.digest,
      contract: session.contract,
    };
    const sealed = await ClientExchange.to(session.key, head, this.#world.random(32), session.sizes);
    const response = await ask(this.#world, this.#origin + request.path, {
      method: "POST",
      headers: { ...sealed.headers, Authorization: `Bearer ${request.credential}` },
      body: await sealed.request.last(request.body),
      ...(request.signal ? { signal: request.signal } : {}),
    });
    const nonce = response.headers.get(RESPONSE_NONCE_HEADER);
    if (nonce === null) throw await inTheOpen(response);
    const [endpoint = ""] = request.path.split("?");
    const asked: Asked = {
      method: "POST",
      endpoint,
      model: modelOf(request.body),
      body: await digest(request.body),
      sentAt,
    };
    const reader = await sealed.response(nonce, response.status, MAX_ANSWER_BYTES);
    const answer = new Answer({ session, world: this.#world, origin: this.#origin, request, asked, response, reader });
    await answer.begin();
    return answer;
  }
}

/** Green: hardware, everything verified. Amber: everything verified, but simulated, or tolerated for a time. Red: else. */
export type Shield = "green" | "amber" | "red";

/**
 * The shield of a room, where `receipt` is null, or of an answer. Of a room without a pinned contract it is the colour that it
 * would have with the one it shows: it sends nothing.
 */
export function shield(found: Found, receipt: Verification | null): Shield {
  const { room, result } = found;
  if (room === null || result === null || !result.affirming || (receipt !== null && !receipt.ok)) return "red";
  return result.platform === "simulated" || result.earStatus !== "affirming" ? "amber" : "green";
}
