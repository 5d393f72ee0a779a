"""dstack: a system that runs one composed app in a confidential guest. Is its evidence genuine (K1 to K5), and does it meet
a policy's terms (KT1 to KT4)?

What the hardware signs is a TDX quote or an SEV-SNP report, verified by its own module. dstack adds which app runs: on
TDX in the events that lead to RTMR3, on SEV-SNP in the configuration that HOST_DATA commits to. Both are believed as far
as those registers go, and only because the measured system wrote them.

See ``spec/evidence-dstack.md``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import InitVar, dataclass, field
from functools import partial
from typing import Any

from strongroom.errors import AttestationError, BadEventLog, BadEvidence, BadField, TermsNotMet
from strongroom.transcript import Status, Steps, Transcript
from strongroom.wire import JSON, Fields

from . import dstack_log, registry
from .dstack_log import RTMR3, App, Entry
from .evidence import FOREVER, Endorsements, Evidence, Measurement, Roots, Verified, Verifier, tolerated
from .tcg_log import Found
from .vector import TrustVector

PLATFORM = "dstack"
LABEL = "platform: dstack (on Intel TDX or AMD SEV-SNP)"
STEPS = Steps(
    "K",
    [
        "the evidence is a TDX quote with dstack's event log, or an SEV-SNP report with dstack's configuration",
        "the quote or report passes every check of its own platform",
        "the app's events lead to RTMR3, their digests computed again; or HOST_DATA is the configuration's hash",
        "the firmware's events, where the log has them, lead to RTMR0 to RTMR2, and none contradicts itself",
        "the app is named once, before the system was ready, and by nothing afterwards",
    ],
)
TERMS_STEPS = Steps(
    "KT",
    [
        "the quote or report meets the terms of its own platform",
        "the policy names the app, or any",
        "the app measured nothing after the start but what the policy names",
        "the event log leaves nothing out, where the policy asks for that",
    ],
)

ANY_APP = "any-app"
TDX, SEV_SNP = "tdx", "sev_snp"
SNP_REPORT_BYTES = 1184
MRCONFIGID = "mrconfigid"
MAX_APPS = 1024
MAX_EVENTS = 64

_APP_ID = re.compile(r"(?:[0-9a-f]{2}){1,64}\Z")
_EVENT = re.compile(r"[!-9;-~]{1,128}\Z")
_MAKER = object()


def _hardware(kind: str) -> Verifier:
    found = registry.verifier(kind)
    if found is None:  # the registry names both
        raise BadEvidence(f"this version cannot verify {kind}")
    return found


def _tdx_terms() -> Any:
    return _hardware(TDX).Terms()


def _inner_terms(kind: str, value: object) -> Any:
    return _hardware(kind).Terms.from_json(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a policy asks of dstack beyond its measurement, which names the system, the app and its key provider.

    Args:
        app_ids: dstack's own names of accepted apps, in hex; ``None`` for the word ``any-app``.
        events: names of what the app may have measured once it ran.
        tdx: terms of the TDX quote; ``None`` accepts none.
        sev_snp: terms of the SEV-SNP report; ``None`` accepts none. dstack calls its own support experimental.
        whole_log: whether a log from which digests or payloads were left out is refused. What RTMR3 says is established
            either way; what the firmware measured can then not be read.

    Raises:
        BadField: what is no app's or event's name, or too many.
    """

    app_ids: frozenset[str] | None = None
    events: frozenset[str] = frozenset()
    tdx: Any = field(default_factory=_tdx_terms)
    sev_snp: Any = None
    whole_log: bool = True

    def __post_init__(self) -> None:
        if len(self.app_ids or ()) > MAX_APPS or not all(map(_APP_ID.match, self.app_ids or ())):
            raise BadField(f"terms of dstack.app_ids is not at most {MAX_APPS} ids in hex")
        if len(self.events) > MAX_EVENTS or not all(map(_EVENT.match, self.events)):
            raise BadField(f"terms of dstack.events is not at most {MAX_EVENTS} names")

    def to_json(self) -> dict[str, JSON]:
        return {
            "app_ids": ANY_APP if self.app_ids is None else [*sorted(self.app_ids)],
            "events": [*sorted(self.events)],
            "sev_snp": None if self.sev_snp is None else self.sev_snp.to_json(),
            "tdx": None if self.tdx is None else self.tdx.to_json(),
            "whole_log": self.whole_log,
        }

    @classmethod
    def from_json(cls, value: object) -> Terms:
        """Raises BadField: a member is missing, unknown, out of bounds or not in its one spelling."""
        f = Fields(value, "terms of dstack")
        app_ids = f.any("app_ids")
        found = cls(
            app_ids=None if app_ids == ANY_APP else _names({"app_ids": app_ids}, "app_ids", MAX_APPS),
            events=_names({"events": f.any("events")}, "events", MAX_EVENTS),
            sev_snp=f.optional("sev_snp", partial(_inner_terms, SEV_SNP)),
            tdx=f.optional("tdx", partial(_inner_terms, TDX)),
            whole_log=f.boolean("whole_log"),
        )
        f.end()
        if found.to_json() != value:
            raise BadField("terms of dstack: a list is not sorted and distinct")
        return found


