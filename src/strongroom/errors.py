"""Every error that Strongroom raises, as one closed tree.

    StrongroomError
    ├── WireError            bytes that are not one of our formats
    ├── PartyError           identities, keys, pins
    ├── AssetError           sealed files and manifests
    ├── PolicyError          the policy lattice
    ├── ContractError        proposals, approvals, life cycle
    ├── CodeError            researchers' code, and the packages that it is locked to
    ├── BudgetError          what may be learned or spent of an asset
    ├── AttestationError     evidence that could not be appraised
    ├── BrokerError          releases that were refused
    ├── LedgerError          the log and its proofs
    ├── ReceiptError         receipts and their bundles
    ├── InferenceError       receipts of single requests to a model, and what is counted from them
    ├── EnclaveError         a run that could not be made
    │   └── ProgramError     a program that failed on its inputs
    ├── EngineError          a language model that could not answer
    ├── RequestError         requests to a language model that are not answered
    ├── OutputError          outputs that their rule does not let through
    ├── EhbpError            encrypted HTTP bodies
    ├── CarryError           bundles that are carried between sites by hand
    ├── JobError             runs that wait in a queue for their turn
    ├── DatastoreError       stores of text that models retrieve from, and their sources
    ├── RetrievalError       models that retrieve: their files, training and what they are asked
    └── AppError             files, addresses and usage at the edge

A leaf has a stable ``code`` (``noun.what``), a message of one line that says what failed and why, and a ``hint`` that says
what to do. Codes are part of the public interface: they are never renamed, and a retired one is never used again. No message
may hold a secret or a byte of an asset.
"""

from __future__ import annotations

from typing import ClassVar


class StrongroomError(Exception):
    """Base of every error raised by Strongroom.

    Args:
        message: one line, what failed and why.
        hint: one line, what to do; the class's own hint where none is given.
    """

    code: ClassVar[str] = "strongroom"
    hint: str = "Run the command again with --help."

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if hint is not None:
            self.hint = hint

    def __str__(self) -> str:
        return self.message

    def to_json(self) -> dict[str, str]:
        """The error as a JSON object: ``code``, ``message``, ``hint``."""
        return {"code": self.code, "message": self.message, "hint": self.hint}


# --- wire -----------------------------------------------------------------------------------------------------------


class WireError(StrongroomError):
    """Bytes that are not what a format says they must be."""

    code = "wire"
    hint = "The file was altered or is of another kind; get it again from where it came."


class TooLarge(WireError):
    code = "wire.too_large"
    hint = "The format has a size limit (spec/); this is not a document that Strongroom wrote."


class NotJson(WireError):
    code = "wire.not_json"


class NotCanonical(WireError):
    code = "wire.not_canonical"
    hint = "Signed documents are RFC 8785 canonical JSON byte for byte; do not reformat or edit them."


class BadField(WireError):
    code = "wire.bad_field"


class BadEnvelope(WireError):
    code = "wire.bad_envelope"


class BadSignature(WireError):
    code = "wire.bad_signature"
    hint = "The signature is not of these bytes by this key; do not trust the document."


# --- party ----------------------------------------------------------------------------------------------------------


class PartyError(StrongroomError):
    code = "party"


class BadKey(PartyError):
    code = "party.bad_key"
    hint = "Ask the party for its card again; the key in it is malformed or too weak to use."


class NotPinned(PartyError):
    code = "party.not_pinned"
    hint = "Compare the fingerprint with the party itself, then: strongroom party trust CARD --fingerprint FINGERPRINT"


class PinMismatch(PartyError):
    code = "party.pin_mismatch"
    hint = "The keys differ from those you pinned. Ask the party through another channel before you trust new ones."


class NoKeys(PartyError):
    code = "party.no_keys"
    hint = "Make a party first: strongroom party new NAME"


class AlreadyExists(PartyError):
    code = "party.already_exists"
    hint = "Choose another name or another --home; keys are never overwritten."


# --- asset ----------------------------------------------------------------------------------------------------------


class AssetError(StrongroomError):
    code = "asset"


class NotSealed(AssetError):
    code = "asset.not_sealed"
    hint = "This is not a sealed file; make one with: strongroom seal FILE"


class HeaderAltered(AssetError):
    code = "asset.header_altered"
    hint = "The sealed file's header was changed; fetch the file again."


