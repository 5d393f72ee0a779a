"""What a reviewer tried on the appraisal's core, certificates and trust files, and what must stop it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

import pki_amd
import pki_nvidia
import test_composite as composite
from pki_certificates import Wanted, authority, ec_key, named, when
from strongroom import wire
from strongroom.attest import appraisal, detect, ocsp, simulated
from strongroom.attest.appraisal import appraise
from strongroom.attest.appraisal_policy import AppraisalPolicy, Reference
from strongroom.attest.endorsements import CERTIFICATE, INTEL_QE_IDENTITY, OCSP_RESPONSE, PEM_CHAIN, certificates
from strongroom.attest.evidence import Endorsement, Endorsements, Roots
from strongroom.attest.keyset import report_data
from strongroom.attest.vector import Tier
from strongroom.attest.x509 import RevocationList
from strongroom.errors import BadCertificate, BadEndorsement, BadEvidence, NotPinned, TooLarge
from strongroom.party import SigningKey
from strongroom.transcript import MAX_DETAIL, Steps, Transcript
from strongroom.trust import Root, Trust
from test_composite import BINDING_KEY, DOCUMENTS, NONCE, POLICY, WITH_GPUS, Td, asked, ends, keyset, trusting
from world import EDITED, MEASUREMENT, NOW, ROOT, World, card, seed

AT = pki_nvidia.AT


# --- what came along stands in the owner's log ------------------------------------------------------------------------


def spoiled(text: str) -> Endorsements:
    """Endorsements of a TD's machine, where the identity of the quoting enclave is called by this text."""
    name = json.dumps(text)[1:-1].encode()
    documents = [
        replace(d, data=d.data.replace(b'"TD_QE"', b'"%s"' % name)) if d.media_type == INTEL_QE_IDENTITY else d
        for d in Td().endorsements().documents
    ]
    return Endorsements(tuple(documents))


@pytest.mark.parametrize("text", ["\ud800", "\x1b]0;owned\x07", "a\nb", "\u202eDT"])
def test_text_of_an_endorsement_does_not_reach_a_transcript_as_it_is(text: str):
    """A lone surrogate cannot be written down: the broker's refusal would not be in its owner's log."""
    found = keyset()
    evidence = Td().produce(report_data(found.digest, NONCE))
    result = appraise(evidence, policy=POLICY, endorsements=spoiled(text), nonce=NONCE, at=NOW, keyset=found)
    assert ends(result) == ("A3", "attest.bad_endorsement") or ends(result)[1] == "attest.bad_endorsement"
    for check in result.checks:
        assert check.detail.isprintable()
        wire.encode(check.to_json())


def test_a_detail_is_one_line_of_bounded_length():
    made = Transcript(Steps("T", ["first", "second"]))
    made.record("T1", True, "\x1b[2Jx" * 10_000)
    made.record("T2", True, "plain é")
    first, second = made.checks
    assert first.detail.isprintable()
    assert len(first.detail) == MAX_DETAIL
    assert second.detail == "plain é"


# --- a platform's module that breaks its promise ----------------------------------------------------------------------


class Broken:
    """A module that raises something else than it may, on some bytes."""

    LABEL, STEPS, TERMS_STEPS, Terms = simulated.LABEL, simulated.STEPS, Steps("X", ["a term"]), simulated.Terms

    def __init__(self, where: str, verified: Any = None) -> None:
        self.where, self.verified = where, verified

    def verify(self, *_: Any, transcript: Transcript, **__: Any) -> Any:
        if self.where == "verify":
            raise ValueError("year 10000 is out of range")
        for number, _name in self.STEPS:
            transcript.record(number, passed=True)
        return self.verified

    def judge(self, *_: Any, transcript: Transcript, **__: Any) -> Any:
        if self.where == "judge, at the end":
            transcript.record("X1", passed=True)
        raise KeyError("svn")


