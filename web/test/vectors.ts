/** The project's test vectors, as any language reads them: one file a case, the expected outcome in the file. */

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { expect } from "vitest";
import { type Bytes, unb64, unhex } from "../src/verify/bytes.ts";
import { isOurs } from "../src/verify/errors.ts";

const HOME = new URL("../../vectors/", import.meta.url);

export type Case = {
  readonly name: string;
  readonly description: string;
  readonly expect: string;
  // biome-ignore lint/suspicious/noExplicitAny: a case is whatever its file says
  readonly [input: string]: any;
};

/** Every case of a folder; an empty folder is a failure, not a success. */
export function cases(folder: string): readonly Case[] {
  const files = readdirSync(new URL(`${folder}/`, HOME)).filter((name) => name.endsWith(".json"));
  if (files.length === 0) throw new Error(`there are no vectors in ${folder}`);
  return files.sort().map((file) => ({
    ...JSON.parse(readFileSync(new URL(`${folder}/${file}`, HOME), "utf8")),
    name: file.replace(".json", ""),
  }));
}

/** Vectors that lie beside the project on some machines: real quotes. `null` where they do not. */
export function shared(path: string): URL | null {
  const place = process.env.STRONGROOM_SHARED ?? new URL("../../../shared/", import.meta.url).pathname;
  const found = new URL(`file://${place.replace(/\/?$/, "/")}${path}`);
  return existsSync(found) ? found : null;
}

export function read(place: URL): Bytes {
  return new Uint8Array(readFileSync(place));
}

export const fromHex = (digits: string): Bytes => unhex(digits);
export const fromB64 = (text: string): Bytes => unb64(text);
export const fromText = (text: string): Bytes => new TextEncoder().encode(text) as Bytes;

/** The code that something ends with: `"ok"`, or that of the error. Any other error is a fault of ours. */
export async function outcome(work: () => unknown): Promise<string> {
  try {
    await work();
    return "ok";
  } catch (error) {
    if (!isOurs(error)) throw error;
    return error.code;
  }
}

export async function expectOutcome(one: Case, work: () => unknown): Promise<void> {
  expect(await outcome(work), one.description).toBe(one.expect);
}