def _names(member: Mapping[str, Any], name: str, high: int) -> frozenset[str]:
    f = Fields(dict(member), "terms of dstack")
    return frozenset(
        f.items(name, lambda item: Fields({"name": item}, f"terms of dstack.{name}").text("name", max_chars=128), high=high)
    )


@dataclass(frozen=True, slots=True)
class Claims:
    """What dstack's evidence is, by its first bytes and its size. **Untrusted.**

    Attributes:
        hardware: ``tdx`` or ``sev_snp``.
        said: what that platform's own ``parse`` reads.
    """

    hardware: str
    said: Any


def parse(data: bytes) -> Claims:
    """Tell a TDX quote from an SEV-SNP report, and read it, believed by nobody yet. Raises BadEvidence."""
    kind = _kind(data)
    platform: Any = _hardware(kind)
    return Claims(kind, platform.parse(data))


def _kind(data: bytes) -> str:
    """Raises BadEvidence."""
    if data[:2] in {b"\x04\0", b"\x05\0"} and data[2:4] != b"\0\0":  # a quote's version, and the kind of its key
        return TDX
    if len(data) == SNP_REPORT_BYTES:
        return SEV_SNP
    raise BadEvidence("neither a TDX quote nor an SEV-SNP report")


@dataclass(frozen=True, slots=True, kw_only=True)
class DstackVerified:
    """Evidence of a dstack guest that holds. Made by :func:`verify` alone; attributes as in ``evidence.Verified``, and:

    Attributes:
        hardware: ``tdx`` or ``sev_snp``.
        inner: what that platform's own ``verify`` found.
        inner_transcript: its checks, which K2 sums up.
        app: what runs, as dstack's system says.
        evidence: what was verified.
    """

    hardware: str
    inner: Verified
    inner_transcript: Transcript
    app: App
    evidence: Evidence
    measurement: Measurement
    maker: InitVar[object]

    def __post_init__(self, maker: object) -> None:
        if maker is not _MAKER:
            raise TypeError("only verify() makes a DstackVerified")

    @property
    def report_data(self) -> bytes:
        return self.inner.report_data

    @property
    def debug(self) -> bool:
        return self.inner.debug

    @property
    def produced_at(self) -> int | None:
        return self.inner.produced_at

    @property
    def valid_until(self) -> int:
        return self.inner.valid_until

    @property
    def collateral(self) -> tuple[str, ...]:
        return self.inner.collateral

    @property
    def machine(self) -> str | None:
        return self.inner.machine

    @property
    def vector(self) -> TrustVector:
        return self.inner.vector

    def binds(self, report_data: bytes) -> bool:
        """Whether these 64 bytes are what the guest had signed."""
        return self.inner.binds(report_data)


