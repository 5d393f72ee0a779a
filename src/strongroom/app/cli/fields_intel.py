"""Quotes of Intel TDX and SGX, and what a PCK certificate says of its processor, field by field. Nothing is believed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from strongroom.attest import dcap, sgx, tdx
from strongroom.attest.dcap import Quote, TdReport, Tee
from strongroom.attest.intel_pck import PCK_EXTENSION, PckExtension, Platform
from strongroom.attest.x509 import Certificate, from_pem

from .fields import Record, Spoken, bits, certificate, named, of_parse, reserved, text

_KEY_TYPES = {2: "ECDSA, P-256", 3: "ECDSA, P-384"}
_BODIES = {1: "report of an enclave", 2: "report of a TD, 1.0", 3: "report of a TD, 1.5"}
_SGX_TYPES = {0: "standard", 1: "scalable", 2: "scalable with integrity"}
_VENDOR = "Intel's"
_PPID_CLEAR, _PPID_2048, _PPID_3072 = 1, 2, 3
_PPID_BYTES, _TCB_BYTES = 384, 20  # of certification data without a certificate
_TDREPORT_BYTES = 1024


def _flags(raw: bytes, names: Mapping[str, int]) -> Spoken:
    return bits(int.from_bytes(raw, "little"), names)


def _components(raw: bytes) -> Spoken:
    """TEE_TCB_SVN: of the TDX module, of what loads it, and of 13 components that have no name yet."""
    rest = ", ".join(map(str, raw[3:])) if any(raw[3:]) else "0 each"
    members = {
        "hex": raw.hex(),
        "components": list(raw),
        "module_svn": raw[0],
        "module_version": raw[1],
        "late_microcode_svn": raw[2],
    }
    said = f"TDX module version {raw[1]}, SVN {raw[0]}; late microcode SVN {raw[2]}; the other 13: {rest}"
    return Spoken(members, raw.hex(), said)


def _svns(raw: bytes | tuple[int, ...]) -> Spoken:
    """A processor's 16 components."""
    return Spoken({"hex": bytes(raw).hex(), "components": list(raw)}, ", ".join(map(str, raw)))


def _header(quote: Quote) -> Record:
    raw = quote.header
    found = Record(
        version=quote.version,
        attestation_key_type=named(int.from_bytes(raw[2:4], "little"), _KEY_TYPES),
        tee=named(int(quote.tee), {int(tee): tee.name for tee in Tee}),
    )
    if quote.version == 3:
        found["qe_svn"], found["pce_svn"] = (int.from_bytes(raw[at : at + 2], "little") for at in (8, 10))
    else:
        found["reserved"] = reserved(raw[8:12])
    intels = quote.qe_vendor == dcap.INTEL_QE_VENDOR
    said = f"{quote.qe_vendor.hex()}{f' ({_VENDOR})' if intels else ' (not Intel)'}"
    found["qe_vendor"] = Spoken({"hex": quote.qe_vendor.hex(), "intel": intels}, said)
    return found | Record(qe_id=raw[28:44], user_data=raw[44:48], body=named(quote.body_type, _BODIES))


def td_report(td: TdReport) -> Record:
    """The fields of a TD's report."""
    found = Record(
        tee_tcb_svn=_components(td.tee_tcb_svn),
        mrseam=td.mrseam,
        mrsignerseam=td.mrsignerseam,
        seam_attributes=_flags(td.seam_attributes, {}),
        attributes=_flags(td.attributes, tdx.ATTRIBUTE_BITS),
        xfam=_flags(td.xfam, dcap.XFEATURES),
        mrtd=td.mrtd,
        mrconfigid=text(td.mrconfigid),
        mrowner=td.mrowner,
        mrownerconfig=td.mrownerconfig,
        **{f"rtmr{n}": value for n, value in enumerate(td.rtmrs)},
        report_data=text(td.report_data),
    )
    if td.tee_tcb_svn2 is not None:
        found["tee_tcb_svn2"] = _components(td.tee_tcb_svn2)
    if td.mrservicetd is not None:
        found["mrservicetd"] = td.mrservicetd
    return found


def enclave_report(body: bytes) -> Record:
    """The fields of an enclave's report, 384 bytes, with those that no check reads."""
    found = dcap.EnclaveReport.of(body)
    return Record(
        cpu_svn=found.cpu_svn,
        misc_select=_flags(found.misc_select, sgx.MISC_BITS),
        isv_ext_prod_id=body[32:48],
        attributes=_flags(found.attributes[:8], sgx.ATTRIBUTE_BITS),
        xfrm=_flags(found.attributes[8:], dcap.XFEATURES),
        mrenclave=found.mrenclave,
        mrsigner=found.mrsigner,
        config_id=text(found.config_id),
        isv_prod_id=found.isv_prod_id,
        isv_svn=found.isv_svn,
        config_svn=found.config_svn,
        isv_family_id=body[304:320],
        report_data=text(found.report_data),
        reserved=reserved(body[20:32] + body[96:128] + body[160:192] + body[262:304]),
    )


