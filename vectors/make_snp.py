"""Writes ``vectors/sev_snp``. Deterministic: kept and derived keys, fixed times, signatures without randomness.

    python vectors/make_snp.py

One file a case. Every case holds its whole input and ``expect``: ``ok``, or the stable code of the check that fails first,
which ``fails`` names.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402

from pki_amd import (  # noqa: E402
    ASK,
    ASVK,
    AT,
    CHIP,
    DAY,
    PROVIDER,
    STRANGER,
    TCB,
    TERMS,
    Case,
    ark,
    claims,
    crl,
    documents,
    good,
    issuer,
    leaf,
    number,
    policy,
    signed,
    text,
    usage,
)
from strongroom import wire  # noqa: E402
from strongroom.attest.endorsements import CERTIFICATE, CRL  # noqa: E402
from strongroom.attest.evidence import Endorsement, Roots  # noqa: E402
from strongroom.attest.snp_key import P384_ORDER  # noqa: E402
from strongroom.attest.snp_report import HOST_VMPL, Firmware, Tcb  # noqa: E402

BAD, FORGED, CERT = "attest.bad_evidence", "attest.forged", "attest.bad_certificate"
MISSING, BAD_ENDORSEMENT = "attest.endorsement_missing", "attest.bad_endorsement"
EXPIRED, EARLY, REVOKED = "attest.endorsement_expired", "attest.endorsement_not_yet_valid", "attest.revoked"
ROOT, TERMS_CODE, TCB_CODE = "attest.unknown_root", "attest.terms_not_met", "attest.tcb_not_accepted"
ANY_PROVIDER = replace(TERMS, signing_keys=frozenset({"vcek", "vlek"}), cloud_providers=None)
OLD = Tcb(9, 0, 26, 85)
_GENOA = good()

Cases = dict[str, tuple[str, str, str, Case]]  # name to description, expected code, failing check, case


def reports() -> Cases:
    """S1, S2, S9: the report itself."""
    odd = (
        ("version-1", "a report of the first, unreleased version", {"version": 1}),
        ("version-6", "a report of a version that nobody knows", {"version": 6}),
        ("version-2-with-processor", "a version 2 that names a processor", {"version": 2, "launch_mitigations": 0}),
        ("version-3-with-mitigations", "a version 3 that lists mitigations", {"version": 3}),
        ("policy-bit-17", "a policy without the bit that is always set", {"policy": 0}),
        ("privilege-level-4", "a privilege level that there is not", {"vmpl": 4}),
        ("unknown-signing-key", "a kind of key that there is not", {"key_info": 2 << 2}),
        ("author-not-enabled", "an author's key that is not enabled", {"author_key_digest": b"\1" * 48}),
        ("author-not-named", "an author's key that is enabled, and none", {"key_info": 1}),
    )
    found: Cases = {name: (what, BAD, "S1", good(**changes)) for name, what, changes in odd}
    data, reserved = _GENOA.data, bytearray(_GENOA.data)
    reserved[0x18B] = 1
    found |= {
        "truncated": ("a report without its last byte", BAD, "S1", replace(_GENOA, data=data[:-1])),
        "trailing-byte": ("a byte after the report", BAD, "S1", replace(_GENOA, data=data + b"\0")),
        "reserved-byte": ("a reserved byte that says something", BAD, "S1", replace(_GENOA, data=bytes(reserved))),
        "host-signs-nothing": ("MASK_CHIP_KEY: the firmware signed nothing", FORGED, "S2", good(key_info=2)),
        "signed-by-no-key": ("the report says that no key signed it", FORGED, "S2", good(key_info=7 << 2)),
        "another-algorithm": ("the report names another algorithm", FORGED, "S2", good(signature_algorithm=2)),
    }
    made = claims()
    r, s = (int.from_bytes(data[at : at + 72], "little") for at in (0x2A0, 0x2E8))
    for name, what, numbers in (
        ("signature-r-zero", "r is zero", (0, s)),
        ("signature-s-zero", "s is zero", (r, 0)),
        ("signature-r-order", "r is the order of the curve", (P384_ORDER, s)),
        ("signature-r-over", "r, and the order of the curve with it", (r + P384_ORDER, s)),
        ("signature-s-over", "s, and the order of the curve with it", (r, s + P384_ORDER)),
        ("signature-upper-bytes", "something in the bytes above a number", (r, s + (1 << 500))),
        ("signature-swapped", "r and s in each other's places", (s, r)),
    ):
        found[name] = (what, FORGED, "S9", replace(_GENOA, data=replace(made, r=numbers[0], s=numbers[1]).encode()))
    edited = replace(made, measurement=b"\1" * 48, r=r, s=s).encode()
    by_stranger = signed(made, key_of="another chip's key")
    found["edited-measurement"] = (
        "another measurement under a genuine signature",
        FORGED,
        "S9",
        replace(_GENOA, data=edited),
    )
    found["signed-by-another-key"] = (
        "a report that its own key did not sign",
        FORGED,
        "S9",
        replace(_GENOA, data=by_stranger),
    )
    on_p256 = documents(leaf=leaf("genoa", curve=ec.SECP256R1))
    found["key-on-p256"] = ("a certified key on another curve", CERT, "S9", replace(_GENOA, documents=on_p256))
    return found


def paths() -> Cases:
    """S3, S4: the certificates."""
    by_asvk = leaf("genoa", by="SEV-VLEK-Genoa", key_by=ASVK)
    by_ask = leaf("genoa", "vlek", by="SEV-Genoa", key_by=ASK)
    loaded = good("genoa", "vlek")
    found: Cases = {
        "leaf-missing": ("no certificate of the key", MISSING, "S3", with_documents(leaf=None)),
        "issuer-missing": ("no certificate of the ASK", MISSING, "S3", with_documents(issuer=None)),
        "root-missing": ("no certificate of the ARK", MISSING, "S3", with_documents(ark=None)),
        "vlek-for-a-vcek": (
            "a VLEK's certificate for a report by a VCEK",
            MISSING,
            "S3",
            with_documents(leaf=leaf("genoa", "vlek")),
        ),
        "leaf-is-junk": ("a certificate that is none", BAD_ENDORSEMENT, "S3", with_documents(leaf=b"\x30\x03\x02\x01\x00")),
        "nine-leaves": ("more certificates of keys than are read", BAD_ENDORSEMENT, "S3", crowd(9)),
        "forged-leaf": (
            "a certificate that the ASK did not sign",
            CERT,
            "S4",
            with_documents(leaf=leaf("genoa", key_by=STRANGER)),
        ),
        "forged-issuer": (
            "an ASK that the ARK did not sign, and a certificate by it",
            CERT,
            "S4",
            with_documents(leaf=leaf("genoa", key_by=STRANGER), issuer=issuer("genoa", key_of=STRANGER, key_by=STRANGER)),
        ),
        "another-root": (
            "a whole path under a root that is not AMD's",
            ROOT,
            "S4",
            with_documents(
                ark=ark("genoa", key_of=STRANGER, key_by=STRANGER),
                issuer=issuer("genoa", key_by=STRANGER),
                crl=crl("genoa", key_by=STRANGER),
            ),
        ),
        "no-root-pinned": ("nothing pinned accepts nothing", ROOT, "S4", replace(_GENOA, roots=Roots())),
        "leaf-expired": ("a certificate after its time", EXPIRED, "S4", with_documents(leaf=leaf("genoa", after=AT - 1))),
        "leaf-not-yet-valid": (
            "a certificate before its time",
            EARLY,
            "S4",
            with_documents(leaf=leaf("genoa", before=AT + 1)),
        ),
        "issuer-expired": ("an ASK after its time", EXPIRED, "S4", with_documents(issuer=issuer("genoa", after=AT - 1))),
        "root-expired": ("an ARK after its time", EXPIRED, "S4", with_documents(ark=ark("genoa", after=AT - 1))),
        "issuer-is-no-authority": (
            "an ASK that may issue nothing",
            CERT,
            "S4",
            with_documents(issuer=issuer("genoa", ca=False, path_length=None)),
        ),
        "issuer-may-not-certify": (
            "an ASK whose key may not sign certificates",
            CERT,
            "S4",
            with_documents(issuer=issuer("genoa", may=usage(certificates=False, lists=True))),
        ),
        "critical-extension": (
            "a critical extension that nobody reads",
            CERT,
            "S4",
            with_documents(leaf=leaf("genoa", critical=True)),
        ),
        "asvk-vouches-for-a-chip": (
            "a chip's key under the ASVK",
            CERT,
            "S4",
            with_documents(leaf=by_asvk, issuer=issuer("genoa", "vlek")),
        ),
        "ask-vouches-for-a-provider": (
            "a cloud provider's key under the ASK",
            CERT,
            "S4",
            replace(loaded, documents=documents("genoa", "vlek", leaf=by_ask, issuer=issuer("genoa")), terms=ANY_PROVIDER),
        ),
        "another-lines-issuer": (
            "a key for Genoa under the keys of Milan",
            CERT,
            "S4",
            with_documents(leaf=leaf("genoa", by="SEV-Milan"), issuer=issuer("milan"), ark=ark("milan"), crl=crl("milan")),
        ),
    }
    unreadable = leaf("genoa", "vlek", changed=(("5", text("CN=two\nlines")),))
    found["provider-of-two-lines"] = (
        "a cloud provider whose name would break a line",
        CERT,
        "S4",
        replace(loaded, documents=documents("genoa", "vlek", leaf=unreadable), terms=ANY_PROVIDER),
    )
    for name, what, changed in (
        ("unknown-product", "a product that nobody knows", (("2", text("Venice-A0")),)),
        ("product-is-no-text", "a product's name of another type", (("2", number(1)),)),
        ("structure-of-turin", "a certificate for Genoa in the form of Turin's", (("1", number(1)),)),
        ("component-of-turin", "a component that Genoa does not have", (("3.9", number(0)),)),
        ("component-missing", "no microcode version", (("3.8", None),)),
        ("component-unknown", "a spare component that says something", (("3.4", number(1)),)),
        ("component-too-large", "a version above 255", (("3.8", b"\x02\x02\x01\x00"),)),
        ("component-spelled-long", "a version with a byte too many", (("3.8", b"\x02\x02\x00\x56"),)),
        ("extension-unknown", "an extension of AMD's that nobody knows", (("6", number(0)),)),
        ("no-chip", "a VCEK that names no chip", (("4", None),)),
        ("no-chip-but-zeros", "a VCEK whose chip is zeros", (("4", bytes(64)),)),
        ("short-chip", "a VCEK of Genoa with a chip of 8 bytes", (("4", CHIP["turin"]),)),
        ("chip-and-provider", "a VCEK that names a cloud provider too", (("5", text(PROVIDER)),)),
    ):
        found[name] = (what, CERT, "S4", with_documents(leaf=leaf("genoa", changed=changed)))
    return found


def with_documents(**changes: Any) -> Case:
    return replace(_GENOA, documents=documents(**changes))


def crowd(many: int) -> Case:
    """The documents of many chips' keys together; the right one is the last."""
    others = tuple(Endorsement(CERTIFICATE, leaf("genoa", key_of=f"chip {n}")) for n in range(many - 1))
    return replace(_GENOA, documents=others + documents())


