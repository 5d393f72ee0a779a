"""Intel SGX: an enclave, measured by the processor, quoted with a key that Intel's PCK vouches for.

See ``spec/evidence-intel.md``; the checks Q1 to Q20 (``intel``) and X1 to X9 are numbered as there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import InitVar, dataclass, field, replace
from types import MappingProxyType

from strongroom.errors import BadEvidence, BadField, TcbNotAccepted, TermsNotMet
from strongroom.transcript import Steps, Transcript
from strongroom.wire import JSON, Fields

from . import dcap, intel, intel_terms
from .dcap import EnclaveReport, Quote, Tee
from .evidence import Endorsements, Evidence, Measurement, Roots
from .intel import STEPS, Processor
from .intel_collateral import Advisory, TcbStatus
from .intel_terms import (
    DEFAULT_FLOOR,
    DEFAULT_STATUSES,
    Answer,
    check_tcb_terms,
    hardware,
    judge_tcb,
    read_advisories,
    read_statuses,
)
from .vector import TrustVector

__all__ = ["LABEL", "PLATFORM", "STEPS", "TERMS_STEPS", "Claims", "SgxVerified", "Terms", "judge", "parse", "verify"]

PLATFORM = "sgx"
LABEL = "platform: sgx (Intel SGX)"
TERMS_STEPS = Steps(
    "X",
    [
        "the status of the TCB is an accepted one",
        "every advisory that touches it is tolerated at the time in question",
        "Intel's evaluation of the TCB is recent enough",
        "the enclave is an accepted product of its signer",
        "the enclave's security version is recent enough",
        "the enclave's configuration is an accepted one (CONFIGID)",
        "the enclave is a 64-bit one, and no other attribute is set but those that the terms name",
        "the extended features of the processor are as the terms ask (XFRM)",
        "the enclave learns of its own faults only what the terms allow (MISCSELECT)",
    ],
)

# Bits of ATTRIBUTES by name (SDM, table 37-3). INIT is set in every report; DEBUG is for the appraisal.
INIT, DEBUG, MODE64 = 0, 1, 2
ATTRIBUTES: Mapping[str, int] = MappingProxyType(
    {"aexnotify": 10, "cet": 6, "einittoken_key": 5, "kss": 7, "provision_key": 4}
)
# For people: every bit that is known of ATTRIBUTES, and of MISCSELECT (SDM, table 37-4).
ATTRIBUTE_BITS: Mapping[str, int] = MappingProxyType({"init": INIT, "debug": DEBUG, "mode64": MODE64, **ATTRIBUTES})
MISC_BITS: Mapping[str, int] = MappingProxyType({"exinfo": 0, "cpinfo": 1})
MAX_PRODUCTS, MAX_CONFIGS = 256, 256
XFRM_REQUIRED = 0x3  # x87 and SSE, which every enclave has
XFRM_ALLOWED = 0x65AE7  # as in ``tdx``: the enclave's own registers, and nothing that records or traces
_NO_CONFIG = bytes(64)
_MAKER = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What must hold of the processor and the enclave, beyond that the quote is genuine and the measurements are accepted.

    Args:
        statuses: accepted statuses of the TCB, never ``Revoked``.
        advisories: advisory of Intel's to the last second at which it is tolerated, unix; none else is.
        tcb_evaluation_floor: the least ``tcbEvaluationDataNumber`` of TCB information and QE identity.
        isv_prod_ids: accepted product numbers (ISVPRODID), which the enclave's signer gives out.
        isv_svn_floor: the least security version (ISVSVN), which the enclave's signer gives out.
        config_ids: accepted CONFIGIDs, 64 bytes each; none, so that the host configured nothing, needs not to be listed.
        attributes: names in ``ATTRIBUTES`` that may be set; no other may.
        xfrm_required, xfrm_allowed: bits of XFRM that must be set, and that may be.
        misc_select_allowed: bits of MISCSELECT that may be set.

    Raises:
        BadField: outside these bounds.
    """

    statuses: frozenset[TcbStatus] = DEFAULT_STATUSES
    advisories: Mapping[str, int] = field(default_factory=dict)
    tcb_evaluation_floor: int = DEFAULT_FLOOR
    isv_prod_ids: frozenset[int] = frozenset({0})
    isv_svn_floor: int = 0
    config_ids: frozenset[bytes] = frozenset()
    attributes: frozenset[str] = frozenset()
    xfrm_required: int = XFRM_REQUIRED
    xfrm_allowed: int = XFRM_ALLOWED
    misc_select_allowed: int = 0

    def __post_init__(self) -> None:
        check_tcb_terms("terms of sgx", self.statuses, self.advisories, self.tcb_evaluation_floor)
        if not self.attributes <= ATTRIBUTES.keys():
            raise BadField(f"terms of sgx.attributes names what is none of {', '.join(ATTRIBUTES)}")
        if not all(0 <= number <= 0xFFFF for number in (*self.isv_prod_ids, self.isv_svn_floor)):
            raise BadField("terms of sgx: a product or a security version is not a number from 0 to 65535")
        if not all(0 <= mask < 1 << 64 for mask in (self.xfrm_required, self.xfrm_allowed)):
            raise BadField("terms of sgx: an XFRM mask is not of 64 bits")
        if not 0 <= self.misc_select_allowed < 1 << 32 or not all(len(one) == 64 for one in self.config_ids):
            raise BadField("terms of sgx: a mask of MISCSELECT is not of 32 bits, or a CONFIGID not 64 bytes long")
        object.__setattr__(self, "advisories", MappingProxyType(dict(sorted(self.advisories.items()))))

    def __hash__(self) -> int:
        return hash((self.statuses, tuple(self.advisories.items()), self.isv_prod_ids, self.config_ids, self.attributes))

    def to_json(self) -> dict[str, JSON]:
        return {
            "advisories": dict(self.advisories),
            "attributes": [*sorted(self.attributes)],
            "config_ids": [one.hex() for one in sorted(self.config_ids)],
            "isv_prod_ids": [*sorted(self.isv_prod_ids)],
            "isv_svn_floor": self.isv_svn_floor,
            "misc_select_allowed": self.misc_select_allowed.to_bytes(4, "little").hex(),
            "statuses": [*sorted(self.statuses)],
            "tcb_evaluation_floor": self.tcb_evaluation_floor,
            "xfrm_allowed": self.xfrm_allowed.to_bytes(8, "little").hex(),
            "xfrm_required": self.xfrm_required.to_bytes(8, "little").hex(),
        }

    @classmethod
    def from_json(cls, value: object) -> Terms:
        """Raises BadField: a member is missing, unknown, out of bounds or not in its one spelling."""
        f = Fields(value, "terms of sgx")
        found = cls(
            statuses=read_statuses(f),
            advisories=read_advisories(f),
            tcb_evaluation_floor=f.integer("tcb_evaluation_floor", high=0xFFFF),
            isv_prod_ids=frozenset(f.items("isv_prod_ids", _product, high=MAX_PRODUCTS)),
            isv_svn_floor=f.integer("isv_svn_floor", high=0xFFFF),
            config_ids=frozenset(f.items("config_ids", _config, high=MAX_CONFIGS)),
            attributes=frozenset(f.names("attributes", high=len(ATTRIBUTES))),
            xfrm_required=int.from_bytes(f.hex("xfrm_required", size=8), "little"),
            xfrm_allowed=int.from_bytes(f.hex("xfrm_allowed", size=8), "little"),
            misc_select_allowed=int.from_bytes(f.hex("misc_select_allowed", size=4), "little"),
        )
        f.end()
        if found.to_json() != value:
            raise BadField("terms of sgx: a list is not sorted and distinct")
        return found


