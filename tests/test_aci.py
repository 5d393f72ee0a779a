"""ACI's own vectors (``aci/1``), reproduced byte for byte. They are not part of the project: without them, these tests are
left out and say so; what they test is tested on vectors of the project's own beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from strongroom import wire
from strongroom.attest.keyset import Keyset, report_data, statement
from strongroom.errors import BadSignature
from strongroom.inference.events import RequestForwarded, RequestReceived, ResponseReturned, UpstreamVerified
from strongroom.inference.receipt import InferenceReceipt, ReceiptSigner
from strongroom.inference.recorder import BodyHash
from strongroom.party import SigningKey

FILE = Path(__file__).parents[2] / "shared" / "vectors" / "aci" / "aci-1.json"
pytestmark = pytest.mark.skipif(not FILE.is_file(), reason="left out: ACI's vectors (shared/vectors/aci) are not here")


@pytest.fixture(scope="module")
def aci() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_bytes())
    return found


@pytest.fixture(scope="module")
def signer(aci: dict[str, Any]) -> ReceiptSigner:
    key = SigningKey.from_seed(bytes.fromhex(aci["seeds_hex"]["receipt-1"]))
    return ReceiptSigner(Keyset.parse(aci["keyset_jcs"].encode()), key)


def test_the_keyset_and_its_digest(aci: dict[str, Any], signer: ReceiptSigner) -> None:
    assert signer.keyset.encode() == aci["keyset_jcs"].encode()
    assert signer.keyset.digest == aci["workload_keyset_digest"]
    assert signer.key.public.raw.hex() == aci["public_keys"]["receipt-1"]
    assert signer.key_id == "receipt-1"


def test_the_statements_and_what_they_bind(aci: dict[str, Any]) -> None:
    assert len(aci["statements"]) == 2
    for case in aci["statements"]:
        nonce = case["nonce"] and bytes.fromhex(case["nonce"])
        assert statement(aci["workload_keyset_digest"], nonce) == case["statement"].encode()
        assert report_data(aci["workload_keyset_digest"], nonce) == bytes.fromhex(case["report_data"]).ljust(64, b"\0")


def test_the_receipt_is_read_and_written_to_the_byte(aci: dict[str, Any], signer: ReceiptSigner) -> None:
    data = aci["receipt"].encode()
    receipt = InferenceReceipt.parse(data)
    assert receipt.encode() == data
    assert receipt.payload == aci["receipt_signing_input"].encode()
    receipt.check_signature(signer.keyset)
    pretty = json.dumps(json.loads(data), indent=3).encode()  # a service may send any spelling of it
    assert InferenceReceipt.from_json(wire.loads(pretty)) == receipt


def test_the_receipt_is_signed_to_the_byte(aci: dict[str, Any], signer: ReceiptSigner) -> None:
    request, response = BodyHash(), BodyHash()
    request.update(aci["request_body"].encode())
    for byte in aci["response_body"].encode():
        response.update(bytes([byte]))
    receipt = signer.sign(
        receipt_id="rcpt-0001",
        chat_id="chatcmpl-123",
        model="demo-model",
        endpoint="/v1/chat/completions",
        method="POST",
        served_at=1_750_000_000,
        event_log=(
            RequestReceived(request.digest),
            RequestForwarded(request.digest),
            UpstreamVerified(True, "demo-model", session_id=aci["session_id"]),
            ResponseReturned(response.digest),
        ),
    )
    assert receipt.encode() == aci["receipt"].encode()


def test_a_session_is_named_by_its_canonical_form(aci: dict[str, Any]) -> None:
    assert wire.encode(wire.loads(aci["session_jcs"].encode())) == aci["session_jcs"].encode()
    assert wire.digest(aci["session_jcs"].encode()) == f"sha256:{aci['session_id']}"


def test_a_receipt_of_somebody_else_does_not_verify(aci: dict[str, Any], signer: ReceiptSigner) -> None:
    altered = aci["receipt"].replace('"demo-model","receipt_id"', '"demo-medel","receipt_id"')
    assert altered != aci["receipt"]
    with pytest.raises(BadSignature):
        InferenceReceipt.parse(altered.encode()).check_signature(signer.keyset)
