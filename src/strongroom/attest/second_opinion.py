"""A second verifier of Intel's quotes, where one is installed: ``dcap-qvl`` (``strongroom[dcap]``), by other people and in
another language. Two verifiers of the same bytes that come to different ends mean that one of them is wrong, and then
neither counts.

It is asked only about what we have found good, so that the one question is whether it agrees. It gives its reasons as
strings, and refuses some genuine TDs and enclaves by a policy of its own; such a refusal is agreement exactly where we see
what it complains of. Everything else is disagreement. See ``spec/evidence-intel.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from strongroom.errors import SecondOpinionDiffers

from .dcap import Quote, Tee
from .intel_collateral import QeIdentity, Tcb, TcbInfo
from .x509 import Certificate, RevocationList

MODULE = "dcap_qvl"

_QE_AUTH_BYTES = 32
_FAILED = "Verification failed: "
_RESERVED = sum(1 << bit for bit in (*range(1, 4), *range(7, 16), *range(23, 27), *range(32, 62)))


def _bits(quote: Quote, mask: int) -> bool:
    """Whether one of these attributes of a TD is set."""
    return quote.tee is Tee.TDX and bool(int.from_bytes(quote.td.attributes, "little") & mask)


def _debug(quote: Quote) -> bool:
    return _bits(quote, 0x01) if quote.tee is Tee.TDX else quote.enclave.debug


# What dcap-qvl 0.7 refuses by policy although every signature and date is good, and how we see the same. Its words are its
# interface here: were they to change, a refusal would count as disagreement.
POLICY_REFUSALS: Mapping[str, Callable[[Quote], bool]] = MappingProxyType(
    {
        "Debug mode is enabled": _debug,
        "Invalid MR service TD": lambda q: q.tee is Tee.TDX and any(q.td.mrservicetd or b""),
        "Invalid QE auth data length": lambda q: len(q.qe_auth) != _QE_AUTH_BYTES,
        "Reserved bits in TD attributes are set": lambda q: _bits(q, _RESERVED),
        "SEPT_VE_DISABLE is not enabled": lambda q: q.tee is Tee.TDX and not _bits(q, 1 << 28),
        "SERVTD_EXT is enabled": lambda q: _bits(q, 1 << 17),
        "TD migration is enabled": lambda q: _bits(q, 1 << 29),
        "TD profiling is enabled": lambda q: _bits(q, 0x70),
    }
)


@dataclass(frozen=True, slots=True)
class Collateral:
    """The documents that a verification used, so that the second one uses the same."""

    root: Certificate
    root_list: RevocationList
    issuer: Certificate
    issuer_list: RevocationList
    info_signer: Certificate
    info: TcbInfo
    identity_signer: Certificate
    identity: QeIdentity


@cache
def _import() -> Any:
    """The other verifier's module, or ``None`` where none is installed."""
    try:
        return import_module(MODULE)
    except ImportError:
        return None


def _chain(*certificates: Certificate) -> str:
    return b"".join(one.parsed.public_bytes(Encoding.PEM) for one in certificates).decode("ascii")


def require_same(data: bytes, quote: Quote, used: Collateral, tcb: Tcb, at: int) -> str:
    """Ask the second verifier, with the same documents, root and time.

    Args:
        data: the evidence.
        quote: what we read in it.
        used: what we verified it with.
        tcb: what we found.
        at: the time in question, unix seconds.

    Returns:
        which verifier said what; ``""`` where none is installed.

    Raises:
        SecondOpinionDiffers: another status, other advisories, or a refusal of which we do not see the cause.
    """
    other = _import()
    if other is None:
        return ""
    name, root = f"dcap-qvl {getattr(other, '__version__', 'of no version')}", used.root
    try:
        collateral = other.QuoteCollateralV3(
            pck_crl_issuer_chain=_chain(used.issuer, root),
            root_ca_crl=used.root_list.der,
            pck_crl=used.issuer_list.der,
            tcb_info_issuer_chain=_chain(used.info_signer, root),
            tcb_info=used.info.signed.decode(),
            tcb_info_signature=used.info.signature,
            qe_identity_issuer_chain=_chain(used.identity_signer, root),
            qe_identity=used.identity.signed.decode(),
            qe_identity_signature=used.identity.signature,
        )
        found = other.verify_with_root_ca(data, collateral, root.der, at)
        status, advisories = str(found.status), set(map(str, found.advisory_ids))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # whatever it raises is a refusal; a panic of its runtime is no Exception
        said = " ".join(str(error).removeprefix(_FAILED).split())
        cause = POLICY_REFUSALS.get(said)
        if cause is not None and cause(quote):
            return f"{name} refuses it only for what we see too: {said}"
        raise SecondOpinionDiffers(f"{name} refuses what we find genuine: {said[:200]}") from error
    ours = {one.id for one in tcb.advisories if not one.now}  # it names those that touched the TD at its launch
    if status != tcb.status or advisories != ours:
        theirs = f"{status} with {', '.join(sorted(advisories)) or 'no advisories'}"
        raise SecondOpinionDiffers(f"{name} finds {theirs}, we {tcb.status} with {', '.join(sorted(ours)) or 'none'}")
    return f"{name} agrees"