def _product(value: object) -> int:
    return Fields({"product": value}, "terms of sgx.isv_prod_ids").integer("product", high=0xFFFF)


def _config(value: object) -> bytes:
    return Fields({"config": value}, "terms of sgx.config_ids").hex("config", size=64)


@dataclass(frozen=True, slots=True)
class Claims:
    """What a quote of an enclave says. **Untrusted**: :func:`verify` says who signed it."""

    quote: Quote
    enclave: EnclaveReport

    @property
    def report_data(self) -> bytes:
        return self.enclave.report_data

    @property
    def measurement(self) -> Measurement:
        """What was built into the enclave, and whose key signed it."""
        found = {"mrenclave": self.enclave.mrenclave, "mrsigner": self.enclave.mrsigner}
        return Measurement(PLATFORM, {name: f"sha256:{value.hex()}" for name, value in found.items()})

    def encode(self) -> bytes:
        """The bytes that were parsed."""
        return self.quote.encode()


def parse(data: bytes) -> Claims:
    """What a quote of an enclave says, believed by nobody yet. Raises BadEvidence."""
    quote = dcap.parse(data)
    if quote.tee is not Tee.SGX:
        raise BadEvidence(f"a quote of {quote.tee.name}, where one of SGX is expected")
    return Claims(quote, quote.enclave)


@dataclass(frozen=True, slots=True, kw_only=True)
class SgxVerified:
    """A quote of an enclave on a genuine processor. Made by :func:`verify` alone; attributes as in ``Verified``, and:

    Attributes:
        claims: the quote.
        processor: what Intel says of the processor that signed it.
    """

    claims: Claims
    processor: Processor
    measurement: Measurement
    maker: InitVar[object]

    def __post_init__(self, maker: object) -> None:
        if maker is not _MAKER:
            raise TypeError("only verify() makes an SgxVerified")

    @property
    def report_data(self) -> bytes:
        return self.claims.enclave.report_data

    @property
    def debug(self) -> bool:
        return self.claims.enclave.debug

    @property
    def produced_at(self) -> None:
        """A quote says nothing of when it was made."""
        return

    @property
    def valid_until(self) -> int:
        return self.processor.valid_until

    @property
    def collateral(self) -> tuple[str, ...]:
        return self.processor.collateral

    @property
    def machine(self) -> str:
        return self.processor.machine

    @property
    def vector(self) -> TrustVector:
        return self.processor.vector(debug=self.debug)

    @property
    def tcb_status(self) -> TcbStatus:
        """How current the processor and its quoting enclave are."""
        return self.processor.tcb.status

    @property
    def advisories(self) -> tuple[Advisory, ...]:
        """Intel's advisories that touch them, each with the level that names it."""
        return self.processor.tcb.advisories

    @property
    def tcb_date(self) -> int:
        """When Intel released the oldest of what they have, unix seconds."""
        return self.processor.tcb.date

    @property
    def fmspc(self) -> bytes:
        """The kind of processor and platform, 6 bytes."""
        return self.processor.pck.fmspc

    def binds(self, report_data: bytes) -> bool:
        """Whether these 64 bytes are what the enclave had signed."""
        return self.report_data == report_data


