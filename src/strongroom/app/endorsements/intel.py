"""Intel: what a quote needs of the Provisioning Certification Service (PCS, version 4), or of a PCCS that stands in for it.

Which of it is read from the quote's PCK certificate, which nobody has verified: a wrong one gets what matches nothing.
Addresses and headers as in Intel's "API Documentation for Provisioning Certification Service", version 4; a PCCS gives
revocation lists in hex, and the root's at an address of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

from strongroom.attest import dcap
from strongroom.attest.endorsements import CRL, INTEL_QE_IDENTITY, INTEL_TCB_INFO
from strongroom.attest.evidence import Endorsement
from strongroom.attest.intel_collateral import MAX_COLLATERAL_BYTES, QeIdentity, TcbInfo
from strongroom.attest.intel_pck import PCK_EXTENSION, PckExtension
from strongroom.attest.x509 import Certificate, RevocationList, from_pem
from strongroom.errors import BadAnswer, BadCertificate, BadEndorsement, BadEvidence, Usage

from .request import Answer, Ask, Request

_T = TypeVar("_T")
_Kind = Literal["sgx", "tdx"]
_TCB_CHAIN = ("tcb-info-issuer-chain", "sgx-tcb-info-issuer-chain")
_IDENTITY_CHAIN = ("sgx-enclave-identity-issuer-chain", "enclave-identity-issuer-chain")
_CRL_CHAIN = ("sgx-pck-crl-issuer-chain",)
_AUTHORITIES = {"Intel SGX PCK Platform CA": "platform", "Intel SGX PCK Processor CA": "processor"}
_ROOT = "Intel SGX Root CA"
_EDITION = {"standard": "&update=standard", "early": "&update=early"}
MAX_CRL_ANSWER = 2 << 20  # in hex


def edition(said: str) -> str:
    """The end of an address that asks for one TCB recovery: ``standard``, ``early``, or an evaluation data number.

    Args:
        said: one of those, or empty for what Intel gives to who does not ask.

    Raises:
        Usage: anything else.
    """
    if not said:
        return ""
    if said in _EDITION:
        return _EDITION[said]
    if said.isascii() and said.isdigit() and len(said) < 8:
        return f"&tcbEvaluationDataNumber={int(said)}"
    raise Usage(f"{said!r} is no TCB recovery", hint="Say standard, early, or an evaluation data number: --tcb-update early")


def plan(data: bytes, ask: Ask, *, which: str = "") -> None:
    """Ask for everything that a quote needs.

    Args:
        data: the quote. Untrusted.
        ask: where answers come from.
        which: as :func:`edition` gives it.

    Raises:
        BadEvidence, BadCertificate: the quote does not say what it needs.
    """
    quote = dcap.parse(data)
    if quote.certification_type != dcap.PCK_CHAIN:
        raise BadEvidence(
            f"the quote brings no PCK certificate (its certification data is of type {quote.certification_type})"
        )
    pck = from_pem(quote.certification_data)[0]
    extension = pck.extension(PCK_EXTENSION)
    if extension is None:
        raise BadCertificate("the quote's PCK certificate has no SGX extension")
    fmspc, whose = PckExtension.parse(extension).fmspc, authority(pck)
    kind: _Kind = "tdx" if quote.tee is dcap.Tee.TDX else "sgx"
    ask(tcb_info(kind, fmspc, which))
    ask(qe_identity(kind, which))
    ask(pck_crl(whose))
    ask(root_crl(), pccs_root_crl())


def authority(pck: Certificate) -> str:
    """Which of Intel's two authorities issued a PCK certificate, by its word. Raises BadCertificate: neither."""
    for name, found in _AUTHORITIES.items():
        if f"CN={name}" in pck.issuer.split(","):
            return found
    raise BadCertificate("the quote's PCK certificate names no issuer of Intel's")