def lists() -> Cases:
    """S5: revocation."""
    numbered = with_documents(leaf=leaf("genoa", serial=77), crl=crl("genoa", (3, 77)))
    beside = replace(_GENOA, documents=(*documents(), Endorsement(CRL, crl("genoa", (0x10001,), after=AT - 1))))
    return {
        "list-missing": ("no revocation list: not established, and no pass", MISSING, "S5", with_documents(crl=None)),
        "list-of-another-line": ("a revocation list of Milan's root", MISSING, "S5", with_documents(crl=crl("milan"))),
        "list-is-junk": ("a revocation list that is none", BAD_ENDORSEMENT, "S5", with_documents(crl=b"\x30\x00")),
        "list-forged": (
            "a revocation list that the ARK did not sign",
            CERT,
            "S5",
            with_documents(crl=crl("genoa", key_by=STRANGER)),
        ),
        "list-expired": ("an old revocation list", EXPIRED, "S5", with_documents(crl=crl("genoa", after=AT - 1))),
        "list-not-yet": (
            "a revocation list from the future",
            EARLY,
            "S5",
            with_documents(crl=crl("genoa", before=AT + 1, after=AT + 2)),
        ),
        "list-of-changes": (
            "a list that counts only with another",
            CERT,
            "S5",
            with_documents(crl=crl("genoa", critical=True)),
        ),
        "root-may-not-sign-lists": (
            "a root whose key may not sign revocation lists",
            CERT,
            "S5",
            with_documents(ark=ark("genoa", may=usage())),
        ),
        "issuer-revoked": ("an ASK that AMD revoked", REVOKED, "S5", with_documents(crl=crl("genoa", (0x10001,)))),
        "root-revoked": ("a root that its own list names", REVOKED, "S5", with_documents(crl=crl("genoa", (0x10000,)))),
        "issuer-revoked-long-ago": ("an ASK revoked by an old list, beside a new one", REVOKED, "S5", beside),
        "leaf-revoked": ("a key whose certificate has a number of its own, revoked", REVOKED, "S5", numbered),
        "vcek-revoked": (
            "serial number 0 revoked, which is every VCEK's",
            REVOKED,
            "S5",
            with_documents(crl=crl("genoa", (0,))),
        ),
    }


