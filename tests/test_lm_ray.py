"""Building and asking on a real Ray cluster of two nodes on this machine: byte for byte what one process makes."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if importlib.util.find_spec("ray") is None or importlib.util.find_spec("faiss") is None:
    pytest.skip("Ray or faiss is not installed: make cluster", allow_module_level=True)

import lm_case
from ray_nodes import OURS, two_nodes
from strongroom.lm.datastore import Datastore
from strongroom.lm.lists import folder_of

SCRIPT = """
import os, sys
from pathlib import Path
import numpy as np
import lm_case
from strongroom.app.stores.cluster import Cluster
from strongroom.errors import StrongroomError
from strongroom.lm.datastore import Datastore
from strongroom.lm.lists import Queries, folder_of, listed
from strongroom.lm.texts import Texts

address, verb, place, file = sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
if verb == "ask":
    store = Datastore.open(place)
    source = store.source("law")
    tokens = np.stack([source.document(i % source.manifest.documents)[:64] for i in range(50)])
    queries = Queries(tokens, 3, np.asarray([store.document_key("law", i % source.manifest.documents) for i in range(50)]))
    if address == "alone":
        listed(store, queries, folder_of(place))
    else:
        Cluster(address).ask(place, queries, folder_of(place), pieces=4)
else:
    try:
        print(Cluster(address).build(place, lm_case.about("law"), Texts.of([file]), pieces=5).digest)
    except StrongroomError as error:
        print(error.code)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with two_nodes(tmp_path_factory.mktemp("ray")) as (address, _):
        yield address


def on(cluster: str, verb: str, place: Path, file: Path) -> str:
    """In a process of its own, which ends with its connection."""
    environment = {**os.environ, **OURS, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", SCRIPT, cluster, verb, str(place), str(file)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_a_source_built_on_two_nodes_is_that_of_one_process(cluster: str, tmp_path: Path) -> None:
    one, two = lm_case.store(tmp_path / "one"), lm_case.store(tmp_path / "two")
    manifest = lm_case.source(one, "law", documents=40)
    file = tmp_path / "law-0.jsonl"
    assert on(cluster, "build", two, file) == manifest.digest
    assert lm_case.tree(two) == lm_case.tree(one)
    on("alone", "ask", one, file)
    on(cluster, "ask", two, file)
    lists = lm_case.tree(folder_of(one))
    assert lists
    assert lm_case.tree(folder_of(two)) == lists


def test_a_bad_document_on_a_node_is_the_same_error(cluster: str, tmp_path: Path) -> None:
    place = lm_case.store(tmp_path / "one")
    file = lm_case.lines(tmp_path / "a.jsonl", [*lm_case.texts("law", 30), ""])
    assert on(cluster, "build", place, file) == "datastore.empty_document"
    assert Datastore.open(place).names == []
