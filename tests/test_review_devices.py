"""What a reviewer tried on devices, tokens, TPMs, Azure's machines and dstack's services, and what must stop it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pki_amd
import pki_azure
import pki_certificates
import pki_dstack
import pki_nvidia
import pki_tpm
from evidence_case import Outcome, walk
from pki_certificates import ec_key
from pki_nvidia import Answer, Device, Manifest, TokenWorld, World, answers, driver_manifest, signers, vbios_manifest
from strongroom import wire
from strongroom.attest import aci_report, azure, dstack, nras, nvidia, ocsp, rim, tpm
from strongroom.attest.endorsements import CERTIFICATE
from strongroom.attest.evidence import Endorsement, Endorsements
from strongroom.attest.keyset import KeyEntry, Keyset, report_data
from strongroom.errors import BadEndorsement, BadEvidence, BadField, EvidenceForged, StrongroomError
from strongroom.transcript import Transcript


def _device(world: World) -> Outcome:
    return walk(nvidia, world.evidence, world.endorsements, world.roots, world.at, world.terms)


def _token(world: TokenWorld) -> Outcome:
    return walk(nras, world.evidence, world.endorsements, world.roots, world.at, world.terms)


def _tpm(world: pki_tpm.World, endorsements: Endorsements | None = None) -> Outcome:
    return walk(tpm, world.evidence, endorsements or world.endorsements, world.roots, world.at, world.terms)


def _manifests(**changes: Any) -> tuple[Manifest, ...]:
    return driver_manifest(**changes), vbios_manifest()


# --- reference manifests ------------------------------------------------------------------------------------------------


def _namespaces(text: str) -> str:
    return text.replace("xmlns:ns0", " ".join(f'xmlns:a{n}="urn:{n}"' for n in range(64)) + " xmlns:ns0", 1)


def _attributes(text: str) -> str:
    return text.replace("role=", " ".join(f'a{n}=""' for n in range(200)) + " role=", 1)


@pytest.mark.parametrize("spoil", [_namespaces, _attributes])
def test_a_manifest_whose_canonical_form_takes_for_ever_is_refused_unread(spoil: Callable[[str], str]) -> None:
    """Both are sorted by comparing each with each, for each element: 256 KiB of them kept a verifier busy for minutes."""
    with pytest.raises(BadEndorsement, match=r"namespaces|attributes"):
        rim.parse(driver_manifest(text=spoil).data)
    found = _device(World(manifests=_manifests(text=spoil)))
    assert (found.code, found.number) == ("attest.bad_endorsement", "G6")


def test_white_space_put_after_a_manifests_signature_is_an_alteration() -> None:
    altered = _manifests(after=lambda data: data.replace(b"</ds:Signature>", b"</ds:Signature>\n"))
    found = _device(World(manifests=altered))
    assert (found.code, found.number) == ("attest.bad_endorsement", "G7")


def test_white_space_after_the_signature_that_its_signer_put_there_is_none() -> None:
    """The transform takes the signature out, and leaves what stands after it."""
    manifest = driver_manifest(text=lambda text: text + "\n", after=_behind)
    rim.parse(manifest.data).require_signed()


def _behind(data: bytes) -> bytes:
    """The line that stood before the signature, behind it."""
    front, _, rest = data.partition(b"\n<ds:Signature")
    signature, end, close = (b"<ds:Signature" + rest).partition(b"</ds:Signature>")
    return front + signature + end + b"\n" + close


@pytest.mark.parametrize(
    "leaf", [{"purposes": (pki_nvidia.OCSP_SIGNING,)}, {"usages": ("key_encipherment",)}, {"usages": None}]
)
def test_a_certificate_for_something_else_signs_no_manifest(leaf: dict[str, Any]) -> None:
    """An OCSP responder of NVIDIA's stands under the same root as the signers of manifests."""
    found = _device(World(manifests=_manifests(path=signers(**leaf))))
    assert (found.code, found.number) == ("attest.bad_certificate", "G8")


# --- OCSP ---------------------------------------------------------------------------------------------------------------


def _with_responders(count: int, *, distinct: bool) -> World:
    world = World()
    issuer = world.device.names[2]
    signer = ec_key(issuer)
    extra = tuple(pki_nvidia.responder(issuer, signer, subject=f"r{n if distinct else 0}") for n in range(count - 1))
    mine = pki_nvidia.responder(issuer, signer)
    first, *rest = answers(world.device, world.held)
    return World(answers=(replace(first, signer=ec_key("responder"), responders=(*extra, mine)), *rest))


