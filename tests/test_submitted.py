"""Submitted code on its way into a room: what was approved runs, with approved packages, or no key is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from strongroom import wire
from strongroom.app.enclave import submitted as module
from strongroom.app.enclave.environments import Environments
from strongroom.app.enclave.submitted import KEPT, Submitted
from strongroom.app.enclave.wheels import Place
from strongroom.code import CodeBundle
from strongroom.contract import AssetRef, Contract, Output, ProgramRef
from strongroom.enclave.run import OpenInput
from strongroom.enclave.sandbox import Mounted
from strongroom.errors import (
    BadBundle,
    BadEntry,
    CodeMismatch,
    EnvironmentMismatch,
    NotPermitted,
    NoWheel,
    ProgramCrashed,
    StrongroomError,
)
from strongroom.policy import ANY_PARTY, OutputRule, Policy
from strongroom.receipt import verify
from strongroom.schema import ANY_SCHEMA, Numeric, Object
from wheel_files import wheel
from world import CANARY, PROGRAM, FakeConfinement, World

RULE = OutputRule(frozenset({"hospital", "lab"}), 1 << 20, 1, 15, schema=Object({"mean": Numeric(0, 1)}))
TERMS = Policy(frozenset({"analyse"}), {"values": OutputRule(ANY_PARTY, 1 << 20, 1, 15, schema=ANY_SCHEMA)})
BUNDLE = CodeBundle({"analysis.py": "def f(data):\n    return {'out': 1}\n"})
LOCK = "alpha==1.0 --hash=sha256:" + "0" * 64
DIGEST = "sha256:" + "1" * 64


@pytest.fixture
def world() -> World:
    return World(terms={"data": TERMS})


def said(bundle: CodeBundle = BUNDLE, **changes: Any) -> dict[str, Any]:
    return {
        "arguments": {},
        "bundle": bundle.digest,
        "entry": "analysis:f",
        "environment": bundle.environment,
        "inputs": {"data": "file"},
        "outputs": {"out": "values"},
        **changes,
    }


def agreed(world: World, parameters: Mapping[str, Any], *, name: str = "code", use: str = "analyse") -> Contract:
    return world.agree(
        program=ProgramRef(name, PROGRAM, use, dict(parameters)),
        assets=(AssetRef("data", "hospital", world.assets["data"][0].digest),),
        outputs=(Output("out", "values", RULE),),
        policy=Policy(frozenset({use}), {"values": RULE}),
    )


def analysis(inputs: Mapping[str, OpenInput]) -> Mapping[str, bytes]:
    assert CANARY in inputs["data"].file.read()
    return {"out": b'{"mean":0.5}'}


def confinement(code: str | None = BUNDLE.digest, environment: str | None = None) -> FakeConfinement:
    return FakeConfinement(analysis, code_digest=code, environment=environment)


# --- what the enclave compares before it asks for a key -------------------------------------------------------------


def test_code_that_was_approved_runs(world: World) -> None:
    contract = agreed(world, said())
    statement = verify(world.run(contract, confinement=confinement()), trust=World.trust()).statement
    assert statement.failure is None
    assert [o.output.name for o in statement.outputs] == ["out"]


def refused(world: World, contract: Contract, error: type[StrongroomError], **held: Any) -> None:
    with pytest.raises(error):
        world.run(contract, confinement=confinement(**held))
    assert all(not broker.asked and not broker.decisions for broker in world.brokers.values())  # nobody was asked for a key


def test_the_sandbox_holds_another_bundle_than_was_approved(world: World) -> None:
    refused(world, agreed(world, said()), CodeMismatch, code=DIGEST)


def test_the_sandbox_holds_no_bundle(world: World) -> None:
    refused(world, agreed(world, said()), CodeMismatch, code=None)


def test_a_bundle_is_slipped_into_a_standard_program(world: World) -> None:
    contract = agreed(world, {"target": "x"}, name="evaluate", use="evaluate")
    refused(world, contract, CodeMismatch, code=BUNDLE.digest)
    refused(world, contract, EnvironmentMismatch, code=None, environment=DIGEST)


def test_the_packages_are_those_of_another_lock(world: World) -> None:
    locked = CodeBundle.make({"analysis.py": b""}, LOCK)
    contract = agreed(world, said(locked))
    refused(world, contract, EnvironmentMismatch, code=locked.digest, environment=None)
    refused(world, contract, EnvironmentMismatch, code=locked.digest, environment=DIGEST)


def test_packages_are_there_though_none_were_approved(world: World) -> None:
    refused(world, agreed(world, said()), EnvironmentMismatch, environment=DIGEST)


def test_a_contract_that_names_no_code_for_the_program_that_runs_it(world: World) -> None:
    refused(world, agreed(world, {}), CodeMismatch, code=None)
    refused(world, agreed(world, {"bundle": BUNDLE.digest}), EnvironmentMismatch)


def test_code_makes_one_use_of_the_data(world: World) -> None:
    refused(world, agreed(world, said(), use="code"), NotPermitted)


# --- fetching it, and a child that stands ready ---------------------------------------------------------------------


class FakeSandbox:
    """A child that is none; it may have ended while it stood by."""

    def __init__(self, ended: bool = False) -> None:
        self.ended, self.closed, self.code = ended, 0, b""

    def wait(self) -> None:
        if self.ended:
            raise ProgramCrashed("gone")

    def give(self, code: bytes) -> None:
        self.code = code

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[str, ...], Mounted | None, FakeSandbox]]:
    found: list[tuple[str, tuple[str, ...], Mounted | None, FakeSandbox]] = []

    def prepare(program: str, kind: str, *, outputs: tuple[str, ...], mounted: Mounted | None) -> FakeSandbox:
        assert program == "code"
        found.append((kind, outputs, mounted, FakeSandbox()))
        return found[-1][3]

    monkeypatch.setattr(module.sandbox, "prepare", prepare)
    return found


def taking(served: bytes, tmp_path: Path) -> Submitted:
    return Submitted(lambda _digest: served, Environments(tmp_path / "environments", Place(tmp_path / "wheels")))


def test_the_bytes_that_were_approved_are_given_to_the_child(world: World, prepared: Any, tmp_path: Path) -> None:
    found = taking(BUNDLE.encode(), tmp_path).take(agreed(world, said()))
    assert found.code == BUNDLE.encode()
    assert prepared[0][:3] == ("isolated", ("file", "values"), None)


def test_the_exchange_serves_another_bundle(world: World, prepared: Any, tmp_path: Path) -> None:
    other = CodeBundle({"analysis.py": "def f(data):\n    return {'out': list(data)}\n"})
    with pytest.raises(CodeMismatch):
        taking(other.encode(), tmp_path).take(agreed(world, said()))
    assert not prepared


def test_the_bundle_is_altered_between_approval_and_run(world: World, prepared: Any, tmp_path: Path) -> None:
    served = BUNDLE.encode().replace(b"1", b"2")
    with pytest.raises(CodeMismatch):
        taking(served, tmp_path).take(agreed(world, said()))
    assert not prepared


def test_a_contract_names_the_packages_of_another_lock(world: World, prepared: Any, tmp_path: Path) -> None:
    locked = CodeBundle.make({"analysis.py": b""}, LOCK)
    for environment in (None, DIGEST):
        with pytest.raises(EnvironmentMismatch):
            taking(locked.encode(), tmp_path).take(agreed(world, said(locked, environment=environment)))
    with pytest.raises(EnvironmentMismatch):
        taking(BUNDLE.encode(), tmp_path).take(agreed(world, said(environment=DIGEST)))
    assert not prepared


def test_what_was_approved_and_is_no_bundle_is_not_run(world: World, prepared: Any, tmp_path: Path) -> None:
    data = wire.encode({"files": {"../x": ""}, "format": "strongroom.code.v1", "lock": None})
    with pytest.raises(BadBundle):
        taking(data, tmp_path).take(agreed(world, said(bundle=BUNDLE) | {"bundle": wire.digest(data)}))
    with pytest.raises(BadEntry):
        taking(BUNDLE.encode(), tmp_path).take(agreed(world, said(entry="other:f")))
    assert not prepared


def test_packages_that_cannot_be_had_are_said_before_anything_starts(world: World, prepared: Any, tmp_path: Path) -> None:
    locked = CodeBundle.make({"analysis.py": b""}, LOCK)
    with pytest.raises(NoWheel):
        taking(locked.encode(), tmp_path).take(agreed(world, said(locked)))
    assert not prepared


def test_packages_of_the_lock_are_shown_to_the_child(world: World, prepared: Any, tmp_path: Path) -> None:
    locked = CodeBundle.make({"analysis.py": b""}, wheel(tmp_path / "wheels", "alpha", {"alpha.py": ""}))
    taking(locked.encode(), tmp_path).take(agreed(world, said(locked)))
    mounted = prepared[0][2]
    assert mounted.digest == locked.environment
    assert (Path(mounted.path) / "alpha.py").exists()


def test_a_child_stands_ready_for_what_ran_lately(world: World, prepared: Any, tmp_path: Path) -> None:
    taker, contract = taking(BUNDLE.encode(), tmp_path), agreed(world, said())
    taker.prepare()
    assert not prepared  # nothing ran here yet
    taker.take(contract)
    taker.prepare()
    taker.prepare()
    assert len(prepared) == 2
    assert taker.take(contract) is prepared[1][3]
    assert len(prepared) == 2
    taker.prepare()
    taker.close()
    assert prepared[2][3].closed == 1


def test_a_child_that_ended_while_it_stood_by_costs_nobody_a_run(world: World, prepared: Any, tmp_path: Path) -> None:
    taker, contract = taking(BUNDLE.encode(), tmp_path), agreed(world, said())
    taker.take(contract)
    taker.prepare()
    prepared[1][3].ended = True
    assert taker.take(contract) is prepared[2][3]
    assert prepared[1][3].closed == 1


def test_so_many_stand_ready_and_no_more(world: World, prepared: Any, tmp_path: Path) -> None:
    taker = taking(BUNDLE.encode(), tmp_path)
    for form in ("file", "arrow", "pandas", "polars"):
        taker.take(agreed(world, said(inputs={"data": form})))
        taker.prepare()
    open_now = [one for _, _, _, one in prepared if not one.closed and not one.code]
    assert len(open_now) == KEPT
    taker.close()
    assert all(one.closed for one in open_now)


def test_what_cannot_stand_ready_is_said_when_it_is_needed(
    world: World, prepared: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    taker = taking(BUNDLE.encode(), tmp_path)
    taker.take(agreed(world, said()))

    def none(*_: Any, **__: Any) -> FakeSandbox:
        raise NoWheel("nothing")

    monkeypatch.setattr(module.sandbox, "prepare", none)
    taker.prepare()
    assert "enclave.no_wheel" in caplog.text
    taker.close()
