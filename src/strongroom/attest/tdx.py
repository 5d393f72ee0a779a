"""Intel TDX: a trust domain (TD), measured by the TDX module, quoted with a key that Intel's PCK vouches for.

See ``spec/evidence-intel.md``; the checks Q1 to Q20 (``intel``) and T1 to T11 are numbered as there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import InitVar, dataclass, field, replace
from types import MappingProxyType
from typing import Any

from strongroom.errors import BadEvidence, BadField, TcbNotAccepted, TermsNotMet
from strongroom.transcript import Steps, Transcript
from strongroom.wire import JSON, Fields

from . import dcap, intel, intel_terms
from .dcap import Quote, TdReport, Tee
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

__all__ = ["LABEL", "PLATFORM", "STEPS", "TERMS_STEPS", "Claims", "TdxVerified", "Terms", "judge", "parse", "verify"]

PLATFORM = "tdx"
LABEL = "platform: tdx (Intel TDX)"
TERMS_STEPS = Steps(
    "T",
    [
        "the status of the TCB is an accepted one",
        "every advisory that touches it is tolerated at the time in question",
        "Intel's evaluation of the TCB is recent enough",
        "the host cannot inject exceptions at private pages (SEPT_VE_DISABLE)",
        "no migration TD can move the TD elsewhere (MIGRATABLE)",
        "the TD does not use the performance counters that it shares with its host (PERFMON)",
        "no other attribute of the TD is set but those that the terms name",
        "the extended features of the processor are as the terms ask (XFAM)",
        "the TDX module is an accepted one (MRSEAM)",
        "the TDX module is signed by Intel (MRSIGNERSEAM)",
        "no service TD is bound to the TD but an accepted one (MRSERVICETD)",
    ],
)
ANY_MODULE = "any-module"  # said in words: an empty list accepts none

# Bits of TD attributes by name (TDX Module ABI, TD_ATTRIBUTES). The first byte is TUD: the appraisal refuses any bit of it.
SEPT_VE_DISABLE, MIGRATABLE, PERFMON = 28, 29, 63
ATTRIBUTES: Mapping[str, int] = MappingProxyType(
    {"icssd": 16, "kl": 31, "lass": 27, "migratable": MIGRATABLE, "perfmon": PERFMON, "pks": 30, "tpa": 62}
)
# For people: every bit that is known, those of TUD among them.
ATTRIBUTE_BITS: Mapping[str, int] = MappingProxyType(
    {"debug": 0, "hgs_plus_prof": 4, "perf_prof": 5, "pmt_prof": 6, "sept_ve_disable": SEPT_VE_DISABLE, **ATTRIBUTES}
)
MAX_MODULES = MAX_SERVICE_TDS = 256
XFAM_REQUIRED = 0x3  # x87 and SSE, which every TD has
XFAM_ALLOWED = 0x65AE7  # and AVX, AVX-512, PKRU, CET, UINTR, AMX: registers of the TD's own, nothing that traces

_TUD = 0xFF
_NO_MEASUREMENT = bytes(48)
_MAKER = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What must hold of the processor and the TD, beyond that the quote is genuine.

    Args:
        statuses: accepted statuses of the TCB, never ``Revoked``.
        advisories: advisory of Intel's to the last second at which it is tolerated, unix; none else is.
        tcb_evaluation_floor: the least ``tcbEvaluationDataNumber`` of TCB information and QE identity.
        sept_ve_disable: whether the TD must have switched exceptions at private pages off.
        attributes: names in ``ATTRIBUTES`` that may be set; no other may.
        xfam_required, xfam_allowed: bits of XFAM that must be set, and that may be.
        mrseam: accepted TDX modules, 48 bytes each; ``None`` for the word ``any-module``: Intel's levels judge them too.
        mrservicetd: accepted service TDs, 48 bytes each; none, so that no service TD is, needs not to be listed.

    Raises:
        BadField: outside these bounds.
    """

    statuses: frozenset[TcbStatus] = DEFAULT_STATUSES
    advisories: Mapping[str, int] = field(default_factory=dict)
    tcb_evaluation_floor: int = DEFAULT_FLOOR
    sept_ve_disable: bool = True
    attributes: frozenset[str] = frozenset()
    xfam_required: int = XFAM_REQUIRED
    xfam_allowed: int = XFAM_ALLOWED
    mrseam: frozenset[bytes] | None = None
    mrservicetd: frozenset[bytes] = frozenset()

    def __post_init__(self) -> None:
        check_tcb_terms("terms of tdx", self.statuses, self.advisories, self.tcb_evaluation_floor)
        if not self.attributes <= ATTRIBUTES.keys():
            raise BadField(f"terms of tdx.attributes names what is none of {', '.join(ATTRIBUTES)}")
        if not all(0 <= mask < 1 << 64 for mask in (self.xfam_required, self.xfam_allowed)):
            raise BadField("terms of tdx: an XFAM mask is not of 64 bits")
        if not all(len(one) == 48 for one in (*(self.mrseam or ()), *self.mrservicetd)):
            raise BadField("terms of tdx: a measurement is not 48 bytes long")
        object.__setattr__(self, "advisories", MappingProxyType(dict(sorted(self.advisories.items()))))

    def __hash__(self) -> int:
        return hash((self.statuses, tuple(self.advisories.items()), self.attributes, self.mrseam, self.mrservicetd))

    def to_json(self) -> dict[str, JSON]:
        return {
            "advisories": dict(self.advisories),
            "attributes": [*sorted(self.attributes)],
            "mrseam": ANY_MODULE if self.mrseam is None else _digests(self.mrseam),
            "mrservicetd": _digests(self.mrservicetd),
            "sept_ve_disable": self.sept_ve_disable,
            "statuses": [*sorted(self.statuses)],
            "tcb_evaluation_floor": self.tcb_evaluation_floor,
            "xfam_allowed": self.xfam_allowed.to_bytes(8, "little").hex(),
            "xfam_required": self.xfam_required.to_bytes(8, "little").hex(),
        }

    @classmethod
    def from_json(cls, value: object) -> Terms:
        """Raises BadField: a member is missing, unknown, out of bounds or not in its one spelling."""
        f = Fields(value, "terms of tdx")
        modules = f.any("mrseam")
        found = cls(
            statuses=read_statuses(f),
            advisories=read_advisories(f),
            tcb_evaluation_floor=f.integer("tcb_evaluation_floor", high=0xFFFF),
            sept_ve_disable=f.boolean("sept_ve_disable"),
            attributes=frozenset(f.names("attributes", high=len(ATTRIBUTES))),
            xfam_required=int.from_bytes(f.hex("xfam_required", size=8), "little"),
            xfam_allowed=int.from_bytes(f.hex("xfam_allowed", size=8), "little"),
            mrseam=None if modules == ANY_MODULE else _measurements({"mrseam": modules}, "mrseam", MAX_MODULES),
            mrservicetd=_measurements({"mrservicetd": f.any("mrservicetd")}, "mrservicetd", MAX_SERVICE_TDS),
        )
        f.end()
        if found.to_json() != value:
            raise BadField("terms of tdx: a list is not sorted and distinct")
        return found