class ChunkAltered(AssetError):
    """A chunk whose bytes are not those that were sealed.

    Args:
        message: one line.
        index: the chunk's index, from 0.
    """

    code = "asset.chunk_altered"
    index: int = -1
    hint = "The sealed file was changed, or mixed from two files; fetch it again."

    def __init__(self, message: str, *, index: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.index = index


class Truncated(AssetError):
    code = "asset.truncated"
    hint = "The sealed file is shorter than its manifest says; fetch it again."


class TrailingBytes(AssetError):
    code = "asset.trailing_bytes"
    hint = "The sealed file is longer than its manifest says; fetch it again."


class WrongKey(AssetError):
    code = "asset.wrong_key"
    hint = "The key does not belong to this manifest; ask the owner's broker for the asset's own key."


class TrailerAltered(AssetError):
    code = "asset.trailer_altered"
    hint = "The list of chunk hashes at the sealed file's end was changed; fetch the file again."


class ManifestMismatch(AssetError):
    code = "asset.manifest_mismatch"
    hint = "The manifest describes another sealed file; take the manifest that the contract names."


class ContentMismatch(AssetError):
    code = "asset.content_mismatch"
    hint = "The opened bytes are not those that the manifest promises; do not use them."


class MockMisfit(AssetError):
    """A mock, or what is revealed, that is not of the form of the table that is offered."""

    code = "asset.mock_misfit"
    hint = (
        "Code written against it would fail on the table. Mend the mock or what is revealed: strongroom offer TABLE --check"
    )


class MockReveals(AssetError):
    """A mock that holds what nobody agreed to reveal."""

    code = "asset.mock_reveals"
    hint = (
        "Nothing was published. Have one made of nothing but the schema, with --mock auto; or say in --reveal what it shows."
    )


class OlderOffer(AssetError):
    """The exchange shows an offer that is older than one that was seen there before."""

    code = "asset.older_offer"
    hint = "Ask the owner which offer holds; if it is this one: strongroom assets --forget OWNER/NAME"


# --- policy ---------------------------------------------------------------------------------------------------------


class PolicyError(StrongroomError):
    code = "policy"


class UnknownDimension(PolicyError):
    code = "policy.unknown_dimension"
    hint = "This version does not know that dimension, so it cannot enforce it; update Strongroom or remove it."


class EmptyPolicy(PolicyError):
    code = "policy.empty"
    hint = "A policy that allows nothing cannot be run; say at least one use and one output."


class NotPermitted(PolicyError):
    code = "policy.not_permitted"
    hint = "Compare the contract's policy with the asset's terms: strongroom inspect MANIFEST"


class BadDrawing(PolicyError):
    code = "policy.bad_drawing"
    hint = "See spec/drawing.md for what the terms of a source must say."


class StaleRevision(PolicyError):
    code = "policy.stale_revision"
    hint = "The owner said something newer of this source already; sign what holds now with a higher number."


# --- contract -------------------------------------------------------------------------------------------------------


class ContractError(StrongroomError):
    code = "contract"


class BadProposal(ContractError):
    code = "contract.bad_proposal"
    hint = "See spec/contract.md for what a proposal must hold."


class SignatureMissing(ContractError):
    code = "contract.signature_missing"
    hint = "Every party named must approve: strongroom approve CONTRACT"


class SignatureDoubled(ContractError):
    code = "contract.signature_doubled"
    hint = "A contract has exactly one signature per party, sorted; rebuild it from the approvals."


class SignatureFromStranger(ContractError):
    code = "contract.signature_from_stranger"
    hint = "Somebody who is no party signed; drop that signature."


class SignatureInvalid(ContractError):
    code = "contract.signature_invalid"
    hint = "An approval is of other bytes (replayed from another proposal?); ask the party to approve these."


class NotAParty(ContractError):
    code = "contract.not_a_party"
    hint = "Only the parties named in a proposal can approve, counter or withdraw it."


class Expired(ContractError):
    code = "contract.expired"
    hint = "Propose it again with a later --expires."


class NotYetValid(ContractError):
    code = "contract.not_yet_valid"
    hint = "Wait until the contract's not_before, or check the clock."


class Withdrawn(ContractError):
    code = "contract.withdrawn"
    hint = "A party withdrew; nothing more is released. Propose anew if all still want it."


class Superseded(ContractError):
    code = "contract.superseded"
    hint = "A counter-proposal took its place; look at that one: strongroom show"


class WrongState(ContractError):
    code = "contract.wrong_state"
    hint = "See where it stands: strongroom show. What is spent can be granted again: strongroom grant"


class ApproverMissing(ContractError):
    """Somebody whose approval an asset's terms ask for did not approve."""

    code = "contract.approver_missing"
    hint = "Name them as parties (--among NAME). See whom the asset's terms name: strongroom assets OWNER/NAME."


class ChargesOnStanding(ContractError):
    code = "contract.charges_on_standing"
    hint = (
        "What a standing contract serves cannot be charged to a budget yet; propose runs instead, or leave the charges out."
    )


# --- budget ---------------------------------------------------------------------------------------------------------


class BudgetError(StrongroomError):
    """What may be learned or spent of an asset."""

    code = "budget"


class BadCharge(BudgetError):
    code = "budget.bad_charge"
    hint = "See spec/budget.md for the events and counts that a charge may state."


class BadBudget(BudgetError):
    code = "budget.bad_budget"
    hint = "See spec/budget.md for what a budget must hold."


class StaleBudget(BudgetError):
    """An older budget than the one in force."""

    code = "budget.stale"
    hint = "Look at the one in force, and change that: strongroom budget show"


class NotCharged(BudgetError):
    code = "budget.not_charged"
    hint = "Propose it with a program that says what it spends, or counter it with charges: strongroom counter --charge ROLE"


class UnderCharged(BudgetError):
    """The contract charges less than its program would spend."""

    code = "budget.under_charged"
    hint = "Propose it again: strongroom propose fills in what the program says that it spends."


class BudgetExceeded(BudgetError):
    code = "budget.exceeded"
    hint = "Ask for less, or ask the asset's owner for more: the owner sees what is left with strongroom budget show"


class NotComposable(BudgetError):
    """Events whose cost together cannot be said in time, or is more than any budget."""

    code = "budget.not_composable"
    hint = "Ask fewer questions, or with more noise."


# --- code -----------------------------------------------------------------------------------------------------------


class CodeError(StrongroomError):
    """Code that cannot be submitted, or cannot be run as it was submitted."""

    code = "code"


class BadBundle(CodeError):
    code = "code.bad_bundle"
    hint = "A bundle holds small text files by plain relative names; see spec/code.md for what they may be."


class NotPython(CodeError):
    """A file of the bundle does not parse."""

    code = "code.not_python"
    hint = "Mend the line that is named. What runs here runs there: strongroom try"


class BadEntry(CodeError):
    code = "code.bad_entry"
    hint = "Name a file's module, or a function in it: --entry analysis:summarise"


class NotSelfContained(CodeError):
    """A function that needs what lies outside of it."""

    code = "code.not_self_contained"
    hint = "Import inside the function, and hand it values as arguments; or submit a file."


class BadLock(CodeError):
    code = "code.bad_lock"
    hint = "Make the lock with hashes: uv pip compile --generate-hashes requirements.in -o requirements.lock"


# --- attestation ----------------------------------------------------------------------------------------------------


class AttestationError(StrongroomError):
    code = "attest"
    hint = "Do not send secrets to this enclave."


class BadEvidence(AttestationError):
    code = "attest.bad_evidence"


class UnknownPlatform(AttestationError):
    code = "attest.unknown_platform"


class NotAffirming(AttestationError):
    """The appraisal of some evidence is not affirming.

    Args:
        message: one line.
        reason: the stable code of the check that failed.
    """

    code = "attest.not_affirming"
    reason: str = ""

    def __init__(self, message: str, *, reason: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason

    def to_json(self) -> dict[str, str]:
        return {**super().to_json(), "reason": self.reason}


class BadKeyset(AttestationError):
    code = "attest.bad_keyset"


class BadMeasurement(AttestationError):
    code = "attest.bad_measurement"
    hint = "Print it again with: strongroom measure"


class BadAppraisalPolicy(AttestationError):
    code = "attest.bad_policy"
    hint = "See spec/appraisal.md for what an appraisal policy must hold."


class BadNonce(AttestationError):
    code = "attest.bad_nonce"
    hint = "A nonce is 32 random bytes from the verifier, 64 lowercase hex digits in an address."


class PlatformNotAccepted(AttestationError):
    code = "attest.platform_not_accepted"
    hint = "Name the platform in your trust file only if you accept what it protects from."


class BadEndorsement(AttestationError):
    code = "attest.bad_endorsement"


class EndorsementMissing(AttestationError):
    code = "attest.endorsement_missing"
    hint = "Nothing vouches for the key that signed the evidence; ask for the evidence again with its endorsements."


class UnknownRoot(AttestationError):
    code = "attest.unknown_root"
    hint = "Pin the platform's root only if you know it from another channel: strongroom party trust REFERENCE.json"


class EndorsementExpired(AttestationError):
    code = "attest.endorsement_expired"
    hint = "Start the platform again, so that it renews its endorsement; or check the clock."


class EndorsementNotYetValid(AttestationError):
    code = "attest.endorsement_not_yet_valid"
    hint = "Check the clocks of the two machines."


class EvidenceForged(AttestationError):
    code = "attest.forged"


class DebugEnabled(AttestationError):
    code = "attest.debug"
    hint = "A debuggable enclave can be read by its host; start the platform without debugging."


class NotBound(AttestationError):
    code = "attest.not_bound"
    hint = "The evidence is for another nonce (replayed?) or for another keyset; ask with a fresh nonce."


class NotFresh(AttestationError):
    code = "attest.not_fresh"
    hint = "Ask for new evidence; if it is new, check the clocks of the two machines."


class KeysetExpired(AttestationError):
    code = "attest.keyset_expired"
    hint = "Start the enclave again, so that it makes new keys."


class MeasurementNotAccepted(AttestationError):
    code = "attest.measurement_not_accepted"
    hint = "Another program runs than those you accept. Compare with `strongroom measure` of an installation that you trust."


class BadCertificate(AttestationError):
    """A certificate, or a path of them, that cannot vouch for anything."""

    code = "attest.bad_certificate"


class Revoked(AttestationError):
    code = "attest.revoked"
    hint = "The vendor no longer vouches for this machine's key; use another machine."


class TcbNotAccepted(AttestationError):
    """The platform's firmware or microcode is not as current as the policy asks."""

    code = "attest.tcb_not_accepted"
    hint = "Ask the machine's operator to update its firmware, or name in the policy what you tolerate, and until when."


class TermsNotMet(AttestationError):
    """The evidence is genuine, and says something that the policy's terms for its platform do not allow."""

    code = "attest.terms_not_met"
    hint = "Compare the evidence (strongroom attest show) with your appraisal policy."


class MachineNotAccepted(AttestationError):
    code = "attest.machine_not_accepted"
    hint = "The policy names the machines that it accepts, and this is none of them."


class BadEventLog(AttestationError):
    code = "attest.bad_event_log"
    hint = "The log does not lead to the registers that the hardware signed; ask for the evidence again."


class DevicesNotAccepted(AttestationError):
    """The devices beside the processor are not those that the policy asks for."""

    code = "attest.devices_not_accepted"


class DeviceNotBound(AttestationError):
    """A device's evidence that nothing ties to the processor's."""

    code = "attest.device_not_bound"
    hint = "The device may be anybody's; ask for the evidence again with a fresh nonce."


class BadTeeKey(AttestationError):
    code = "attest.bad_tee_key"
    hint = "A guest's key is EC on P-256, P-384 or P-521 for ECDH-ES+A256KW, or RSA of 2048 to 4096 bits for RSA-OAEP-256."


class SampleNotVouched(AttestationError):
    code = "attest.sample_not_vouched"
    hint = "Sample evidence is signed by nobody; for trying things out: strongroom broker --guests --sample-guests"


class BadEar(AttestationError):
    code = "attest.bad_ear"
    hint = "The token is not an attestation result by this broker's key that holds now; have the guest attest again."


class SecondOpinionDiffers(AttestationError):
    """Another verifier of the same evidence came to another end."""

    code = "attest.second_opinion_differs"
    hint = "One of the two verifiers is wrong: trust neither, and report it with the evidence."


# --- broker ---------------------------------------------------------------------------------------------------------


class BrokerError(StrongroomError):
    code = "broker"


class ReleaseRefused(BrokerError):
    """A broker answered with a refusal.

    Args:
        message: one line.
        reason: the stable code of the check that failed.
    """

    code = "broker.refused"
    reason: str = ""
    hint = "The owner sees the reason and the numbered checks with: strongroom log"

    def __init__(self, message: str, *, reason: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason

    def to_json(self) -> dict[str, str]:
        return {**super().to_json(), "reason": self.reason}


class BadRelease(BrokerError):
    code = "broker.bad_release"
    hint = "The answer is not a release by this asset's broker for this run; ask the owner."


class UnknownAsset(BrokerError):
    code = "broker.unknown_asset"
    hint = "The owner has not given this broker the asset's key."


class NonceRefused(BrokerError):
    code = "broker.nonce"
    hint = "Ask the broker for a fresh nonce; each is good once, for five minutes."


class KeysetOfAnotherRun(BrokerError):
    code = "broker.keyset_of_another_run"
    hint = "The enclave's evidence was made for another contract or run; somebody may be passing it on."


class NoSession(BrokerError):
    code = "broker.no_session"
    hint = "Attest again: POST /kbs/v0/auth, then /kbs/v0/attest with its cookie; a session lasts five minutes."


class RcarVersion(BrokerError):
    code = "broker.rcar_version"
    hint = "This broker speaks versions 0.1 to 0.4 of the key broker protocol of confidential containers."


class NotForGuests(BrokerError):
    code = "broker.not_for_guests"
    hint = "The contract is for enclaves of ours; one for guests is proposed with: strongroom guest propose"


class GuestElsewhere(BrokerError):
    code = "broker.guest_elsewhere"
    hint = "A guest's key is good for one run of one contract; let the guest make another key for the other."


class KeyShared(BrokerError):
    code = "broker.key_shared"
    hint = "A guest cannot put shares of a key together; seal the asset again under a key that is whole."


class NotMyContract(BrokerError):
    code = "broker.not_mine"
    hint = "The contract names another broker key for this owner; propose it anew with the owner's present card."


class EnclaveNotNamed(BrokerError):
    code = "broker.enclave_not_named"
    hint = "The contract names another build; run that one, or propose this one's measurement: strongroom measure"


class NotApproved(BrokerError):
    code = "broker.not_approved"
    hint = "The owner approves with its own client, which tells its broker: strongroom approve CONTRACT"


class RunTaken(BrokerError):
    code = "broker.run_taken"
    hint = "Another enclave has this run; ask for a run of its own."


class RunCancelled(BrokerError):
    code = "broker.run_cancelled"
    hint = "Who asked for the run, or an owner of what it reads, cancelled it; ask for a run of its own."


class NoRunLeft(BrokerError):
    code = "broker.no_run_left"
    hint = "Failed runs count too; the inputs' owners may grant another: strongroom grant CONTRACT"


class BadEnrolment(BrokerError):
    code = "broker.bad_enrolment"
    hint = "More than half of the brokers must be needed, each named once; at most 16: strongroom broker enrol"


class BadShare(BrokerError):
    """A holder gave another share than the one that the owner enrolled it with.

    Args:
        message: one line, which names the holder.
    """

    code = "broker.bad_share"
    hint = "The holder that is named lies, or lost its share; the owner replaces it: strongroom broker replace"


class TooFewShares(BrokerError):
    code = "broker.too_few_shares"
    hint = "Each holder's owner sees why its broker did not answer or refused: strongroom log"


class WrongEpoch(BrokerError):
    code = "broker.wrong_epoch"
    hint = "The owner dealt new shares, or is about to; take the newest enrolment from the exchange and ask again."


class BookRestored(BrokerError):
    """A broker's book is not the newest: it was put back from a backup, lost, or is at work twice."""

    code = "broker.restored"
    hint = "Its owner looks and confirms: strongroom broker confirm; contracts from before are proposed anew."


class SlotTaken(BrokerError):
    code = "broker.slot_taken"
    hint = "Another enclave has this slot of the contract; ask for another slot."


# --- ledger ---------------------------------------------------------------------------------------------------------


class LedgerError(StrongroomError):
    code = "ledger"


class BadCheckpoint(LedgerError):
    code = "ledger.bad_checkpoint"
    hint = "The log's head is malformed or of a log that your trust file does not hold; do not rely on it."


class NotLogged(LedgerError):
    code = "ledger.not_logged"
    hint = "The log is not that long; ask it for its newest checkpoint first."


class BadBatch(LedgerError):
    """Receipts of requests that an enclave may not have logged."""

    code = "ledger.bad_batch"
    hint = "Only an enclave to which every owner's broker gave a lease adds receipts under a contract (spec/ledger.md)."


class BadProof(LedgerError):
    code = "ledger.bad_proof"
    hint = "The log does not contain what it claims; keep the files and tell the other parties."


class Inconsistent(LedgerError):
    code = "ledger.inconsistent"
    hint = "The log showed two histories. Keep both checkpoints: they prove it."


# --- receipt --------------------------------------------------------------------------------------------------------


class ReceiptError(StrongroomError):
    code = "receipt"


class BadReceipt(ReceiptError):
    code = "receipt.bad_receipt"


class NotVerified(ReceiptError):
    code = "receipt.not_verified"
    hint = "Read the failed and not-established checks above; do not rely on this receipt."


# --- inference ------------------------------------------------------------------------------------------------------


class InferenceError(StrongroomError):
    code = "inference"
    hint = "Do not rely on this answer; keep it and its receipt, and tell who runs the service."


class BadInferenceReceipt(InferenceError):
    code = "inference.bad_receipt"
    hint = "This is no receipt of the version `aci/1`; fetch it again by its id."


class InferenceNotVerified(InferenceError):
    """A receipt of a request that its reader may not rely on.

    Args:
        message: one line, with the number of the check.
        reason: the stable code of the check that did not pass.
    """

    code = "inference.not_verified"
    reason: str = ""

    def __init__(self, message: str, *, reason: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason

    def to_json(self) -> dict[str, str]:
        return {**super().to_json(), "reason": self.reason}


class OtherKeyset(InferenceError):
    code = "inference.other_keyset"
    hint = "The service has new keys, or another service answered: attest it again before anything is sent."


class ServedAtAnotherTime(InferenceError):
    code = "inference.other_time"
    hint = "Attest the service again; if that does not help, check the clocks of the two machines."


class EventsOutOfOrder(InferenceError):
    code = "inference.bad_events"


class OtherRequest(InferenceError):
    code = "inference.other_request"
    hint = "The service received other bytes than were sent: something between changed them."


class OtherResponse(InferenceError):
    code = "inference.other_response"
    hint = "The answer is not the one that the service sent: something between changed it. Do not use it."


class OtherOutcome(InferenceError):
    code = "inference.other_outcome"


class RequestRewritten(InferenceError):
    code = "inference.rewritten"


class OtherModel(InferenceError):
    code = "inference.other_model"


class OtherContract(InferenceError):
    code = "inference.other_contract"


class OtherTlsKey(InferenceError):
    code = "inference.other_tls_key"
    hint = "Somebody stands between you and the enclave, or it restarted just now: ask again, then from another network."


class OtherWeights(InferenceError):
    code = "inference.other_weights"


class OtherPolicy(InferenceError):
    code = "inference.other_policy"


class BadUsage(InferenceError):
    code = "inference.bad_usage"
    hint = "The figures do not fit the receipts; ask for the receipts and count again."


class OtherRoute(InferenceError):
    code = "inference.other_route"


class OtherId(InferenceError):
    code = "inference.other_id"
    hint = "The receipt is of another request; fetch the one that the answer names."


class NoInferenceReceipt(InferenceError):
    """An answer that no receipt was to be had for. An answer without its receipt is nobody's."""

    code = "inference.no_receipt"
    hint = "Ask again. If receipts stay away, tell who runs the service: nothing shows which model answered."


class ReceiptDoubled(InferenceError):
    code = "inference.receipt_doubled"
    hint = "Two receipts that differ have one id: neither is counted. Keep both, and tell who runs the service."


class SigningAlgorithm(InferenceError):
    code = "inference.signing_algorithm"
    hint = "Ask with signing_algo=ed25519, the one algorithm that is served here."


class NoIntelQuote(InferenceError):
    code = "inference.no_intel_quote"
    hint = "This platform has no such report; ask for GET /v1/aci/attestation instead."


# --- enclave --------------------------------------------------------------------------------------------------------


class EnclaveError(StrongroomError):
    code = "enclave"


class NoSandbox(EnclaveError):
    code = "enclave.no_sandbox"
    hint = "Install bubblewrap (apt-get install bubblewrap), or let a simulated contract say `sandbox: process`."


class ProgramNotApproved(EnclaveError):
    code = "enclave.program_not_approved"
    hint = "The installed program is not the one whose digest was approved; install that version or propose this one."


class CodeMismatch(EnclaveError):
    """The code that would run is not the code that was approved."""

    code = "enclave.code_mismatch"
    hint = "The exchange served other bytes, or the contract names other code; no key was asked for. Submit it again."


class EnvironmentMismatch(EnclaveError):
    """The packages that the code would see are not those that were approved."""

    code = "enclave.environment_mismatch"
    hint = "The bundle's lock is not the one that the contract names; no key was asked for. Submit it again."


class NoWheel(EnclaveError):
    """A package of a lock cannot be had as a wheel with one of the lock's hashes."""

    code = "enclave.no_wheel"
    hint = "The enclave's operator says where wheels are: strongroom enclave --wheels FOLDER, or --index URL"


class WheelRefused(EnclaveError):
    """A wheel holds what no environment may hold."""

    code = "enclave.wheel_refused"
    hint = "Lock another version of that package, or one that does without it."


class EnvironmentAltered(EnclaveError):
    """A built environment is not what was built."""

    code = "enclave.environment_altered"
    hint = "Somebody wrote in it; the enclave's operator removes that folder, and it is built again."


class RoomClosed(EnclaveError):
    code = "enclave.room_closed"
    hint = "Its leases ended, or an owner did not renew one; the keys are gone. Ask another enclave, or open a room anew."


class WeightsMismatch(EnclaveError):
    code = "enclave.weights_mismatch"
    hint = "The opened file is not the one whose digest its owner published; nothing of it is served. Tell the owner."


class NotMeasurable(EnclaveError):
    code = "enclave.not_measurable"
    hint = "Install what runs inside an enclave: pip install 'strongroom[room]'"


class NoPlatform(EnclaveError):
    """No confidential hardware was found on which an enclave could prove itself, or more than one."""

    code = "enclave.no_platform"
    hint = "`--platform simulated` runs without any: it protects nothing from whoever owns this machine."


class PlatformFailed(EnclaveError):
    code = "enclave.platform_failed"
    hint = "Look at what `strongroom enclave` printed, and start it again."


class RunFailed(EnclaveError):
    code = "enclave.run_failed"
    hint = "The run counts as used; the inputs' owners may grant another: strongroom grant CONTRACT"


class ProgramError(EnclaveError):
    """The program stopped. What leaves the enclave is the code and the step, never data.

    Args:
        message: one line, fixed per class and step.
        step: where it stopped: one of ``strongroom.programs.STEPS``.
    """

    code = "program"
    step: str = "program"

    def __init__(self, message: str, *, step: str = "program", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.step = step

    def to_json(self) -> dict[str, str]:
        return {**super().to_json(), "step": self.step}


class OutOfTime(ProgramError):
    code = "program.out_of_time"
    hint = "Propose a longer limit: --seconds"


class Cancelled(ProgramError):
    code = "program.cancelled"
    hint = "Who asked for the run, or an owner of what it reads, cancelled it; it counts as a run all the same."


class OutOfMemory(ProgramError):
    code = "program.out_of_memory"
    hint = "Propose a larger limit: --memory"


class TooMuchOutput(ProgramError):
    code = "program.too_much_output"
    hint = "Propose a larger limit, or fewer outputs: --max-bytes"


class OutputMissing(ProgramError):
    code = "program.output_missing"
    hint = "The program did not write an output that the contract names."


class ProgramCrashed(ProgramError):
    code = "program.crashed"
    hint = "Run the program on the mocks to see why; on real inputs its messages stay inside."


class ProtocolBroken(ProgramError):
    code = "program.protocol_broken"
    hint = "The program said to its enclave what no program may say; do not approve it again before you know why."


class ModelUnreadable(ProgramError):
    code = "program.model_unreadable"
    hint = (
        "Is the file whole? An evaluation of tables takes ONNX without extra files; a language model is GGUF or safetensors."
    )


class ModelShape(ProgramError):
    code = "program.model_shape"
    hint = "The model's input is not [rows, features] of the columns the contract names."


class TableUnreadable(ProgramError):
    code = "program.table_unreadable"
    hint = "The table is not a CSV or Parquet file as its media type says."


class TableColumns(ProgramError):
    code = "program.table_columns"
    hint = "A column that the contract's parameters name is missing; compare with the mock."


class TableNotNumeric(ProgramError):
    code = "program.table_not_numeric"
    hint = "A feature column holds text or empty cells where numbers must be."


class TableLabels(ProgramError):
    code = "program.table_labels"
    hint = "The target column holds a label that is none of the contract's classes, or none; compare with the mock."


class TableEmpty(ProgramError):
    code = "program.table_empty"
    hint = "The table has no rows."


class QuestionsUnreadable(ProgramError):
    code = "program.questions_unreadable"
    hint = "The questions are not a tar or zip of a task and its dataset; see docs/evaluate-llm.md."


class BadParameters(ProgramError):
    code = "program.bad_parameters"
    hint = "See `strongroom propose --help` for the program's parameters."


# --- engines --------------------------------------------------------------------------------------------------------


class EngineError(StrongroomError):
    """A language model that could not answer."""

    code = "engine"


class EngineBusy(EngineError):
    code = "engine.busy"
    hint = "Too many questions wait already; ask again in a moment."


class PromptTooLong(EngineError):
    """A prompt that does not fit.

    Attributes:
        tokens: how many it has, or 0 where that is not known.
        most: for how many there is room.
    """

    code = "engine.prompt_too_long"
    tokens: int = 0
    most: int = 0
    hint = "Shorten the prompt or the conversation, or ask for fewer tokens."


class EngineRefused(EngineError):
    """A question that the model or its engine cannot be asked.

    Attributes:
        reason: of ``lm.seated.REASONS``.
    """

    code = "engine.refused"
    reason: str = ""
    hint = "The model cannot be asked this; look at its model card for what it can do."


class EngineFailed(EngineError):
    code = "engine.failed"
    hint = "The engine is started again by itself; ask again in a moment."


# --- requests to a language model -----------------------------------------------------------------------------------


class RequestError(StrongroomError):
    """A request that is not answered.

    Args:
        message: one line; what the client sent stands in it nowhere.
        param: the member of the request that is meant, as OpenAI names it (``messages[0].content``).
    """

    code = "request"
    param: str | None = None
    hint = "See spec/inference.md for what may be asked."

    def __init__(self, message: str, *, param: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.param = param


class NotARequest(RequestError):
    code = "request.not_json"
    hint = "Send one JSON object in UTF-8, each member once."


class UnknownMember(RequestError):
    code = "request.unknown_member"
    hint = "Leave the member out: this service does not know it, and so cannot keep to it."


class NotSupported(RequestError):
    code = "request.not_supported"
    hint = "Leave the member out, or give it its default: the service does not do this."


class BadMember(RequestError):
    code = "request.bad_member"


class RequestTooLarge(RequestError):
    code = "request.too_large"
    hint = "Send less; GET /v1/room says how much is taken."


class RequestTooSlow(RequestError):
    code = "request.too_slow"
    hint = "The body did not come in time; send it again over a faster line."


class ModelNotServed(RequestError):
    code = "request.model_not_served"
    hint = "GET /v1/models lists what is served."


class RouteNotServed(RequestError):
    code = "request.route_not_served"
    hint = "GET /v1/room lists the routes; the contract or the model has not this one."


class PlainBody(RequestError):
    """A body that is not encrypted, where the contract asks for that."""

    code = "request.plain_body"
    hint = "Ask through `strongroom proxy`, which encrypts to the verified enclave; the body that was sent is known now."


class WrongMediaType(RequestError):
    code = "request.media_type"
    hint = "Send application/json, or a sealed request (spec/ehbp.md)."


class GuardRefused(RequestError):
    code = "request.guard_refused"
    hint = "A guard that the contract names refused it; GET /v1/room lists the guards."


class TooManyRequests(RequestError):
    code = "request.too_many"
    hint = "The service is busy; ask again after the seconds in Retry-After."


class ClientGone(RequestError):
    """The client went before its answer was whole. Nobody is told but the receipt."""

    code = "request.client_gone"


class ClientTooSlow(RequestError):
    """The client does not read its answer. Nobody is told but the receipt."""

    code = "request.client_too_slow"


class ServiceEnding(RequestError):
    """The service ends, and with it the answer."""

    code = "request.service_ending"
    hint = "Ask again: another enclave may answer."


# --- output ---------------------------------------------------------------------------------------------------------


class OutputError(StrongroomError):
    code = "output"


class OutputRefused(OutputError):
    """An output that its rule does not let through.

    Args:
        message: as of every error.
        rule: which rule it breaks, of ``output.RULES``.
        output: its name in the contract, where it is known.
    """

    code = "output.refused"
    hint = "The output breaks the rule that was agreed, so nothing of it left the enclave."

    def __init__(self, message: str, *, rule: str = "form", output: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.rule, self.output = rule, output


class OutputHeld(OutputError):
    code = "output.held"
    hint = "Its reviewers have not all passed it yet; see who: strongroom outputs"


# --- ehbp -----------------------------------------------------------------------------------------------------------


class EhbpError(StrongroomError):
    """An encrypted HTTP body, or a sealed request or response in one, that is refused."""

    code = "ehbp"
    hint = "Send the request again as a new exchange; if that fails too, something on the way changes the bodies."


class BadKeyConfig(EhbpError):
    code = "ehbp.bad_key_config"
    hint = "Take the key from the attested keyset; what the well-known address answers is only compared with it."


class UnsupportedSuite(EhbpError):
    code = "ehbp.unsupported_suite"
    hint = "Only X25519 with HKDF-SHA256 and AES-256-GCM is spoken here."


class BadEncapsulatedKey(EhbpError):
    code = "ehbp.bad_encapsulated_key"
    hint = "The header Ehbp-Encapsulated-Key stands once, with 64 lowercase hex digits of a usable X25519 key."


class BadResponseNonce(EhbpError):
    code = "ehbp.bad_response_nonce"
    hint = "The answer is not encrypted: anybody on the way may have written it. Do not use it."


class KeyConfigMismatch(EhbpError):
    """The body was not encrypted to this key: HTTP 422, problem type ``urn:ietf:params:ehbp:error:key-config``."""

    code = "ehbp.key_config_mismatch"
    hint = "The enclave has other keys now: verify its attestation again, and send the request again as a new exchange."


class FrameAltered(EhbpError):
    code = "ehbp.frame_altered"
    hint = "A frame was changed, repeated, left out, moved, or taken from another exchange; use nothing of this body."


class FrameTooLarge(EhbpError):
    code = "ehbp.frame_too_large"
    hint = "Send the body in smaller frames (spec/ehbp.md)."


class BodyTruncated(EhbpError):
    """A body that ends inside a frame."""

    code = "ehbp.truncated"
    hint = "The connection was cut; send the request again as a new exchange."


class BodyTooLarge(EhbpError):
    code = "ehbp.body_too_large"
    hint = "Send a smaller body; the other side says how large one may be."


class EmptyFrames(EhbpError):
    code = "ehbp.empty_frames"
    hint = "Frames without ciphertext carry nothing and are not authenticated; do not send them."


class NoBody(EhbpError):
    """Nothing of the request was authenticated, so that an answer would be readable by whoever chose its key."""

    code = "ehbp.no_body"
    hint = "Send a body, be it an empty object: only an encrypted body shows whose encapsulated key it is."


class BadRecord(EhbpError):
    code = "ehbp.bad_record"
    hint = "The other side does not send sealed requests (spec/ehbp.md); is it Strongroom, and of this version?"


class BadPadding(EhbpError):
    code = "ehbp.bad_padding"
    hint = "Padding is zeros; the other side's Strongroom is altered or faulty."


class NotEnded(EhbpError):
    """A body without its last frame."""

    code = "ehbp.not_ended"
    hint = "Somebody on the way may have cut the body; do not act on any of it."


class AfterEnd(EhbpError):
    code = "ehbp.after_end"
    hint = "Somebody on the way may have added to the body; do not act on any of it."


class WrongTarget(EhbpError):
    code = "ehbp.wrong_target"
    hint = "The request was made for another address or method; whoever passes it on must not rewrite either."


class WrongKeyset(EhbpError):
    code = "ehbp.wrong_keyset"
    hint = "The other side means another keyset than this one: verify the attestation again, then send the request anew."


class WrongContract(EhbpError):
    code = "ehbp.wrong_contract"
    hint = "The request was made under another contract than the one that is served here; compare them."


class WrongRequest(EhbpError):
    code = "ehbp.wrong_request"
    hint = "The answer is to another request; do not use it."


class WrongStatus(EhbpError):
    code = "ehbp.wrong_status"
    hint = "Somebody on the way changed the answer's HTTP status; do not use it."


class Replayed(EhbpError):
    code = "ehbp.replayed"
    hint = "This request was here already. To ask again, send a new exchange with a new encapsulated key."


class RefusedInTheOpen(EhbpError):
    """A refusal that came unencrypted: anybody on the way may have written it."""

    code = "ehbp.refused_in_the_open"
    hint = "Nothing vouches for this refusal. Look at what the service's operator says, or ask again later."


class SeenKeysFull(EhbpError):
    """The enclave can remember no more requests under its keyset, so that it refuses all."""

    code = "ehbp.seen_keys_full"
    hint = "The enclave must rotate its keyset: new keys, a new attestation, and the old ones drained."


# --- carried bundles -------------------------------------------------------------------------------------------------


class CarryError(StrongroomError):
    """A bundle that is not carried out of a site, or not taken in. Nothing of it was used."""

    code = "carry"


class NotCarried(CarryError):
    """A file that is no carried bundle, or one whose beginning is damaged."""

    code = "carry.not_a_bundle"
    hint = "Take the file as `strongroom carry out` wrote it; a damaged one is carried again."


class CarriedTruncated(CarryError):
    code = "carry.truncated"
    hint = "It was cut short, or the drive was taken out too early: copy it again. Nothing was taken in."


class CarriedAltered(CarryError):
    code = "carry.altered"
    hint = "It was damaged or tampered with on the way: copy it again from where it was written. Nothing was taken in."


class CarriedBadItem(CarryError):
    """An item that its sender signed and that is not what it says."""

    code = "carry.bad_item"
    hint = "Nothing was taken in; tell whoever sent it, whose Strongroom is another version, or not honest."


class CarriedFromStranger(CarryError):
    """From a site, or by a party of it, that this site does not take bundles from."""

    code = "carry.another_site"
    hint = "If it is to come in: pin the sender's card, and name the site and the party with `strongroom carry allow`."


class CarriedElsewhere(CarryError):
    code = "carry.not_for_here"
    hint = "Bring it to the site and the party that its manifest names: strongroom carry show FILE"


class CarriedWrongWay(CarryError):
    """The site's policy is closed in this direction."""

    code = "carry.wrong_direction"
    hint = "Whoever answers for this site decides what crosses, with `strongroom carry allow`."


class KindNotCarried(CarryError):
    """A kind of item that the site's policy does not let through in this direction."""

    code = "carry.kind_refused"
    hint = "Whoever answers for this site decides what crosses, with `strongroom carry allow`."


class CarriedTooLarge(CarryError):
    code = "carry.too_large"
    hint = "Carry less at a time (--contract), or have the site's limit raised: strongroom carry allow --max-bytes N"


class CarriedAgain(CarryError):
    """A bundle of a number that was taken in before."""

    code = "carry.replayed"
    hint = "Nothing to do: each bundle is taken in once. If the sender lost its record: carry out --above NUMBER, there."


class CarriedOutOfOrder(CarryError):
    code = "carry.out_of_order"
    hint = "Bring them in order. If one is lost, its sender carries out anew: strongroom carry out --lost NUMBER"


class NothingToCarry(CarryError):
    code = "carry.nothing"
    hint = "All that may cross was carried already; what got lost goes again with: strongroom carry out --lost NUMBER"


class NoCarryPolicy(CarryError):
    """Nobody has said what may cross at this site, so that nothing does."""

    code = "carry.no_policy"
    hint = "Say it first: strongroom carry allow OTHER-SITE --here THIS-SITE --party NAME --lets-in … --lets-out …"


# --- jobs -----------------------------------------------------------------------------------------------------------


class JobError(StrongroomError):
    """A run that waits in a queue for its turn, or that an enclave is asked for once more."""

    code = "job"


class QueueFull(JobError):
    code = "job.queue_full"
    hint = "Wait until some of your jobs are over, or cancel one: strongroom jobs"


class JobTooLarge(JobError):
    code = "job.too_large"
    hint = "Propose a smaller limit: --memory; or ask the queue's operator for a larger one: strongroom jobs serve --memory"


class JobOver(JobError):
    code = "job.over"
    hint = "strongroom jobs show JOB says how it ended."


class JobLost(JobError):
    """Its enclave ended after a key had been released."""

    code = "job.lost"
    hint = "The run is used, and its charge stands. If the contract has another: strongroom jobs retry JOB --another"


class JobExpired(JobError):
    code = "job.expired"
    hint = "Ask for it again, for longer: strongroom jobs retry JOB --hours N"


class JobCancelled(JobError):
    code = "job.cancelled"
    hint = "It was cancelled before it had every key; ask for a run of its own."


class RunBegun(JobError):
    """An enclave was asked again for a run that it has begun."""

    code = "job.begun"
    hint = "It goes on; its receipt comes when it is over."


class RunEnded(JobError):
    """An enclave was asked again for a run that it has ended, by the request that began it."""

    code = "job.ended"
    hint = "If it left no receipt, ask for it once more: strongroom jobs retry JOB. It is free where no key was released."


class NoCluster(JobError):
    code = "job.no_cluster"
    hint = "Is it running, with its port for clients? ray start --head --ray-client-server-port 10001 (docs/jobs.md)"


# --- datastore ------------------------------------------------------------------------------------------------------


class DatastoreError(StrongroomError):
    """A store of text that models retrieve from, or a source in it."""

    code = "datastore"


class NotAStore(DatastoreError):
    code = "datastore.not_a_store"
    hint = "Name a folder that this made: strongroom lm build SOURCE... --out STORE"


class HalfBuilt(DatastoreError):
    """A store or a source whose building did not come to its end."""

    code = "datastore.half_built"
    hint = "Give the same build command again: it goes on where it ended. Nothing in the store was changed."


class StoreTruncated(DatastoreError):
    """A file that is shorter or longer than its manifest says, or is not there."""

    code = "datastore.truncated"
    hint = "Drop the source and add it again from where it came: strongroom lm drop STORE NAME"


class StoreVersion(DatastoreError):
    code = "datastore.other_version"
    hint = "It is of another version of the format than this program reads (spec/datastore.md); build it again."


class OtherParts(DatastoreError):
    """A source that was built with another tokenizer, retriever or quantizer than the store's."""

    code = "datastore.other_parts"
    hint = "Build the source again for this store: strongroom lm build NAME=FILE --out STORE"


class SourceTwice(DatastoreError):
    code = "datastore.source_twice"
    hint = "Give it another name; or drop the one that is there first: strongroom lm drop STORE NAME"


class NoSource(DatastoreError):
    code = "datastore.no_source"
    hint = "See what is there: strongroom lm sources STORE"


class NotRemoved(DatastoreError):
    """Files of a source that is dropped already, and that the system does not let go."""

    code = "datastore.not_removed"
    hint = "The source is dropped, but files of it are left in building/. Look whose they are, and drop it once more."


class BadSourceName(DatastoreError):
    code = "datastore.bad_name"
    hint = "A source's name has 1 to 64 lowercase letters, digits, dots, dashes and underscores, and begins with a letter."


class BadManifest(DatastoreError):
    code = "datastore.bad_manifest"
    hint = "The file was altered or is of another program (spec/datastore.md); take the source again from where it came."


class DigestMismatch(DatastoreError):
    """A file whose bytes are not those that a manifest promises."""

    code = "datastore.digest_mismatch"
    hint = "It was damaged or altered, or its manifest lies; use nothing of it, and take it again from where it came."


class EmptySource(DatastoreError):
    code = "datastore.empty_source"
    hint = "A source has at least one document; check that the file was written to its end."


class BadDocument(DatastoreError):
    """A line or a row that is no document."""

    code = "datastore.bad_document"
    hint = 'A document is {"id": …, "text": …}, one a line; or a row with a column "text". To pass over such: --skip-bad'


class EmptyDocument(DatastoreError):
    code = "datastore.empty_document"
    hint = "Take it out of the file; or pass over such documents and have them counted: --skip-bad"


class DocumentTooLong(DatastoreError):
    code = "datastore.document_too_long"
    hint = "Is the file really one document a line? Split it, or pass over such documents: --skip-bad"


class NotUtf8(DatastoreError):
    code = "datastore.not_utf8"
    hint = "Convert the file to UTF-8 first; or pass over such documents and have them counted: --skip-bad"


class NotATextFile(DatastoreError):
    """A file of a kind that no source is built from, or one that is damaged."""

    code = "datastore.not_a_text_file"
    hint = "A source is built from .jsonl, .txt or .parquet files, the first two also as .gz or .xz, or a folder of them."


class InputChanged(DatastoreError):
    """A file that is not what it was when the building began."""

    code = "datastore.input_changed"
    hint = "Begin anew, which throws away what was built of this source: --restart"


class DiskFull(DatastoreError):
    code = "datastore.disk_full"
    hint = "Make room and give the same command again: it goes on where it ended. Nothing in the store was changed."


class StoreBusy(DatastoreError):
    """Somebody else builds the same source."""

    code = "datastore.busy"
    hint = "Wait until the other build ends, or end it."


# --- retrieval ------------------------------------------------------------------------------------------------------


class RetrievalError(StrongroomError):
    """A model that retrieves."""

    code = "retrieval"


class BadModel(RetrievalError):
    """A file that is no retrieval model, or is damaged."""

    code = "retrieval.bad_model"
    hint = "Take the file again from where it came, or train one: strongroom lm train"


class OtherTokenizer(RetrievalError):
    code = "retrieval.other_tokenizer"
    hint = "Build the store with the parts that the model was trained on: strongroom lm build --like STORE, or --shipped"


class PromptBeyondContext(RetrievalError):
    code = "retrieval.prompt_too_long"
    hint = "Shorten the prompt: its last part alone is what the answer goes on from."


class BadInfluence(RetrievalError):
    """A budget that is none."""

    code = "retrieval.bad_budget"
    hint = "To give a source nothing, leave it out of the store; else its budget is 1 part in 1,048,576 of a token, or more."


class BadTraining(RetrievalError):
    """What was asked of a training or an evaluation cannot be done."""

    code = "retrieval.bad_training"
    hint = "See: strongroom lm train --help"


class OtherTraining(RetrievalError):
    """A checkpoint that is damaged, or of another training."""

    code = "retrieval.other_training"
    hint = "Go on with the settings and the store that it began with, or begin anew in another folder."


# --- app ------------------------------------------------------------------------------------------------------------


class AppError(StrongroomError):
    code = "app"


class NotFound(AppError):
    code = "app.not_found"
    hint = "Check the path or the digest; strongroom status lists what is known here."


class EmptyFile(AppError):
    code = "app.empty_file"
    hint = "The file has no bytes; check that it was written or copied to the end."


class NotATable(AppError):
    code = "app.not_a_table"
    hint = "A table is a whole file in Parquet, CSV with a header, JSON lines or Arrow IPC, with columns of distinct names."


class Unreachable(AppError):
    code = "app.unreachable"
    hint = "Is it running? Start everything on this machine with: strongroom up"


class BadAnswer(AppError):
    """A service that is not ours answered with something else than it should."""

    code = "app.bad_answer"
    hint = "Check the service's address; or take a bundle that was made elsewhere: strongroom endorsements bundle"


class RateLimited(AppError):
    """A service that is not ours asks to be asked later."""

    code = "app.rate_limited"
    hint = "Ask again later; what was fetched before stays in the cache."


class Usage(AppError):
    code = "app.usage"


class Unauthorised(AppError):
    code = "app.unauthorised"


class NoCredential(AppError):
    """Nobody said who asks, or under a key that is not in force: HTTP 401."""

    code = "app.no_credential"
    hint = "Send `Authorization: Bearer KEY` with a key of the operator's, who makes one with: strongroom keys add NAME"


class LimitReached(AppError):
    """A key's limit: HTTP 429.

    Args:
        message: one line.
        retry_after: seconds after which it is worth asking again, at least 1: the header ``Retry-After``.
    """

    code = "app.limit_reached"
    retry_after: int = 1
    hint = "Ask again later, as Retry-After says; the operator sets each key's limits."

    def __init__(self, message: str, *, retry_after: int = 1, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class Conflict(AppError):
    code = "app.conflict"
    hint = "It is there already, or busy: look first, or ask again later."


class NoSpace(AppError):
    code = "app.no_space"
    hint = "The operator must make room on the exchange's disk; ask again then."


class MissingExtra(AppError):
    code = "app.missing_extra"
    hint = "pip install 'strongroom[room]'"


class NotBuilt(AppError):
    """The chat page's built form is not there, or not whole."""

    code = "app.not_built"
    hint = "Build it from its source with: make web"


class Internal(AppError):
    code = "app.internal"
    hint = "This is a fault in Strongroom; run again with STRONGROOM_DEBUG=1 for the traceback and report it."


def leaves() -> dict[str, type[StrongroomError]]:
    """Every error class by its code."""
    found: dict[str, type[StrongroomError]] = {}
    todo: list[type[StrongroomError]] = [StrongroomError]
    while todo:
        cls = todo.pop()
        todo.extend(cls.__subclasses__())
        found[cls.code] = cls
    return found


def _one_line(text: str) -> str:
    """At most 500 characters that a terminal prints as they are: no line ends, no escape sequences."""
    return "".join(c if c.isprintable() else " " for c in text[:500])


def from_json(value: object) -> StrongroomError:
    """An error that another process answered with, as the same class; :class:`Internal` where it is none of ours.

    Args:
        value: decoded JSON as of :meth:`StrongroomError.to_json`. Untrusted: only its text is shown, and the hint is
            always the class's own, because the other side does not say what to do here.
    """
    members = value if isinstance(value, dict) else {}
    text = {k: _one_line(v) for k, v in members.items() if isinstance(k, str) and isinstance(v, str)}
    cls = leaves().get(text.get("code", ""), Internal)
    error = cls.__new__(cls)
    StrongroomError.__init__(error, text.get("message") or "the other side failed without saying why")
    for extra in ("reason", "step"):
        if extra in text and hasattr(cls, extra):
            setattr(error, extra, text[extra])
    return error
