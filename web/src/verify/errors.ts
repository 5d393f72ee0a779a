/**
 * Errors, each with a stable code, one line that says what failed and why, and a hint that says what to do.
 *
 * The codes and hints are those of `strongroom.errors`; a test holds them to it.
 */

const NO_SECRETS = "Do not send secrets to this enclave.";
const ALTERED = "The file was altered or is of another kind; get it again from where it came.";
const KEEP_IT = "Do not rely on this answer; keep it and its receipt, and tell who runs the service.";

export const HINTS = {
  "wire.too_large": "The format has a size limit (spec/); this is not a document that Strongroom wrote.",
  "wire.not_json": ALTERED,
  "wire.not_canonical": "Signed documents are RFC 8785 canonical JSON byte for byte; do not reformat or edit them.",
  "wire.bad_field": ALTERED,
  "wire.bad_envelope": ALTERED,
  "wire.bad_signature": "The signature is not of these bytes by this key; do not trust the document.",

  "party.bad_key": "Ask the party for its card again; the key in it is malformed or too weak to use.",
  "party.not_pinned":
    "Compare the fingerprint with the party itself, then: strongroom party trust CARD --fingerprint FINGERPRINT",
  "party.pin_mismatch":
    "The keys differ from those you pinned. Ask the party through another channel before you trust new ones.",

  "policy.empty": "A policy that allows nothing cannot be run; say at least one use and one output.",
  "policy.not_permitted": "Compare the contract's policy with the asset's terms: strongroom inspect MANIFEST",
  "policy.unknown_dimension":
    "This version does not know that dimension, so it cannot enforce it; update Strongroom or remove it.",

  "contract.bad_proposal": "See spec/contract.md for what a proposal must hold.",
  "contract.expired": "Propose it again with a later --expires.",
  "contract.not_yet_valid": "Wait until the contract's not_before, or check the clock.",
  "contract.signature_doubled": "A contract has exactly one signature per party, sorted; rebuild it from the approvals.",
  "contract.signature_from_stranger": "Somebody who is no party signed; drop that signature.",
  "contract.signature_invalid":
    "An approval is of other bytes (replayed from another proposal?); ask the party to approve these.",
  "contract.signature_missing": "Every party named must approve: strongroom approve CONTRACT",

  "attest.bad_certificate": NO_SECRETS,
  "attest.bad_endorsement": NO_SECRETS,
  "attest.bad_event_log": "The log does not lead to the registers that the hardware signed; ask for the evidence again.",
  "attest.bad_evidence": NO_SECRETS,
  "attest.bad_keyset": NO_SECRETS,
  "attest.bad_measurement": "Print it again with: strongroom measure",
  "attest.bad_nonce": "A nonce is 32 random bytes from the verifier, 64 lowercase hex digits in an address.",
  "attest.bad_policy": "See spec/appraisal.md for what an appraisal policy must hold.",
  "attest.debug": "A debuggable enclave can be read by its host; start the platform without debugging.",
  "attest.device_not_bound": "The device may be anybody's; ask for the evidence again with a fresh nonce.",
  "attest.devices_not_accepted": NO_SECRETS,
  "attest.endorsement_expired": "Start the platform again, so that it renews its endorsement; or check the clock.",
  "attest.endorsement_missing":
    "Nothing vouches for the key that signed the evidence; ask for the evidence again with its endorsements.",
  "attest.endorsement_not_yet_valid": "Check the clocks of the two machines.",
  "attest.forged": NO_SECRETS,
  "attest.keyset_expired": "Start the enclave again, so that it makes new keys.",
  "attest.machine_not_accepted": "The policy names the machines that it accepts, and this is none of them.",
  "attest.measurement_not_accepted":
    "Another program runs than those you accept. Compare with `strongroom measure` of an installation that you trust.",
  "attest.not_affirming": NO_SECRETS,
  "attest.not_bound": "The evidence is for another nonce (replayed?) or for another keyset; ask with a fresh nonce.",
  "attest.not_fresh": "Ask for new evidence; if it is new, check the clocks of the two machines.",
  "attest.platform_not_accepted": "Name the platform in your trust file only if you accept what it protects from.",
  "attest.revoked": "The vendor no longer vouches for this machine's key; use another machine.",
  "attest.second_opinion_differs": "One of the two verifiers is wrong: trust neither, and report it with the evidence.",
  "attest.tcb_not_accepted":
    "Ask the machine's operator to update its firmware, or name in the policy what you tolerate, and until when.",
  "attest.terms_not_met": "Compare the evidence (strongroom attest show) with your appraisal policy.",
  "attest.unknown_platform": NO_SECRETS,
  "attest.unknown_root":
    "Pin the platform's root only if you know it from another channel: strongroom party trust REFERENCE.json",

  "ehbp.after_end": "Somebody on the way may have added to the body; do not act on any of it.",
  "ehbp.bad_encapsulated_key":
    "The header Ehbp-Encapsulated-Key stands once, with 64 lowercase hex digits of a usable X25519 key.",
  "ehbp.bad_key_config":
    "Take the key from the attested keyset; what the well-known address answers is only compared with it.",
  "ehbp.bad_padding": "Padding is zeros; the other side's Strongroom is altered or faulty.",
  "ehbp.bad_record": "The other side does not send sealed requests (spec/ehbp.md); is it Strongroom, and of this version?",
  "ehbp.bad_response_nonce": "The answer is not encrypted: anybody on the way may have written it. Do not use it.",
  "ehbp.body_too_large": "Send a smaller body; the other side says how large one may be.",
  "ehbp.empty_frames": "Frames without ciphertext carry nothing and are not authenticated; do not send them.",
  "ehbp.frame_altered":
    "A frame was changed, repeated, left out, moved, or taken from another exchange; use nothing of this body.",
  "ehbp.frame_too_large": "Send the body in smaller frames (spec/ehbp.md).",
  "ehbp.key_config_mismatch":
    "The enclave has other keys now: verify its attestation again, and send the request again as a new exchange.",
  "ehbp.no_body": "Send a body, be it an empty object: only an encrypted body shows whose encapsulated key it is.",
  "ehbp.not_ended": "Somebody on the way may have cut the body; do not act on any of it.",
  "ehbp.refused_in_the_open":
    "Nothing vouches for this refusal. Look at what the service's operator says, or ask again later.",
  "ehbp.replayed": "This request was here already. To ask again, send a new exchange with a new encapsulated key.",
  "ehbp.seen_keys_full": "The enclave must rotate its keyset: new keys, a new attestation, and the old ones drained.",
  "ehbp.truncated": "The connection was cut; send the request again as a new exchange.",
  "ehbp.unsupported_suite": "Only X25519 with HKDF-SHA256 and AES-256-GCM is spoken here.",
  "ehbp.wrong_contract": "The request was made under another contract than the one that is served here; compare them.",
  "ehbp.wrong_keyset":
    "The other side means another keyset than this one: verify the attestation again, then send the request anew.",
  "ehbp.wrong_request": "The answer is to another request; do not use it.",
  "ehbp.wrong_status": "Somebody on the way changed the answer's HTTP status; do not use it.",
  "ehbp.wrong_target": "The request was made for another address or method; whoever passes it on must not rewrite either.",

  "inference.bad_events": KEEP_IT,
  "inference.bad_receipt": "This is no receipt of the version `aci/1`; fetch it again by its id.",
  "inference.bad_usage": "The figures do not fit the receipts; ask for the receipts and count again.",
  "inference.no_receipt": "Ask again. If receipts stay away, tell who runs the service: nothing shows which model answered.",
  "inference.not_verified": KEEP_IT,
  "inference.other_contract": KEEP_IT,
  "inference.other_id": "The receipt is of another request; fetch the one that the answer names.",
  "inference.other_keyset":
    "The service has new keys, or another service answered: attest it again before anything is sent.",
  "inference.other_model": KEEP_IT,
  "inference.other_outcome": KEEP_IT,
  "inference.other_policy": KEEP_IT,
  "inference.other_request": "The service received other bytes than were sent: something between changed them.",
  "inference.other_response":
    "The answer is not the one that the service sent: something between changed it. Do not use it.",
  "inference.other_route": KEEP_IT,
  "inference.other_time": "Attest the service again; if that does not help, check the clocks of the two machines.",
  "inference.other_weights": KEEP_IT,
  "inference.rewritten": KEEP_IT,

  "ledger.bad_proof": "The log does not contain what it claims; keep the files and tell the other parties.",

  "broker.enclave_not_named":
    "The contract names another build; run that one, or propose this one's measurement: strongroom measure",
  "broker.keyset_of_another_run":
    "The enclave's evidence was made for another contract or run; somebody may be passing it on.",

  "app.internal": "This is a fault in Strongroom; run again with STRONGROOM_DEBUG=1 for the traceback and report it.",
  "app.not_found": "Check the path or the digest; strongroom status lists what is known here.",
  "app.unreachable": "Is it running? Start everything on this machine with: strongroom up",
} as const;

export type Code = keyof typeof HINTS;

export class StrongroomError extends Error {
  readonly code: Code;
  readonly hint: string;

  constructor(code: Code, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "StrongroomError";
    this.code = code;
    this.hint = HINTS[code];
  }
}

/** Whether an error is ours, of one of these families (`"wire"`). Without a family, of any. */
export function isOurs(error: unknown, ...families: string[]): error is StrongroomError {
  if (!(error instanceof StrongroomError)) return false;
  return families.length === 0 || families.includes(error.code.slice(0, error.code.indexOf(".")));
}