def bindings() -> Cases:
    """S6, S7, S8: the certificate is for this report."""
    milan_order = TCB["milan"].encode()
    tail = CHIP["turin"] + bytes(55) + b"\1"
    found: Cases = {
        "another-line": ("a report of Milan with the certificate of Genoa", CERT, "S6", good(cpuid=bytes((0x19, 1, 1)))),
        "unknown-processor": ("a report of a processor that nobody knows", BAD, "S6", good(cpuid=bytes((0x1A, 0x50, 0)))),
        "tcb-reserved-byte": ("a TCB with a component that nobody knows", BAD, "S6", good(launch_tcb=b"\0\0\1" + bytes(5))),
        "turin-in-milans-order": (
            "a TCB of Turin in the order of Milan's",
            BAD,
            "S6",
            good("turin", reported_tcb=milan_order),
        ),
        "another-chip": ("the certificate of another chip", FORGED, "S8", good(chip_id=b"\1" * 64)),
        "turin-chip-too-long": ("a chip of Turin with more than 8 bytes", FORGED, "S8", good("turin", chip_id=tail)),
    }
    for line in ("genoa", "turin"):
        for part in ("bootloader", "tee", "snp", "microcode", *(("fmc",) if line == "turin" else ())):
            older = replace(TCB[line], **{part: (getattr(TCB[line], part) or 1) - 1})
            newer = replace(TCB[line], **{part: getattr(TCB[line], part) + 1})
            case = good(line, reported_tcb=newer.encode(), committed_tcb=newer.encode(), current_tcb=newer.encode())
            case = replace(case, documents=documents(line, leaf=leaf(line, tcb=older)))
            what = f"a key for an older {part} on {line}, and a report that states a newer one"
            found[f"{line}-{part}-rolled-back"] = (what, FORGED, "S7", case)
    return found