@pytest.mark.parametrize("where", ["verify", "judge", "judge, at the end"])
def test_nothing_that_a_platforms_module_raises_escapes_or_is_affirmed(monkeypatch: pytest.MonkeyPatch, where: str):
    world = World()
    agreed = composite.Asker(world, world.agree())
    evidence = world.platform.produce(report_data(agreed.keyset.digest, NONCE))
    genuine = simulated.verify(
        evidence,
        world.platform.endorsements(),
        roots=Roots((ROOT.public,)),
        at=NOW,
        transcript=Transcript(simulated.STEPS),
    )
    monkeypatch.setattr(appraisal, "verifier", lambda _: Broken(where, genuine))
    result = appraise(
        evidence,
        policy=World.trust().appraisal_policy(),
        endorsements=world.platform.endorsements(),
        nonce=NONCE,
        at=NOW,
        keyset=agreed.keyset,
    )
    assert not result.affirming
    assert result.keyset is None
    problem = result.problem
    assert problem is not None
    if where != "verify":
        assert next(c for c in result.transcript.checks if c.number == "A11").code


@pytest.mark.parametrize("where", ["verify", "judge", "judge, at the end"])
def test_a_device_whose_module_fails_is_not_accepted(monkeypatch: pytest.MonkeyPatch, where: str):
    """The checks that were made all passed; those of the terms were not made."""
    found = keyset()
    bound = report_data(found.digest, NONCE)
    devices = asked(bound)
    real = appraisal.verifier

    class Half(Broken):
        STEPS, TERMS_STEPS = composite.nvidia.STEPS, composite.nvidia.TERMS_STEPS  # type: ignore[assignment]
        LABEL, Terms = composite.nvidia.LABEL, composite.nvidia.Terms  # type: ignore[assignment]

        def verify(self, evidence: Any, *_: Any, transcript: Transcript, **more: Any) -> Any:
            if self.where == "verify":
                raise ValueError("no")
            return composite.nvidia.verify(evidence, *_, transcript=transcript, **more)

        def judge(self, *_: Any, transcript: Transcript, **__: Any) -> Any:
            if self.where == "judge, at the end":
                for number, _name in self.TERMS_STEPS:
                    transcript.record(number, passed=True)
            raise KeyError("svn")

    monkeypatch.setattr(appraisal, "verifier", lambda name: Half(where) if name == "nvidia_cc" else real(name))
    result = composite.composite(bound, found, BINDING_KEY, devices=lambda _: devices)
    assert not result.affirming
    assert ends(result)[0] == "A14"
    assert all(device.status is not Tier.AFFIRMING for device in result.devices)


# --- devices ----------------------------------------------------------------------------------------------------------


def machines(*names: str) -> AppraisalPolicy:
    return replace(WITH_GPUS, machines=frozenset(names))


def serials() -> list[str]:
    result = appraised(WITH_GPUS)
    assert result.affirming, ends(result)
    return [result.verified.machine, *(d.verified.machine for d in result.devices)]  # type: ignore[union-attr]


def appraised(policy: AppraisalPolicy) -> Any:
    found = keyset()
    bound = report_data(found.digest, NONCE)
    devices = asked(bound)
    evidence = replace(
        Td().produce(bound), devices=devices, device_binding=composite.binding.make(BINDING_KEY, bound, devices)
    )
    documents = Td(beside=DOCUMENTS).endorsements()
    return appraise(evidence, policy=policy, endorsements=documents, nonce=NONCE, at=NOW, keyset=found)


def test_a_gpu_that_the_list_of_machines_does_not_name_is_refused():
    """Who says where things may run says it of the devices too: a GPU elsewhere is a machine elsewhere."""
    processor, one, two = serials()
    assert appraised(machines(processor, one, two)).affirming
    for allowed in ((processor,), (processor, one)):
        assert ends(appraised(machines(*allowed))) == ("A14", "attest.devices_not_accepted")
    assert ends(appraised(machines(one, two))) == ("A12", "attest.machine_not_accepted")


# --- certificates -----------------------------------------------------------------------------------------------------


def test_an_rsa_key_with_a_huge_exponent_is_refused():
    """Each signature would take as long to check as to make: 4 ms, 512 times."""
    n = pki_amd.rsa_key(pki_amd.ARK).public_key().public_numbers().n >> 1024 | 1
    assert n.bit_length() == 3072
    for e, usable in ((3, True), (65537, True), (2**32 - 1, True), (2**32 + 1, False), ((1 << 3000) + 1, False)):
        key = rsa.RSAPublicNumbers(e, n).public_key()
        made = authority("slow", "root", AT - 1, AT + 1, key=key)
        if usable:
            assert made.public_key
        else:
            with pytest.raises(BadCertificate, match="RSA key"):
                _ = made.public_key


