"""Writes ``vectors/tdx`` and ``vectors/sgx``. Deterministic: fixed keys, fixed times, signatures as of RFC 6979.

    python vectors/make_intel.py

One file a case. Every case holds its whole input and ``expect``: ``ok``, or the stable code of the check that fails first,
which ``fails`` names. No case rests on a second verifier: with and without one, the ends are these.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

import pki_intel as pki  # noqa: E402
from pki_intel import AT, DAY, PCK, PLATFORM_CA, PROCESSOR_CA, ROOT, SVN_1, TCB_SIGNING, World, level, module  # noqa: E402
from strongroom import wire  # noqa: E402
from strongroom.attest import sgx, tdx  # noqa: E402
from strongroom.attest.endorsements import CERTIFICATE, CRL, INTEL_TCB_INFO, PEM_CHAIN  # noqa: E402
from strongroom.attest.evidence import Endorsement, Endorsements  # noqa: E402
from strongroom.attest.intel_collateral import TcbStatus  # noqa: E402

BAD, FORGED, CERTIFICATE_BAD = "attest.bad_evidence", "attest.forged", "attest.bad_certificate"
EXPIRED, EARLY, MISSING = "attest.endorsement_expired", "attest.endorsement_not_yet_valid", "attest.endorsement_missing"
COLLATERAL, REVOKED, ROOT_UNKNOWN = "attest.bad_endorsement", "attest.revoked", "attest.unknown_root"
TCB, TERMS = "attest.tcb_not_accepted", "attest.terms_not_met"
OK = "ok"

TD, ENCLAVE = World(), World(tee="SGX", version=3)
V5 = World(version=5)
NO_MODULE = bytes([3, 0, 5]) + bytes(13)
NO_CERTIFICATE = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
SERVICE_TD = b"\x7d" * 48
OUT_OF_DATE = frozenset({TcbStatus.UP_TO_DATE, TcbStatus.OUT_OF_DATE})
RELAUNCH = frozenset({TcbStatus.UP_TO_DATE, TcbStatus.TD_RELAUNCH_ADVISED})
OLD_MODULE = {"INTEL-SA-01192": AT, "INTEL-SA-01245": AT + DAY}


class Cases:
    """Collects the cases of one platform."""

    def __init__(self, platform: str) -> None:
        self.platform, self.found = platform, {}

    def add(
        self,
        name: str,
        description: str,
        expect: str,
        fails: str,
        world: World,
        *,
        at: int = AT,
        terms: Any = None,
        data: Callable[[bytes], bytes] = bytes,
        documents: Callable[[dict[str, Endorsement]], None] = lambda _: None,
        unpinned: bool = False,
    ) -> None:
        """One case, where everything is right but what is said."""
        found = {key: one for key, one in world.documents().items() if key not in world.without}
        documents(found)
        strict = (tdx if self.platform == "tdx" else sgx).Terms()
        self.found[name] = {
            "at": at,
            "description": description,
            "endorsements": Endorsements(tuple(found.values())).to_json(),
            "evidence": wire.b64(data(world.quote())),
            "expect": expect,
            "fails": fails,
            "platform": self.platform,
            "roots": ["sha256:" + "00" * 32] if unpinned else world.roots().to_json(),
            "terms": (terms or strict).to_json(),
        }


def _at(place: int, value: bytes) -> Callable[[bytes], bytes]:
    """Other bytes at a place of the evidence."""
    return lambda data: data[:place] + value + data[place + len(value) :]


def _in(name: str, old: bytes, new: bytes) -> Callable[[dict[str, Endorsement]], None]:
    """Other bytes in one of the documents."""

    def change(found: dict[str, Endorsement]) -> None:
        assert old in found[name].data
        found[name] = Endorsement(found[name].media_type, found[name].data.replace(old, new, 1))

    return change


def _and(*more: Endorsement) -> Callable[[dict[str, Endorsement]], None]:
    """More documents, before the others."""

    def change(found: dict[str, Endorsement]) -> None:
        own = dict(found)
        found.clear()
        found.update({f"more {n}": one for n, one in enumerate(more)} | own)

    return change


def _good(add: Callable[..., None]) -> None:
    add("good", "a TD on a machine that is up to date", OK, "", TD)
    add("good-report-1.5", "a quote of version 5 with a TD's report 1.5", OK, "", V5)
    add("good-version-5", "a quote of version 5 with a TD's report 1.0", OK, "", replace(V5, body_type=2))
    add("good-padding", "as many zero bytes after the quote as are allowed", OK, "", replace(TD, trailing=bytes(4096)))
    add("good-last-second", "at the last second of what ends first", OK, "", TD, at=AT + 28 * DAY)
    quiet = replace(TD, td={"tee_tcb_svn": NO_MODULE})
    add("good-module-0", "a TDX module of version 0, which has no identity of its own", OK, "", quiet)
    old = Endorsement(CERTIFICATE, pki.certificate(TCB_SIGNING, ROOT, before=AT - 900 * DAY, after=AT - 500 * DAY))
    foreign = replace(TD, info={"fmspc": "00906ED50000"})
    info, lists = Endorsement(INTEL_TCB_INFO, foreign.tcb_info()), Endorsement(CRL, TD.revocation_list(PROCESSOR_CA))
    add("good-more-came-along", "beside what is needed, an expired signer and another processor's papers", OK, "", TD,
        documents=_and(old, info, lists))  # fmt: skip
    stale = replace(TD, info={"issueDate": pki.time(AT - 20 * DAY), "tcbLevels": []})
    early = replace(TD, info={"issueDate": pki.time(AT + 1), "tcbLevels": []})
    both = [Endorsement(INTEL_TCB_INFO, world.tcb_info()) for world in (stale, early)]
    add("good-newest-counts", "TCB information of three days: the newest one that is not of the future counts", OK, "", TD,
        documents=_and(*both))  # fmt: skip
    tolerant = tdx.Terms(statuses=OUT_OF_DATE, advisories=OLD_MODULE)
    outdated = replace(TD, td={"tee_tcb_svn": pki.OLD_SVN})
    add("good-out-of-date-tolerated", "an old TDX module, tolerated with its advisories until today", OK, "", outdated,
        terms=tolerant)  # fmt: skip
    preserved = replace(V5, td={"tee_tcb_svn": pki.OLD_SVN, "tee_tcb_svn2": SVN_1})
    add("good-relaunch-advised", "started under an old TDX module, replaced since; tolerated", OK, "", preserved,
        terms=tdx.Terms(statuses=RELAUNCH, advisories=OLD_MODULE))  # fmt: skip
    served = replace(V5, td={"mrservicetd": SERVICE_TD})
    add("good-service-td", "a service TD that the terms list", OK, "", served,
        terms=tdx.Terms(mrservicetd=frozenset({SERVICE_TD})))  # fmt: skip
    loose = replace(TD, td={"attributes": bytes.fromhex("0000006000000080")})
    named = frozenset({"migratable", "perfmon", "pks"})
    add("good-attributes-named", "attributes that the terms name, and SEPT_VE_DISABLE not asked for", OK, "", loose,
        terms=tdx.Terms(sept_ve_disable=False, attributes=named))  # fmt: skip
    add("good-module-listed", "a TDX module that the terms list", OK, "", TD,
        terms=tdx.Terms(mrseam=frozenset({b"\x5e" * 48})))  # fmt: skip


def _quote(add: Callable[..., None]) -> None:
    add("empty", "nothing", BAD, "Q1", TD, data=lambda _: b"")
    add("truncated", "the last byte is missing", BAD, "Q1", TD, data=lambda data: data[:-1])
    add("smuggled", "a byte that is not zero follows the quote", BAD, "Q1", replace(TD, trailing=bytes(9) + b"\x01"))
    add("padded-further", "one zero byte more than allowed follows", BAD, "Q1", replace(TD, trailing=bytes(4097)))
    add("raw-tdreport", "a raw TDREPORT, which has a MAC and no signature", BAD, "Q1", TD,
        data=lambda _: b"\x81" + bytes(1023))  # fmt: skip
    add("version-6", "a version that is not known", BAD, "Q1", replace(TD, header={"version": b"\x06\x00"}))
    add("key-type-3", "an attestation key on another curve", BAD, "Q1", replace(TD, header={"key_type": b"\x03\x00"}))
    add("another-tee", "neither SGX nor TDX", BAD, "Q1", replace(TD, header={"tee": b"\x82\x00\x00\x00"}))
    add("an-enclave", "a quote of an SGX enclave passed off as a TD's", BAD, "Q1", ENCLAVE)
    add("body-type-4", "a report of a type that is not known", BAD, "Q1", replace(V5, body_type=4))
    add("body-size", "a report whose size is not its type's", BAD, "Q1", V5, data=_at(50, b"\x49\x02"))
    add("no-wrapper", "version 4 without the QE's report around the certificates", BAD, "Q1", TD, data=_at(764, b"\x05"))
    add("another-vendor", "another vendor's quoting enclave", BAD, "Q2", replace(TD, header={"vendor": bytes(16)}))
    add("another-key-signs", "signed by another key than it names", FORGED, "Q3", replace(TD, quote_signer="attacker"))
    add("report-data-altered", "report data altered after signing", FORGED, "Q3", TD, data=_at(568, b"\xff"))
    add("key-not-on-curve", "an attestation key that is no point of the curve", FORGED, "Q3", TD, data=_at(700, bytes(64)))
    add("own-attestation-key", "an attestation key that no quoting enclave has reported", FORGED, "Q4",
        replace(TD, qe={"report_data": bytes(64)}))  # fmt: skip
    bound = pki.hashlib.sha256(pki.point("attestation key") + TD.qe_auth).digest()
    add("key-and-more", "a QE's report with more in it than the key's hash", FORGED, "Q4",
        replace(TD, qe={"report_data": bound + bytes(31) + b"\x01"}))  # fmt: skip
    add("encrypted-ppid", "certification data of type 3, which names the processor to Intel alone", BAD, "Q5",
        replace(TD, certification_type=3))  # fmt: skip
    add("two-certificates", "a PCK and a root, and nothing between", CERTIFICATE_BAD, "Q5", replace(TD, chain=(PCK, ROOT)))
    add("no-certificates", "type 5 without certificates", CERTIFICATE_BAD, "Q5", TD,
        data=lambda data: data.replace(b"-----BEGIN CERT", b"-----Begin Cert"))  # fmt: skip


def _path(add: Callable[..., None]) -> None:
    add("unpinned-root", "a root that nobody pinned", ROOT_UNKNOWN, "Q6", TD, unpinned=True)
    add("chain-reversed", "the root in the PCK's place", ROOT_UNKNOWN, "Q6", replace(TD, chain=(ROOT, PLATFORM_CA, PCK)))
    add("pck-expired", "the PCK's certificate ended a second ago", EXPIRED, "Q6",
        replace(TD, certificates={PCK: {"after": AT - 1}}))  # fmt: skip
    add("pck-early", "the PCK's certificate begins in a second", EARLY, "Q6",
        replace(TD, certificates={PCK: {"before": AT + 1}}))  # fmt: skip
    add("root-expired", "the root ended a second ago", EXPIRED, "Q6", replace(TD, certificates={ROOT: {"after": AT - 1}}))
    add("pck-self-made", "a PCK certificate signed by another key than its issuer's", CERTIFICATE_BAD, "Q6",
        replace(TD, certificates={PCK: {"issuer": "attacker", "issued_as": PLATFORM_CA}}))  # fmt: skip
    add("issuer-no-authority", "an issuer that may not issue", CERTIFICATE_BAD, "Q6",
        replace(TD, certificates={PLATFORM_CA: {"ca": False}}))  # fmt: skip
    add("pck-another-role", "a key for signing TCB information signs quotes", CERTIFICATE_BAD, "Q6",
        replace(TD, certificates={PCK: {"common": TCB_SIGNING}}))  # fmt: skip
    add("issuer-another-role", "an issuer that is none of Intel's for PCKs", CERTIFICATE_BAD, "Q6",
        replace(TD, certificates={PLATFORM_CA: {"common": "Another CA"}, PCK: {"issued_as": "Another CA"}}))  # fmt: skip
    add("pck-of-no-processor", "a PCK certificate without the extension that names the processor", CERTIFICATE_BAD, "Q6",
        replace(TD, certificates={PCK: {"extension": None}}))  # fmt: skip
    add("pck-extension-bad", "a PCK certificate whose extension is not DER", CERTIFICATE_BAD, "Q6",
        replace(TD, certificates={PCK: {"extension": b"\x30\x80\x00\x00"}}))  # fmt: skip
    add("pck-critical", "a PCK certificate with a critical extension that is not known", CERTIFICATE_BAD, "Q6",
        replace(TD, certificates={PCK: {"critical": True}}))  # fmt: skip
    add("pck-p384", "a PCK on another curve", CERTIFICATE_BAD, "Q7",
        replace(TD, certificates={PCK: {"curve": pki.ec.SECP384R1}}))  # fmt: skip
    add("another-pck-signs", "a QE's report that another processor signed", FORGED, "Q7",
        replace(TD, qe_report_signer="attacker"))  # fmt: skip


def _lists(add: Callable[..., None]) -> None:
    for name, what, number, key in (("root", ROOT, "Q8", "root crl"), ("pck", PLATFORM_CA, "Q9", "pck crl")):
        add(
            f"{name}-list-missing",
            f"no revocation list of the {what}",
            MISSING,
            number,
            replace(TD, without=frozenset({key})),
        )
        add(f"{name}-list-expired", f"the {what}'s list ended a second ago", EXPIRED, number,
            replace(TD, lists={what: {"after": AT - 1}}))  # fmt: skip
        add(f"{name}-list-early", f"the {what}'s list is of the future", EARLY, number,
            replace(TD, lists={what: {"before": AT + 1}}))  # fmt: skip
        add(f"{name}-list-forged", f"the {what}'s list, signed by another key", CERTIFICATE_BAD, number,
            replace(TD, lists={what: {"signer": "attacker"}}))  # fmt: skip
    add(
        "issuer-revoked",
        "the PCK's issuer is revoked",
        REVOKED,
        "Q8",
        replace(TD, lists={ROOT: {"revoked": (PLATFORM_CA,)}}),
    )
    add("root-revoked", "the root revokes itself", REVOKED, "Q8", replace(TD, lists={ROOT: {"revoked": (ROOT,)}}))
    add("pck-revoked", "the PCK is revoked", REVOKED, "Q9", replace(TD, lists={PLATFORM_CA: {"revoked": (PCK,)}}))
    add(
        "list-not-der",
        "a revocation list in another form",
        COLLATERAL,
        "Q8",
        TD,
        documents=_in("root crl", b"\x30", b"\x31"),
    )
    another = Endorsement(CRL, TD.revocation_list(PROCESSOR_CA))
    add("another-issuers-list", "a list of another issuer in place of the PCK's", MISSING, "Q9",
        replace(TD, without=frozenset({"pck crl"})), documents=_and(another))  # fmt: skip


def _collateral(add: Callable[..., None]) -> None:
    add(
        "signer-missing", "no TCB signing certificate", MISSING, "Q10", replace(TD, without=frozenset({"tcb signing chain"}))
    )
    add("signer-expired", "the TCB signing certificate ended", EXPIRED, "Q10",
        replace(TD, certificates={TCB_SIGNING: {"after": AT - 1}}))  # fmt: skip
    add("signer-revoked", "the TCB signing certificate is revoked", REVOKED, "Q10",
        replace(TD, lists={ROOT: {"revoked": (TCB_SIGNING,)}}))  # fmt: skip
    add("signer-self-made", "a TCB signing certificate that the root did not sign", CERTIFICATE_BAD, "Q10",
        replace(TD, certificates={TCB_SIGNING: {"issuer": "attacker", "issued_as": ROOT}}))  # fmt: skip
    add("signer-from-a-pck-issuer", "a TCB signing certificate that an issuer of PCKs made", CERTIFICATE_BAD, "Q10",
        replace(TD, certificates={TCB_SIGNING: {"issuer": PLATFORM_CA}}))  # fmt: skip
    add("signer-not-a-certificate", "a chain that holds none", COLLATERAL, "Q10", TD,
        documents=_and(Endorsement(PEM_CHAIN, NO_CERTIFICATE)))  # fmt: skip
    add("info-missing", "no TCB information", MISSING, "Q11", replace(TD, without=frozenset({"tcb info"})))
    add("info-another-fmspc", "TCB information of another kind of processor", COLLATERAL, "Q11",
        replace(TD, info={"fmspc": "00806F050000"}))  # fmt: skip
    add("info-another-pce", "TCB information of another PCE", COLLATERAL, "Q11", replace(TD, info={"pceId": "0100"}))
    add("info-for-sgx", "TCB information for SGX on the same processor", COLLATERAL, "Q11", replace(TD, info={"id": "SGX"}))
    add("info-version-2", "TCB information of an older format", COLLATERAL, "Q11", replace(TD, info={"version": 2}))
    add("info-another-type", "TCB information whose levels are compared in another way", COLLATERAL, "Q11",
        replace(TD, info={"tcbType": 1}))  # fmt: skip
    add("info-member-twice", "TCB information with a member twice", COLLATERAL, "Q11", TD,
        documents=_in("tcb info", b'{"id":"TDX",', b'{"id":"TDX","id":"TDX",'))  # fmt: skip
    add("info-rewritten", "TCB information that is not byte for byte the answer", COLLATERAL, "Q11", TD,
        documents=_in("tcb info", b'{"tcbInfo":', b'{ "tcbInfo":'))  # fmt: skip
    add("info-altered", "a status altered after signing", COLLATERAL, "Q12", replace(TD, td={"tee_tcb_svn": pki.OLD_SVN}),
        documents=_in("tcb info", b'"OutOfDate"', b'"UpToDate" '))  # fmt: skip
    add("info-another-signer", "TCB information signed by a PCK", COLLATERAL, "Q12", replace(TD, info_signer=PCK))
    add("info-expired", "TCB information that ended", EXPIRED, "Q13", replace(TD, info={"nextUpdate": pki.time(AT - 1)}))
    add("info-early", "TCB information of the future", EARLY, "Q13", replace(TD, info={"issueDate": pki.time(AT + 1)}))
    add(
        "identity-missing",
        "no identity of the quoting enclave",
        MISSING,
        "Q14",
        replace(TD, without=frozenset({"qe identity"})),
    )
    add("identity-for-sgx", "the identity of SGX's quoting enclave", COLLATERAL, "Q14", replace(TD, identity={"id": "QE"}))
    add("identity-version-1", "an identity of another format", COLLATERAL, "Q14", replace(TD, identity={"version": 1}))
    add("identity-altered", "an identity altered after signing", COLLATERAL, "Q15", TD,
        documents=_in("qe identity", b'"isvsvn":8', b'"isvsvn":7'))  # fmt: skip
    add("identity-another-signer", "an identity that a PCK signed", COLLATERAL, "Q15", replace(TD, identity_signer=PCK))
    add("identity-expired", "an identity that ended", EXPIRED, "Q16", replace(TD, identity={"nextUpdate": pki.time(AT - 1)}))
    add("identity-early", "an identity of the future", EARLY, "Q16", replace(TD, identity={"issueDate": pki.time(AT + 1)}))


def _levels(add: Callable[..., None]) -> None:
    for name, what in (
        ("mrsigner", b"\x66" * 32),
        ("isv_prod_id", b"\x09\x00"),
        ("attributes", bytes.fromhex("3500000000000000e700000000000000")),
        ("misc_select", b"\x01\x00\x00\x00"),
    ):
        add(f"qe-{name.replace('_', '-')}", f"another enclave as the quoting one: another {name}", FORGED, "Q17",
            replace(TD, qe={name: what}))  # fmt: skip
    masked = {"attributesMask": "00" * 16, "attributes": "00" * 16}
    add("qe-debug", "a quoting enclave that can be debugged, under an identity that does not look", FORGED, "Q17",
        replace(TD, qe={"attributes": bytes.fromhex("1700000000000000e700000000000000")}, identity=masked))  # fmt: skip
    add(
        "qe-below", "a quoting enclave older than any that Intel lists", TCB, "Q17", replace(TD, qe={"isv_svn": b"\x04\x00"})
    )
    add("processor-below", "a processor older than any that Intel lists", TCB, "Q18",
        replace(TD, extension={"svns": (0,) * 16}))  # fmt: skip
    add("pce-below", "a PCE older than any that Intel lists", TCB, "Q18", replace(TD, extension={"pce_svn": 4}))
    add("module-below", "a TDX module older than any that Intel lists", TCB, "Q18",
        replace(TD, td={"tee_tcb_svn": bytes([4, 1, 5]) + bytes(13)}))  # fmt: skip
    add("module-unknown", "a TDX module that Intel does not describe", TCB, "Q18",
        replace(TD, td={"tee_tcb_svn": bytes([11, 2, 5]) + bytes(13)}))  # fmt: skip
    add("module-another-signer", "a TDX module signed by somebody else", TCB, "Q18",
        replace(TD, td={"mrsignerseam": b"\x66" * 48}))  # fmt: skip
    add("module-attributes", "a TDX module with attributes (a debug one)", TCB, "Q18",
        replace(TD, td={"seam_attributes": b"\x01" + bytes(7)}))  # fmt: skip
    add("module-now-below", "the TDX module was taken back since the TD was launched", TCB, "Q18",
        replace(V5, td={"tee_tcb_svn2": bytes([4, 1, 5]) + bytes(13)}))  # fmt: skip
    add("status-unknown", "a level with a status that is not known", COLLATERAL, "Q18",
        replace(TD, info={"tcbLevels": [level(pki.components(tdx=pki.ZERO_TDX), "Excellent")]}))  # fmt: skip
    add("level-short", "a level with fifteen components", COLLATERAL, "Q18",
        replace(TD, info={"tcbLevels": [level(pki.components(pki.SVNS[:15], tdx=pki.ZERO_TDX))]}))  # fmt: skip
    revoked = level(pki.components(tdx=pki.ZERO_TDX), "Revoked", "INTEL-SA-00999")
    add("platform-revoked", "the processor's level is revoked", REVOKED, "Q19", replace(TD, info={"tcbLevels": [revoked]}))
    modules = [module(levels=[level({"isvsvn": 11}, "Revoked")])]
    add(
        "module-revoked",
        "the TDX module's level is revoked",
        REVOKED,
        "Q19",
        replace(TD, info={"tdxModuleIdentities": modules}),
    )
    add("qe-revoked", "the quoting enclave's level is revoked", REVOKED, "Q19",
        replace(TD, identity={"tcbLevels": [level({"isvsvn": 8}, "Revoked")]}))  # fmt: skip
    now = [module(levels=[level({"isvsvn": 11}, "Revoked"), level({"isvsvn": 5})])]
    add("module-now-revoked", "the TDX module that the machine has now is revoked", REVOKED, "Q19",
        replace(V5, td={"tee_tcb_svn": pki.OLD_SVN}, info={"tdxModuleIdentities": now}))  # fmt: skip


def _td_terms(add: Callable[..., None]) -> None:
    outdated = replace(TD, td={"tee_tcb_svn": pki.OLD_SVN})
    add("out-of-date", "an old TDX module", TCB, "T1", outdated)
    add("qe-out-of-date", "an old quoting enclave", TCB, "T1", replace(TD, qe={"isv_svn": b"\x07\x00"}))
    add("relaunch-advised", "started under an old TDX module that has been replaced since", TCB, "T1",
        replace(V5, td={"tee_tcb_svn": pki.OLD_SVN, "tee_tcb_svn2": SVN_1}))  # fmt: skip
    quiet = [module(levels=[level({"isvsvn": 11}), level({"isvsvn": 5}, "OutOfDate")])]
    add("fallen-behind", "launched under a current TDX module; the machine has an old one now, with no advisory", TCB, "T1",
        replace(V5, td={"tee_tcb_svn2": pki.OLD_SVN}, info={"tdxModuleIdentities": quiet}))  # fmt: skip
    hardening = level(pki.components(tdx=pki.ZERO_TDX), "SWHardeningNeeded", "INTEL-SA-00615")
    add("hardening-needed", "software has to protect itself", TCB, "T1", replace(TD, info={"tcbLevels": [hardening]}))
    no_status = tdx.Terms(statuses=frozenset())
    add("no-status-accepted", "terms that accept no status", TCB, "T1", TD, terms=no_status)
    one = tdx.Terms(statuses=OUT_OF_DATE, advisories={"INTEL-SA-01192": AT + DAY})
    add("advisory-not-tolerated", "one advisory tolerated, another not", TCB, "T2", outdated, terms=one)
    ended = tdx.Terms(statuses=OUT_OF_DATE, advisories={**OLD_MODULE, "INTEL-SA-01192": AT - 1})
    add("advisory-no-longer-tolerated", "tolerated until a second ago", TCB, "T2", outdated, terms=ended)
    add("evaluation-old", "an older evaluation than the terms ask for, served while it still counts", TCB, "T3", TD,
        terms=tdx.Terms(tcb_evaluation_floor=19))  # fmt: skip
    for name, what, number, bits in (
        ("exceptions-injected", "SEPT_VE_DISABLE is not set", "T4", "0000000000000000"),
        ("migratable", "a migration TD may take the TD elsewhere", "T5", "0000003000000000"),
        ("perfmon", "performance counters are shared with the host", "T6", "0000001000000080"),
        ("protection-keys", "an attribute that the terms do not name", "T7", "0000005000000000"),
        ("attribute-reserved", "an attribute that has no name", "T7", "0000041000000000"),
        ("service-td-extended", "SERVTD_EXT is set", "T7", "0000021000000000"),
    ):
        add(name, what, TERMS, number, replace(TD, td={"attributes": bytes.fromhex(bits)}))
    add("processor-trace", "the TD may be traced", TERMS, "T8", replace(TD, td={"xfam": bytes.fromhex("e703060000000000")}))
    wanted = tdx.Terms(xfam_required=0x603)
    add("xfam-missing", "a feature that the terms ask for is missing", TERMS, "T8", TD, terms=wanted)
    add("module-not-listed", "another TDX module than the terms list", TERMS, "T9", TD,
        terms=tdx.Terms(mrseam=frozenset({b"\x5f" * 48})))  # fmt: skip
    add("no-module-listed", "terms that list no TDX module", TERMS, "T9", TD, terms=tdx.Terms(mrseam=frozenset()))
    signer = b"\x66" * 48
    add("module-of-another", "a TDX module that is not Intel's, although Intel describes it", TERMS, "T10",
        replace(TD, td={"mrsignerseam": signer}, info={"tdxModuleIdentities": [module(mrsigner=signer.hex())]}))  # fmt: skip
    add("service-td", "a service TD that nobody listed", TERMS, "T11", replace(V5, td={"mrservicetd": SERVICE_TD}))
    add("another-service-td", "another service TD than listed", TERMS, "T11", replace(V5, td={"mrservicetd": SERVICE_TD}),
        terms=tdx.Terms(mrservicetd=frozenset({bytes(47) + b"\x01"})))  # fmt: skip


def _enclave(add: Callable[..., None]) -> None:
    add("good", "an enclave on a machine that is up to date", OK, "", ENCLAVE)
    add(
        "good-processor-ca",
        "a PCK that the other one of Intel's issuers made",
        OK,
        "",
        replace(ENCLAVE, issuer=PROCESSOR_CA),
    )
    add("good-qe-data", "a quoting enclave that hashes nothing beside the key", OK, "", replace(ENCLAVE, qe_auth=b""))
    tolerant = sgx.Terms(statuses=OUT_OF_DATE, advisories={"INTEL-SA-00477": AT})
    add("good-tolerated", "an old quoting enclave, tolerated", OK, "", replace(ENCLAVE, qe={"isv_svn": b"\x05\x00"}),
        terms=tolerant)  # fmt: skip
    config = b"\xc0" * 64
    full = {
        "attributes": bytes.fromhex("f504000000000000e700000000000000"),
        "config_id": config,
        "config_svn": b"\x02\x00",
        "isv_prod_id": b"\x07\x00",
        "isv_svn": b"\x05\x00",
        "misc_select": b"\x01\x00\x00\x00",
    }
    named = sgx.Terms(
        isv_prod_ids=frozenset({7, 9}),
        isv_svn_floor=5,
        config_ids=frozenset({config}),
        attributes=frozenset(sgx.ATTRIBUTES),
        misc_select_allowed=1,
    )
    add("good-all-named", "product, version, configuration and attributes as the terms name them", OK, "",
        replace(ENCLAVE, enclave=full), terms=named)  # fmt: skip
    add("a-td", "a quote of a TD passed off as an enclave's", BAD, "Q1", TD)
    add("version-4", "an enclave's quote of version 4", BAD, "Q1", replace(ENCLAVE, header={"version": b"\x04\x00"}))
    add("smuggled", "bytes that are not zero follow the quote", BAD, "Q1", replace(ENCLAVE, trailing=b"\x01"))
    add("signature-longer", "a signature longer than it says", BAD, "Q1", ENCLAVE, data=_at(432, b"\x01\x02"))
    add("another-key-signs", "signed by another key than it names", FORGED, "Q3", replace(ENCLAVE, quote_signer="attacker"))
    add("pck-revoked", "the PCK is revoked", REVOKED, "Q9", replace(ENCLAVE, lists={PLATFORM_CA: {"revoked": (PCK,)}}))
    add(
        "info-for-tdx",
        "TCB information for TDX on the same processor",
        COLLATERAL,
        "Q11",
        replace(ENCLAVE, info={"id": "TDX"}),
    )
    add(
        "identity-for-tdx",
        "the identity of TDX's quoting enclave",
        COLLATERAL,
        "Q14",
        replace(ENCLAVE, identity={"id": "TD_QE"}),
    )
    add("tdx-quoting-enclave", "TDX's quoting enclave quotes an SGX one", FORGED, "Q17",
        replace(ENCLAVE, qe={"isv_prod_id": b"\x02\x00"}))  # fmt: skip
    add("processor-below", "a processor older than any that Intel lists", TCB, "Q18",
        replace(ENCLAVE, extension={"svns": (0,) * 16}))  # fmt: skip
    revoked = level(pki.components(tdx=None), "Revoked")
    add(
        "platform-revoked",
        "the processor's level is revoked",
        REVOKED,
        "Q19",
        replace(ENCLAVE, info={"tcbLevels": [revoked]}),
    )
    old = replace(ENCLAVE, qe={"isv_svn": b"\x05\x00"})
    add("out-of-date", "an old quoting enclave", TCB, "X1", old)
    add("advisory-not-tolerated", "its advisory is not tolerated", TCB, "X2", old, terms=sgx.Terms(statuses=OUT_OF_DATE))
    add("evaluation-old", "an older evaluation than the terms ask for", TCB, "X3", ENCLAVE,
        terms=sgx.Terms(tcb_evaluation_floor=20))  # fmt: skip
    add("another-product", "another product of the same signer", TERMS, "X4",
        replace(ENCLAVE, enclave={"isv_prod_id": b"\x07\x00"}))  # fmt: skip
    add("no-product", "terms that accept no product", TERMS, "X4", ENCLAVE, terms=sgx.Terms(isv_prod_ids=frozenset()))
    add("old-version", "a version since replaced", TERMS, "X5", replace(ENCLAVE, enclave={"isv_svn": b"\x04\x00"}),
        terms=sgx.Terms(isv_svn_floor=5))  # fmt: skip
    add("configured", "a host that configured the enclave", TERMS, "X6", replace(ENCLAVE, enclave={"config_id": config}))
    add("config-version", "a configuration's version without a configuration", TERMS, "X6",
        replace(ENCLAVE, enclave={"config_svn": b"\x01\x00"}))  # fmt: skip
    for name, what, flags in (
        ("provisioning", "an enclave that may use the provisioning key", "1500000000000000"),
        ("launch", "an enclave that may make launch tokens", "2500000000000000"),
        ("reserved", "an attribute that has no name", "0d00000000000000"),
        ("not-64-bit", "a 32-bit enclave", "0100000000000000"),
    ):
        add(f"attribute-{name}", what, TERMS, "X7",
            replace(ENCLAVE, enclave={"attributes": bytes.fromhex(flags) + b"\xe7" + bytes(7)}))  # fmt: skip
    add("processor-trace", "the enclave may be traced", TERMS, "X8",
        replace(ENCLAVE, enclave={"attributes": bytes.fromhex("0500000000000000e701000000000000")}))  # fmt: skip
    add(
        "xfrm-missing",
        "a feature that the terms ask for is missing",
        TERMS,
        "X8",
        ENCLAVE,
        terms=sgx.Terms(xfrm_required=0x203),
    )
    add("learns-of-faults", "the enclave learns of page faults, and may tell", TERMS, "X9",
        replace(ENCLAVE, enclave={"misc_select": b"\x01\x00\x00\x00"}))  # fmt: skip


def all_cases(platform: str) -> dict[str, dict[str, Any]]:
    """Every case of a platform, by name."""
    cases = Cases(platform)
    parts = (_enclave,) if platform == "sgx" else (_good, _quote, _path, _lists, _collateral, _levels, _td_terms)
    for part in parts:
        part(cases.add)
    return cases.found


def main() -> None:
    for platform in ("tdx", "sgx"):
        folder = HERE / platform
        folder.mkdir(exist_ok=True)
        for path in folder.glob("*.json"):
            path.unlink()
        for name, case in all_cases(platform).items():
            (folder / f"{name}.json").write_text(json.dumps(case, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