def terms() -> Cases:
    """SP1 to SP15: genuine, and not what the terms ask."""
    older = OLD.encode()
    vlek = good("genoa", "vlek")

    def case(what: str, code: str, fails: str, asked: dict[str, Any], **changes: Any) -> tuple[str, str, str, Case]:
        return what, code, fails, replace(good(**changes), terms=replace(TERMS, **asked))

    no_launch = {"launch_mitigations": 0b101}
    one_policy = {**TERMS.guest_policy, "smt": "any"}
    found: Cases = {
        "old-version": case("a version 2, which names no processor", TERMS_CODE, "SP1", {}, **VERSION_2),
        "vlek-not-accepted": ("a VLEK where only VCEKs are accepted", TERMS_CODE, "SP2", vlek),
        "provider-not-named": (
            "an empty list of cloud providers accepts none",
            TERMS_CODE,
            "SP2",
            replace(vlek, terms=replace(TERMS, signing_keys=frozenset({"vlek"}))),
        ),
        "no-key-accepted": case(
            "an empty list of kinds of keys accepts none", TERMS_CODE, "SP2", {"signing_keys": frozenset()}
        ),
        "processor-not-named": case(
            "no least TCB for this processor", TCB_CODE, "SP3", {"minimum_tcb": {"milan": TCB["milan"]}}
        ),
        "genoa-x-is-not-genoa": case("no least TCB for Genoa-X", TCB_CODE, "SP3", {}, cpuid=bytes((0x19, 0x11, 2))),
        "reported-tcb-too-old": (
            "a reported TCB below the least",
            TCB_CODE,
            "SP4",
            replace(good(reported_tcb=older), documents=documents(leaf=leaf("genoa", tcb=OLD))),
        ),
        "committed-tcb-too-old": (
            "firmware that can be taken back below the least",
            TCB_CODE,
            "SP4",
            replace(good(committed_tcb=older, reported_tcb=older), documents=documents(leaf=leaf("genoa", tcb=OLD))),
        ),
        "launch-tcb-too-old": case("a guest launched on old firmware", TCB_CODE, "SP4", {}, launch_tcb=older),
        "reported-above-committed": (
            "a TCB stated that the firmware never committed to",
            TCB_CODE,
            "SP5",
            replace(good(committed_tcb=older), terms=replace(TERMS, minimum_tcb={"genoa": OLD})),
        ),
        "launch-above-current": case(
            "a guest launched on newer firmware than runs",
            TCB_CODE,
            "SP5",
            {},
            launch_tcb=replace(TCB["genoa"], snp=200).encode(),
        ),
        "firmware-too-old": case(
            "old firmware", TCB_CODE, "SP6", {}, current=Firmware(1, 54, 99), committed=Firmware(1, 54, 99)
        ),
        "firmware-not-committed": case(
            "new firmware that can be taken back", TCB_CODE, "SP6", {}, committed=Firmware(1, 54, 99)
        ),
        "mitigation-after-launch": case(
            "a mitigation that was not there at launch", TCB_CODE, "SP7", {"mitigations": 0b111}, **no_launch
        ),
        "asked-by-the-host": case("a report that the host asked for", TERMS_CODE, "SP8", {}, vmpl=HOST_VMPL),
        "another-privilege-level": case("a report from a level that is not accepted", TERMS_CODE, "SP8", {}, vmpl=2),
        "no-level-accepted": case("an empty list of levels accepts none", TERMS_CODE, "SP8", {"vmpls": frozenset()}),
        "may-be-migrated": case(
            "a policy that lets a migration agent in", TERMS_CODE, "SP9", {}, policy=policy("migration_agent")
        ),
        "has-a-migration-agent": case("a guest with a migration agent", TERMS_CODE, "SP9", {}, report_id_ma=bytes(32)),
        "smt-not-said": case(
            "threads of one core shared, where the terms do not say so", TERMS_CODE, "SP10", {}, policy=policy("smt")
        ),
        "cxl-memory": case("memory on a bus, where the terms do not say so", TERMS_CODE, "SP10", {}, policy=policy("cxl")),
        "policy-bit-unknown": case("a policy's bit that nobody knows", TERMS_CODE, "SP10", {}, policy=policy() | 1 << 26),
        "old-abi": case("a policy that asks for no ABI", TERMS_CODE, "SP11", {"minimum_abi": (1, 55)}),
        "aliases-not-looked-for": case(
            "a platform that did not look for aliases in memory", TERMS_CODE, "SP12", {}, platform_info=0x04
        ),
        "memory-without-ecc": case("memory without error correction", TERMS_CODE, "SP12", {}, platform_info=0x20),
        "platform-bit-unknown": case("a platform's bit that nobody knows", TERMS_CODE, "SP12", {}, platform_info=0x124),
        "guest-rolled-back": case("an old version of the guest", TERMS_CODE, "SP13", {"minimum_guest_svn": 3}),
        "id-key-absent": case("a guest that nobody signed", TERMS_CODE, "SP14", {"id_key": "required"}),
        "author-key-absent": case("an ID key that no author signed", TERMS_CODE, "SP14", {"author_key": "required"}),
        "author-key-refused": case(
            "an author's key, where none may be",
            TERMS_CODE,
            "SP14",
            {"author_key": "refused"},
            author_key_digest=b"\1" * 48,
            key_info=1,
        ),
        "another-family": case("a family that is not accepted", TERMS_CODE, "SP15", {"family_ids": frozenset({b"\1" * 16})}),
        "no-image-accepted": case("an empty list of images accepts none", TERMS_CODE, "SP15", {"image_ids": frozenset()}),
    }
    for bit in ("aes_256_xts", "ciphertext_hiding", "page_swap_disabled", "rapl_disabled", "single_socket"):
        asked = {"guest_policy": {**one_policy, bit: "required"}}
        found[f"policy-without-{bit.replace('_', '-')}"] = case(
            "a policy without what the terms ask", TERMS_CODE, "SP10", asked
        )
    for bit in ("ciphertext_hiding", "iommu_write_safe", "rapl_disabled", "tsme"):
        asked = {"platform_info": {**TERMS.platform_info, bit: "required"}}
        found[f"platform-without-{bit.replace('_', '-')}"] = case(
            "a platform without what the terms ask", TERMS_CODE, "SP12", asked
        )
    return found