def verify(
    evidence: Evidence, endorsements: Endorsements, *, roots: Roots, at: int, transcript: Transcript
) -> DstackVerified:
    """The one maker of a ``DstackVerified``: K1 to K5, in order.

    Args:
        evidence: untrusted; ``event_log`` is dstack's log, or on SEV-SNP its configuration.
        endorsements: untrusted; those of the hardware.
        roots: the pinned roots of the hardware's vendors.
        at: the time in question, unix seconds.
        transcript: of ``STEPS``; every check is recorded in it.

    Raises:
        BadEvidence, BadEventLog: K1.
        AttestationError: K2, what the hardware's own ``verify`` raises.
        BadEventLog: K3, K4, K5.
    """
    number = "K1"
    inner_transcript: Transcript | None = None
    try:
        hardware = _kind(evidence.data)
        on_tdx = hardware == TDX
        entries = dstack_log.parse(evidence.event_log) if on_tdx else ()
        said = None if on_tdx else dstack_log.configuration(evidence.event_log)
        transcript.record(number, passed=True, detail=hardware)

        number = "K2"
        platform = _hardware(hardware)
        inner_transcript = Transcript(platform.STEPS)
        inner_evidence = Evidence(hardware, evidence.data)
        inner = platform.verify(inner_evidence, endorsements, roots=roots, at=at, transcript=inner_transcript)
        if not inner_transcript.ok:  # a platform module that forgets a check must not pass for one that made it
            raise BadEvidence("a check of the hardware was not made")
        transcript.record(number, passed=True, detail=platform.LABEL)

        number = "K3"
        signed = inner.measurement.registers
        replayed = dstack_log.replay(entries)
        detail = _require_app(entries, replayed, signed) if on_tdx else _require_host_data(evidence)
        transcript.record(number, passed=True, detail=detail)

        number = "K4"
        detail = _require_boot(entries, replayed, signed) if on_tdx else "SEV-SNP has no registers that firmware extends"
        transcript.record(number, passed=True, detail=detail)

        number = "K5"
        app = dstack_log.app(entries) if said is None else said
        measurement = Measurement(PLATFORM, _registers(signed, app))
        transcript.record(number, passed=True, detail=f"app {app.app_id}, composition sha256:{app.compose_hash.hex()}")
    except AttestationError as error:
        problem = inner_transcript.first_problem if number == "K2" and inner_transcript else None
        detail = f"{problem.number}: {error.message}" if problem and problem.code else error.message
        missing = problem is not None and problem.code != "" and problem.status is Status.NOT_ESTABLISHED
        transcript.record(number, passed=None if missing else False, detail=detail, code=error.code)
        raise
    return DstackVerified(
        hardware=hardware,
        inner=inner,
        inner_transcript=inner_transcript,
        app=app,
        evidence=evidence,
        measurement=measurement,
        maker=_MAKER,
    )


def _require_app(entries: Iterable[Entry], replayed: Mapping[int, bytes], signed: Mapping[str, str]) -> str:
    """K3 on TDX. Raises BadEventLog."""
    events = [entry for entry in entries if entry.rtmr == RTMR3]
    _require_truth(events)
    _require_register(RTMR3, replayed.get(RTMR3, bytes(48)), signed)
    return f"{len(events)} events"


def _require_boot(entries: Iterable[Entry], replayed: Mapping[int, bytes], signed: Mapping[str, str]) -> str:
    """K4 on TDX. Raises BadEventLog."""
    _require_truth(entry for entry in entries if entry.rtmr != RTMR3)
    registers = sorted(replayed.keys() - {RTMR3})
    for register in registers:
        _require_register(register, replayed[register], signed)
    return ", ".join(f"RTMR{register}" for register in registers) or "the log has none"


