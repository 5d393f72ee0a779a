/** How this library asks: nothing is cached, no cookie is sent, no redirect followed, and every answer has an end. */

import { type Bytes, concat } from "./bytes.ts";
import { isOurs, StrongroomError } from "./errors.ts";

/** What the outside world is to this library. */
export interface World {
  readonly fetch: typeof fetch;
  readonly now: () => number; // unix seconds
  readonly random: (bytes: number) => Bytes; // secret random bytes
}

const PLAIN: RequestInit = { cache: "no-store", credentials: "omit", redirect: "error", referrerPolicy: "no-referrer" };

export async function ask(world: World, url: string, init: RequestInit): Promise<Response> {
  try {
    return await world.fetch(url, { ...PLAIN, ...init });
  } catch (error) {
    if (error instanceof Error && error.name === "AbortError") throw error;
    throw new StrongroomError("app.unreachable", "the service does not answer", { cause: error });
  }
}

/** A body of at most so many bytes. */
export async function readWhole(response: Response, most: number): Promise<Bytes> {
  const found: Bytes[] = [];
  let size = 0;
  for await (const piece of pieces(response)) {
    size += piece.length;
    if (size > most) throw new StrongroomError("wire.too_large", `an answer of more than ${most} bytes`);
    found.push(piece);
  }
  return concat(...found);
}

export async function* pieces(response: Response): AsyncGenerator<Bytes> {
  const reader = response.body?.getReader();
  if (reader === undefined) return;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } catch (error) {
    if (isOurs(error) || (error instanceof Error && error.name === "AbortError")) throw error;
    throw new StrongroomError("ehbp.truncated", "the answer was cut off", { cause: error });
  } finally {
    await reader.cancel().catch(() => undefined); // of a body that is not read to its end
  }
}
