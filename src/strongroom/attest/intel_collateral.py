"""What Intel says of its processors: TCB information, QE identities, and the status that follows from them.

Formats as in the API of Intel's Provisioning Certification Service (PCS), version 4. How the statuses of a platform, a TDX
module and a quoting enclave (QE) are merged, and when a relaunch is advised, is as in Intel's quote verification library
(QVL). See ``spec/evidence-intel.md``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, NoReturn

from strongroom import wire
from strongroom.errors import BadEndorsement, EvidenceForged, TcbNotAccepted, WireError
from strongroom.wire import Fields

from .dcap import EnclaveReport, TdReport
from .intel_pck import COMPONENTS, PckExtension

MAX_COLLATERAL_BYTES = 64 << 10  # real TCB information has at most 20 KiB

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z", re.ASCII)
_SIGNATURE = re.compile(rb"[0-9a-f]{128}\Z")
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})*\Z")
_ADVISORY = re.compile(r"[A-Z][A-Z0-9-]{0,63}\Z")


class TcbStatus(StrEnum):
    """How current the trusted computing base is, in the words of Intel's PCS; of its verification library for a relaunch."""

    UP_TO_DATE = "UpToDate"
    SW_HARDENING_NEEDED = "SWHardeningNeeded"
    CONFIGURATION_NEEDED = "ConfigurationNeeded"
    CONFIGURATION_AND_SW_HARDENING_NEEDED = "ConfigurationAndSWHardeningNeeded"
    TD_RELAUNCH_ADVISED = "TDRelaunchAdvised"
    TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED = "TDRelaunchAdvisedConfigurationNeeded"
    OUT_OF_DATE = "OutOfDate"
    OUT_OF_DATE_CONFIGURATION_NEEDED = "OutOfDateConfigurationNeeded"
    REVOKED = "Revoked"


_OF_PARTS = frozenset({TcbStatus.UP_TO_DATE, TcbStatus.OUT_OF_DATE, TcbStatus.REVOKED})
_OF_PLATFORMS = frozenset(status for status in TcbStatus if not status.startswith("TDRelaunch"))
_OUT_OF_DATE = frozenset({TcbStatus.OUT_OF_DATE, TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED})
_CONFIGURE = frozenset(
    {
        TcbStatus.CONFIGURATION_NEEDED,
        TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED,
        TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED,
    }
)


@dataclass(frozen=True, slots=True)
class Advisory:
    """One of Intel's security advisories that a matched level names.

    Attributes:
        id: as Intel numbers it (``INTEL-SA-01245``).
        of: whose level names it: ``platform``, ``TDX module`` or ``quoting enclave``.
        now: whether only a level that the machine has reached since the TD was launched names it (a TD's report 1.5).
    """

    id: str
    of: str
    now: bool = False


@dataclass(frozen=True, slots=True)
class Level:
    """A level that something signed reaches. ``date`` is when Intel released what it needs, unix seconds."""

    of: str
    status: TcbStatus
    date: int
    advisories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tcb:
    """What follows from all levels: the merged status, the oldest date (unix seconds), and every advisory with its level.

    ``now`` is the merged status of what the machine has since the TD was launched; ``None`` where the report says nothing
    of it (an enclave's, a TD's report 1.0).
    """

    status: TcbStatus
    date: int
    advisories: tuple[Advisory, ...]
    now: TcbStatus | None = None


# --- signed JSON --------------------------------------------------------------------------------------------------------


def _bytes(f: Fields, name: str, size: int) -> bytes:
    text = f.text(name, max_chars=2 * size)
    if len(text) != 2 * size or not _HEX.match(text):
        _bad(f"its {name} is not {2 * size} hex digits")
    return bytes.fromhex(text)


def _bad(why: str) -> NoReturn:
    raise BadEndorsement(f"not an answer of Intel's PCS: {why}")


def _time(f: Fields, name: str) -> int:
    text = f.text(name, max_chars=20)
    try:
        if _TIME.match(text):
            return int(datetime.fromisoformat(text).timestamp())
    except ValueError:
        pass
    _bad(f"its {name} is no time")


