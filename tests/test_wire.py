"""Canonical JSON, strict parsing and envelopes, against every other spelling of the same thing."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from strongroom import wire
from strongroom.errors import BadEnvelope, BadField, NotCanonical, NotJson, StrongroomError, TooLarge, WireError
from strongroom.party import SigningKey, VerifyKey
from strongroom.wire import Envelope, Fields, Signature

VECTORS = sorted((Path(__file__).parents[1] / "vectors" / "wire").glob("*.json"))
KEY = SigningKey(bytes(32))

texts = st.text(st.characters(codec="utf-8"), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-wire.MAX_INT, wire.MAX_INT) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
envelopes = st.builds(
    Envelope,
    payload_type=texts,
    payload=st.binary(max_size=64),
    signatures=st.lists(
        st.builds(
            Signature,
            keyid=st.binary(min_size=32, max_size=32).map(lambda raw: "sha256:" + raw.hex()),
            sig=st.binary(min_size=64, max_size=64),
        ),
        max_size=3,
    ).map(tuple),
)


# --- canonical JSON -------------------------------------------------------------------------------------------------


@given(values)
def test_round_trip(value: Any) -> None:
    encoded = wire.encode(value)
    assert wire.decode(encoded) == value
    assert wire.encode(wire.decode(encoded)) == encoded
    assert json.loads(encoded) == value


surrogates = st.text(st.characters(categories=["Cs", "Lu", "Cc"]) | st.sampled_from("\ufb33\U0001f600"), max_size=3)
loose = st.recursive(
    st.none() | st.booleans() | st.integers(-wire.MAX_INT - 9, wire.MAX_INT + 9) | st.floats() | surrogates | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(surrogates | texts, inner, max_size=4),
    max_leaves=8,
)


plain = st.text(st.characters(max_codepoint=127), max_size=8)
in_ascii = st.recursive(
    st.none() | st.booleans() | st.integers(-wire.MAX_INT, wire.MAX_INT) | plain,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(plain, inner, max_size=6),
)


@given(values | in_ascii)
def test_bytes_written_are_the_library_s(value: Any) -> None:
    assert wire.encode(value) == rfc8785.dumps(value)


@given(loose | values, st.sampled_from([(",", ":"), (", ", ":")]), st.booleans(), st.booleans())
def test_bytes_are_read_exactly_when_they_are_what_the_library_would_write(
    value: Any, separators: tuple[str, str], ascii_only: bool, sort: bool
) -> None:
    """``decode`` does not ask the library, which is slow; it must not be another judge for that."""
    text = json.dumps(value, separators=separators, ensure_ascii=ascii_only, sort_keys=sort)
    data = text.encode("utf-8", "surrogatepass")
    try:
        expected = wire.encode(json.loads(data.decode("utf-8"))) == data
    except (StrongroomError, ValueError):
        expected = False
    try:
        found = wire.decode(data) == value
    except WireError:
        found = False
    assert found == expected


@pytest.mark.parametrize("inmost", ["", "0", "[]", '"a"', "{}"])
@pytest.mark.parametrize("wrap", ["[%s]", '{"a":%s}'])
def test_depth_is_counted_alike_when_reading_and_when_writing(wrap: str, inmost: str) -> None:
    text = inmost or wrap.replace("%s", "").replace('"a":', "")
    for _ in range(30):
        text = wrap % text
    for _ in range(5):
        text = wrap % text
        try:
            expected = wire.encode(json.loads(text)) == text.encode()
        except NotCanonical:
            expected = False
        if expected:
            assert wire.encode(wire.decode(text.encode())) == text.encode()
        else:
            with pytest.raises(NotCanonical):
                wire.decode(text.encode())


@given(st.dictionaries(texts, st.integers(0, 9), max_size=6))
def test_members_are_sorted_by_utf16_units(value: dict[str, int]) -> None:
    order = list(json.loads(wire.encode(value)))
    assert order == sorted(value, key=lambda key: key.encode("utf-16-be"))


@given(st.permutations(["a", "b", "\ufb33", "\U0001f600"]))
def test_only_one_order_of_members_is_taken(order: list[str]) -> None:
    text = ("{" + ",".join(f'"{key}":1' for key in order) + "}").encode()
    if order == ["a", "b", "\U0001f600", "\ufb33"]:
        assert wire.decode(text) == dict.fromkeys(order, 1)
    else:
        with pytest.raises(NotCanonical):
            wire.decode(text)


@given(values, st.data())
def test_malleability(value: Any, data: st.DataObject) -> None:
    encoded = bytearray(wire.encode(value))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = wire.decode(bytes(encoded))
    except WireError:
        return
    assert wire.encode(found) == bytes(encoded)


@given(
    st.binary(max_size=64)
    | texts.map(str.encode)
    | st.from_regex(r"[\[\]{}\",:0-9eE.+\-\\u truefalsn]{0,24}").map(str.encode)
)
def test_decoding_is_total(data: bytes) -> None:
    try:
        assert wire.encode(wire.decode(data)) == data
    except WireError:
        return


@given(st.floats())
def test_no_float_is_encoded_or_decoded(number: float) -> None:
    with pytest.raises(NotCanonical):
        wire.encode([number])
    with pytest.raises(NotCanonical):
        wire.decode(json.dumps([number]).encode())


@pytest.mark.parametrize(
    "value", [b"bytes", {1: 2}, {None: 1}, object(), {"a": {1}}, "\ud800", {"\udfff": 1}, 2**53, -(2**53)]
)
def test_what_is_not_json_is_not_encoded(value: object) -> None:
    with pytest.raises(NotCanonical):
        wire.encode(value)


def test_tuples_are_lists() -> None:
    assert wire.encode((1, (2,))) == b"[1,[2]]"


def test_depth_is_bounded() -> None:
    value: Any = None
    for _ in range(wire.MAX_DEPTH):
        value = {"a": value}
    assert wire.decode(wire.encode(value)) == value
    with pytest.raises(NotCanonical, match="nested"):
        wire.encode([value])


def test_size_is_bounded() -> None:
    data = wire.encode("x" * 100)
    assert wire.decode(data, max_bytes=len(data)) == "x" * 100
    for read in (wire.decode, wire.loads):
        with pytest.raises(TooLarge):
            read(data, max_bytes=len(data) - 1)


# --- foreign JSON ---------------------------------------------------------------------------------------------------


@given(values)
def test_foreign_json_may_be_spelled_in_any_way(value: Any) -> None:
    assert wire.loads(json.dumps(value, indent=1).encode()) == value
    assert wire.loads(b' {"a": 1.5e0} ') == {"a": 1.5}


@pytest.mark.parametrize(
    "text", ['{"a":1,"a":1}', '[{"a":1,"\\u0061":1}]', "NaN", "-Infinity", "1e999", "[-1e999]", "", "{", "\ufeff{}"]
)
def test_foreign_json_with_two_meanings_is_refused(text: str) -> None:
    with pytest.raises(NotJson):
        wire.loads(text.encode())


def test_foreign_json_too_deep_or_in_another_encoding_is_refused() -> None:
    for data in (b"[" * 30_000, b"\xff", "{}".encode("utf-16")):
        with pytest.raises(NotJson):
            wire.loads(data)


@pytest.mark.parametrize("number", ["1" * 40, "-" + "1" * 39, "0." + "1" * 38, "1" * 37 + "e-9"])
def test_a_foreign_number_has_at_most_forty_characters(number: str) -> None:
    """Turning digits into a number takes as long as the square of how many they are."""
    assert wire.loads(number.encode()) == json.loads(number)
    for more in (number.replace("1", "11", 1), number + "0"):
        with pytest.raises(NotJson):
            wire.loads(more.encode())


def test_foreign_json_of_nothing_but_small_values_is_refused_before_it_is_read() -> None:
    few = b"[" + b"0," * 9 + b"0]"
    assert wire.loads(few, max_values=10) == [0] * 10
    for read in (wire.loads, wire.decode):
        with pytest.raises(TooLarge):
            read(few, max_values=9)
    with pytest.raises(TooLarge):
        wire.loads(b"[" * (wire.MAX_VALUES + 1))


# --- base64 and digests ---------------------------------------------------------------------------------------------


@given(st.binary(max_size=80))
def test_base64_round_trip(data: bytes) -> None:
    assert wire.unb64(wire.b64(data)) == data == base64.b64decode(wire.b64(data))


@given(st.text("AB+/=-_ \n\u00e9", max_size=12))
def test_base64_has_one_spelling(text: str) -> None:
    try:
        assert wire.b64(wire.unb64(text)) == text
    except BadField:
        return


def test_digest() -> None:
    assert wire.digest(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


# --- fields ---------------------------------------------------------------------------------------------------------


def read(method: str, value: object, **options: Any) -> Any:
    f = Fields({"x": value}, "thing")
    found = getattr(f, method)("x", **options)
    f.end()
    return found


GOOD: list[tuple[str, object, dict[str, Any], object]] = [
    ("any", None, {}, None),
    ("text", "abc", {"max_chars": 3}, "abc"),
    ("text", "b", {"choices": ["a", "b"]}, "b"),
    ("literal", "a", {"expected": "a"}, None),
    ("name", "a.b_c-9", {}, "a.b_c-9"),
    ("name", "a" * 64, {}, "a" * 64),
    ("media_type", "text/csv", {}, "text/csv"),
    ("digest", "sha256:" + "0" * 64, {}, "sha256:" + "0" * 64),
    ("integer", 5, {"low": 5, "high": 5}, 5),
    ("boolean", False, {}, False),
    ("hex", "00ff", {"size": 2}, b"\x00\xff"),
    ("hex", "", {"size": 0}, b""),
    ("base64", "AAA=", {"max_bytes": 2}, b"\x00\x00"),
    ("items", [1, 2], {"parse": str, "low": 2, "high": 2}, ("1", "2")),
    ("names", ["a", "b"], {}, ("a", "b")),
    ("optional", None, {"parse": str}, None),
    ("optional", 1, {"parse": str}, "1"),
]
BAD: list[tuple[str, object, dict[str, Any]]] = [
    ("text", "abcd", {"max_chars": 3}),
    ("text", 1, {}),
    ("text", None, {}),
    ("text", "c", {"choices": ["a", "b"]}),
    ("literal", "b", {"expected": "a"}),
    ("literal", None, {"expected": "a"}),
    *(("name", bad, {}) for bad in ("", "A", "-a", "a-", "a b", "a\n", "a/b", "..", "a" * 65, "\u0131", 1)),
    *(("media_type", bad, {}) for bad in ("text", "text/", "/csv", "text/csv\n", "Text/csv", "text/csv; a=b", 1)),
    *(
        ("digest", bad, {})
        for bad in ("", "sha256:", "sha256:" + "0" * 63, "sha256:" + "A" * 64, "sha256:" + "0" * 64 + "\n", 1)
    ),
    *(("integer", bad, {"low": 1, "high": 2}) for bad in (0, 3, True, 1.0, "1", None)),
    *(("boolean", bad, {}) for bad in (0, 1, "true", None)),
    *(("hex", bad, {"size": 2}) for bad in ("00", "00FF", "00f", "00ff00", "0x00", "00 f", "00f\n", 1)),
    *(("base64", bad, {"max_bytes": 2}) for bad in ("AAAA", "AAA", "A", "AAB=", "AAA=AAA=", 1)),
    *(("items", bad, {"parse": str, "low": 1, "high": 2}) for bad in ([], [1, 2, 3], "ab", {"a": 1}, None)),
    *(("names", bad, {}) for bad in (["b", "a"], ["a", "a"], ["A"], [1], "ab", {"a": 1})),
]


@pytest.mark.parametrize(("method", "value", "options", "expected"), GOOD)
def test_a_field_of_its_type_is_read(method: str, value: object, options: dict[str, Any], expected: object) -> None:
    assert read(method, value, **options) == expected


@pytest.mark.parametrize(("method", "value", "options"), BAD)
def test_a_field_of_another_type_is_refused(method: str, value: object, options: dict[str, Any]) -> None:
    with pytest.raises(BadField, match=r"^thing\.x"):
        read(method, value, **options)


@pytest.mark.parametrize("method", ["any", "text", "name", "integer", "boolean", "base64", "digest"])
def test_a_missing_field_is_refused(method: str) -> None:
    with pytest.raises(BadField, match="is missing"):
        getattr(Fields({}, "thing"), method)("x")


def test_an_optional_field_may_be_null_but_not_missing() -> None:
    with pytest.raises(BadField, match="is missing"):
        Fields({}, "thing").optional("x", str)


def test_a_field_left_over_is_refused() -> None:
    f = Fields({"x": 1, "y" * 100: 2}, "thing")
    assert f.has("x")
    f.integer("x")
    assert not f.has("x")
    with pytest.raises(BadField, match=r"unknown member 'y{40}'"):
        f.end()


def test_a_field_is_read_once() -> None:
    f = Fields({"x": 1}, "thing")
    f.integer("x")
    with pytest.raises(BadField):
        f.integer("x")


@pytest.mark.parametrize("value", [None, [], "x", 1])
def test_what_is_no_object_has_no_fields(value: object) -> None:
    with pytest.raises(BadField, match="thing is not an object"):
        Fields(value, "thing")


# --- envelopes ------------------------------------------------------------------------------------------------------


@given(envelopes)
def test_envelope_round_trip(envelope: Envelope) -> None:
    assert Envelope.parse(envelope.encode()) == envelope
    assert envelope.digest == wire.digest(envelope.payload)
    assert envelope.expect(envelope.payload_type) == envelope.payload


@given(envelopes, st.data())
def test_envelope_malleability(envelope: Envelope, data: st.DataObject) -> None:
    encoded = bytearray(envelope.encode())
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = Envelope.parse(bytes(encoded))
    except WireError:
        return
    assert found.encode() == bytes(encoded)
    assert found != envelope


@given(st.binary(max_size=32), st.integers(min_value=0), st.integers(1, 255))
def test_no_byte_of_a_signed_envelope_can_be_changed(payload: bytes, at: int, flip: int) -> None:
    kind = wire.media_type("proposal")
    encoded = bytearray(KEY.sign(kind, payload).encode())
    encoded[at % len(encoded)] ^= flip
    with pytest.raises(StrongroomError):
        KEY.public.verify(Envelope.parse(bytes(encoded)), kind)


@given(st.tuples(texts, st.binary(max_size=16)), st.tuples(texts, st.binary(max_size=16)))
def test_no_two_documents_are_signed_as_the_same_bytes(one: tuple[str, bytes], other: tuple[str, bytes]) -> None:
    assert (wire.pae(*one) == wire.pae(*other)) == (one == other)


def test_another_type_is_refused() -> None:
    envelope = KEY.sign(wire.media_type("proposal"), b"{}")
    with pytest.raises(BadEnvelope):
        envelope.expect(wire.media_type("release"))


def test_a_document_is_known_by_its_payload_and_not_by_who_signed_it() -> None:
    envelope = KEY.sign(wire.media_type("proposal"), b"{}")
    assert replace(envelope, signatures=()).digest == envelope.digest == wire.digest(b"{}")


def test_media_type() -> None:
    assert wire.media_type("proposal") == "application/vnd.strongroom.proposal.v1+json"


def test_the_example_of_the_specification() -> None:
    page = (Path(__file__).parents[1] / "spec" / "wire.md").read_text(encoding="utf-8").split("## Example")[1]
    envelope, payload = [block.removeprefix("json\n").strip().encode() for block in page.split("```")[1:4:2]]
    key = VerifyKey(bytes.fromhex(page.split("in hex: `")[1].split("`")[0]))
    assert key.verify(Envelope.parse(envelope), wire.media_type("proposal")) == payload


# --- vectors --------------------------------------------------------------------------------------------------------


def run(case: dict[str, Any]) -> None:
    match case["operation"]:
        case "decode":
            data = base64.b64decode(case["data"])
            assert wire.encode(wire.decode(data)) == data
        case "encode":
            assert wire.encode(case["value"]).decode() == case["canonical"]
        case "base64":
            assert wire.b64(wire.unb64(case["text"])) == case["text"]
        case "pae":
            assert wire.pae(case["payload_type"], bytes.fromhex(case["payload"])).hex() == case["encoded"]
        case "envelope":
            assert Envelope.parse(case["envelope"].encode()).encode().decode() == case["envelope"]
        case "verify":
            envelope = Envelope.parse(case["envelope"].encode())
            key = VerifyKey(bytes.fromhex(case["key"]))
            assert key.verify(envelope, case["payload_type"]) == envelope.payload
        case _:
            pytest.fail("an operation that this test does not know")


def test_there_are_vectors() -> None:
    assert len(VECTORS) > 70


@pytest.mark.parametrize("path", VECTORS, ids=lambda p: p.stem)
def test_vector(path: Path) -> None:
    case = json.loads(path.read_bytes())
    if case["expect"] == "ok":
        run(case)
        return
    with pytest.raises(StrongroomError) as caught:
        run(case)
    assert caught.value.code == case["expect"]
