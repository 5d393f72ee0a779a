"""A TPM's quote with the registers that it covers: read, checked, and judged alike for a TPM of its own and for Azure's.

See ``spec/evidence-tpm.md``, "The quote".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar

from strongroom import wire
from strongroom.errors import BadEvidence, BadField, EvidenceForged
from strongroom.wire import JSON, Fields

from .tpm2 import ATTEST_QUOTE, DIGESTS, PCR_COUNT, TPM_GENERATED, Attest, PublicKey, Signature

BANKS: Mapping[str, int] = MappingProxyType({"sha256": 0x000B, "sha384": 0x000C})  # TPM_ALG_ID of each
MAX_QUOTE_BYTES = 1024
MAX_SIGNATURE_BYTES = 1024
# Firmware and secure boot (0 to 7), boot loader, kernel and command line (8, 9, 11), their additions (12, 13), shim (14).
DEFAULT_PCRS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14)
ANY = "any"
_VERSION = re.compile(r"[0-9a-f]{16}\Z")
_T = TypeVar("_T")
STEPS = (
    "the quote was made by a TPM, of its registers",
    "the quote is signed by the attestation key",
    "the registers presented are exactly those quoted, of one bank",
    "the registers presented have the digest that was quoted",
)
TERMS_STEPS = (
    "every register that the policy asks for is quoted",
    "the registers are of a bank that the policy accepts",
    "the TPM's clock has never gone back",
    "the TPM's firmware is one that the policy accepts",
    "the machine was started as often as the policy says",
    "the machine woke from sleep as often as the policy says",
)


@dataclass(frozen=True, slots=True)
class Quote:
    """A quote, its signature and the registers that it is said to cover. **Untrusted.**

    Args:
        message: what the TPM signed (TPMS_ATTEST).
        signature: the TPM's signature (TPMT_SIGNATURE).
        bank: ``sha256`` or ``sha384``.
        pcrs: index, 0 to 23, to the register's bytes.

    Attributes:
        attest, signed: ``message`` and ``signature``, read.

    Raises:
        BadEvidence: it cannot be read; a signature by SHA-1, a bank of SHA-1.
    """

    message: bytes
    signature: bytes
    bank: str
    pcrs: Mapping[int, bytes]
    attest: Attest = field(init=False, repr=False, compare=False)
    signed: Signature = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.bank not in BANKS:
            raise BadEvidence(f"registers of bank {self.bank[:16]!r} are not accepted: {', '.join(BANKS)} are")
        size = hashlib.new(self.bank).digest_size
        if not self.pcrs or any(not 0 <= n < PCR_COUNT or len(value) != size for n, value in self.pcrs.items()):
            raise BadEvidence(f"no registers, or one that is not 0 to {PCR_COUNT - 1} or not {size} bytes long")
        if len(self.message) > MAX_QUOTE_BYTES or len(self.signature) > MAX_SIGNATURE_BYTES:
            raise BadEvidence("a quote or its signature is too long")
        object.__setattr__(self, "pcrs", MappingProxyType(dict(sorted(self.pcrs.items()))))
        object.__setattr__(self, "attest", Attest.parse(self.message))
        object.__setattr__(self, "signed", Signature.parse(self.signature))

    def members(self) -> dict[str, JSON]:
        return {
            "bank": self.bank,
            "pcrs": {f"pcr{n}": value.hex() for n, value in self.pcrs.items()},
            "quote": wire.b64(self.message),
            "signature": wire.b64(self.signature),
        }

    @classmethod
    def from_fields(cls, f: Fields) -> Quote:
        """Read the members that :meth:`members` writes. Raises BadField, BadEvidence."""
        bank = f.text("bank", max_chars=16, choices=BANKS)
        value = f.any("pcrs")
        g = Fields(value, "registers")
        size = hashlib.new(bank).digest_size
        pcrs = {n: g.hex(f"pcr{n}", size=size) for n in range(PCR_COUNT) if g.has(f"pcr{n}")}
        g.end()
        message = f.base64("quote", max_bytes=MAX_QUOTE_BYTES)
        return cls(message, f.base64("signature", max_bytes=MAX_SIGNATURE_BYTES), bank, pcrs)

    @property
    def seen(self) -> str:
        """What was quoted, for people."""
        return f"{len(self.pcrs)} registers of {self.bank}"

    def registers(self, below: int = PCR_COUNT) -> dict[str, str]:
        """The registers under ``below`` as a measurement names them."""
        return {f"pcr{n}": f"{self.bank}:{value.hex()}" for n, value in self.pcrs.items() if n < below}

    def require_made_by_tpm(self) -> None:
        """Raises EvidenceForged: something else was signed by the same key; BadEvidence: no quote."""
        if self.attest.magic != TPM_GENERATED:
            raise EvidenceForged(f"not made by a TPM: it begins with {self.attest.magic:#010x}")
        if self.attest.kind != ATTEST_QUOTE:
            raise BadEvidence(f"a TPM made it, but it is no quote: its type is {self.attest.kind:#06x}")

    def require_signed_by(self, key: PublicKey) -> None:
        """Raises EvidenceForged."""
        self.signed.require(key, self.message)

    def require_selected(self) -> None:
        """Raises EvidenceForged: other registers are presented than were quoted, or those of another bank."""
        found = self.attest.selections
        if len(found) != 1 or found[0].algorithm != BANKS[self.bank]:
            raise EvidenceForged(f"the quote is not of the {self.bank} bank alone")
        if found[0].pcrs != tuple(self.pcrs):
            raise EvidenceForged(f"quoted are registers {_list(found[0].pcrs)}, presented {_list(self.pcrs)}")

    def require_digest(self) -> None:
        """The digest is by the signature's algorithm, over the registers in ascending order (Part 1, section 17.6.1).

        Raises EvidenceForged.
        """
        digest = hashlib.new(DIGESTS[self.signed.digest], b"".join(self.pcrs.values())).digest()
        if digest != self.attest.pcr_digest:
            raise EvidenceForged("the registers presented do not have the digest that was quoted")

    def binds(self, report_data: bytes) -> bool:
        """Whether the quote is for these 64 bytes: its ``extraData`` is their SHA-256.

        A TPM that knows no digest longer than SHA-256 takes at most 34 bytes; so all are given 32.
        """
        return self.attest.extra_data == hashlib.sha256(report_data).digest()


def _list(pcrs: Iterable[int]) -> str:
    return ",".join(map(str, pcrs)) or "none"


@dataclass(frozen=True, slots=True)
class QuoteTerms:
    """What a policy asks of a quote.

    Args:
        pcrs: registers that must be quoted, 1 to 24 of 0 to 23; more may be.
        banks: accepted banks; none accepts nothing.
        clock_safe: whether the TPM must say that its clock has never gone back.
        firmware: accepted firmware versions, 16 hex digits each; ``None`` for the word ``any``.
        reset_count: how often the machine must have been started, exactly; ``None`` for the word ``any``.
        restart_count: how often it must have woken since, exactly; ``None`` for the word ``any``.

    Raises:
        BadField: outside these bounds.
    """

    pcrs: tuple[int, ...] = DEFAULT_PCRS
    banks: tuple[str, ...] = tuple(BANKS)
    clock_safe: bool = True
    firmware: tuple[str, ...] | None = None
    reset_count: int | None = None
    restart_count: int | None = None

    def __post_init__(self) -> None:
        if not self.pcrs or list(self.pcrs) != sorted(set(self.pcrs)) or not 0 <= self.pcrs[0] <= self.pcrs[-1] < PCR_COUNT:
            raise BadField(f"terms.pcrs is not an ascending list of registers, 0 to {PCR_COUNT - 1}")
        if list(self.banks) != sorted(set(self.banks)) or not set(self.banks) <= set(BANKS):
            raise BadField(f"terms.banks is not a sorted list of {', '.join(BANKS)}")
        if self.firmware is not None and (
            list(self.firmware) != sorted(set(self.firmware)) or not all(map(_VERSION.match, self.firmware))
        ):
            raise BadField("terms.firmware is not a sorted list of versions of 16 hex digits")

    def to_json(self) -> dict[str, JSON]:
        return {
            "banks": list(self.banks),
            "clock_safe": self.clock_safe,
            "firmware": ANY if self.firmware is None else list(self.firmware),
            "pcrs": list(self.pcrs),
            "reset_count": ANY if self.reset_count is None else self.reset_count,
            "restart_count": ANY if self.restart_count is None else self.restart_count,
        }

    @classmethod
    def from_fields(cls, f: Fields) -> QuoteTerms:
        """Raises BadField."""
        return cls(
            pcrs=f.items("pcrs", lambda n: Fields({"pcr": n}, "terms").integer("pcr"), high=PCR_COUNT),
            banks=f.items("banks", _text, high=len(BANKS)),
            clock_safe=f.boolean("clock_safe"),
            firmware=any_or(f, "firmware", lambda g: g.items("firmware", _text, high=64)),
            reset_count=any_or(f, "reset_count", lambda g: g.integer("reset_count", high=2**32 - 1)),
            restart_count=any_or(f, "restart_count", lambda g: g.integer("restart_count", high=2**32 - 1)),
        )

    @classmethod
    def from_json(cls, value: object) -> QuoteTerms:
        """Raises BadField."""
        f = Fields(value, "terms of a quote")
        found = cls.from_fields(f)
        f.end()
        return found

    def judge(self, quote: Quote) -> list[tuple[bool, str]]:
        """For each of ``TERMS_STEPS``: whether it holds, and what was seen."""
        attest = quote.attest
        missing = [n for n in self.pcrs if n not in quote.pcrs]
        version = f"{attest.firmware_version:016x}"
        return [
            (not missing, f"not quoted: {_list(missing)}" if missing else f"quoted: {_list(quote.pcrs)}"),
            (quote.bank in self.banks, quote.bank),
            (attest.clock_safe or not self.clock_safe, "safe" if attest.clock_safe else "the clock may have gone back"),
            (self.firmware is None or version in self.firmware, version),
            (self.reset_count in {None, attest.reset_count}, f"{attest.reset_count} times"),
            (self.restart_count in {None, attest.restart_count}, f"{attest.restart_count} times"),
        ]


def any_or(f: Fields, name: str, parse: Callable[[Fields], _T]) -> _T | None:
    """``None`` where a member is the word ``any``; else what ``parse`` reads of it. Raises BadField."""
    value = f.any(name)
    return None if value == ANY else parse(Fields({name: value}, "terms"))


def _text(value: object) -> str:
    return Fields({"item": value}, "terms").text("item", max_chars=64)
