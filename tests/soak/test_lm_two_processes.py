"""Data parallel under torchrun: two real processes learn what one does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'strongroom[lm]'")
pytest.importorskip("faiss", reason="needs faiss: pip install 'strongroom[store]'")

TESTS = Path(__file__).parent.parent
sys.path.insert(0, str(TESTS))

import lm_case  # noqa: E402
import test_lm_training as cases  # noqa: E402
from strongroom.lm import training  # noqa: E402


@pytest.fixture
def place(tmp_path: Path) -> Path:
    found = lm_case.store(tmp_path / "store")
    for name in ("cells", "public"):
        lm_case.source(found, name)
    return found


def test_two_processes_learn_what_one_does(place: Path, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(TESTS)!r})\n"
        "import torch\nfrom pathlib import Path\nimport test_lm_training as t\nfrom strongroom.lm import training\n"
        "if __name__ == '__main__':\n"
        "    torch.set_num_threads(1)\n"
        "    torch.distributed.init_process_group('gloo')\n"
        "    team = training.Team(torch.distributed.get_rank(), torch.distributed.get_world_size())\n"
        "    training.train(Path(sys.argv[1]), Path(sys.argv[2]), t.SHAPE, t.PLAN, t.settings(8), often=8, team=team)\n"
        "    torch.distributed.destroy_process_group()\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script]
    subprocess.run([*command, tmp_path / "two", place], check=True, capture_output=True)
    training.train(tmp_path / "one", place, cases.SHAPE, cases.PLAN, cases.settings(8), often=8)
    assert cases.final(tmp_path / "two")["loss"] == pytest.approx(cases.final(tmp_path / "one")["loss"], abs=1e-3)