def _unwrap(data: bytes, name: bytes) -> tuple[bytes, bytes, Fields]:
    """The bytes that were signed as they stand in an answer of the PCS, the signature, and what the bytes say."""
    before, between, after = b'{"%s":' % name, b',"signature":"', b'"}'
    split = len(data) - len(after) - 128
    if len(data) > MAX_COLLATERAL_BYTES:
        _bad(f"longer than {MAX_COLLATERAL_BYTES} bytes")
    signed, signature = data[len(before) : split - len(between)], data[split : len(data) - len(after)]
    if data != before + signed + between + signature + after or not _SIGNATURE.match(signature):
        _bad(f"not {name.decode()} and a signature of 128 hex digits, and nothing else")
    try:
        found = Fields(wire.loads(signed), name.decode())
    except WireError as error:
        raise BadEndorsement(f"not an answer of Intel's PCS: {error}") from error
    return signed, bytes.fromhex(signature.decode("ascii")), found


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        _bad("a list is missing")
    return value


def _level(value: Any, of: str, allowed: frozenset[TcbStatus]) -> tuple[Any, Level]:
    """One item of ``tcbLevels``: what it asks for, and what it stands for. Raises BadField, BadEndorsement."""
    f = Fields(value, "tcbLevels")
    status, date = f.text("tcbStatus", max_chars=64), _time(f, "tcbDate")
    if status not in allowed:
        _bad(f"a status {status[:40]!r} of a {of}")
    advisories = tuple(_list(f.any("advisoryIDs"))) if f.has("advisoryIDs") else ()
    if not all(isinstance(a, str) and _ADVISORY.match(a) for a in advisories):
        _bad("an advisory has no number")
    return f.any("tcb"), Level(of, TcbStatus(status), date, advisories)


def _by_svn(levels: object, svn: int, of: str) -> Level:
    """The first level whose ``isvsvn`` is reached. Raises TcbNotAccepted, BadEndorsement, BadField."""
    for item in _list(levels):
        tcb, level = _level(item, of, _OF_PARTS)
        if svn >= Fields(tcb, "tcb").integer("isvsvn", high=0xFFFF):
            return level
    raise TcbNotAccepted(f"the {of}'s version {svn} is below every level that Intel lists")


@dataclass(frozen=True, slots=True)
class QeIdentity:
    """Which quoting enclave Intel vouches for. **Untrusted** until its signature is checked.

    Attributes:
        document: the PCS's answer.
        signed, signature: the bytes that were signed as they stand in it, and 64 bytes ``r || s``.
        id: ``QE`` for SGX, ``TD_QE`` for TDX.
        version: of the format.
        issued, next_update: the first and the last second at which it counts, unix.
        evaluation: ``tcbEvaluationDataNumber``.
    """

    document: bytes
    signed: bytes
    signature: bytes
    id: str
    version: int
    issued: int
    next_update: int
    evaluation: int
    mrsigner: bytes
    isv_prod_id: int
    misc_select: bytes
    misc_select_mask: bytes
    attributes: bytes
    attributes_mask: bytes
    levels: object

    @classmethod
    def parse(cls, document: bytes) -> QeIdentity:
        """Raises BadEndorsement. Members that are not known here are left alone: Intel adds some, and signs all."""
        signed, signature, f = _unwrap(document, b"enclaveIdentity")
        try:
            return cls(
                document=document,
                signed=signed,
                signature=signature,
                id=f.text("id", max_chars=16),
                version=f.integer("version"),
                issued=_time(f, "issueDate"),
                next_update=_time(f, "nextUpdate"),
                evaluation=f.integer("tcbEvaluationDataNumber"),
                mrsigner=_bytes(f, "mrsigner", 32),
                isv_prod_id=f.integer("isvprodid"),
                misc_select=_bytes(f, "miscselect", 4),
                misc_select_mask=_bytes(f, "miscselectMask", 4),
                attributes=_bytes(f, "attributes", 16),
                attributes_mask=_bytes(f, "attributesMask", 16),
                levels=f.any("tcbLevels"),
            )
        except WireError as error:
            raise BadEndorsement(f"not an answer of Intel's PCS: {error}") from error

    def level_of(self, qe: EnclaveReport) -> Level:
        """The level that this quoting enclave reaches.

        Raises:
            EvidenceForged: it is another enclave, or one that can be debugged.
            TcbNotAccepted: its version is below every level.
            BadEndorsement: the levels are not what they should be.
        """
        same = (
            qe.mrsigner == self.mrsigner
            and qe.isv_prod_id == self.isv_prod_id
            and _masked(qe.misc_select, self.misc_select_mask) == self.misc_select
            and _masked(qe.attributes, self.attributes_mask) == self.attributes
        )
        if not same or qe.debug:
            raise EvidenceForged("the quote was made by another enclave than the quoting enclave that Intel describes")
        try:
            return _by_svn(self.levels, qe.isv_svn, "quoting enclave")
        except WireError as error:
            raise BadEndorsement(f"not an answer of Intel's PCS: {error}") from error


