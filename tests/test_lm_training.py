"""Training against a store: batches that nothing stale gets into, checkpoints, a kill, two processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'strongroom[lm]'")
pytest.importorskip("faiss", reason="needs faiss: pip install 'strongroom[store]'")

import lm_case  # noqa: E402
from strongroom.errors import BadTraining, OtherTraining  # noqa: E402
from strongroom.lm import training, weights  # noqa: E402
from strongroom.lm.batches import Ahead, Plan, Supply, alike, precompute  # noqa: E402
from strongroom.lm.datastore import Datastore  # noqa: E402
from strongroom.lm.evaluation import measure  # noqa: E402
from strongroom.lm.gates import Shape  # noqa: E402

SHAPE = Shape(vocabulary=400, width=16, heads=2, feed_forward=32, layers=1, context=64, key=8, every=32, neighbours=2)
PLAN = Plan(("cells", "public"), windows=4, window=64, neighbours=2)
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = lm_case.store(tmp_path_factory.mktemp("training") / "store")
    for name in ("law", "cells", "public"):
        lm_case.source(found, name)
    return found


def settings(steps: int, **more: object) -> training.Settings:
    return training.Settings(steps, half=False, **({"workers": 0, "save": 2} | more))  # type: ignore[arg-type]


def final(folder: Path) -> dict[str, float]:
    return json.loads((folder / "losses.jsonl").read_text().splitlines()[-1])  # type: ignore[no-any-return]


# --- batches --------------------------------------------------------------------------------------------------------


def test_a_document_is_never_its_own_neighbour(place: Path) -> None:
    store = Datastore.open(place)
    supply = Supply(store, Plan(("cells",), window=64, neighbours=2, random=0, strange=0))
    source = store.source("cells")
    for number in range(6):
        for row in range(4):
            name, start = supply.drawn(number, row)
            passages, _ = supply.search(name, start)
            own = np.searchsorted(source.documents, np.array([start, start + 32], np.uint64), side="right") - 1
            theirs = source.document_of(passages)
            assert not ((theirs == own[:, None]) & (passages >= 0)).any()


def test_a_batch_is_a_function_of_plan_version_and_number(place: Path) -> None:
    one, other = (Supply(Datastore.open(place), PLAN).batch(3) for _ in range(2))
    assert np.array_equal(one.tokens, other.tokens)
    assert np.array_equal(one.neighbours, other.neighbours)
    assert np.array_equal(one.scores, other.scores)


def test_what_was_searched_for_beforehand_is_what_is_found_on_the_fly(place: Path, tmp_path: Path) -> None:
    store = Datastore.open(place)
    precompute(store, PLAN, 3, tmp_path / "kept")
    kept = Supply(store, PLAN, tmp_path / "kept")
    for number in range(3):
        one, other = kept.batch(number), Supply(store, PLAN).batch(number)
        assert np.array_equal(one.neighbours, other.neighbours)
        assert np.array_equal(one.scores, other.scores)
    with pytest.raises(OtherTraining):
        kept.batch(3)


def test_neighbours_of_another_version_of_the_store_are_refused(place: Path, tmp_path: Path) -> None:
    store = Datastore.open(place)
    precompute(store, PLAN, 1, tmp_path / "kept")
    with pytest.raises(OtherTraining):
        Supply(store.without("law"), PLAN, tmp_path / "kept")
    with pytest.raises(OtherTraining), Ahead(place, "sha256:" + "0" * 64, PLAN, 0, 2, workers=1) as batches:
        next(iter(batches))


def test_processes_ahead_give_the_batches_in_their_order(place: Path) -> None:
    store = Datastore.open(place)
    with Ahead(place, store.version, PLAN, 2, 6, workers=2) as batches:
        found = list(batches)
    assert [batch.number for batch in found] == [2, 3, 4, 5]
    assert np.array_equal(found[2].neighbours, Supply(store, PLAN).batch(4).neighbours)


def test_copies_of_what_is_read_are_left_out(place: Path) -> None:
    read = np.arange(2, 130)[None]
    near = np.stack([read[0], np.arange(200, 328), np.concatenate([read[0][:64], np.zeros(64)])])[None].astype(int)
    assert alike(near, read)[0].tolist() == [1.0, 0.0, 1.0]
    store = Datastore.open(place)
    strict = Supply(store, Plan(("cells",), window=64, neighbours=2, random=0, strange=0, alike=0)).batch(0)
    loose = Supply(store, Plan(("cells",), window=64, neighbours=2, random=0, strange=0)).batch(0)
    assert (strict.scores == -1).sum() > (loose.scores == -1).sum()


@pytest.mark.parametrize(
    "wrong",
    [
        {"sources": ()},
        {"sources": ("a", "a")},
        {"window": 40},
        {"random": 800, "strange": 300},
        {"alike": 1001},
        {"windows": 0},
    ],
)
def test_a_plan_that_is_none_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(BadTraining):
        Plan(**({"sources": ("cells",)} | wrong))  # type: ignore[arg-type]


# --- training -------------------------------------------------------------------------------------------------------


def test_it_learns_and_draws_its_curve(place: Path, tmp_path: Path) -> None:
    told: list[training.Said] = []
    path = training.train(tmp_path, place, SHAPE, PLAN, settings(40), said=told.append, often=10)
    assert told[-1].own < told[0].own - 0.2
    model, about = weights.load(path)
    assert about.tokenizer == Datastore.open(place).tokenizer.digest
    assert training.curve(tmp_path).read_bytes().startswith(b"\x89PNG")
    tokens = Datastore.open(place).source("law").tokens
    found = measure(model, Datastore.open(place), tokens, most=4)
    shown = found.to_json()
    assert {"off", "on", "random", "swapped", "without law", "only law"} <= set(shown["ways"])
    assert shown["ways"]["off"]["gain"] == [0.0, 0.0, 0.0]


def test_a_training_that_went_on_has_the_loss_of_one_that_did_not_stop(place: Path, tmp_path: Path) -> None:
    training.train(tmp_path / "whole", place, SHAPE, PLAN, settings(10), often=5)

    class Stopped(Exception):
        pass

    def stop(said: training.Said) -> None:
        if said.step == 5:
            raise Stopped

    with pytest.raises(Stopped):
        training.train(tmp_path / "parts", place, SHAPE, PLAN, settings(10), said=stop, often=5)
    training.train(tmp_path / "parts", place, SHAPE, PLAN, settings(10), often=5)
    assert final(tmp_path / "parts")["loss"] == final(tmp_path / "whole")["loss"]
    assert (tmp_path / "parts" / training.MODEL).read_bytes() == (tmp_path / "whole" / training.MODEL).read_bytes()


def test_a_killed_training_goes_on_to_the_same_model(place: Path, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(HERE)!r})\n"
        "from pathlib import Path\nimport test_lm_training as t\nfrom strongroom.lm import training\n"
        "if __name__ == '__main__':\n"
        "    training.train(Path(sys.argv[1]), Path(sys.argv[2]), t.SHAPE, t.PLAN, t.settings(int(sys.argv[3])), often=4)\n"
    )
    folder = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, script, folder, place, "40"])
    while not (folder / "checkpoint").exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / training.MODEL).exists()
    training.train(folder, place, SHAPE, PLAN, settings(40), often=4)
    training.train(tmp_path / "whole", place, SHAPE, PLAN, settings(40), often=4)
    assert (folder / training.MODEL).read_bytes() == (tmp_path / "whole" / training.MODEL).read_bytes()


def test_a_killed_training_leaves_no_process_behind(place: Path) -> None:
    script = (
        f"import sys, time; sys.path.insert(0, {str(HERE)!r})\n"
        "from pathlib import Path\nimport test_lm_training as t\n"
        "from strongroom.lm.batches import Ahead\nfrom strongroom.lm.datastore import Datastore\n"
        "if __name__ == '__main__':\n"
        "    place = Path(sys.argv[1])\n"
        "    with Ahead(place, Datastore.open(place).version, t.PLAN, 0, 1000) as batches:\n"
        "        next(iter(batches))\n"
        "        print(batches._processes[0].pid, flush=True)\n"
        "        time.sleep(600)\n"
    )
    file = place.parent / "ahead.py"
    file.write_text(script)
    with subprocess.Popen([sys.executable, file, place], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        process.kill()
        process.wait()
    while running(worker):
        time.sleep(0.05)


def running(process: int) -> bool:
    """Whether a process runs; one that nobody asked how it ended does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_another_training_or_another_version_is_refused(place: Path, tmp_path: Path) -> None:
    training.train(tmp_path, place, SHAPE, PLAN, settings(2))
    with pytest.raises(OtherTraining):
        training.train(tmp_path, place, SHAPE, PLAN, settings(3))
    (tmp_path / "checkpoint").write_bytes(b"\x00" * 40)
    with pytest.raises(OtherTraining):
        training.train(tmp_path, place, SHAPE, PLAN, settings(2))
