"""Reference manifests: only a whole document that its signer signed, and of XML only what that needs."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence_case import accepted_flips
from pki_certificates import ec_key
from pki_nvidia import (
    AT,
    C14N,
    C14N11,
    DAY,
    EXCLUSIVE,
    RIM_ROOT,
    Manifest,
    World,
    driver_manifest,
    signers,
    spki,
    value,
    vbios_manifest,
)
from real import cases, read, real
from strongroom import wire
from strongroom.attest import rim
from strongroom.errors import BadEndorsement, EndorsementNotYetValid, StrongroomError, UnknownRoot

ROOT = (wire.digest(spki(ec_key(RIM_ROOT))),)
NVIDIA = ("sha256:dec1dc316477aa851eebdf51327ae9f864bc8d89254657ed1e7eb9168af1e1a3",)
REAL = [case for case in cases("cases_other.json") if case["kind"] == "rim"]
GOOD = driver_manifest().data


def verified(data: bytes, roots: tuple[str, ...] = ROOT, at: int = AT) -> rim.Manifest:
    found = rim.parse(data)
    found.require_signed()
    rim.require_signers(found, roots=roots, at=at)
    return found


def test_a_good_manifest_says_what_it_is_for_and_what_it_defines():
    found = verified(GOOD)
    assert (found.product, found.version) == ("GH100", "580.95.05")
    assert set(found.measurements) == {7, *range(21, 42)}
    assert found.measurements[7] == (value(7),)
    assert found.measurements[22] == (bytes(48), value(22))
    assert len(found.path) == 4
    assert found.data == GOOD


@pytest.mark.parametrize("form", [C14N, C14N11, EXCLUSIVE])
@pytest.mark.parametrize("canonical", [C14N, C14N11, EXCLUSIVE])
def test_every_canonical_form_is_read(form, canonical):
    assert verified(driver_manifest(form=form, canonical=canonical).data).measurements


def test_its_digest_is_of_what_it_defines_alone():
    assert rim.parse(driver_manifest(path=signers(until=AT + DAY), whole=True).data).digest == rim.parse(GOOD).digest
    assert rim.parse(driver_manifest(version="580.95.06").data).digest != rim.parse(GOOD).digest
    shuffled = driver_manifest(values={22: (value(22), bytes(48)), 21: (value(21), b"\1" * 48)})
    assert rim.parse(shuffled.data).digest == rim.parse(GOOD).digest


def test_when_its_signers_were_valid():
    found = rim.require_signers(rim.parse(GOOD), roots=ROOT, at=AT + 10 * 365 * DAY)
    assert found == rim.Signers(AT - 300 * DAY, AT + 400 * DAY)


def test_signers_that_are_not_valid_yet_are_refused():
    with pytest.raises(EndorsementNotYetValid):
        rim.require_signers(rim.parse(GOOD), roots=ROOT, at=AT - 301 * DAY)


def test_a_manifest_without_a_signer_is_refused():
    with pytest.raises(BadEndorsement, match="certificates"):
        rim.parse(driver_manifest(path=()).data)


def test_a_manifest_over_its_limit_is_refused_unread():
    with pytest.raises(BadEndorsement, match="longer than"):
        rim.parse(GOOD + b" " * rim.MAX_MANIFEST_BYTES)


# --- XML that is made to be read otherwise ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<",
        b"<a/>",
        b"<!DOCTYPE a><a/>",
        b"<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/hostname'>]><a>&b;</a>",
        b'<!DOCTYPE a SYSTEM "http://127.0.0.1:1/a.dtd"><a/>',
        b"<a>" * 20_000,
        b"<a>" + b"<b/>" * 20_000 + b"</a>",
        b"<a " + b" ".join(b'b%d=""' % n for n in range(20_000)) + b"/>",
        b'<a xmlns:b="' + b"c" * 200_000 + b'"/>',
        b"<a>" + b"&amp;" * 40_000 + b"</a>",
        b"\xff\xfe<\0a\0/\0>\0",
        b'<?xml version="1.0" encoding="UTF-7"?><a/>',
        b'<?xml version="1.0"?><?xml version="1.0"?><a/>',
        b"<a><![CDATA[b]]></a>",
    ],
    ids=range(15),
)
def test_hostile_xml_is_refused_at_once(data):
    started = time.process_time()
    with pytest.raises(BadEndorsement):
        rim.parse(data)
    assert time.process_time() - started < 5  # it takes milliseconds; what it stops takes for ever


def test_a_signed_part_moved_into_another_document_is_refused():
    """Signature wrapping: the genuine manifest inside a document of the attacker's."""
    other = driver_manifest(values={7: (bytes(48),)}).data
    for outer in (
        GOOD.replace(b"</ns0:Payload>", b"</ns0:Payload>" + other, 1),
        other.replace(b"<ds:SignatureValue>", b"<ds:Object>" + GOOD + b"</ds:Object><ds:SignatureValue>", 1),
        GOOD.replace(b'xmlns:ds="http://www.w3.org/2000/09/xmldsig#"', b'xmlns:ds="urn:other"', 1),
    ):
        with pytest.raises(BadEndorsement):
            rim.parse(outer)