def _masked(value: bytes, mask: bytes) -> bytes:
    return bytes(a & b for a, b in zip(value, mask, strict=True))


@dataclass(frozen=True, slots=True)
class TcbInfo:
    """What Intel says of one kind of processor. **Untrusted** until its signature is checked.

    Attributes:
        document: the PCS's answer.
        signed, signature: the bytes that were signed as they stand in it, and 64 bytes ``r || s``.
        id: ``SGX`` or ``TDX``.
        version: of the format.
        issued, next_update: the first and the last second at which it counts, unix.
        evaluation: ``tcbEvaluationDataNumber``.
        fmspc, pce_id: which kind of processor, 6 and 2 bytes.
    """

    document: bytes
    signed: bytes
    signature: bytes
    id: str
    version: int
    issued: int
    next_update: int
    evaluation: int
    fmspc: bytes
    pce_id: bytes
    levels: object
    module: object
    modules: object

    @classmethod
    def parse(cls, document: bytes) -> TcbInfo:
        """Raises BadEndorsement. Members that are not known here are left alone: Intel adds some, and signs all."""
        signed, signature, f = _unwrap(document, b"tcbInfo")
        try:
            if f.integer("tcbType") != 0:
                _bad("its levels are of a type that is compared in another way")
            return cls(
                document=document,
                signed=signed,
                signature=signature,
                id=f.text("id", max_chars=16) if f.has("id") else "",
                version=f.integer("version"),
                issued=_time(f, "issueDate"),
                next_update=_time(f, "nextUpdate"),
                evaluation=f.integer("tcbEvaluationDataNumber"),
                fmspc=_bytes(f, "fmspc", 6),
                pce_id=_bytes(f, "pceId", 2),
                levels=f.any("tcbLevels"),
                module=f.any("tdxModule") if f.has("tdxModule") else None,
                modules=f.any("tdxModuleIdentities") if f.has("tdxModuleIdentities") else [],
            )
        except WireError as error:
            raise BadEndorsement(f"not an answer of Intel's PCS: {error}") from error

    def tcb_of(self, pck: PckExtension, td: TdReport | None, qe: Level) -> Tcb:
        """What follows for a processor, a TD's report (``None`` for SGX) and the level of the quoting enclave.

        Raises:
            TcbNotAccepted: below every level, or the TDX module is another than Intel describes.
            BadEndorsement: the levels are not what they should be.
        """
        try:
            if td is None:
                return merge([self._platform(pck, None), qe])
            self._require_module(td)
            launched = self._at(pck, td.tee_tcb_svn, qe)
            if td.tee_tcb_svn2 is None:
                return launched
            return _relaunch(launched, self._at(pck, td.tee_tcb_svn2, qe))
        except WireError as error:
            raise BadEndorsement(f"not an answer of Intel's PCS: {error}") from error

    def _at(self, pck: PckExtension, tee_tcb_svn: bytes, qe: Level) -> Tcb:
        module = self._identity(tee_tcb_svn[1])
        parts = [] if module is None else [_by_svn(module.any("tcbLevels"), tee_tcb_svn[0], "TDX module")]
        return merge([self._platform(pck, tee_tcb_svn), *parts, qe])

    def _platform(self, pck: PckExtension, tee_tcb_svn: bytes | None) -> Level:
        """The first level of which nothing exceeds what the processor has."""
        # From version 1 of the TDX module on, its own two numbers are judged by its identity (QVL, section 4.1.2.5.2).
        skip = 2 if tee_tcb_svn is not None and tee_tcb_svn[1] > 0 else 0
        for item in _list(self.levels):
            tcb, level = _level(item, "platform", _OF_PLATFORMS)
            f = Fields(tcb, "tcb")
            if pck.pce_svn < f.integer("pcesvn", high=0xFFFF) or not _reaches(pck.svns, f.any("sgxtcbcomponents"), 0):
                continue
            if tee_tcb_svn is None or _reaches(tuple(tee_tcb_svn), f.any("tdxtcbcomponents"), skip):
                return level
        raise TcbNotAccepted("the platform is below every level that Intel lists")

    def _identity(self, version: int) -> Fields | None:
        """What describes the TDX module of a major version; ``None`` for version 0, which the platform's levels judge."""
        if version == 0:
            return None
        for item in _list(self.modules):
            f = Fields(item, "tdxModuleIdentities")
            if f.text("id", max_chars=16).upper() == f"TDX_{version:02X}":
                return f
        raise TcbNotAccepted(f"Intel describes no TDX module of version {version}")

    def _require_module(self, td: TdReport) -> None:
        f = self._identity(td.tee_tcb_svn[1]) or Fields(self.module, "tdxModule")
        signer, attributes = _bytes(f, "mrsigner", 48), _bytes(f, "attributes", 8)
        mask = _bytes(f, "attributesMask", 8)
        outside = any(_masked(td.seam_attributes, bytes(~b & 0xFF for b in mask)))
        if td.mrsignerseam != signer or _masked(td.seam_attributes, mask) != attributes or outside:
            raise TcbNotAccepted("the TDX module is another than Intel describes")