def test_an_answer_with_a_crowd_of_responders_is_refused_unread() -> None:
    """What stands beside an answer is not signed: a few answers with fifty responders each took seconds."""
    found = _device(_with_responders(ocsp.MAX_RESPONDERS + 1, distinct=True))
    assert (found.code, found.number) == ("attest.bad_endorsement", "G5")
    with pytest.raises(BadEndorsement, match="responders"):
        ocsp.Response(_first(_with_responders(30, distinct=False)).data)
    assert _device(_with_responders(ocsp.MAX_RESPONDERS, distinct=True)).code == "ok"


def _first(world: World) -> Answer:
    assert world.answers is not None
    return world.answers[0]


# --- devices ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [3, 255])
def test_a_device_in_a_mode_that_is_not_known_is_not_called_protected(mode: int) -> None:
    found = _device(World(device=Device(opaque={36: mode.to_bytes(2, "little")})))
    assert (found.code, found.number) == ("attest.bad_evidence", "G1")


@pytest.mark.parametrize("mode", [0, 1])
def test_a_device_in_a_mode_that_protects_its_links_is_accepted(mode: int) -> None:
    assert _device(World(device=Device(opaque={36: mode.to_bytes(2, "little")}))).code == "ok"


def test_a_devices_name_is_one_line_of_text() -> None:
    names = {1: {"subject": "GH100 A01\n✓ A3  passed"}, 0: {"issuer": "GH100 A01\n✓ A3  passed"}}
    found = _device(World(device=Device(certificates=names)))
    assert (found.code, found.number) == ("attest.bad_evidence", "G1")


# --- tokens -------------------------------------------------------------------------------------------------------------

LONE = "\ud800"  # JSON can spell it, and no encoding of text can


def test_a_name_that_cannot_be_written_down_is_refused() -> None:
    found = _token(TokenWorld(device={"hwmodel": f"GH100 {LONE}"}))
    assert (found.code, found.number) == ("attest.bad_evidence", "R1")
    header = {"kid": LONE, "alg": "ES384"}
    keys = (pki_nvidia.jwk(ec_key(pki_nvidia.TOKEN_KEY), pki_nvidia.key_path(), kid=LONE),)
    found = _token(TokenWorld(overall_header=header, device_header=header, keys=keys))
    assert (found.code, found.number) == ("attest.forged", "R3")
    wire.encode([check.to_json() for check in found.checks])


@pytest.mark.parametrize(
    "claims",
    [
        {"measres": LONE},
        {"dbgstat": LONE},
        {f"x-nvidia-gpu-{LONE}": False},
        {"x-nvidia-attestation-warning": [LONE, "\x1b"]},
    ],
)
def test_what_a_token_says_can_be_written_down_whatever_it_is(claims: dict[str, Any]) -> None:
    found = _token(TokenWorld(device=claims))
    assert found.code == "attest.terms_not_met"
    wire.encode([check.to_json() for check in found.checks])
    assert all(check.detail.isprintable() for check in found.checks)


def test_a_crowd_of_key_sets_is_refused_unread() -> None:
    """Sixty-four of a mebibyte each were read before any signature was looked at."""
    world = TokenWorld()
    (own,) = (document.data for document in world.endorsements.documents)
    found = _token(TokenWorld(key_sets=(own, *(b'{"keys":[%d]}' % n for n in range(3)))))
    assert (found.code, found.number) == ("attest.bad_endorsement", "R3")
    assert _token(TokenWorld(key_sets=(own,) * 5 + (b'{"keys":[]}',))).code == "ok"


# --- TPM ----------------------------------------------------------------------------------------------------------------


def test_a_certificate_that_says_nothing_of_tpms_makes_no_attestation_key() -> None:
    """A key that is not restricted signs any quote, and names in it whatever attributes are claimed. That it is restricted
    rests on the authority, whose certificate must at least be for the keys of TPMs."""
    found = _tpm(pki_tpm.World(leaf={"purposes": ()}))
    assert (found.code, found.number) == ("attest.bad_certificate", "M9")


def test_googles_certificates_without_a_purpose_say_whose_machine_it_is() -> None:
    from cryptography import x509

    instance = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.1.21"), b"\x30\x00")
    assert _tpm(pki_tpm.World(leaf={"purposes": (), "others": ((instance, False),)})).code == "ok"


def test_a_crowd_of_issuers_of_one_name_is_refused_untried() -> None:
    world = pki_tpm.World()
    crowd = tuple(
        pki_certificates.authority(
            pki_tpm.ISSUER, pki_tpm.ROOT, pki_tpm.AT - 1, pki_tpm.AT + 1, key=ec_key(f"issuer {n}"), serial=n + 1
        )
        for n in range(20)
    )
    found = _tpm(world, Endorsements(tuple(Endorsement(CERTIFICATE, c.der) for c in (world.certificate, *crowd))))
    assert (found.code, found.number) == ("attest.bad_certificate", "M7")


