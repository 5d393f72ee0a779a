/** The kinds of endorsements, by media type, and how a verifier picks its own out of what came along. None is believed here. */

import { type Bytes, equal } from "./bytes.ts";
import { digest } from "./crypto.ts";
import { isOurs, StrongroomError } from "./errors.ts";
import type { Endorsement } from "./evidence.ts";
import { Certificate, fromPem, RevocationList } from "./x509.ts";

const MAX_CERTIFICATES = 64; // single and in chains, together
const CERTIFICATE = "application/pkix-cert";
const PEM_CHAIN = "application/pem-certificate-chain";
const CRL = "application/pkix-crl";

/** Every certificate that came along, single or in chains, distinct, in order. Throws `attest.bad_endorsement`. */
export function certificates(documents: readonly Endorsement[]): readonly Certificate[] {
  const found: Certificate[] = [];
  try {
    for (const { mediaType, data } of documents) {
      const read = mediaType === CERTIFICATE ? [new Certificate(data)] : mediaType === PEM_CHAIN ? fromPem(data) : [];
      for (const one of read) if (!found.some((known) => equal(known.der, one.der))) found.push(one);
      if (found.length > MAX_CERTIFICATES) {
        throw new StrongroomError("attest.bad_endorsement", `more than ${MAX_CERTIFICATES} certificates came along`);
      }
    }
  } catch (error) {
    throw asEndorsement(error, "certificate");
  }
  return found;
}

/** Every revocation list that came along, in order. Throws `attest.bad_endorsement`. */
export function revocationLists(documents: readonly Endorsement[]): readonly RevocationList[] {
  try {
    return documents.filter((one) => one.mediaType === CRL).map((one) => new RevocationList(one.data));
  } catch (error) {
    throw asEndorsement(error, "revocation list");
  }
}

function asEndorsement(error: unknown, what: string): unknown {
  if (!isOurs(error) || error.code !== "attest.bad_certificate") return error;
  const said = `an endorsement is not the ${what} that it should be: ${error.message}`;
  return new StrongroomError("attest.bad_endorsement", said, { cause: error });
}

/** The digests of what was used, sorted and distinct, for a result's `collateral`. */
export async function digests(...used: readonly { readonly der: Bytes }[]): Promise<readonly string[]> {
  return [...new Set(await Promise.all(used.map((one) => digest(one.der))))].sort();
}
