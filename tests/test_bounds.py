"""No bytes within a format's cap take much room, hang a reader, or raise anything but an error of ours.

How long each reading takes is measured in ``bench/bounds.py`` (the goal is 100 ms); here it must only end.
"""

from __future__ import annotations

import ast
import time
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import hostile
import pki_dstack
import pki_nvidia
import test_composite
from hostile import MOST_MEMORY, PARSERS, attacks, resident
from strongroom import wire
from strongroom.attest.appraisal_policy import AppraisalPolicy
from strongroom.attest.dstack_kms import Custody, root_of
from strongroom.attest.endorsements import OCSP_RESPONSE
from strongroom.attest.ocsp import Response
from strongroom.errors import BadEndorsement, BadEvidence, StrongroomError

SOURCE = Path(__file__).parents[1] / "src" / "strongroom"
ENDS_S = 10.0  # of the processor, a hundred times the goal: what this stops takes for ever
REREAD = 8  # of one parser's hostile bytes, the slowest: they are read again, and what that takes in memory is measured
# Functions that read bytes and are in no row of their own, and why.
ELSEWHERE = {
    "azure.AzurePlatform.parse": "azure_claims.parse, behind the platform's name",
    "nitro.parse": "nitro_document.parse under the platform's name",
}


@pytest.mark.parametrize("name", PARSERS)
def test_hostile_bytes_are_read_or_refused_within_bounds(name: str):
    parser, slow = PARSERS[name], []
    for what, data in attacks(parser):
        took = hostile.seconds(parser, data, clock=time.process_time)  # what is no error of ours escapes from here
        assert took < ENDS_S, (what, took)
        slow = sorted([*slow, (took, what, data)], key=lambda one: -one[0])[:REREAD]
    for _, what, data in slow:
        assert hostile.allocated(parser, data) < MOST_MEMORY, what
    _, what, data = slow[0]
    assert (resident(parser, data) or 0) < MOST_MEMORY, what


@pytest.mark.parametrize("name", PARSERS)
def test_more_bytes_than_the_cap_are_refused(name: str):
    """The caps of the table are those of the code: one byte more, of what would else be read, is none too few."""
    parser = PARSERS[name]
    good = parser.good()
    if not parser.refuses:
        return
    assert len(good) <= parser.most
    if good:
        parser.read(good)
    with pytest.raises(StrongroomError):
        parser.read((good or b"x") + b" " * (parser.most + 1 - len(good)))


def readers(path: Path) -> set[str]:
    """The functions of a module that are called ``parse``, as ``module.parse`` or ``module.Class.parse``."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and (node.name == "parse" or node.name.startswith("from_")):
            found.add(f"{path.stem}.{node.name}")
        elif isinstance(node, ast.ClassDef):
            functions = (inner for inner in node.body if isinstance(inner, ast.FunctionDef) and inner.name == "parse")
            found |= {f"{path.stem}.{node.name}.{inner.name}" for inner in functions}
    return found


def test_every_parser_of_evidence_and_endorsements_has_its_row():
    covered = {function for parser in PARSERS.values() for function in parser.covers}
    modules = [*(SOURCE / "attest").glob("*.py"), *(SOURCE / "app" / "endorsements").glob("*.py")]
    found = set().union(*map(readers, modules))
    assert len(found) > 30
    assert found - covered - set(ELSEWHERE) == set()


# --- parsers whose laws are told nowhere else --------------------------------------------------------------------------

POLICY = test_composite.WITH_GPUS.encode()
OCSP = next(d.data for d in pki_nvidia.World().endorsements.documents if d.media_type == OCSP_RESPONSE)


def changed(data: st.DataObject, original: bytes) -> bytes:
    at = data.draw(st.integers(0, len(original) - 1))
    put = data.draw(st.binary(max_size=3))
    return original[:at] + put + original[at + data.draw(st.integers(0, 4)) :]


@given(st.data())
def test_a_changed_policy_is_refused_or_is_what_it_says(data: st.DataObject):
    """A policy is its bytes: two spellings of one would have two digests, and an owner signs the digest."""
    assert AppraisalPolicy.parse(POLICY).encode() == POLICY
    other = changed(data, POLICY)
    try:
        found = AppraisalPolicy.parse(other)
    except StrongroomError:
        return
    assert found.encode() == other


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
MEMBERS = sorted(test_composite.WITH_GPUS.to_json())


@given(st.sampled_from(MEMBERS), JSONS)
def test_a_member_of_a_policy_that_is_anything_is_refused_or_kept(member: str, value: object):
    written = wire.encode({**test_composite.WITH_GPUS.to_json(), member: value})
    try:
        found = AppraisalPolicy.parse(written)
    except StrongroomError:
        return
    assert found.encode() == written


@given(st.binary(max_size=400))
def test_no_bytes_are_an_ocsp_response(data: bytes):
    with pytest.raises(BadEndorsement):
        Response(data)


@given(st.data())
def test_a_changed_ocsp_response_is_refused_or_is_another(data: st.DataObject):
    original, other = Response(OCSP), changed(data, OCSP)
    try:
        found = Response(other)
    except BadEndorsement:
        return
    assert found.der == other
    assert (found == original) == (other == OCSP)


KMS = (pki_dstack.KMS_ROOT.public_key.format(),)


def custody(**changes: object) -> Custody:
    (said,) = pki_dstack.key_custody()["keys"]
    first, second = map(bytes.fromhex, said["signature_chain"])
    found = {
        "role": said["role"],
        "purpose": said["purpose"],
        "public_key": bytes.fromhex(said["public_key"]),
        "kms_public_key": bytes.fromhex(said["kms_public_key"]),
        "signatures": (first, second),
        **changes,
    }
    return Custody(**found)  # type: ignore[arg-type]


@given(st.data())
def test_no_changed_custody_leads_to_the_root(data: st.DataObject):
    """The purpose, the key, the app and both signatures are what the chain binds: none of them can be another."""
    good = custody()
    assert root_of(good, pki_dstack.APP_ID, KMS) == KMS[0]
    name = data.draw(st.sampled_from(["purpose", "kms_public_key", "first", "second", "app"]))
    first, second = good.signatures
    original = {"first": first, "second": second, "app": pki_dstack.APP_ID, "purpose": good.purpose.encode()}
    other = changed(data, original.get(name, good.kms_public_key))
    assume(other != original.get(name, good.kms_public_key))
    changes: dict[str, object] = {
        "first": {"signatures": (other, second)},
        "second": {"signatures": (first, other)},
        "purpose": {"purpose": other.decode("latin-1")},
        "kms_public_key": {"kms_public_key": other},
        "app": {},
    }[name]
    with pytest.raises(StrongroomError):
        root_of(custody(**changes), other if name == "app" else pki_dstack.APP_ID, KMS)


@given(st.binary(min_size=65, max_size=65), st.binary(min_size=65, max_size=65))
def test_no_signatures_of_anybody_lead_to_the_root(first: bytes, second: bytes):
    with pytest.raises(StrongroomError):
        root_of(custody(signatures=(first, second)), pki_dstack.APP_ID, KMS)


@given(st.text(max_size=200), st.binary(max_size=70), st.binary(max_size=70))
def test_a_custody_of_other_lengths_is_bad_evidence(purpose: str, key: bytes, signature: bytes):
    for changes in ({"purpose": purpose}, {"kms_public_key": key}, {"signatures": (signature, signature)}):
        try:
            found = custody(**changes)
        except BadEvidence:
            continue
        assert 1 <= len(found.purpose) <= 128
        assert len(found.kms_public_key) == 33
        assert {len(one) for one in found.signatures} == {65}