def _digests(measurements: Iterable[bytes]) -> list[JSON]:
    return [f"sha384:{one.hex()}" for one in sorted(measurements)]


def _measurements(value: Mapping[str, Any], name: str, most: int) -> frozenset[bytes]:
    def one(item: object) -> bytes:
        f = Fields({name: str(item).removeprefix("sha384:") if isinstance(item, str) else item}, "terms of tdx")
        return f.hex(name, size=48)

    return frozenset(Fields(value, "terms of tdx").items(name, one, high=most))


@dataclass(frozen=True, slots=True)
class Claims:
    """What a quote of a TD says. **Untrusted**: :func:`verify` says who signed it."""

    quote: Quote
    td: TdReport

    @property
    def report_data(self) -> bytes:
        return self.td.report_data

    @property
    def measurement(self) -> Measurement:
        """What was built into the TD (MRTD), measured as it started (RTMR), and given by its host (MRCONFIGID, MROWNER)."""
        td = self.td
        found = {"mrtd": td.mrtd, "mrconfigid": td.mrconfigid, "mrowner": td.mrowner, "mrownerconfig": td.mrownerconfig}
        found |= {f"rtmr{n}": value for n, value in enumerate(td.rtmrs)}
        return Measurement(PLATFORM, {name: f"sha384:{value.hex()}" for name, value in found.items()})

    def encode(self) -> bytes:
        """The bytes that were parsed."""
        return self.quote.encode()


def parse(data: bytes) -> Claims:
    """What a quote of a TD says, believed by nobody yet. Raises BadEvidence."""
    quote = dcap.parse(data)
    if quote.tee is not Tee.TDX:
        raise BadEvidence(f"a quote of {quote.tee.name}, where one of TDX is expected")
    return Claims(quote, quote.td)


