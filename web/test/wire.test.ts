import { describe, expect, test } from "vitest";
import { hex, unb64 } from "../src/verify/bytes.ts";
import { loads } from "../src/verify/json.ts";
import { Party, requireEncryptionKey, VerifyKey } from "../src/verify/party.ts";
import { decode, Envelope, encode, pae } from "../src/verify/wire.ts";
import { type Case, cases, expectOutcome, fromB64, fromHex, fromText, outcome } from "./vectors.ts";

const WIRE: Readonly<Record<string, (one: Case) => unknown>> = {
  decode: (one) => encode(decode(fromB64(one.data))),
  encode: (one) => {
    const found = encode(one.value);
    expect(new TextDecoder().decode(found)).toBe(one.canonical);
  },
  base64: (one) => unb64(one.text),
  pae: (one) => expect(hex(pae(one.payload_type, fromHex(one.payload)))).toBe(one.encoded),
  envelope: (one) => Envelope.parse(fromText(one.envelope)),
  verify: async (one) => {
    const key = new VerifyKey(fromHex(one.key));
    await key.verify(Envelope.parse(fromText(one.envelope)), one.payload_type);
  },
};

const PARTY: Readonly<Record<string, (one: Case) => unknown>> = {
  "verify key": (one) => new VerifyKey(fromHex(one.key)),
  signature: async (one) => {
    await new VerifyKey(fromHex(one.key)).verifyBytes(fromHex(one.signature), fromHex(one.message));
  },
  "encryption public": (one) => requireEncryptionKey(fromB64(one.key)),
  card: async (one) => {
    const party = Party.parse(fromText(one.card));
    expect(await party.fingerprint()).toBe(one.fingerprint);
  },
};
const NOT_HERE = new Set(["encryption key", "decrypt"]); // of private keys: the page has none

describe("vectors/wire", () => {
  test.each(cases("wire"))("$name", async (one) => {
    await expectOutcome(one, () => WIRE[one.operation]?.(one) ?? Promise.resolve());
    expect(Object.keys(WIRE)).toContain(one.operation);
  });
});

describe("vectors/party", () => {
  test.each(cases("party").filter((one) => !NOT_HERE.has(one.operation)))("$name", async (one) => {
    expect(Object.keys(PARTY)).toContain(one.operation);
    await expectOutcome(one, () => PARTY[one.operation]?.(one));
  });
});

describe("foreign JSON", () => {
  test.each([
    ['{"a":1,"a":2}', "wire.not_json"],
    ['{"a":{"b":1,"b":1}}', "wire.not_json"],
    ["[1,]", "wire.not_json"],
    ["[1] x", "wire.not_json"],
    ["{1:2}", "wire.not_json"],
    ["01", "wire.not_json"],
    ["NaN", "wire.not_json"],
    ["1e999", "wire.not_json"],
    ['"\u0001"', "wire.not_json"],
    [`${"[".repeat(600)}${"]".repeat(600)}`, "wire.not_json"],
    ["9".repeat(41), "wire.not_json"],
    [`[${",".repeat(40_000)}]`, "wire.too_large"],
    [' { "a" : [ 1 , 2.5 , -3e2 , null , true , "\\u00e9" ] } ', "ok"],
  ])("%s", async (said, code) => {
    expect(await outcome(() => loads(fromText(said)))).toBe(code);
  });

  test("an integer is kept as it stands, and a fraction is none", () => {
    const found = loads(fromText('{"big":18446744073709551616,"whole":1.0,"one":1}')) as ReadonlyMap<string, unknown>;
    expect(found.get("big")).toBe(18446744073709551616n);
    expect(typeof found.get("whole")).toBe("object");
    expect(found.get("one")).toBe(1);
  });

  test("a member called __proto__ is a member like any other", () => {
    const found = loads(fromText('{"__proto__":{"trusted":true}}')) as ReadonlyMap<string, unknown>;
    expect([...found.keys()]).toEqual(["__proto__"]);
    expect((found as unknown as { trusted?: unknown }).trusted).toBeUndefined();
  });
});
