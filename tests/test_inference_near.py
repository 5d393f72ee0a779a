"""The form that NEAR AI's clients ask for: what is served is true, and what cannot be served truly is refused."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pki_dstack
import pki_nvidia
from inference_case import GOOD, M
from strongroom import wire
from strongroom.attest import aci_report
from strongroom.attest.aci_report import Layout
from strongroom.attest.evidence import Evidence
from strongroom.attest.keyset import report_data as aci_report_data
from strongroom.errors import (
    BadEventLog,
    BadEvidence,
    BadInferenceReceipt,
    BadKeyset,
    BadNonce,
    NoIntelQuote,
    NotBound,
    SigningAlgorithm,
)
from strongroom.inference import near
from strongroom.inference.near import Quoted

NONCE, OTHER_NONCE = bytes(range(32)), bytes(32)
TLS_KEY = hashlib.sha256(b"a TLS key").digest()
KEY = M.CHAT_KEY.public
PLAIN = M.sign(M.swap(M.SERVED, ResponseReturned=M.ResponseReturned(M.of("plain")), ResponseRestored=None))


def quoted(bound: bytes | None = None, **changes: Any) -> Quoted:
    guest = pki_dstack.Guest(report_data=near.report_data(KEY, NONCE) if bound is None else bound)
    return replace(Quoted(evidence=guest.evidence(), composition=pki_dstack.COMPOSE.decode()), **changes)


def gpu(nonce: bytes = NONCE, **changes: Any) -> Evidence:
    return pki_nvidia.Device(nonce=nonce, **changes).evidence


def report(found: Quoted | None = None, **changes: Any) -> dict[str, Any]:
    return near.attestation_report(found or quoted(), **{"keyset": M.KEYSET, "nonce": NONCE, **changes})


# --- the algorithm --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [None, "", "ecdsa", "ED25519", "ed25519 "])
def test_no_other_algorithm_is_served_and_none_is_guessed(name: str | None) -> None:
    near.require_algorithm("ed25519")
    with pytest.raises(SigningAlgorithm):
        near.require_algorithm(name)


# --- the signature of a chat ----------------------------------------------------------------------------------------


def test_a_chat_is_signed_as_its_client_checks_it() -> None:
    answer = near.chat_signature(GOOD, keyset=M.KEYSET, key=M.CHAT_KEY)
    plain = hashlib.sha256(b"".join(M.STREAM)).hexdigest()  # behind our proxy a client sees plaintext
    assert answer["text"] == f"example/small:{hashlib.sha256(M.CHAT).hexdigest()}:{plain}"
    assert {name: value for name, value in answer.items() if name not in ("text", "signature")} == {
        "signature_kind": "provider_tee",
        "signing_address": KEY.raw.hex(),
        "signing_algo": "ed25519",
    }
    KEY.verify_bytes(bytes.fromhex(str(answer["signature"])), str(answer["text"]).encode())


def test_a_plain_chat_is_signed_over_the_bytes_on_the_wire() -> None:
    assert near.chat_text(PLAIN).endswith(M.of("plain").removeprefix("sha256:"))


@pytest.mark.parametrize(
    "receipt",
    [
        M.sign(M.REFUSED),
        M.sign(chat_id=None),
        M.sign(model=None),
        M.sign(model="a:b"),
        M.sign(M.SERVED[1:]),
        M.sign(M.SERVED[:5]),
    ],
    ids=["refused", "no chat", "no model", "a colon", "no request", "no response"],
)
def test_what_cannot_be_named_is_not_signed(receipt: Any) -> None:
    with pytest.raises(BadInferenceReceipt):
        near.chat_signature(receipt, keyset=M.KEYSET, key=M.CHAT_KEY)


def test_a_chat_is_signed_by_its_own_enclaves_key_for_that_alone() -> None:
    for key in (M.RECEIPT_KEY, M.OTHER_KEY):
        with pytest.raises(BadKeyset):
            near.chat_signature(GOOD, keyset=M.KEYSET, key=key)
    with pytest.raises(BadInferenceReceipt, match="another keyset"):
        near.chat_signature(GOOD, keyset=replace(M.KEYSET, not_after=1), key=M.CHAT_KEY)
    with pytest.raises(BadKeyset):
        without = M.make_attest.KEYSET
        near.chat_signature(replace(GOOD, workload_keyset_digest=without.digest), keyset=without, key=M.CHAT_KEY)


# --- the report -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [None, TLS_KEY], ids=["plain", "tls"])
def test_the_report_is_read_as_others_reports_are(tls: bytes | None) -> None:
    bound = near.report_data(KEY, NONCE, tls)
    found = report(quoted(bound, devices=(gpu(), gpu())), tls_key=tls)
    read = aci_report.parse(json.dumps(found).encode())
    assert read.layout is Layout.SIGNING_ADDRESS
    assert (read.signing_address, read.tls_key) == (KEY.raw, tls)
    assert read.report_data(NONCE) == bound
    assert read.app_compose == pki_dstack.COMPOSE
    assert read.devices == (gpu(), gpu())
    assert read.evidence == replace(quoted(bound).evidence, event_log=read.evidence.event_log)
    assert json.loads(read.evidence.event_log) == json.loads(quoted().evidence.event_log)


def test_what_a_client_looks_for_is_there() -> None:
    found = report(quoted(devices=(gpu(),)))
    (one,) = found["model_attestations"]
    assert found["all_attestations"] == [one]
    assert found == {**one, "all_attestations": [one], "model_attestations": [one]}
    assert one["signing_public_key"] == one["signing_address"] == KEY.raw.hex()
    assert (one["signing_algo"], one["request_nonce"]) == ("ed25519", NONCE.hex())
    assert one["report_data"] == KEY.raw.hex() + NONCE.hex()
    assert one["info"] == {"tcb_info": {"app_compose": pki_dstack.COMPOSE.decode()}}
    payload = json.loads(one["nvidia_payload"])
    assert (payload["nonce"], payload["arch"]) == (NONCE.hex(), "HOPPER")
    assert base64.b64decode(payload["evidence_list"][0]["certificate"]).startswith(b"-----BEGIN CERTIFICATE-----\n")
    assert "tls_cert_fingerprint" not in one
    wire.encode(found)


def test_what_is_not_there_is_left_empty() -> None:
    tdx = Evidence("tdx", quoted().evidence.data, event_log=b"a log in another form")
    found = report(Quoted(evidence=tdx))
    assert (found["nvidia_payload"], found["event_log"], found["info"]) == (None, [], {})


@pytest.mark.parametrize(
    "evidence",
    [
        Evidence("simulated", b"{}"),
        Evidence("nitro", b"{}"),
        Evidence("sev_snp", bytes(1184)),
        Evidence("dstack", bytes(1184), event_log=b"{}"),
    ],
    ids=lambda found: f"{found.platform} {len(found.data)}",
)
def test_other_hardware_has_no_place_in_it(evidence: Evidence) -> None:
    with pytest.raises(NoIntelQuote):
        report(Quoted(evidence=evidence))


@pytest.mark.parametrize(
    "bound",
    [
        near.report_data(KEY, OTHER_NONCE),
        near.report_data(M.RECEIPT_KEY.public, NONCE),
        near.report_data(KEY, NONCE, TLS_KEY),
        aci_report_data(M.KEYSET.digest, NONCE),
    ],
    ids=["another nonce", "another key", "with a TLS key", "ACI's"],
)
def test_a_quote_of_something_else_is_not_handed_out(bound: bytes) -> None:
    with pytest.raises(NotBound):
        report(quoted(bound))


def test_a_gpu_that_answers_something_else_is_not_handed_out() -> None:
    with pytest.raises(NotBound):
        report(quoted(devices=(gpu(), gpu(OTHER_NONCE))))
    with pytest.raises(BadEvidence, match="two generations"):
        report(quoted(devices=(gpu(), gpu(chip="GB100"))))
    with pytest.raises(BadEvidence):
        report(quoted(devices=(Evidence("nvidia_cc", b"x"),)))


def test_a_log_that_is_none_is_not_handed_out() -> None:
    with pytest.raises(BadEventLog):
        report(quoted(evidence=replace(quoted().evidence, event_log=b"{}")))
    with pytest.raises(BadEvidence):
        report(Quoted(evidence=Evidence("tdx", b"no quote")))


@pytest.mark.parametrize("size", [0, 31, 33])
def test_nonces_and_digests_have_one_length(size: int) -> None:
    with pytest.raises(BadNonce):
        near.report_data(KEY, bytes(size))
    with pytest.raises(BadKeyset):
        near.report_data(KEY, NONCE, bytes(size))


@given(st.binary(min_size=32, max_size=32), st.none() | st.binary(min_size=32, max_size=32))
def test_it_binds_what_acis_statement_never_does(nonce: bytes, tls: bytes | None) -> None:
    bound = near.report_data(KEY, nonce, tls)
    assert len(bound) == 64
    assert bound != aci_report_data(M.KEYSET.digest, nonce)
    assert bound[32:] == nonce
