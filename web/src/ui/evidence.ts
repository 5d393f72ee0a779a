/** Raw evidence: what the page relied on, kept for the user to take away and check elsewhere. */

import type { Bytes } from "../verify/index.ts";
import type { FileRef, Proof } from "./conversation.ts";
import type { Vault } from "./vault.ts";

export interface RawFile {
  readonly name: string;
  readonly what: string;
  readonly media: string;
  readonly content: Bytes;
}

export const JSON_TYPE = "application/json";

export function utf8(text: string): Bytes {
  return new TextEncoder().encode(text) as Bytes;
}

function base64(bytes: Uint8Array): string {
  let text = "";
  for (let at = 0; at < bytes.length; at += 0x8000) text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return btoa(text);
}

function unbase64(text: string): Bytes {
  return Uint8Array.from(atob(text), (mark) => mark.charCodeAt(0));
}

export async function sha256(bytes: Bytes): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Keeps files, each once under its digest. */
export async function keep(vault: Vault, files: readonly RawFile[]): Promise<FileRef[]> {
  const kept: FileRef[] = [];
  for (const { name, what, media, content } of files) {
    const digest = await sha256(content);
    await vault.put("evidence", digest, base64(content));
    kept.push({ name, what, media, bytes: content.length, digest });
  }
  return kept;
}

export async function opened(vault: Vault, ref: FileRef): Promise<Bytes | null> {
  const found = await vault.get("evidence", ref.digest);
  return typeof found === "string" ? unbase64(found) : null;
}

/** Hands a file to the user. Nothing is sent anywhere: the address is one of this page's memory. */
export function download(name: string, media: string, content: BlobPart): void {
  const address = URL.createObjectURL(new Blob([content], { type: media }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/** Every check and every file of a proof in one document. */
export async function bundled(vault: Vault, proof: Proof): Promise<string> {
  const files: Record<string, string> = {};
  for (const ref of proof.files) {
    const content = await opened(vault, ref);
    if (content !== null) files[ref.name] = base64(content);
  }
  const { shield, label, sections, at } = proof;
  const checks = sections.flatMap((section) => section.checks);
  return `${JSON.stringify({ format: "strongroom.page-evidence.v1", shield, label, at, checks, files }, null, 2)}\n`;
}