def _reaches(have: tuple[int, ...], wanted: object, skip: int) -> bool:
    """Whether every component from ``skip`` on is at least as wanted. Raises BadEndorsement."""
    items = _list(wanted)
    if len(items) != COMPONENTS:
        _bad("a level does not have 16 components")
    svns = [item["svn"] if isinstance(item, dict) and type(item.get("svn")) is int else _bad("no svn") for item in items]
    return all(a >= b for a, b in zip(have[skip:], svns[skip:], strict=True))


def merge(levels: list[Level]) -> Tcb:
    """The platform's level first, then those of its parts: a part that is out of date or revoked makes the whole so."""
    status = levels[0].status
    parts = {level.status for level in levels[1:]}
    if TcbStatus.OUT_OF_DATE in parts and status not in _OUT_OF_DATE:
        status = TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED if status in _CONFIGURE else TcbStatus.OUT_OF_DATE
    if TcbStatus.REVOKED in parts or levels[0].status is TcbStatus.REVOKED:
        status = TcbStatus.REVOKED
    advisories = tuple(Advisory(one, level.of) for level in levels for one in level.advisories)
    return Tcb(status, min(level.date for level in levels), tuple(dict.fromkeys(advisories)))


def _relaunch(launched: Tcb, now: Tcb) -> Tcb:
    """A TD that was started under an old TDX module, on a machine that has a current one by now, should be started anew.

    ``TEE_TCB_SVN2`` says what the machine has now. A revoked part counts whenever it was loaded. Otherwise the merged status
    is that of the launch, so that what the machine has now is kept beside it.
    """
    status = launched.status
    if TcbStatus.REVOKED in {launched.status, now.status}:
        status = TcbStatus.REVOKED
    elif launched.status in _OUT_OF_DATE and now.status not in _OUT_OF_DATE:
        configure = launched.status in _CONFIGURE or now.status in _CONFIGURE
        advised = TcbStatus.TD_RELAUNCH_ADVISED
        status = TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED if configure else advised
    known = {one.id for one in launched.advisories}
    later = (replace(one, now=True) for one in now.advisories if one.id not in known)
    return Tcb(status, min(launched.date, now.date), (*launched.advisories, *later), now.status)