def _require_register(register: int, value: bytes, signed: Mapping[str, str]) -> None:
    if signed.get(f"rtmr{register}") != f"sha384:{value.hex()}":
        raise BadEventLog(f"RTMR{register} does not replay: the log leads to {value.hex()[:16]}…, not to what was signed")


def _require_truth(entries: Iterable[Entry]) -> None:
    for found, why in map(dstack_log.judge, entries):
        if found is Found.CONTRADICTED:
            raise BadEventLog(why)


def _require_host_data(evidence: Evidence) -> str:
    """K3 on SEV-SNP. Raises BadEventLog."""
    committed = evidence.data[0xC0:0xE0]  # SEV-SNP ABI, table 23: HOST_DATA
    if dstack_log.host_data(evidence.event_log) != committed:
        raise BadEventLog("the configuration is not the one that HOST_DATA commits to")
    return f"HOST_DATA {committed.hex()}"


def _registers(signed: Mapping[str, str], app: App) -> dict[str, str]:
    """The hardware's registers, and the app's in place of those that its events or its configuration lead to.

    An MRCONFIGID of dstack's third kind, and HOST_DATA, commit to a configuration that names the machine's own instance: no
    two machines have the same, and what else it names has a register of its own. Raises BadEventLog, BadMeasurement.
    """
    if strange := sorted(set(signed) & set(app.registers)):
        raise BadEventLog(f"the log has a name for the hardware's own register {strange[0]}")
    left_out = {"rtmr3", "host_data"}
    if signed.get(MRCONFIGID, "").startswith("sha384:03"):
        left_out.add(MRCONFIGID)
    return {**{name: value for name, value in signed.items() if name not in left_out}, **app.registers}


def tolerated_until(verified: DstackVerified, terms: Terms) -> int:
    """The last second at which the terms tolerate what they were judged to accept, unix."""
    inner = terms.tdx if verified.hardware == TDX else terms.sev_snp
    return FOREVER if inner is None else tolerated(_hardware(verified.hardware), verified.inner, inner)


def judge(verified: DstackVerified, terms: Terms, *, at: int, transcript: Transcript) -> TrustVector:
    """Record KT1 to KT4, each passed or failed with a code, and say what can be claimed. Never raises."""
    inner_terms = terms.tdx if verified.hardware == TDX else terms.sev_snp
    vector = verified.vector
    if inner_terms is None:
        detail = f"the policy accepts no dstack on {verified.hardware}"
        transcript.record("KT1", passed=False, detail=detail, code=TermsNotMet.code)
    else:
        vector = _judge_inner(verified, inner_terms, at, transcript)

    def record(number: str, passed: bool, detail: str) -> None:
        transcript.record(number, passed, detail, code=TermsNotMet.code)

    record("KT2", terms.app_ids is None or verified.app.app_id in terms.app_ids, f"app {verified.app.app_id}")
    strange = sorted(set(verified.app.after) - terms.events)
    seen = f"{', '.join(strange)[:160]}: not in the policy" if strange else f"{len(verified.app.after)} events, all named"
    record("KT3", not strange, seen)
    said = "nothing is left out" if verified.app.whole else "digests or payloads are left out"
    record("KT4", verified.app.whole or not terms.whole_log, said)
    return vector


def _judge_inner(verified: DstackVerified, terms: Any, at: int, transcript: Transcript) -> TrustVector:
    platform = _hardware(verified.hardware)
    if platform.TERMS_STEPS is None:  # neither platform's are
        raise TypeError("a platform without terms")
    steps = Transcript(platform.TERMS_STEPS)
    vector = platform.judge(verified.inner, terms, at=at, transcript=steps)
    problem = steps.first_problem
    detail = f"{problem.number} {problem.name}: {problem.detail}" if problem else platform.LABEL
    transcript.record("KT1", problem is None, detail, code=(problem.code if problem else "") or TermsNotMet.code)
    return vector
