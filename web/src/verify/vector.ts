/** The AR4SI trust vector: what an appraisal claims about each aspect of an attester, and the tier that follows. */

export const AFFIRMED = 2; // the best value of every claim
export const APPROVED_AT_START = 3; // executables: approved when they were loaded
export const KNOWN_VULNERABLE = 32; // hardware: genuine, with known vulnerabilities
export const UNRECOGNIZED_EXECUTABLES = 33;
export const UNACCEPTABLE = 96;
export const CRYPTO_FAILED = 99;

/** What a relying party may conclude, from best to worst. */
export const TIERS = ["affirming", "none", "warning", "contraindicated"] as const;
export type Tier = (typeof TIERS)[number];

export interface TrustVector {
  readonly "instance-identity": number;
  readonly configuration: number;
  readonly executables: number;
  readonly "file-system": number;
  readonly hardware: number;
  readonly "runtime-opaque": number;
  readonly "storage-opaque": number;
  readonly "sourced-data": number;
}

export const NO_CLAIMS: TrustVector = {
  "instance-identity": 0,
  configuration: 0,
  executables: 0,
  "file-system": 0,
  hardware: 0,
  "runtime-opaque": 0,
  "storage-opaque": 0,
  "sourced-data": 0,
};

/** The tier of one claim's value (draft-ietf-rats-ar4si, section 2.3.2). */
function tier(value: number): Tier {
  if (value > -2 && value < 2) return "none";
  if (value > -33 && value < 32) return "affirming";
  return value > -97 && value < 96 ? "warning" : "contraindicated";
}

export function worstTier(...tiers: readonly Tier[]): Tier {
  return tiers.reduce((worst, one) => (TIERS.indexOf(one) > TIERS.indexOf(worst) ? one : worst), "affirming");
}

/** The worse of two values of one claim; a value that claims nothing gives way to one that does. */
export function worse(one: number, other: number): number {
  const order: readonly Tier[] = ["none", "affirming", "warning", "contraindicated"];
  return order.indexOf(tier(other)) > order.indexOf(tier(one)) ? other : one;
}

/** The worst tier of the claims that are made; `"none"` when none is. */
export function worstClaim(vector: TrustVector): Tier {
  const made = Object.values(vector as unknown as Record<string, number>)
    .map(tier)
    .filter((one) => one !== "none");
  return made.length > 0 ? worstTier(...made) : "none";
}