def test_a_signature_is_not_taken_from_one_manifest_to_another():
    other = driver_manifest(values={7: (bytes(48),)}).data
    head, _, _ = other.partition(b"<ds:Signature ")
    _, mark, tail = GOOD.partition(b"<ds:Signature ")
    with pytest.raises(BadEndorsement, match="altered"):
        rim.parse(head + mark + tail).require_signed()


def test_hashes_in_another_namespace_do_not_count():
    moved = driver_manifest(text=lambda t: t.replace("http://www.w3.org/2001/04/xmlenc#sha384", "urn:other"))
    with pytest.raises(BadEndorsement, match="as many digests"):
        rim.parse(moved.data)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data):
    with pytest.raises(BadEndorsement):
        rim.parse(data)


@given(st.integers(0, len(GOOD) - 1), st.binary(max_size=6))
def test_a_changed_manifest_is_refused_or_defines_the_same(at, data):
    changed = GOOD[:at] + data + GOOD[at + len(data) :]
    with suppress(StrongroomError):
        found = verified(changed)
        assert (found.digest, found.measurements) == (rim.parse(GOOD).digest, rim.parse(GOOD).measurements)


@given(st.integers(0, len(GOOD) - 1))
def test_a_manifest_cut_short_is_refused(size):
    with pytest.raises(BadEndorsement):
        rim.parse(GOOD[:size])


def all_flips(data: bytes = GOOD, roots: tuple[str, ...] = ROOT, at: int = AT, *, sample: int | None = None) -> list[int]:
    """The bits of a manifest whose change nobody notices, for the soak: there are none."""

    def accepted(flipped: bytes) -> bool:
        try:
            verified(flipped, roots, at)
        except StrongroomError:
            return False
        return True

    return accepted_flips(data, accepted, sample=sample)


def test_a_flipped_bit_is_noticed():
    assert all_flips(sample=300) == []


def test_two_worlds_are_two():
    assert Manifest("1", (0,)).data != Manifest("2", (0,)).data
    assert rim.parse(vbios_manifest().data).version == World().device.vbios


# --- what NVIDIA signed ---------------------------------------------------------------------------------------------------


@real
@pytest.mark.parametrize("case", REAL, ids=lambda c: c["file"])
def test_what_nvidia_signed_comes_out_as_the_cases_say(case):
    found = rim.parse(read(case["file"]))
    assert (found.said == found.found) is case["digest"]
    if case["digest"] and case["signature"] is True:
        found.require_signed()
    else:
        with pytest.raises(BadEndorsement, match="altered" if not case["digest"] else "not signed by"):
            found.require_signed()
    if case["signature"] is True:  # over what it says its digest is, whether that is so or not
        held = rim.Manifest(**{name: getattr(found, name) for name in rim.Manifest.__slots__} | {"found": found.said})
        held.require_signed()
    at = max(certificate.not_before for certificate in found.path)
    if case["chain"] == "True":
        assert rim.require_signers(found, roots=NVIDIA, at=at).since == at
    else:
        with pytest.raises(UnknownRoot):
            rim.require_signers(found, roots=NVIDIA, at=at)


@real
def test_there_are_cases():
    assert len(REAL) == 8


@real
def test_real_signers_expired_while_devices_live():
    found = rim.parse(read("nvidia/rim_vbios_96005E0001.xml"))
    assert rim.require_signers(found, roots=NVIDIA, at=1_790_000_000).until == 1_750_584_633
    with pytest.raises(EndorsementNotYetValid):
        rim.require_signers(found, roots=NVIDIA, at=1_680_000_000)


@real
def test_a_flipped_bit_of_what_nvidia_signed_is_noticed():
    assert all_flips(read("nvidia/rim_driver_550.144.03.xml"), NVIDIA, 1_750_000_000, sample=150) == []