@dataclass(frozen=True, slots=True, kw_only=True)
class TdxVerified:
    """A quote of a TD on a genuine processor. Made by :func:`verify` alone; attributes as in ``evidence.Verified``, and:

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
            raise TypeError("only verify() makes a TdxVerified")

    @property
    def report_data(self) -> bytes:
        return self.claims.td.report_data

    @property
    def debug(self) -> bool:
        return self.claims.td.debug

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
        """How current the processor, its TDX module and its quoting enclave are."""
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
        """Whether these 64 bytes are what the TD had signed."""
        return self.report_data == report_data


def verify(
    evidence: Evidence,
    endorsements: Endorsements,
    *,
    roots: Roots,
    at: int,
    transcript: Transcript,
    ask_second: bool = True,
) -> TdxVerified:
    """The one maker of a ``TdxVerified``: Q1 to Q20, in order, as ``intel.verify`` says.

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
        Tee.TDX, evidence, endorsements, roots=roots, at=at, transcript=transcript, ask_second=ask_second
    )
    claims = Claims(quote, quote.td)
    return TdxVerified(claims=claims, processor=processor, measurement=claims.measurement, maker=_MAKER)


def tolerated_until(verified: TdxVerified, terms: Terms) -> int:
    """The last second at which the terms tolerate what they were judged to accept, unix."""
    return intel_terms.tolerated_until(verified.processor, terms.advisories)


def judge(verified: TdxVerified, terms: Terms, *, at: int, transcript: Transcript) -> TrustVector:
    """Record T1 to T11, each passed or failed, and say what can be claimed of the hardware. Never raises.

    Args:
        verified: what :func:`verify` made.
        terms: the policy's.
        at: the time in question, unix seconds.
        transcript: of ``TERMS_STEPS``.
    """
    tcb = judge_tcb(verified.processor, terms.statuses, terms.advisories, terms.tcb_evaluation_floor, at)
    for number, (passed, seen) in zip(("T1", "T2", "T3"), tcb, strict=True):
        transcript.record(number, passed=passed, detail=seen, code=TcbNotAccepted.code)
    td = verified.claims.td
    for place, check in enumerate(_CHECKS, 4):
        passed, seen = check(td, terms)
        transcript.record(f"T{place}", passed=passed, detail=seen, code=TermsNotMet.code)
    accepted = all(passed for passed, _ in tcb)
    return replace(verified.vector, hardware=hardware(verified.processor, accepted=accepted))


def _set(td: TdReport, bit: int) -> bool:
    return bool(int.from_bytes(td.attributes, "little") >> bit & 1)


def _sept_ve(td: TdReport, terms: Terms) -> Answer:
    on = _set(td, SEPT_VE_DISABLE)
    return on or not terms.sept_ve_disable, "set" if on else "not set"


def _migratable(td: TdReport, terms: Terms) -> Answer:
    on = _set(td, MIGRATABLE)
    return not on or "migratable" in terms.attributes, "set" if on else "not set"


def _perfmon(td: TdReport, terms: Terms) -> Answer:
    on = _set(td, PERFMON)
    return not on or "perfmon" in terms.attributes, "set" if on else "not set"


def _attributes(td: TdReport, terms: Terms) -> Answer:
    judged_before = _TUD | 1 << SEPT_VE_DISABLE | 1 << MIGRATABLE | 1 << PERFMON
    may = judged_before | sum(1 << ATTRIBUTES[name] for name in terms.attributes)
    wrong = int.from_bytes(td.attributes, "little") & ~may
    return not wrong, f"{td.attributes.hex()}{f', not named {wrong:#x}' if wrong else ''}"


def _xfam(td: TdReport, terms: Terms) -> Answer:
    seen = int.from_bytes(td.xfam, "little")
    return not seen & ~terms.xfam_allowed and not terms.xfam_required & ~seen, td.xfam.hex()


def _mrseam(td: TdReport, terms: Terms) -> Answer:
    return terms.mrseam is None or td.mrseam in terms.mrseam, f"sha384:{td.mrseam.hex()}"


def _mrsignerseam(td: TdReport, _terms: Terms) -> Answer:
    return td.mrsignerseam == _NO_MEASUREMENT, f"sha384:{td.mrsignerseam.hex()}"


def _mrservicetd(td: TdReport, terms: Terms) -> Answer:
    if td.mrservicetd is None:
        return True, "a report 1.0, in which there is none"
    none = td.mrservicetd == _NO_MEASUREMENT
    return none or td.mrservicetd in terms.mrservicetd, "none" if none else f"sha384:{td.mrservicetd.hex()}"


# T4 to T11, in order.
_CHECKS: tuple[Callable[[TdReport, Terms], Answer], ...] = (
    _sept_ve,
    _migratable,
    _perfmon,
    _attributes,
    _xfam,
    _mrseam,
    _mrsignerseam,
    _mrservicetd,
)
