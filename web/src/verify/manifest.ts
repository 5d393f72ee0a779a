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
  if (f.has("approvers")) requireApprovers(f.items("approvers", readQuorum, { low: 1, high: 8 }), named);
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

interface Approver {
  readonly name: string;
  readonly keyid: string;
}

/** So many of these must approve; sorted by name. */
function readQuorum(value: unknown): readonly Approver[] {
  const f = new Fields(value, "approvers");
  const atLeast = f.integer("at_least", { low: 1 });
  const of = f.items("of", readApprover, { low: 1, high: 32 });
  f.end();
  const sorted = of.every((who, place) => place === 0 || (of[place - 1]?.name ?? "") < who.name);
  if (!sorted || atLeast > of.length) {
    const said = "approvers.of is not sorted and distinct, or has fewer names than must approve";
    throw new StrongroomError("wire.bad_field", said);
  }
  return of;
}

function readApprover(value: unknown): Approver {
  const f = new Fields(value, "approver");
  const found = { keyid: f.digest("keyid"), name: f.name("name") };
  f.end();
  return found;
}

/** One order, and nobody twice: by name, by key or in two groups; and not the owner. */
function requireApprovers(groups: readonly (readonly Approver[])[], owner: string): void {
  const first = groups.map((of) => of[0]?.name ?? "");
  const all = groups.flat();
  const once =
    new Set(all.map((who) => who.name)).size === all.length && new Set(all.map((who) => who.keyid)).size === all.length;
  const sorted = first.every((name, place) => place === 0 || (first[place - 1] ?? "") <= name);
  if (!sorted || !once || all.some((who) => who.name === owner)) {
    throw new StrongroomError("wire.bad_field", "manifest.approvers is not sorted, or names somebody twice, or the owner");
  }
}

function readMock(value: unknown): void {
  const f = new Fields(value, "mock");
  f.mediaType("media_type");
  f.integer("bytes");
  f.digest("digest");
  f.end();
}
