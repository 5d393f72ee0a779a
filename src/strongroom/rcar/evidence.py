"""A guest's evidence in the forms of its own project, turned into what the platforms' verifiers here read.

Nothing is believed here, and nothing that a processor signed is changed: the bytes that it signed are put together again,
and a mistake in that is a signature that does not hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from strongroom import wire
from strongroom.attest.endorsements import CERTIFICATE, CRL
from strongroom.attest.evidence import (
    MAX_EVIDENCE_BYTES,
    REPORT_DATA_BYTES,
    Endorsement,
    Endorsements,
    Evidence,
    Measurement,
)
from strongroom.attest.simulated import PLATFORM as SIMULATED
from strongroom.attest.snp_report import REPORT_BYTES, Tcb
from strongroom.errors import BadEvidence, BadField, SampleNotVouched, WireError
from strongroom.wire import Fields

from .message import SAMPLE, SNP

Vouch: TypeAlias = Callable[[bytes, Measurement], tuple[Evidence, Endorsements]]
"""Signs, as a simulated platform, that a sample guest of this measurement showed these 64 bytes."""

SAMPLE_REGISTER = "sample_svn"

_TCBS = ("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb")
_CERTIFICATES = frozenset({"ARK", "ASK", "ASVK", "VCEK", "VLEK"})


def read(tee: str, found: Any, vouch: Vouch | None) -> tuple[Evidence, Endorsements]:
    """The evidence, and what came along with it.

    Args:
        tee: which kind of enclave the guest said that it is in.
        found: decoded JSON in that kind's form.
        vouch: for sample evidence, which nobody signed; ``None``: there is no vouching here.

    Raises:
        BadEvidence: not of this form.
        SampleNotVouched: sample evidence, and nobody vouches for it.
    """
    try:
        if tee == SAMPLE:
            return _sample(found, vouch)
        return _snp(found) if tee == SNP else (_tdx(found), Endorsements())
    except WireError as error:
        raise BadEvidence(f"not {tee} evidence as guests send it: {error}") from error


def _tdx(found: Any) -> Evidence:
    """``{"quote": base64, "cc_eventlog": base64 or null}``. The event log is left: registers are compared whole."""
    return Evidence("tdx", Fields(found, "tdx").base64("quote", max_bytes=MAX_EVIDENCE_BYTES))


def sample_measurement(svn: str) -> Measurement:
    """What is said to run in a sample guest: the number that it gave itself. Anybody can say it."""
    return Measurement(SIMULATED, {SAMPLE_REGISTER: wire.digest(svn.encode())})


def _sample(found: Any, vouch: Vouch | None) -> tuple[Evidence, Endorsements]:
    """``{"svn": text, "report_data": base64}``, signed by nobody."""
    f = Fields(found, "sample")
    svn, report_data = f.text("svn", max_chars=64), f.base64("report_data", max_bytes=REPORT_DATA_BYTES)
    if vouch is None:
        raise SampleNotVouched("the guest's evidence is of the sample kind, which nobody signed")
    return vouch(report_data.ljust(REPORT_DATA_BYTES, b"\0"), sample_measurement(svn))


# --- SEV-SNP: the report as the sev crate writes it in JSON -----------------------------------------------------------


def _snp(found: Any) -> tuple[Evidence, Endorsements]:
    f = Fields(found, "snp")
    report, chain = snp_report(f.any("attestation_report")), f.any("cert_chain") if f.has("cert_chain") else None
    if chain is not None and (not isinstance(chain, list) or len(chain) > 16):
        raise BadField("snp.cert_chain is not a list of at most 16 certificates")
    return Evidence("sev_snp", report), Endorsements(tuple(e for e in map(_entry, chain or []) if e is not None))


def _entry(found: object) -> Endorsement | None:
    f = Fields(found, "certificate")
    kind, data = f.any("cert_type"), _bytes(f, "data", None)
    if kind == "CRL":
        return Endorsement(CRL, data)
    return Endorsement(CERTIFICATE, data) if isinstance(kind, str) and kind in _CERTIFICATES else None


def _bytes(f: Fields, name: str, size: int | None) -> bytes:
    """Bytes as a list of numbers."""
    found = f.any(name)
    if not isinstance(found, list) or len(found) > 8192 or (size is not None and len(found) != size):
        raise BadField(f"{name} is not a list of {'at most 8192' if size is None else size} bytes")
    if not all(type(one) is int and 0 <= one <= 255 for one in found):
        raise BadField(f"{name} is not a list of bytes")
    return bytes(found)


def _number(f: Fields, name: str, size: int) -> bytes:
    """A number of so many bytes, little-endian; zero where it is not said, or ``null``."""
    found = f.any(name) if f.has(name) else None
    if found is not None and (type(found) is not int or not 0 <= found < 1 << 8 * size):
        raise BadField(f"{name} is not a number of {size} bytes")
    return (found or 0).to_bytes(size, "little")


def _tcb(f: Fields, name: str) -> bytes:
    found = f.any(name)
    if isinstance(found, dict):
        found = {k: v for k, v in found.items() if not k.startswith("_") and (k, v) != ("fmc", None)}
    return Tcb.from_json(found).encode()


def snp_report(found: object) -> bytes:
    """The 1184 bytes of a report, from its JSON.

    Reserved bytes are zero, as the processor writes them. Names are those of the ``sev`` crate from 1.2 on; a member that is
    named otherwise in a later one counts as zero, and the signature then does not hold.

    Raises:
        BadField: a member missing or of another form.
    """
    f = Fields(found, "attestation_report")
    tcb = {name: _tcb(f, name) for name in _TCBS}
    author = next((name for name in ("_author_key_en", "author_key_en", "key_info") if f.has(name)), "key_info")
    signature = Fields(f.any("signature"), "signature")
    pieces = [
        _number(f, "version", 4), _number(f, "guest_svn", 4), _number(f, "policy", 8),
        _bytes(f, "family_id", 16), _bytes(f, "image_id", 16), _number(f, "vmpl", 4), _number(f, "sig_algo", 4),
        tcb["current_tcb"], _number(f, "plat_info", 8), _number(f, author, 4), bytes(4),
        _bytes(f, "report_data", 64), _bytes(f, "measurement", 48), _bytes(f, "host_data", 32),
        _bytes(f, "id_key_digest", 48), _bytes(f, "author_key_digest", 48),
        _bytes(f, "report_id", 32), _bytes(f, "report_id_ma", 32), tcb["reported_tcb"], _processor(f),
        _bytes(f, "chip_id", 64), tcb["committed_tcb"],
        *(_number(f, f"current_{part}", 1) for part in ("build", "minor", "major")), bytes(1),
        *(_number(f, f"committed_{part}", 1) for part in ("build", "minor", "major")), bytes(1),
        tcb["launch_tcb"], _mitigations(f),
        _bytes(signature, "r", 72), _bytes(signature, "s", 72), bytes(368),
    ]  # fmt: skip
    report = b"".join(pieces)
    assert len(report) == REPORT_BYTES
    return report


def _processor(f: Fields) -> bytes:
    """24 bytes: since version 3 of the report the first three say which processor; older crates keep all in a reserve."""
    if f.has("_reserved_1") and not f.has("cpuid_fam_id"):
        return _bytes(f, "_reserved_1", 24)
    names = ("cpuid_fam_id", "cpuid_mod_id", "cpuid_step")
    return b"".join(_number(f, name, 1) for name in names) + bytes(21)


def _mitigations(f: Fields) -> bytes:
    """168 bytes: since version 5 the first sixteen are two numbers; older crates keep all in a reserve."""
    if f.has("_reserved_4") and not f.has("launch_mit_vector"):
        return _bytes(f, "_reserved_4", 168)
    return _number(f, "launch_mit_vector", 8) + _number(f, "current_mit_vector", 8) + bytes(152)