# --- Azure --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [{0, 2}, {2}])
def test_no_terms_accept_a_report_that_azures_guest_asked_for_itself(levels: set[int]) -> None:
    """Above VMPL 0 it is the guest that chooses the report data, and with them an attestation key of its own making."""
    hardware = replace(pki_amd.TERMS, vmpls=frozenset(levels))
    with pytest.raises(BadField, match="VMPL"):
        azure.SnpTerms(hardware)
    with pytest.raises(BadField, match="VMPL"):
        azure.SnpTerms.from_json({**azure.SnpTerms(pki_amd.TERMS).to_json(), "hardware": hardware.to_json()})


def test_the_terms_that_are_there_are_still_accepted() -> None:
    world = pki_azure.World()
    found = walk(world.verifier, world.evidence, world.endorsements, world.roots, world.at, world.accepted)
    assert found.code == "ok"


# --- dstack's services --------------------------------------------------------------------------------------------------

_ADDRESS = {"intel_quote": "00", "signing_address": "00" * 20, "event_log": ""}


@pytest.mark.parametrize(
    "report",
    [
        {"gateway_attestation": ["intel_quote"]},
        {"gateway_attestation": "intel_quote"},
        {"gateway_attestation": ["quote", "event_log"]},
        {"gateway_attestation": ["attestation"]},
        {"gateway_attestation": None},
        {**_ADDRESS, "event_log": LONE},
        {**_ADDRESS, "info": {"tcb_info": LONE}},
        {**_ADDRESS, "info": {"tcb_info": {"app_compose": LONE}}},
        {**_ADDRESS, "nvidia_payload": LONE},
        {"quote": "00", "event_log": LONE},
    ],
)
def test_a_report_that_is_none_is_refused_by_its_own_error(report: dict[str, Any]) -> None:
    with pytest.raises(BadEvidence):
        aci_report.parse(json.dumps(report).encode())


_MEMBERS = (
    "gateway_attestation", "intel_quote", "signing_address", "event_log", "info", "tcb_info", "app_compose", "quote",
    "nvidia_payload", "evidence_list", "evidence", "certificate", "attestation", "api_version", "workload_keyset",
    "tls_cert_fingerprint", "key_custody",
)  # fmt: skip
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["", "00", "00" * 20, LONE, "intel_quote", "aci/1", "[]", "{}"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_MEMBERS), inner, max_size=5),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(_MEMBERS), _values, min_size=1))
def test_a_report_of_any_members_is_read_or_refused_by_an_error_of_ours(report: dict[str, Any]) -> None:
    with suppress(StrongroomError):
        aci_report.parse(json.dumps(report).encode())


def _examined(public_key: bytes) -> aci_report.Service:
    """A service with a secp256k1 key in its keyset, and the chain of the key that its KMS issued."""
    entry = KeyEntry("receipt-1", "ecdsa-secp256k1", public_key.hex())
    keyset = Keyset(pki_dstack.AT + 3600, receipt_signing_keys=(entry,), subject="dstack-app")
    guest = pki_dstack.Guest(report_data=report_data(keyset.digest, pki_dstack.NONCE))
    custody = pki_dstack.key_custody()
    custody["keys"][0]["public_key"] = public_key.hex()
    said = pki_dstack.aci_report(guest, key_custody=custody)
    said["attestation"]["workload_keyset"] = keyset.to_json()
    said["workload_keyset_digest"] = keyset.digest
    report = aci_report.parse(json.dumps(said).encode())
    verified = dstack.verify(
        report.evidence, guest.endorsements(), roots=guest.roots(), at=pki_dstack.AT, transcript=Transcript(dstack.STEPS)
    )
    return aci_report.examine(
        report,
        verified,
        nonce=pki_dstack.NONCE,
        kms_roots={pki_dstack.KMS_ROOT.public_key.format()},
        transcript=Transcript(aci_report.STEPS),
    )


def test_the_chain_of_one_key_does_not_vouch_for_another_of_the_same_kind() -> None:
    issued = pki_dstack.PrivateKey(pki_dstack.RECEIPT_SECRET).public_key
    assert _examined(issued.format()).kms_root is not None
    assert _examined(issued.format(compressed=False)).kms_root is not None
    for other in (pki_dstack.APP_KEY.public_key.format(), b"\4" + bytes(64), b"\2"):
        with pytest.raises(EvidenceForged, match="another key"):
            _examined(other)
