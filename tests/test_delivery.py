"""Deliveries: an output's key opens for its recipients, for this run and this output, and for nobody else."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom import wire
from strongroom.asset import About, AssetKey, BytesSource, Manifest, SealedReader, seal
from strongroom.delivery import PURPOSE, Delivery, binding
from strongroom.errors import (
    BadField,
    BadKey,
    BadReceipt,
    ManifestMismatch,
    NotAParty,
    StrongroomError,
    TooLarge,
    WrongKey,
)
from strongroom.party import DecryptionKey
from world import NOW, RUN, TERMS, card, keys_of, seed

CONTRACT = wire.digest(b"contract")
REPORT = b'{"accuracy":0.93}'


@cache
def output(name: str = "report", data: bytes = REPORT) -> tuple[Manifest, bytes, AssetKey]:
    """A sealed output, its manifest and its key."""
    sink, key = io.BytesIO(), AssetKey(seed(f"key of {name}"))
    about = About(name=name, kind="report", media_type="application/json", owner="enclave", created_at=NOW, terms=TERMS)
    return seal(io.BytesIO(data), sink, key=key, salt=seed(f"salt of {name}"), about=about), sink.getvalue(), key


def make(*recipients: str, name: str = "report", **changes: Any) -> Delivery:
    manifest, sealed, key = output(name)
    found: dict[str, Any] = {
        "contract": CONTRACT,
        "run_id": RUN,
        "output": name,
        "sealed": wire.digest(sealed),
        "manifest": manifest,
        "key": key,
        "recipients": {r: card(r).encryption_key for r in recipients},
    }
    return Delivery.make(**{**found, **changes})


BOTH = make("hospital", "lab")


@pytest.mark.parametrize("name", ["hospital", "lab"])
def test_each_recipient_opens_the_output(name: str) -> None:
    delivery = Delivery.parse(BOTH.encode())
    key = delivery.open(name, keys_of(name).decryption)
    assert key == output()[2]
    with SealedReader(BytesSource(output()[1]), delivery.manifest, key) as reader:
        assert reader.read() == REPORT


def test_an_output_without_recipients_is_delivered_to_nobody() -> None:
    with pytest.raises(NotAParty):
        make()


def test_who_is_no_recipient_has_no_key_to_it() -> None:
    delivery = make("hospital")
    with pytest.raises(NotAParty):
        delivery.open("lab", keys_of("lab").decryption)
    with pytest.raises(BadKey):
        delivery.open("hospital", keys_of("lab").decryption)
    with pytest.raises(BadKey):
        BOTH.open("hospital", keys_of("lab").decryption)


def test_one_recipients_key_is_not_anothers() -> None:
    swapped = replace(BOTH, keys={"hospital": BOTH.keys["lab"], "lab": BOTH.keys["hospital"]})
    for name in ("hospital", "lab"):
        with pytest.raises(BadKey):
            swapped.open(name, keys_of(name).decryption)


def test_a_key_is_bound_to_its_recipients_name() -> None:
    # the lab's own card under another name: the same decryption key, another binding
    renamed = replace(BOTH, keys={"laboratory": BOTH.keys["lab"]})
    with pytest.raises(BadKey):
        renamed.open("laboratory", keys_of("lab").decryption)


OTHERS = {
    "contract": wire.digest(b"another contract"),
    "run_id": "ff" * 16,
    "output": "other",
    "manifest": output("other")[0],
}


@pytest.mark.parametrize("member", OTHERS)
def test_a_delivery_moved_elsewhere_does_not_open(member: str) -> None:
    moved = replace(BOTH, **{member: OTHERS[member]})
    with pytest.raises(BadKey):
        moved.open("lab", keys_of("lab").decryption)


def test_the_binding_says_all_of_it() -> None:
    found = binding(contract=CONTRACT, run_id=RUN, output="report", manifest=output()[0].digest, recipient="lab")
    assert json.loads(found) == {
        "contract": CONTRACT,
        "manifest": output()[0].digest,
        "output": "report",
        "purpose": PURPOSE,
        "recipient": "lab",
        "run_id": RUN,
    }
    assert keys_of("lab").decryption.decrypt(BOTH.keys["lab"], info=found) == output()[2].raw


def test_a_key_that_is_no_asset_key_is_refused() -> None:
    manifest = output()[0]
    info = binding(contract=CONTRACT, run_id=RUN, output="report", manifest=manifest.digest, recipient="lab")
    short = replace(BOTH, keys={"lab": card("lab").encryption_key.encrypt(bytes(31), info=info)})
    with pytest.raises(BadKey):
        short.open("lab", keys_of("lab").decryption)


def test_a_key_of_somebody_elses_making_does_not_open_the_file() -> None:
    # anybody can encrypt a key to a recipient; the manifest, which the receipt names, commits to the right one
    forged = make("lab", key=AssetKey(seed("my own key")))
    key = forged.open("lab", keys_of("lab").decryption)
    with pytest.raises(WrongKey):
        SealedReader(BytesSource(output()[1]), forged.manifest, key)
    with pytest.raises(ManifestMismatch):
        SealedReader(BytesSource(output("other", b"something else")[1]), BOTH.manifest, output()[2])


def test_the_plaintext_cannot_be_confirmed_by_guessing_it() -> None:
    assert wire.digest(REPORT)[7:].encode() not in BOTH.encode()
    assert BOTH.manifest.content.scheme.value == "commitment"


# --- the document -----------------------------------------------------------------------------------------------------


def test_a_delivery_is_its_bytes() -> None:
    assert Delivery.parse(BOTH.encode()) == BOTH
    assert Delivery.parse(BOTH.encode()).encode() == BOTH.encode()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_delivery_altered_in_any_byte_is_refused_or_another(data: st.DataObject) -> None:
    whole = bytearray(BOTH.encode())
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = Delivery.parse(bytes(whole))
    except StrongroomError:
        return
    assert found.encode() == bytes(whole)
    # what it says of the file is held against the receipt; the keys open for the delivery as it was, or not at all
    for name in found.keys:
        same = (found.keys[name], found.contract, found.run_id, found.output, found.manifest.digest) == (
            BOTH.keys.get(name),
            BOTH.contract,
            BOTH.run_id,
            BOTH.output,
            BOTH.manifest.digest,
        )
        if not same and name in BOTH.keys:
            with pytest.raises(BadKey):
                found.open(name, keys_of(name).decryption)


def _changed(**members: Any) -> bytes:
    return wire.encode({**json.loads(BOTH.encode()), **members})


@pytest.mark.parametrize(
    ("members", "error"),
    [
        ({"purpose": "strongroom.release.v1"}, BadField),
        ({"more": 1}, BadField),
        ({"keys": {}}, BadReceipt),
        ({"keys": []}, BadField),
        ({"keys": None}, BadField),
        ({"keys": {"Lab": ""}}, BadField),
        ({"keys": {"../lab": ""}}, BadField),
        ({"keys": {"lab": 7}}, BadField),
        ({"keys": {"lab": wire.b64(bytes(8193))}}, BadField),
        ({"contract": "x"}, BadField),
        ({"run_id": RUN.upper()}, BadField),
        ({"output": "../../etc/passwd"}, BadField),
        ({"sealed": "sha1:00"}, BadField),
        ({"manifest": {}}, BadField),
    ],
)
def test_a_delivery_of_another_form_is_refused(members: dict[str, Any], error: type[StrongroomError]) -> None:
    with pytest.raises(error):
        Delivery.parse(_changed(**members))


@pytest.mark.parametrize("member", json.loads(BOTH.encode()))
def test_a_delivery_without_a_member_is_refused(member: str) -> None:
    value = json.loads(BOTH.encode())
    del value[member]
    with pytest.raises(BadField):
        Delivery.parse(wire.encode(value))


def test_a_delivery_too_large_to_be_one_is_refused() -> None:
    with pytest.raises(TooLarge):
        Delivery.parse(b" " * (300 << 10))


# --- vectors ----------------------------------------------------------------------------------------------------------

VECTORS = sorted((Path(__file__).parents[1] / "vectors" / "delivery").glob("*.json"))  # written by make_release.py


def test_the_folder_holds_vectors_of_both_outcomes() -> None:
    assert {json.loads(path.read_bytes())["expect"] == "ok" for path in VECTORS} == {True, False}


def _happen(case: dict[str, Any]) -> None:
    delivery = Delivery.parse(wire.encode(case["delivery"]))
    key = delivery.open(case["recipient"], DecryptionKey.from_seed(bytes.fromhex(case["seed"])))
    assert key.raw.hex() == case["key"]


@pytest.mark.parametrize("path", VECTORS, ids=lambda p: p.stem)
def test_vector(path: Path) -> None:
    case = json.loads(path.read_bytes())
    if case["expect"] == "ok":
        _happen(case)
        return
    with pytest.raises(StrongroomError) as caught:
        _happen(case)
    assert caught.value.code == case["expect"]


def test_the_page_shows_a_delivery_that_is_one() -> None:
    page = (Path(__file__).parents[1] / "spec" / "delivery.md").read_text(encoding="utf-8")
    shown, bound = (json.loads(block.split("```")[0]) for block in page.split("```json\n")[1:])
    case = json.loads((VECTORS[0].parent / "ok-lab.json").read_bytes())
    assert shown == case["delivery"]
    assert set(bound) == set(json.loads(binding(contract="", run_id="", output="", manifest="", recipient="")))
    for member in {*shown, *bound}:
        assert f"`{member}`" in page
