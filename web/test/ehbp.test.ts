import { describe, expect, test } from "vitest";
import { concat, hex } from "../src/verify/bytes.ts";
import { FrameReader, keyOfConfig, type Opens, ResponseKey, responseNonce, Sender } from "../src/verify/ehbp.ts";
import { ClientExchange, parseRequestHead, type RecordReader, Writer } from "../src/verify/sealed.ts";
import { encode } from "../src/verify/wire.ts";
import { EnclaveExchange, Recipient } from "./enclave.ts";
import { type Case, cases, expectOutcome, fromHex } from "./vectors.ts";

const LIMIT = 1 << 20;

/** What `fetch` makes of several values of one header. */
function header(values: readonly string[]): string | null {
  return values.length === 0 ? null : values.join(", ");
}

async function frames(opener: Opens, body: string, limits: ConstructorParameters<typeof FrameReader>[1]): Promise<string> {
  const reader = new FrameReader(opener, limits);
  let found = "";
  reader.feed(fromHex(body));
  for (let frame = await reader.next(); frame !== null; frame = await reader.next()) found += hex(frame);
  reader.end();
  return found;
}

/** A body, cut into pieces of each of these sizes: what comes out depends on the bytes alone. */
async function records(make: () => Promise<RecordReader>, body: string): Promise<string> {
  let found = "";
  for (const size of [Number.POSITIVE_INFINITY, 97]) {
    const reader = await make();
    const data = fromHex(body);
    let said = "";
    for (let at = 0; at < data.length; at += size) said += hex(await reader.feed(data.slice(at, at + size)));
    reader.end();
    if (size !== Number.POSITIVE_INFINITY) expect(said).toBe(found);
    found = said;
  }
  return found;
}

const headOf = (value: Case["head"]) => parseRequestHead(encode(value));

const OPERATIONS: Readonly<Record<string, (one: Case) => unknown>> = {
  "key config": (one) => expect(hex(keyOfConfig(fromHex(one.config)))).toBe(one.public_key),

  request: async (one) => {
    const limits = { maxBytes: one.max_bytes, maxEmpty: one.max_empty, maxFrame: one.max_frame };
    const recipient = await Recipient.of(fromHex(one.private_key), one.headers);
    const found = await frames(recipient, one.body, limits);
    await recipient.respond(new Uint8Array(32));
    expect(found).toBe(one.plaintext);
  },

  "make request": async (one) => {
    const sender = await Sender.to(fromHex(one.public_key), fromHex(one.seed));
    expect([hex(sender.encapsulatedKey)]).toEqual(one.headers);
    let body = "";
    for (const piece of one.pieces) body += hex(await sender.seal(fromHex(piece)));
    expect(body).toBe(one.body);
  },

  response: async (one) => {
    const nonce = responseNonce(header(one.nonces));
    const key = await ResponseKey.derive(fromHex(one.exported_secret), fromHex(one.encapsulated_key), nonce);
    expect(await frames(key, one.body, { maxBytes: LIMIT })).toBe(one.plaintext);
  },

  "sealed request": async (one) => {
    const make = async () => {
      const seen = new Set<string>(one.seen);
      const { keyset, contract, seen_capacity: capacity } = one;
      const serves = { privateKey: fromHex(one.private_key), keyset, contract, seen, capacity };
      return await EnclaveExchange.of(serves, one.headers, [one.method, one.path], one.max_body);
    };
    expect(await records(make, one.body)).toBe(one.plaintext);
  },

  "make sealed request": async (one) => {
    const exchange = await ClientExchange.to(fromHex(one.public_key), headOf(one.head), fromHex(one.seed), one.buckets);
    expect([exchange.headers["Ehbp-Encapsulated-Key"]]).toEqual(one.headers);
    expect(hex(await exchange.request.last(fromHex(one.plaintext)))).toBe(one.body);
  },

  "sealed response": async (one) => {
    const make = async () => {
      const exchange = await ClientExchange.to(fromHex(one.public_key), headOf(one.request), fromHex(one.seed), []);
      return await exchange.response(header(one.nonces), one.status, one.max_body);
    };
    expect(await records(make, one.body)).toBe(one.plaintext);
  },

  "make sealed response": async (one) => {
    const recipientKey = "922da984cb1c2d35b530e0d19db0ae0d1e9d9205fb5a0610dfc7a751bf64603c"; // of `private_key`
    const sender = await Sender.to(fromHex(recipientKey), fromHex(one.request_seed));
    const recipient = await Recipient.of(fromHex(one.private_key), [hex(sender.encapsulatedKey)]);
    await recipient.open((await sender.seal(fromHex("61"))).slice(4));
    const writer = new Writer(await recipient.respond(fromHex(one.nonce)), encode(one.head), one.buckets);
    const made = [];
    for (const piece of one.pieces) made.push(await writer.write(fromHex(piece)));
    expect(hex(concat(...made, await writer.last()))).toBe(one.body);
  },
};

describe("vectors/ehbp", () => {
  test.each(cases("ehbp"))("$name", async (one) => {
    expect(Object.keys(OPERATIONS)).toContain(one.operation);
    await expectOutcome(one, () => OPERATIONS[one.operation]?.(one));
  });
});
