"""What was served under a contract, for a party of it: asked for under its signature, answered encrypted to its key.

A receipt is for its request's client, and for the parties that recompute a bill. Whoever passes the answer on, or sends the
request again, learns nothing: each page opens with the party's own key, and for this request alone.

See ``spec/usage.md``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from . import wire
from .attest.keyset import AttestationReport
from .contract import Proposal, require_asked
from .errors import BadInferenceReceipt, BadKey, TooLarge
from .inference.receipt import InferenceReceipt
from .ledger import LoggedProof
from .party import DecryptionKey, SigningKey
from .wire import JSON, Envelope, Fields

FORMAT: Final = "strongroom.served.v1"
REQUEST_TYPE: Final = wire.media_type("served-request")
REQUEST_SECONDS: Final = 600
MAX_REQUEST_BYTES: Final = 4096
MAX_PAGE_BYTES: Final = 4 << 20
PAGE_BYTES: Final = 1 << 20  # a line is added to a page only while it is smaller than this
MAX_LINE_BYTES: Final = 2 << 20
MAX_REPORTS: Final = 64


@dataclass(frozen=True, slots=True)
class ServedRequest:
    """A party's request for the receipts under a contract.

    Attributes:
        contract: the digest.
        party: who asks.
        nonce: 32 fresh bytes in hex; the enclave proves its keysets for it.
        at: Unix seconds, as the party says.
    """

    contract: str
    party: str
    nonce: str
    at: int

    def encode(self) -> bytes:
        return wire.encode({"at": self.at, "contract": self.contract, "nonce": self.nonce, "party": self.party})

    def sign(self, key: SigningKey) -> Envelope:
        return key.sign(REQUEST_TYPE, self.encode())

    @classmethod
    def peek(cls, envelope: Envelope) -> ServedRequest:
        """What it says, **unverified**: to find the contract. Raises WireError."""
        f = Fields(wire.decode(envelope.expect(REQUEST_TYPE), max_bytes=MAX_REQUEST_BYTES), "request")
        found = cls(f.digest("contract"), f.name("party"), f.hex("nonce", size=32).hex(), f.integer("at"))
        f.end()
        return found

    @classmethod
    def verify(cls, envelope: Envelope, proposal: Proposal, at: int) -> ServedRequest:
        """Signed by a party of this contract, now. Raises NotAParty, BadSignature, BadField, WireError."""
        found = cls.peek(envelope)
        require_asked(envelope, REQUEST_TYPE, proposal, found, at, seconds=REQUEST_SECONDS)
        return found

    def info(self, page: int, *, last: bool) -> bytes:
        """What one page of the answer is bound to: this request, its place, and whether more follow."""
        return wire.encode({"contract": self.contract, "last": last, "nonce": self.nonce, "page": page, "purpose": FORMAT})


@dataclass(frozen=True, slots=True)
class Proven:
    """That a keyset is an enclave's. **Untrusted**, until it was appraised.

    Attributes:
        nonce: for which it was asked, 32 bytes.
        at: when, Unix seconds.
        report: the attestation report.
    """

    nonce: bytes
    at: int
    report: AttestationReport

    def to_json(self) -> dict[str, JSON]:
        return {"at": self.at, "nonce": self.nonce.hex(), "report": self.report.to_json()}

    @classmethod
    def from_json(cls, value: object) -> Proven:
        """Raises WireError, AttestationError."""
        f = Fields(value, "proven")
        found = cls(f.hex("nonce", size=32), f.integer("at"), AttestationReport.from_json(f.any("report")))
        f.end()
        return found


@dataclass(frozen=True, slots=True)
class Head:
    """The first line: under which contract, by which enclaves. **Untrusted.**

    Attributes:
        contract: the envelope.
        manifests: envelopes of the assets' manifests.
        proven: the keysets that sign the receipts.
    """

    contract: Envelope
    manifests: tuple[Envelope, ...]
    proven: tuple[Proven, ...]

    def encode(self) -> bytes:
        return wire.encode(
            {
                "contract": self.contract.to_json(),
                "format": FORMAT,
                "manifests": [manifest.to_json() for manifest in self.manifests],
                "proven": [proven.to_json() for proven in self.proven],
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Head:
        """Raises WireError, AttestationError."""
        f = Fields(wire.decode(data, max_bytes=MAX_LINE_BYTES), "served")
        f.literal("format", FORMAT)
        found = cls(
            Envelope.from_json(f.any("contract")),
            f.items("manifests", Envelope.from_json, high=64),
            f.items("proven", Proven.from_json, high=MAX_REPORTS),
        )
        f.end()
        return found


@dataclass(frozen=True, slots=True)
class Kept:
    """Every other line: a receipt, and where the log holds it. **Untrusted.**

    Attributes:
        receipt: as its enclave signed it.
        proof: ``None`` where it is not known to be logged.
    """

    receipt: InferenceReceipt
    proof: LoggedProof | None = None

    def encode(self) -> bytes:
        return wire.encode({"proof": self.proof.to_json() if self.proof else None, "receipt": self.receipt.to_json()})

    @classmethod
    def parse(cls, data: bytes) -> Kept:
        """Raises WireError, BadInferenceReceipt, BadProof, BadCheckpoint."""
        f = Fields(wire.decode(data, max_bytes=MAX_LINE_BYTES), "line")
        found = cls(InferenceReceipt.from_json(f.any("receipt")), f.optional("proof", LoggedProof.from_json))
        f.end()
        return found


def pages(request: ServedRequest, proposal: Proposal, lines: Iterable[bytes]) -> Iterator[bytes]:
    """The lines encrypted to the party that asks: 4 bytes of length and a ciphertext, each page for its place alone.

    Args:
        request: verified.
        proposal: of the contract, which names the party's key.
        lines: without their ends; the first is the head.
    """
    key = proposal.party(request.party).encryption_key

    def page(number: int, body: list[bytes], *, last: bool) -> bytes:
        sealed = key.encrypt(b"\n".join(body), info=request.info(number, last=last))
        return len(sealed).to_bytes(4, "big") + sealed

    number, size, held = 0, 0, list[bytes]()
    for line in lines:
        if size >= PAGE_BYTES:
            yield page(number, held, last=False)
            number, size, held = number + 1, 0, []
        held.append(line)
        size += len(line)
    yield page(number, held, last=True)


def opened(request: ServedRequest, key: DecryptionKey, body: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of an answer, as its asker opens them.

    Args:
        request: that was sent.
        key: the asker's own.
        body: the answer in pieces, untrusted.

    Raises:
        BadKey: a page was changed, moved, or is of another answer. BadInferenceReceipt: the answer was cut off, or more
            follows its end. TooLarge: a page is.
    """
    held, number, over = bytearray(), 0, False
    for piece in body:
        held += piece
        while len(held) >= 4 and len(held) >= 4 + (size := int.from_bytes(held[:4], "big")):
            if over:
                raise BadInferenceReceipt("more follows the answer's last page")
            plain, over = _page(request, key, bytes(held[4 : 4 + size]), number)
            del held[: 4 + size]
            number += 1
            yield from plain.split(b"\n")
        if len(held) >= 4 and int.from_bytes(held[:4], "big") > MAX_PAGE_BYTES:
            raise TooLarge(f"a page of the answer has more than {MAX_PAGE_BYTES} bytes")
    if held or not over:
        raise BadInferenceReceipt("the answer was cut off")


def _page(request: ServedRequest, key: DecryptionKey, sealed: bytes, number: int) -> tuple[bytes, bool]:
    """A page's plaintext, and whether it is the last one: that is not said beside it, but tried."""
    try:
        return key.decrypt(sealed, info=request.info(number, last=False)), False
    except BadKey:
        return key.decrypt(sealed, info=request.info(number, last=True)), True


__all__ = ["FORMAT", "REQUEST_TYPE", "Head", "Kept", "Proven", "ServedRequest", "opened", "pages"]