def test_more_certificates_than_anybody_needs_are_refused():
    pem = authority("root", "root", AT - 1, AT + 1).parsed.public_bytes(Encoding.PEM)
    many = [authority(f"a{n}", "root", AT - 1, AT + 1).parsed.public_bytes(Encoding.PEM) for n in range(16)]
    chain = [Endorsement(PEM_CHAIN, b"".join(many[n : n + 8])) for n in (0, 8)]
    assert len(certificates(Endorsements((*chain, Endorsement(PEM_CHAIN, pem))))) == 17
    single = [Endorsement(CERTIFICATE, authority(f"b{n}", "root", AT - 1, AT + 1).der) for n in range(62)]
    with pytest.raises(BadEndorsement, match="certificates"):
        certificates(Endorsements((*chain, *single)))


_X400 = bytes.fromhex("3004a3023000")  # GeneralNames of one x400Address, which the library does not read


@pytest.mark.parametrize("where", ["2.5.29.18", "2.5.29.35", "2.5.29.28", "2.5.29.20"])
def test_a_revocation_lists_extension_that_cannot_be_read_is_an_endorsements_fault(where: str):
    name = {"2.5.29.35": bytes.fromhex("3006a104a3023000"), "2.5.29.28": bytes.fromhex("3008a006a004a3023000")}
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(named("root"))
        .last_update(when(AT - 10))
        .next_update(when(AT + 100))
        .add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(where), name.get(where, _X400)), critical=False)
    )
    data = builder.sign(ec_key("root"), hashes.SHA384(), ecdsa_deterministic=True).public_bytes(Encoding.DER)
    issuer = authority("root", "root", AT - 100, AT + 1000)
    with pytest.raises(BadCertificate, match="extensions cannot be read"):
        RevocationList(data).require_current(issuer, AT)


# --- OCSP -------------------------------------------------------------------------------------------------------------


LEAF = Wanted(subject="leaf", issuer="root", not_before=AT - 1, not_after=AT + 1).make()
ISSUER = authority("root", "root", AT - 100, AT + 1000)


def said(**changes: Any) -> ocsp.Response:
    return ocsp.Response(pki_nvidia.Answer(LEAF, ISSUER, ec_key("root"), **changes).data)


def test_more_answers_about_one_certificate_than_anybody_needs_are_refused():
    few = [said(made=AT - n) for n in range(ocsp.MAX_ANSWERS)]
    assert ocsp.require_standing([(LEAF, ISSUER)], few, AT).used == (few[0],)
    with pytest.raises(BadEndorsement, match="answers about"):
        ocsp.require_standing([(LEAF, ISSUER)], [*few, said(made=AT - 99)], AT)


def test_a_response_with_a_crowd_of_responders_is_refused():
    crowd = tuple(pki_nvidia.responder("root", ec_key("root"), serial=n + 1) for n in range(ocsp.MAX_RESPONDERS + 1))
    said(responders=crowd[1:]).require_authentic(ISSUER, AT)
    with pytest.raises(BadEndorsement, match="certificates"):
        said(responders=crowd)


def test_a_responder_with_a_critical_extension_that_nobody_reads_does_not_count():
    unread = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)
    found = said(responders=(pki_nvidia.responder("root", ec_key("root"), others=(unread,)),))
    with pytest.raises(BadEndorsement, match="critical"):
        found.require_authentic(ISSUER, AT)


def test_a_response_that_the_library_refuses_in_its_own_way_is_no_response():
    """An unsigned one: an extension of the single answer with a name of a kind that the library does not read."""
    good = pki_nvidia.Answer(LEAF, ISSUER, ec_key("root"))
    der, oid = pki_nvidia.der, pki_nvidia.der_oid
    single = der(0x30, der(0x30, oid("2.5.29.29"), der(0x04, _X400)))
    spoiled_data = with_single_extension(good, der(0xA1, single))
    with pytest.raises(BadEndorsement, match="not an OCSP response"):
        ocsp.Response(spoiled_data)
    found = keyset()
    bound = report_data(found.digest, NONCE)
    devices = asked(bound)
    beside = Endorsements((*DOCUMENTS.documents, Endorsement(OCSP_RESPONSE, spoiled_data)))
    result = appraise(
        replace(Td().produce(bound), devices=devices, device_binding=composite.binding.make(BINDING_KEY, bound, devices)),
        policy=WITH_GPUS,
        endorsements=Td(beside=beside).endorsements(),
        nonce=NONCE,
        at=NOW,
        keyset=found,
    )
    assert ends(result) == ("A14", "attest.bad_endorsement")


