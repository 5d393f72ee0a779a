"""Endorsements by media type: what is read must be what its type says, and what is not read is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki_certificates import authority, revocation_list
from strongroom import wire
from strongroom.attest.endorsements import (
    CERTIFICATE,
    CRL,
    NVIDIA_RIM,
    PEM_CHAIN,
    certificates,
    digests,
    documents,
    of_type,
    revocation_lists,
)
from strongroom.attest.evidence import MAX_ENDORSEMENTS, Endorsement, Endorsements
from strongroom.errors import BadEndorsement

AT = 1_790_000_000
ROOT = authority("root", "root", AT, AT + 10)
OTHER = authority("other", "root", AT, AT + 10)
LIST = revocation_list("root", (5,), made=AT, until=AT + 10)


def pem(*ders: bytes) -> bytes:
    return b"".join(f"-----BEGIN CERTIFICATE-----\n{wire.b64(d)}\n-----END CERTIFICATE-----\n".encode() for d in ders)


def test_certificates_are_found_once_each_and_in_order() -> None:
    chain = pem(OTHER.der, ROOT.der)
    single = [(CERTIFICATE, ROOT.der), (CERTIFICATE, OTHER.der)]
    came = documents([(CRL, LIST), (PEM_CHAIN, chain), (NVIDIA_RIM, b"<rim/>"), *single])
    assert certificates(came) == (OTHER, ROOT)
    assert certificates(documents([(CERTIFICATE, ROOT.der), (PEM_CHAIN, chain)])) == (ROOT, OTHER)
    assert certificates(Endorsements()) == ()


def test_revocation_lists_are_found_in_order() -> None:
    other = revocation_list("other", (), made=AT, until=AT + 10)
    found = revocation_lists(documents([(CRL, LIST), (CERTIFICATE, ROOT.der), (CRL, other)]))
    assert [one.der for one in found] == [LIST, other]


def test_documents_of_one_type() -> None:
    came = documents([(NVIDIA_RIM, b"1"), (CRL, LIST), (NVIDIA_RIM, b"2")])
    assert [one.data for one in of_type(came, NVIDIA_RIM)] == [b"1", b"2"]
    assert of_type(came, PEM_CHAIN) == ()


@pytest.mark.parametrize("kind", [CERTIFICATE, PEM_CHAIN])
@given(data=st.binary(max_size=64))
def test_junk_that_is_called_a_certificate_is_refused(kind: str, data: bytes) -> None:
    with pytest.raises(BadEndorsement, match="not the certificate"):
        certificates(documents([(CERTIFICATE, ROOT.der), (kind, data)]))


@given(data=st.binary(max_size=64))
def test_junk_that_is_called_a_revocation_list_is_refused(data: bytes) -> None:
    with pytest.raises(BadEndorsement, match="not the revocation list"):
        revocation_lists(documents([(CRL, data)]))


def test_a_certificate_in_a_lists_place_is_refused() -> None:
    with pytest.raises(BadEndorsement):
        revocation_lists(documents([(CRL, ROOT.der)]))
    with pytest.raises(BadEndorsement):
        certificates(documents([(CERTIFICATE, LIST)]))


def test_digests_are_of_bytes_sorted_and_distinct() -> None:
    (crl,) = revocation_lists(documents([(CRL, LIST)]))
    found = digests(ROOT, crl, b"bytes", Endorsement(CERTIFICATE, ROOT.der), Endorsement(NVIDIA_RIM, b"bytes"))
    assert found == tuple(sorted(wire.digest(data) for data in (ROOT.der, LIST, b"bytes")))
    assert digests() == ()


def test_too_many_documents_are_refused() -> None:
    assert len(documents([(NVIDIA_RIM, b"")] * MAX_ENDORSEMENTS).documents) == MAX_ENDORSEMENTS
    with pytest.raises(BadEndorsement):
        documents([(NVIDIA_RIM, b"")] * (MAX_ENDORSEMENTS + 1))
