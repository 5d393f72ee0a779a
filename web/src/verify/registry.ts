/** Which platforms this page can verify, and which only the Python verifier can. */

import type { Platform } from "./evidence.ts";
import { simulated } from "./simulated.ts";
import { snp } from "./snp.ts";
import { tdx } from "./tdx.ts";

const HERE: ReadonlyMap<string, Platform> = new Map<string, Platform>([
  ["sev_snp", snp as unknown as Platform],
  ["simulated", simulated as Platform],
  ["tdx", tdx as unknown as Platform],
]);

/** Beside a processor, and never alone. */
export const DEVICES: ReadonlySet<string> = new Set(["nras", "nvidia_cc", "nvidia_switch"]);

/** What the Python verifier knows and this page does not: its checks are not established here, and nothing is affirmed. */
const ELSEWHERE: ReadonlySet<string> = new Set([...DEVICES, "azure_snp", "azure_tdx", "dstack", "nitro", "sgx", "tpm"]);

export function verifier(name: string): Platform | null {
  return HERE.get(name) ?? null;
}

export function isVerifiedElsewhere(name: string): boolean {
  return ELSEWHERE.has(name);
}
