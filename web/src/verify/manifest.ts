/** Manifests: what an owner says, under signature, of a sealed asset. See `spec/manifest.md`. */

import { hex } from "./bytes.ts";
import { StrongroomError } from "./errors.ts";
import type { VerifyKey } from "./party.ts";
import { readPolicy } from "./serving.ts";
import { decode, type Envelope, Fields, mediaType } from "./wire.ts";

const MANIFEST_TYPE = mediaType("manifest");
const MAX_MANIFEST_BYTES = 256 << 10;
const MAX_CHUNKS = 1 << 20;
const [HEADER_BYTES, TAG_BYTES, HASH_BYTES] = [64, 16, 32];

/** What this page needs to know of an asset: whose it is, and its content's digest where the owner shows it. */
export interface Manifest {
  readonly owner: string;
  readonly sha256: string | null;
}

/** A manifest that its owner signed. Throws what `spec/manifest.md` lists. */
export async function verifyManifest(envelope: Envelope, owner: VerifyKey): Promise<Manifest> {
  const f = new Fields(decode(await owner.verify(envelope, MANIFEST_TYPE), MAX_MANIFEST_BYTES), "manifest");
  f.name("name");
  f.name("kind");
  f.mediaType("media_type");
  const named = f.name("owner");
  f.integer("created_at");
  const plaintextBytes = f.integer("plaintext_bytes");
  const sha256 = readContent(f.any("content"));
  requireSealed(f.any("sealed"), plaintextBytes);
  f.hex("key_commitment", 32);
  readPolicy(f.any("terms"));
  f.optional("mock", readMock);
  f.end();
  return { owner: named, sha256 };
}

/** The content's digest; `null` where the owner only commits to it. */
function readContent(value: unknown): string | null {
  const f = new Fields(value, "content");
  const shown = f.has("sha256") ? `sha256:${hex(f.hex("sha256", 32))}` : null;
  if (shown === null) f.hex("commitment", 32);
  f.end();
  return shown;
}

/** The sealed file's sizes are those that follow from the plaintext's. */
function requireSealed(value: unknown, plaintextBytes: number): void {
  const f = new Fields(value, "sealed");
  const size = f.integer("bytes");
  const chunkBytes = f.integer("chunk_bytes", { low: 64, high: 4 << 20 });
  const chunks = f.integer("chunks", { low: 1, high: MAX_CHUNKS });
  f.hex("root", 32);
  f.hex("salt", 32);
  f.end();
  const due = Math.max(1, Math.ceil(plaintextBytes / chunkBytes));
  if (due > MAX_CHUNKS) {
    const said = `the plaintext takes more than ${MAX_CHUNKS} chunks of ${chunkBytes} bytes`;
    throw new StrongroomError("wire.too_large", said);
  }
  if (chunks !== due || size !== HEADER_BYTES + plaintextBytes + due * (TAG_BYTES + HASH_BYTES)) {
    const said = "manifest.sealed has other sizes than follow from plaintext_bytes and chunk_bytes";
    throw new StrongroomError("wire.bad_field", said);
  }
}

function readMock(value: unknown): void {
  const f = new Fields(value, "mock");
  f.mediaType("media_type");
  f.integer("bytes");
  f.digest("digest");
  f.end();
}