def verify(
    evidence: Evidence,
    endorsements: Endorsements,
    *,
    roots: Roots,
    at: int,
    transcript: Transcript,
    ask_second: bool = True,
) -> SgxVerified:
    """The one maker of an ``SgxVerified``: Q1 to Q20, in order, as ``intel.verify`` says.

    Args:
        evidence: untrusted.
        endorsements: untrusted.
        roots: the pinned roots of Intel's; no digest means that nothing verifies.
        at: the time in question, unix seconds.
        transcript: of ``STEPS``; every check is recorded in it.
        ask_second: whether to ask a second verifier where one is installed.

    Raises:
        AttestationError: a leaf, for the first check that did not pass.
    """
    quote, processor = intel.verify(
        Tee.SGX, evidence, endorsements, roots=roots, at=at, transcript=transcript, ask_second=ask_second
    )
    claims = Claims(quote, quote.enclave)
    return SgxVerified(claims=claims, processor=processor, measurement=claims.measurement, maker=_MAKER)


def tolerated_until(verified: SgxVerified, terms: Terms) -> int:
    """The last second at which the terms tolerate what they were judged to accept, unix."""
    return intel_terms.tolerated_until(verified.processor, terms.advisories)


def judge(verified: SgxVerified, terms: Terms, *, at: int, transcript: Transcript) -> TrustVector:
    """Record X1 to X9, each passed or failed, and say what can be claimed of the hardware. Never raises.

    Args:
        verified: what :func:`verify` made.
        terms: the policy's.
        at: the time in question, unix seconds.
        transcript: of ``TERMS_STEPS``.
    """
    tcb = judge_tcb(verified.processor, terms.statuses, terms.advisories, terms.tcb_evaluation_floor, at)
    for number, (passed, seen) in zip(("X1", "X2", "X3"), tcb, strict=True):
        transcript.record(number, passed=passed, detail=seen, code=TcbNotAccepted.code)
    for place, check in enumerate(_CHECKS, 4):
        passed, seen = check(verified.claims.enclave, terms)
        transcript.record(f"X{place}", passed=passed, detail=seen, code=TermsNotMet.code)
    accepted = all(passed for passed, _ in tcb)
    return replace(verified.vector, hardware=hardware(verified.processor, accepted=accepted))


def _isv_prod_id(enclave: EnclaveReport, terms: Terms) -> Answer:
    return enclave.isv_prod_id in terms.isv_prod_ids, f"product {enclave.isv_prod_id}"


def _isv_svn(enclave: EnclaveReport, terms: Terms) -> Answer:
    return enclave.isv_svn >= terms.isv_svn_floor, f"version {enclave.isv_svn}, floor {terms.isv_svn_floor}"


def _config_id(enclave: EnclaveReport, terms: Terms) -> Answer:
    none = enclave.config_id == _NO_CONFIG and enclave.config_svn == 0
    seen = "none" if none else f"{enclave.config_id.hex()}, version {enclave.config_svn}"
    return none or enclave.config_id in terms.config_ids, seen


def _attributes(enclave: EnclaveReport, terms: Terms) -> Answer:
    flags = int.from_bytes(enclave.attributes[:8], "little")
    may = 1 << INIT | 1 << DEBUG | 1 << MODE64 | sum(1 << ATTRIBUTES[name] for name in terms.attributes)
    wrong = flags & ~may
    seen = f"{enclave.attributes[:8].hex()}{f', not named {wrong:#x}' if wrong else ''}"
    return not wrong and bool(flags >> MODE64 & 1), seen


def _xfrm(enclave: EnclaveReport, terms: Terms) -> Answer:
    seen = int.from_bytes(enclave.attributes[8:], "little")
    passed = not seen & ~terms.xfrm_allowed and not terms.xfrm_required & ~seen
    return passed, enclave.attributes[8:].hex()


def _misc_select(enclave: EnclaveReport, terms: Terms) -> Answer:
    seen = int.from_bytes(enclave.misc_select, "little")
    return not seen & ~terms.misc_select_allowed, enclave.misc_select.hex()


# X4 to X9, in order.
_CHECKS: tuple[Callable[[EnclaveReport, Terms], Answer], ...] = (
    _isv_prod_id,
    _isv_svn,
    _config_id,
    _attributes,
    _xfrm,
    _misc_select,
)