def with_single_extension(answer: pki_nvidia.Answer, extension: bytes) -> bytes:
    """The response with this at the end of its one answer; nobody signs that."""
    until = pki_nvidia.der(0xA0, pki_nvidia.der_time(answer.until or 0))
    before, after = answer.data.split(until)
    whole = bytearray(before + until + extension + after)
    return relengthed(bytes(whole), len(before), len(extension))


def relengthed(data: bytes, at: int, grown: int) -> bytes:
    """DER in which every element around a place is longer by so many bytes; each has a length of two bytes there."""
    place, found = 0, bytearray(data)
    while place < at:
        size = 2 if data[place + 1] < 0x80 else 2 + (data[place + 1] & 0x7F)
        length = data[place + 1] if size == 2 else int.from_bytes(data[place + 2 : place + size], "big")
        if place + size + length < at:
            place += size + length
            continue
        longer = (length + grown).to_bytes(max(size - 2, 1), "big")
        found[place + size - len(longer) : place + size] = longer
        assert size > 2 or length + grown < 0x80
        place += size
    return bytes(found)


# --- policies that others signed --------------------------------------------------------------------------------------


ELSEWHERE, MINE = SigningKey(seed("another's root")), Root("simulated", ROOT.public)


def test_what_a_signed_policy_holds_of_a_platform_that_it_does_not_name_is_not_turned_on_by_a_loose_root():
    """The signed policy accepts TDs alone; its root and value of the simulated platform are left over, or another's."""
    left = replace(
        POLICY,
        roots={**POLICY.roots, "simulated": Roots((ELSEWHERE.public,))},
        references=(*POLICY.references, Reference(EDITED, "left over")),
    )
    trust = replace(trusting(left), roots=(MINE,), measurements=(MEASUREMENT,))
    found = trust.appraisal_policy()
    assert found.platforms == {"tdx", "simulated"}
    assert found.roots["simulated"] == Roots((ROOT.public,))
    assert found.accepts(EDITED) is None
    assert found.accepts(MEASUREMENT) is not None
    assert found.accepts(composite.MEASUREMENT) is not None


def test_a_party_whose_policy_is_in_force_cannot_be_removed_from_under_it():
    """The trust file could not be read any more, and nobody could put it right."""
    trust = trusting(POLICY, "lab")
    with pytest.raises(NotPinned, match="signed"):
        trust.unpin("lab")
    assert Trust.from_json(trust.unpin("hospital").to_json()).appraisal is not None
    assert trust.party("lab") == card("lab")


# --- time and room ----------------------------------------------------------------------------------------------------


def crowds(size: int) -> Iterator[tuple[str, bytes]]:
    yield "lists", b"[" + b"[]," * (size // 3 - 1) + b"[]]"
    yield "numbers", b"[" + b"0," * (size // 2 - 2) + b"0]"
    yield "members", b"{" + b",".join(b'"%07x":0' % n for n in range(size // 12)) + b"}"


@pytest.mark.parametrize(("what", "data"), list(crowds(1 << 20)))
def test_a_document_of_nothing_but_small_values_is_too_large(what: str, data: bytes):
    """It would take a quarter of a second and thirty times its size to find out that it is not what was expected."""
    with pytest.raises(TooLarge, match="values"):
        wire.decode(data)
    with pytest.raises(TooLarge, match="values"):
        wire.loads(data)


def test_a_larger_document_may_hold_more_values():
    data = b"[" + b",".join([b"0"] * (wire.MAX_VALUES + 10)) + b"]"
    with pytest.raises(TooLarge):
        wire.decode(data)
    assert wire.decode(data, max_bytes=128 * (wire.MAX_VALUES + 20))


@pytest.mark.parametrize(("what", "data"), list(crowds(4 << 20)))
def test_a_file_of_nothing_but_small_values_is_no_evidence(what: str, data: bytes):
    with pytest.raises(BadEvidence, match="values"):
        detect.detect(data)


def test_white_space_is_taken_out_of_text_without_a_piece_for_each_word():
    words = b"30 " * 40
    assert detect._unwrapped(words) == b"0" * 40
    assert detect.unb64_loose("eA \n=\t=") == b"x"
    with pytest.raises(BadEvidence):
        detect.unb64_loose("é" * 4)