VERSION_2 = {"version": 2, "cpuid": bytes(3), "launch_mitigations": 0, "current_mitigations": 0}


def accepted() -> Cases:
    """What must pass."""
    octets = leaf("genoa", changed=(("4", b"\x04\x40" + CHIP["genoa"]),))
    old_terms = replace(TERMS, minimum_report_version=2)
    loaded = frozenset({PROVIDER})
    named = replace(TERMS, signing_keys=frozenset({"vlek"}), cloud_providers=loaded)
    raised = replace(TCB["genoa"], snp=99).encode()
    made: dict[str, tuple[str, Case]] = {
        "milan": ("a VCEK of Milan", good("milan")),
        "genoa": ("a VCEK of Genoa", _GENOA),
        "turin": ("a VCEK of Turin: another order of TCB, a chip of 8 bytes", good("turin")),
        "vlek": ("a VLEK of a provider that the terms name", replace(good("genoa", "vlek"), terms=named)),
        "vlek-turin": ("a VLEK of Turin, of any provider", replace(good("turin", "vlek"), terms=ANY_PROVIDER)),
        "version-2": ("a version 2, accepted by the terms", replace(good("milan", **VERSION_2), terms=old_terms)),
        "version-3": ("a version 3", good(version=3, launch_mitigations=0, current_mitigations=0)),
        "version-4": ("a version 4", good(version=4)),
        "chip-masked": ("a report that masks its chip", good(chip_id=bytes(64))),
        "chip-in-an-octet-string": ("a chip as an octet string", replace(_GENOA, documents=documents(leaf=octets))),
        "serial-1": ("a VCEK whose certificate has a number", with_documents(leaf=leaf("genoa", serial=1))),
        "eight-leaves": ("the keys of other chips beside the right one", crowd(8)),
        "two-issuers": (
            "another ASK of the same name beside the right one",
            replace(_GENOA, documents=(Endorsement(CERTIFICATE, issuer("genoa", key_of=STRANGER)), *documents())),
        ),
        "old-list-beside": (
            "an old revocation list beside a current one",
            replace(_GENOA, documents=(Endorsement(CRL, crl("genoa", after=AT - DAY)), *documents())),
        ),
        "newer-firmware-than-committed": (
            "firmware ahead of what it committed to",
            good(current_tcb=raised, launch_tcb=raised),
        ),
        "bergamo": (
            "Bergamo, under the keys of Genoa",
            replace(good(cpuid=bytes((0x19, 0xA0, 2))), terms=replace(TERMS, minimum_tcb={"bergamo": TCB["genoa"]})),
        ),
        "siena-by-name": (
            "Siena, by its own name",
            replace(
                good(cpuid=bytes((0x19, 0xA0, 2))),
                documents=documents(leaf=leaf("genoa", changed=(("2", text("Siena-B1")),))),
                terms=replace(TERMS, minimum_tcb={"bergamo": TCB["genoa"]}),
            ),
        ),
        "mitigations": ("every mitigation that the terms ask for", replace(_GENOA, terms=replace(TERMS, mitigations=0b111))),
    }
    return {f"ok-{name}": (what, "ok", "", case) for name, (what, case) in made.items()}


def all_cases() -> dict[str, dict[str, Any]]:
    """Name to the case as it stands in the file."""
    return {
        name: {
            "at": case.at,
            "description": description,
            "endorsements": case.endorsements.to_json(),
            "evidence": wire.b64(case.data),
            "expect": expect,
            "fails": fails,
            "platform": "sev_snp",
            "roots": case.roots.to_json(),
            "terms": case.terms.to_json(),
        }
        for part in (reports(), paths(), lists(), bindings(), terms(), accepted())
        for name, (description, expect, fails, case) in part.items()
    }


if __name__ == "__main__":
    folder = HERE / "sev_snp"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.json"):
        old.unlink()
    for name, case in all_cases().items():
        (folder / f"{name}.json").write_text(json.dumps(case, indent=1, sort_keys=True) + "\n", encoding="utf-8")
