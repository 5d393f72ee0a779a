"""Shared keys with real processes, what takes longest: every step at which a refresh is killed, every way to lie.

``make soak`` runs it; ``tests/test_sharing.py`` is the rest.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from sharing_stage import BROKEN_OFF, LATE, ONE_BIT, SOMEBODY_ELSES, Sharing, killed_and_repaired, parts
from stage import spawn
from strongroom.asset import Manifest
from strongroom.attest.simulated import LABEL
from strongroom.errors import TooFewShares, Usage


@pytest.mark.parametrize("where", BROKEN_OFF)
def test_a_refresh_that_is_killed_anywhere_loses_nothing(shared: Sharing, often: tuple[Manifest, str], where: str) -> None:
    killed_and_repaired(shared, often, where)


def test_nothing_is_recalled_while_too_few_brokers_answer(shared: Sharing, often: tuple[Manifest, str]) -> None:
    records, contract = often
    shared.kill("clinic")
    shared.kill("notary")
    said = shared.stage.cli("broker", "refresh", records.name, party="hospital")
    assert (said.status, said.code) == (1, TooFewShares.code)
    shared.start("clinic")
    assert len(parts(shared.run(contract))) == 2  # the union was not asked to give nothing more


@pytest.mark.parametrize("how", [ONE_BIT, SOMEBODY_ELSES, LATE], ids=["one-bit", "somebody-elses", "late"])
def test_what_a_broker_that_lies_answers_stops_nothing_while_t_are_honest(
    shared: Sharing, often: tuple[Manifest, str], how: str
) -> None:
    _, contract = often
    shared.lie(how, "notary")
    if how == SOMEBODY_ELSES:
        shared.run(contract)  # what it answers to this run, it answers to every other
    assert {index for _, index, _ in parts(shared.run(contract))} == {1, 3}


def test_receipts_of_honest_brokers_prove_nothing(shared: Sharing, often: tuple[Manifest, str]) -> None:
    _, contract = often
    shared.run(contract)
    assert shared.verb("check", contract)["lies"] == []


def test_the_demo_of_shared_keys_tells_its_story(tmp_path: Path) -> None:
    said = spawn("demo", "--brokers", "2-of-3", "--folder", "demo", "--json", cwd=tmp_path)
    assert said.status == 0, said.err
    assert (said.json["alone"], said.json["platform"]) == (TooFewShares.code, LABEL)
    assert spawn("demo", "--brokers", "2-of-2", cwd=tmp_path).code == Usage.code