def pck(found: Certificate) -> Record | None:
    """Which processor a PCK is of, by Intel's extension; ``None`` where there is none. Raises BadCertificate."""
    der = found.extension(PCK_EXTENSION)
    if der is None:
        return None
    said, more = PckExtension.parse(der), Platform.parse(der)
    record = Record(
        ppid=said.ppid,
        fmspc=said.fmspc,
        pce_id=said.pce_id,
        pce_svn=said.pce_svn,
        cpu_svn=more.cpu_svn,
        component_svns=_svns(said.svns),
        sgx_type=named(said.sgx_type, _SGX_TYPES),
    )
    beside = {
        "platform_instance": more.instance,
        "dynamic_platform": more.dynamic,
        "cached_keys": more.cached_keys,
        "smt": said.smt,
    }
    return record | Record({name: value for name, value in beside.items() if value is not None})


def _chain(data: bytes) -> Record:
    """The PCK certificate and its issuers. Raises BadCertificate."""
    path = from_pem(data)
    found = Record(certificates=[certificate(one) for one in path])
    processor = of_parse(lambda: pck(path[0]))
    return found | Record(processor=processor) if processor is not None else found


def _certification(quote: Quote) -> Record:
    kind, data = quote.certification_type, quote.certification_data
    found = Record(type=named(kind, dcap.CERTIFICATION_TYPES), bytes=len(data))
    if kind == dcap.PCK_CHAIN:
        read = of_parse(lambda: _chain(data))
        return found | read if isinstance(read, Record) else found | Record(certificates=read, data=data)
    if kind in {_PPID_CLEAR, _PPID_2048, _PPID_3072} and len(data) == _PPID_BYTES + _TCB_BYTES:
        tcb = data[_PPID_BYTES:]
        ppid = data[:16] if kind == _PPID_CLEAR else data[:256] if kind == _PPID_2048 else data[:_PPID_BYTES]
        name = "ppid" if kind == _PPID_CLEAR else "encrypted_ppid"
        return found | Record(
            {name: ppid}, cpu_svn=tcb[:16], pce_svn=int.from_bytes(tcb[16:18], "little"), pce_id=tcb[18:20]
        )
    return found | Record(data=data)


def _quote(quote: Quote, title: str, body: Record) -> Record:
    return Record(
        {"header": _header(quote), title: body},
        signature=Record(
            attestation_key=quote.attestation_key,
            signature=quote.signature,
            qe_authentication_data=text(quote.qe_auth),
            qe_report_signature=quote.qe_signature,
        ),
        qe_report=enclave_report(quote.qe_report),
        certification=_certification(quote),
        trailing_bytes=Spoken(
            {"zeros": quote.padding}, f"{quote.padding} zero bytes follow the quote" if quote.padding else "none"
        ),
    )


def of_tdx(claims: tdx.Claims) -> Record:
    return _quote(claims.quote, "td", td_report(claims.td))


def of_sgx(claims: sgx.Claims) -> Record:
    return _quote(claims.quote, "enclave", enclave_report(claims.quote.body))


def tdreport(raw: bytes) -> Record:
    """A raw TDREPORT (TDX Module ABI, TDREPORT_STRUCT), which only the machine that made it can check. Raises ValueError."""
    if len(raw) < _TDREPORT_BYTES:
        raise ValueError("a TDREPORT has 1024 bytes")
    return Record(
        report_type=Record(type=raw[0], subtype=raw[1], version=raw[2]),
        cpu_svn=raw[16:32],
        tee_tcb_info_hash=raw[32:80],
        tee_info_hash=raw[80:128],
        report_data=text(raw[128:192]),
        mac=raw[224:256],
        tee_tcb_svn=_components(raw[264:280]),
        mrseam=raw[280:328],
        mrsignerseam=raw[328:376],
        seam_attributes=_flags(raw[376:384], {}),
        tee_tcb_svn2=_components(raw[384:400]),
        attributes=_flags(raw[512:520], tdx.ATTRIBUTE_BITS),
        xfam=_flags(raw[520:528], dcap.XFEATURES),
        mrtd=raw[528:576],
        mrconfigid=text(raw[576:624]),
        mrowner=raw[624:672],
        mrownerconfig=raw[672:720],
        **{f"rtmr{n}": raw[720 + 48 * n : 768 + 48 * n] for n in range(4)},
        mrservicetd=raw[912:960],
    )


DESCRIBED: Mapping[type, Callable[[Any], Record]] = MappingProxyType({tdx.Claims: of_tdx, sgx.Claims: of_sgx})
