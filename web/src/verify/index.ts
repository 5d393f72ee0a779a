/**
 * Verification in the browser: what the chat page may believe of an enclave, and why.
 *
 * The same checks, names and numbers as the Python verifier (`spec/appraisal.md`, `spec/evidence-*.md`, `spec/ehbp.md`,
 * `spec/inference-receipt.md`). Nothing here touches the document, storage or the clock: the page passes `fetch`, the time
 * and randomness in.
 *
 *     const pins = await Pins.parse(text, contract);             // what the user trusts
 *     const found = await Room.verify({ origin, pins, world });  // E1 to E8: attestation of this page's own nonce, …
 *     if (found.room === null) …red: found.error, found.checks, found.result?.checks
 *     const answer = await found.room.send({ path: "/v1/chat/completions", body, credential, signal });
 *     for await (const piece of answer.body) …                   // authentic as it comes; whole only at its end
 *     const receipt = await answer.receipt();                    // I1 to I20 over the bytes sent and received
 *     shield(found, receipt)                                     // "green" | "amber" | "red"
 *     answer.kept()                                              // a file for `strongroom verify`
 *
 * Where no contract is pinned yet (`null`), a room is looked at so that people can read its contract: it sends nothing.
 */

export type { Answer, Request } from "./answer.ts";
export type { AttestationResult } from "./appraise.ts";
export type { Bytes } from "./bytes.ts";
export { StrongroomError } from "./errors.ts";
export type { World } from "./http.ts";
export type { Verification } from "./reading.ts";
export type { Found, RoomFacts, Shield } from "./room.ts";
export { Pins, Room, shield } from "./room.ts";
export type { Check, Status } from "./transcript.ts";
export type { Tier } from "./vector.ts";
