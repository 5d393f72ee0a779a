"""What code did on mocks: written down strictly, sent along by who wants to, shown as a claim, and compared."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbox_case import Desk, bundle
from strongroom import wire
from strongroom.app.client import trials
from strongroom.app.client.analysis import Tried
from strongroom.app.client.draft import Change
from strongroom.app.client.room import Room
from strongroom.contract import Proposal
from strongroom.errors import BadField, CodeMismatch, NotFound, StrongroomError, Usage
from strongroom.trial import MAX_CONTENT_BYTES, MAX_LOG, MAX_WHY, Shown, Trial, fitting

HOME = Path(__file__).parents[1]
VECTORS = sorted((HOME / "vectors" / "trial").glob("*.json"))
MEAN = b'{"mean":41}'


def maker() -> ModuleType:
    found = spec_from_file_location("make_trial", HOME / "vectors" / "make_trial.py")
    assert found is not None
    assert found.loader is not None
    module = module_from_spec(found)
    found.loader.exec_module(module)
    return module


# --- the document -----------------------------------------------------------------------------------------------------


def test_there_are_vectors_and_they_are_those_that_are_made() -> None:
    assert {path.stem: json.loads(path.read_bytes()) for path in VECTORS} == maker().cases()


@pytest.mark.parametrize("path", VECTORS, ids=lambda p: p.stem)
def test_every_vector_has_the_outcome_that_it_says(path: Path) -> None:
    case = json.loads(path.read_bytes())
    data = wire.unb64(case["trial"])
    if case["expect"] == "ok":
        assert Trial.parse(data).encode() == data
        return
    with pytest.raises(StrongroomError) as caught:
        Trial.parse(data)
    assert caught.value.code == case["expect"]


def test_the_page_shows_what_the_vector_holds() -> None:
    page = (HOME / "spec" / "trial.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    case = json.loads((HOME / "vectors" / "trial" / "ok.json").read_bytes())
    assert wire.encode(json.loads(example)) == wire.unb64(case["trial"])


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), st.binary(max_size=200)), st.text(max_size=50))
def test_it_is_read_as_it_is_written(outputs: dict[str, bytes], log: str) -> None:
    shown = fitting({name: ("values", data) for name, data in outputs.items()})
    text = log.encode("utf-8", "replace").decode()
    made = Trial(wire.digest(b""), wire.digest(b"p"), {"census": wire.digest(b"m")}, shown, {}, None, text)
    assert Trial.parse(made.encode()) == made


@given(st.binary(max_size=300))
def test_no_bytes_make_a_trial_by_chance_and_none_break_the_reader(data: bytes) -> None:
    with pytest.raises(StrongroomError):
        Trial.parse(data)


def test_what_is_too_large_to_travel_is_named_by_its_digest() -> None:
    large = bytes(MAX_CONTENT_BYTES)
    shown = fitting({"large": ("table", large), "small": ("values", MEAN)})
    assert (shown["large"].content, shown["small"].content) == (None, MEAN)
    assert shown["large"].digest == wire.digest(large)


def test_bytes_of_another_digest_are_none() -> None:
    with pytest.raises(BadField):
        Shown("values", len(MEAN), wire.digest(b"other"), MEAN)


# --- sent along -------------------------------------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    found = Desk(tmp_path)
    yield found
    found.close()


CODE = bundle("def summarise(data, draws):\n    return {}\n")
PARAMETERS = {"bundle": wire.digest(CODE), "entry": "analysis:summarise"}


def tried_of(proposal: Proposal, **changes: Any) -> Tried:
    said = {"outputs": {"report": MEAN}, "kinds": {"report": "report"}, "inputs": {}, "log": "read\n", **changes}
    return Tried(**{"parameters": proposal.program.parameters, **said})


def claimed(desk: Desk, **changes: Any) -> Proposal:
    """A proposal whose proposer says what its code did."""
    plain = desk.coded(wire.digest(CODE))
    trial = trials.trial_of(tried_of(plain, **changes))
    desk.lab.exchange.put_trial(trial)
    return desk.lab._propose(replace(plain, trial=trial.digest))


def seen(room: Room, proposal: Proposal) -> trials.Claim:
    found = trials.claim_of(room, proposal)
    assert found is not None
    return found


def test_a_reviewer_sees_whose_claim_it_is_and_what_is_claimed(desk: Desk) -> None:
    claim = seen(desk.hospital, claimed(desk))
    assert claim.by == "lab"
    assert claim.doubts == ()
    assert claim.trial is not None
    assert claim.trial.outputs["report"].content == MEAN
    assert trials.claim_of(desk.hospital, desk.coded(wire.digest(CODE))) is None


def test_it_is_said_where_it_is_of_other_code_other_data_or_other_outputs(desk: Desk) -> None:
    other = {"bundle": wire.digest(b"other"), "entry": "analysis:summarise"}
    kinds, outputs = {"extra": "values"}, {"extra": MEAN}
    claim = seen(
        desk.hospital,
        claimed(desk, parameters=other, inputs={"data": wire.digest(b"my own")}, kinds=kinds, outputs=outputs),
    )
    assert len(claim.doubts) == 3
    assert ["code" in claim.doubts[0], "mocks" in claim.doubts[1], "extra" in claim.doubts[2]] == [True] * 3


def test_an_exchange_that_shows_another_claim_is_not_believed(desk: Desk) -> None:
    made = claimed(desk)
    assert made.trial is not None
    path = desk.store.file("trial", made.trial)
    path.write_bytes(trials.trial_of(tried_of(made, outputs={"report": b'{"mean":42}'})).encode())
    with pytest.raises(CodeMismatch):
        desk.hospital.exchange.trial(made.trial)
    claim = seen(desk.hospital, made)
    assert claim.trial is None
    assert "another trial" in claim.doubts[0]


def test_a_claim_that_the_exchange_hides_is_said_to_be_missing(desk: Desk) -> None:
    made = claimed(desk)
    assert made.trial is not None
    desk.store.file("trial", made.trial).unlink()
    assert "not_found" in seen(desk.hospital, made).doubts[0]


def test_an_exchange_takes_nothing_else_for_a_trial(desk: Desk) -> None:
    good = trials.trial_of(tried_of(desk.coded(wire.digest(CODE))))
    for data in (b"{}", good.encode()[:-1], CODE):
        with pytest.raises(StrongroomError):
            desk.lab.exchange.client.call("PUT", f"/v1/trials/{wire.digest(data)}", content=data)
    with pytest.raises(BadField):
        desk.lab.exchange.client.call("PUT", f"/v1/trials/{wire.digest(b'other')}", content=good.encode())
    desk.lab.exchange.put_trial(good)
    desk.lab.exchange.put_trial(good)  # twice is once


def test_a_counter_proposal_claims_nothing(desk: Desk) -> None:
    made = claimed(desk)
    found = desk.hospital.counter(made.digest, Change(seconds=77))
    assert (made.trial is None, found.trial) == (False, None)
    with pytest.raises(Usage, match="changes nothing"):
        desk.lab.counter(found.digest, Change())


# --- who sends what ---------------------------------------------------------------------------------------------------


def test_what_was_tried_on_other_data_than_the_signed_mocks_is_not_sent(desk: Desk) -> None:
    mock = desk.folder / "mock.csv"
    mock.write_bytes(b"a,b\n1,2\n")
    manifest = desk.seal(desk.hospital, "other.csv", mock=mock)
    there, own = {"data": wire.digest(mock.read_bytes())}, {"data": wire.digest(b"a,b\n7,7\n")}
    trials.require(trials.trial_of(Tried({}, inputs=there, parameters=PARAMETERS)), PARAMETERS, {"data": manifest})
    for inputs in (own, {}, {**there, "more": wire.digest(b"")}):
        with pytest.raises(Usage, match="mocks"):
            trials.require(trials.trial_of(Tried({}, inputs=inputs, parameters=PARAMETERS)), PARAMETERS, {"data": manifest})


def test_what_was_tried_of_other_code_is_not_sent() -> None:
    made = trials.trial_of(Tried({}, parameters=PARAMETERS))
    for other in ({**PARAMETERS, "bundle": wire.digest(b"other")}, {**PARAMETERS, "entry": "analysis:other"}):
        with pytest.raises(Usage, match="other code"):
            trials.require(made, other, {})
    with pytest.raises(Usage, match="no try"):
        trials.trial_of(Tried({}))


def test_a_try_is_kept_in_a_file_and_read_from_it(tmp_path: Path) -> None:
    tried = Tried({"mean": MEAN}, {"plot": "x" * 1000}, None, "y" * 40_000, kinds={"mean": "values"}, parameters=PARAMETERS)
    made = trials.keep(tried, tmp_path / "tried.json")
    assert trials.load(tmp_path / "tried.json") == made == trials.load(tried)
    assert (len(made.log), len(made.refused["plot"])) == (MAX_LOG, MAX_WHY)
    with pytest.raises(NotFound):
        trials.load(tmp_path / "none.json")
    (tmp_path / "other.json").write_bytes(b"{}")
    with pytest.raises(BadField):
        trials.load(str(tmp_path / "other.json"))


def test_outcomes_are_compared_output_by_output() -> None:
    kinds = {"a": "values", "b": "values", "c": "picture", "d": "picture"}
    theirs = Tried({"a": b"1", "b": b"2"}, {"c": "too large", "d": "too large"}, kinds=kinds, parameters=PARAMETERS)
    mine = Tried({"a": b"1", "b": b"3", "d": b"png"}, {"c": "for another reason"})
    found = trials.compare(trials.trial_of(theirs), mine)
    assert found == {"a": "same", "b": "different", "c": "same", "d": "different"}
    failed = trials.trial_of(Tried({}, failure="program.crashed", parameters=PARAMETERS))
    assert trials.compare(failed, mine)["a"] == "different"


def test_a_stand_in_is_hashed_piece_by_piece_and_left_at_its_beginning() -> None:
    from strongroom.app.client.analysis import _file_digest

    file = io.BytesIO(bytes(3 << 20))
    assert _file_digest(file) == wire.digest(bytes(3 << 20))
    assert file.tell() == 0