def tcb_info(kind: _Kind, fmspc: bytes, which: str = "") -> Request:
    """What Intel says of a kind of processor (``fmspc``, 6 bytes)."""

    def read(answer: Answer) -> tuple[Endorsement, ...]:
        found = _parsed(TcbInfo.parse, answer)
        if (found.id or "SGX").lower() != kind or found.fmspc != fmspc:
            raise BadAnswer(f"the answer is {found.id} TCB info of FMSPC {found.fmspc.hex()}, not {kind} of {fmspc.hex()}")
        return Endorsement(INTEL_TCB_INFO, answer.body), answer.chain(*_TCB_CHAIN)

    path = f"/{kind}/certification/v4/tcb?fmspc={fmspc.hex()}{which}"
    return Request("intel-pcs", INTEL_TCB_INFO, path, read, most=MAX_COLLATERAL_BYTES)


def qe_identity(kind: _Kind, which: str = "") -> Request:
    """Which quoting enclave Intel vouches for."""

    def read(answer: Answer) -> tuple[Endorsement, ...]:
        found = _parsed(QeIdentity.parse, answer)
        if found.id != ("TD_QE" if kind == "tdx" else "QE"):
            raise BadAnswer(f"the answer is the identity of {found.id!r}")
        return Endorsement(INTEL_QE_IDENTITY, answer.body), answer.chain(*_IDENTITY_CHAIN)

    path = f"/{kind}/certification/v4/qe/identity" + which.replace("&", "?", 1)
    return Request("intel-pcs", INTEL_QE_IDENTITY, path, read, most=MAX_COLLATERAL_BYTES)


def pck_crl(of: str) -> Request:
    """The revocation list of the ``platform`` or the ``processor`` authority."""

    def read(answer: Answer) -> tuple[Endorsement, ...]:
        name = next(name for name, found in _AUTHORITIES.items() if found == of)
        return _revocation_list(answer, name), answer.chain(*_CRL_CHAIN)

    path = f"/sgx/certification/v4/pckcrl?ca={of}&encoding=der"
    return Request("intel-pcs", CRL, path, read, most=MAX_CRL_ANSWER)


def root_crl() -> Request:
    """The root's revocation list, which names authorities and signers."""
    return Request("intel-root-crl", CRL, "", _root_list, most=MAX_CRL_ANSWER)


def pccs_root_crl() -> Request:
    """The same from a PCCS. Intel's own service has nothing there."""
    return Request("intel-pcs", CRL, "/sgx/certification/v4/rootcacrl", _root_list, most=MAX_CRL_ANSWER)


def _root_list(answer: Answer) -> tuple[Endorsement, ...]:
    return (_revocation_list(answer, _ROOT),)


def _parsed(parse: Callable[[bytes], _T], answer: Answer) -> _T:
    """Raises BadAnswer."""
    try:
        return parse(answer.body)
    except BadEndorsement as error:
        raise BadAnswer(f"the answer is {error.message}") from error


def _revocation_list(answer: Answer, issuer: str) -> Endorsement:
    """A revocation list in DER, PEM or hex. Raises BadAnswer: none, or another's."""
    try:
        found = read_revocation_list(answer.body)
    except BadCertificate as error:
        raise BadAnswer(f"the answer is no revocation list: {error.message}") from error
    if f"CN={issuer}" not in found.parsed.issuer.rfc4514_string().split(","):
        raise BadAnswer(f"the answer is a revocation list of another authority than {issuer}")
    return Endorsement(CRL, found.der)


def read_revocation_list(data: bytes) -> RevocationList:
    """A revocation list in DER, PEM or hex, at most 2 MiB. Raises BadCertificate."""
    if len(data) > MAX_CRL_ANSWER:
        raise BadCertificate(f"a revocation list is longer than {MAX_CRL_ANSWER} bytes")
    if data.lstrip().startswith(b"-----BEGIN"):
        return RevocationList.from_pem(data)
    if data[:2].lower() == b"30":
        try:
            data = bytes.fromhex(data.decode("ascii").strip())
        except ValueError as error:
            raise BadCertificate("not a revocation list in hex") from error
    return RevocationList(data)
