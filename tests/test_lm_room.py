"""A retrieval model and its sources as a room has them: packed, sealed, opened into memory, in a real child."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch", reason="models that retrieve need strongroom[lm]")
pytest.importorskip("faiss", reason="stores need strongroom[lm]")

from lm_case import about, lines, parts, source, store, texts
from strongroom import lm
from strongroom.app.inference import worker
from strongroom.app.inference.sources import PARTS, Held, Sealed, opened, parts_digest
from strongroom.app.inference.weights import Weights
from strongroom.asset import About, AssetKey, seal
from strongroom.asset.stream import BytesSource
from strongroom.drawing import GRAIN, Drawing, Price
from strongroom.errors import (
    BadManifest,
    DatastoreError,
    EngineRefused,
    ModelUnreadable,
    OtherParts,
    PromptTooLong,
    StoreTruncated,
)
from strongroom.lm.build import build
from strongroom.lm.datastore import Datastore
from strongroom.lm.generation import RetrievalLM
from strongroom.lm.packed import NAMES, Folder, Table, pack
from strongroom.lm.parts import FILES, Parts
from strongroom.lm.request import read
from strongroom.lm.retrieval import Retrieval
from strongroom.lm.seated import Seat
from strongroom.lm.source import check
from strongroom.lm.texts import Texts
from strongroom.policy import Policy
from strongroom.programs import serve_llm

MODEL = Path(lm.__file__).parent / "model" / "retrieval.safetensors"
DIGEST = f"sha256:{hashlib.sha256(MODEL.read_bytes()).hexdigest()}"
KINDS = ("cells", "law")
PROMPT = " ".join(texts("law", 1)[0].split()[:20])  # what stands in law, word for word
SANDBOX = "isolated" if shutil.which("bwrap") else "process"


class Said:
    """What an engine says of one choice."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.rows: list[list[int]] = []
        self.finish: str | None = None

    def text(self, text: str) -> bool:
        self.texts.append(text)
        return False

    def piece(self, delta: dict[str, Any], finish: str | None, logprobs: Any) -> bool:
        self.finish = finish
        return False

    def working(self) -> bool:
        return False

    def drew(self, grains: list[int]) -> bool:
        self.rows.append(grains)
        return False


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Datastore:
    """A store with the parts that ship, and two owners' sources."""
    place = tmp_path_factory.mktemp("store")
    Datastore.create(place / "store", Parts.load(PARTS))
    for kind in KINDS:
        build(place / "store", about(kind), Texts.of([lines(place / f"{kind}.jsonl", texts(kind, 30))]))
    return Datastore.open(place / "store")


@pytest.fixture(scope="module")
def packed(made: Datastore) -> dict[str, bytes]:
    return {name: _packed(made, name) for name in made.names}


def _packed(made: Datastore, name: str) -> bytes:
    sink = io.BytesIO()
    found = made.source(name)
    pack(found.folder, found.manifest, sink)
    return sink.getvalue()


def sealed(name: str, data: bytes, **changes: Any) -> Sealed:
    """A source as an owner seals it, and what opens it."""
    key, sink = AssetKey(bytes(32)), io.BytesIO()
    drawing = Drawing(frozenset({DIGEST}), Price(25, "EUR-micro"))
    said = About(name, "datastore", "application/x", "council", 1, Policy(), drawing=drawing)
    manifest = seal(io.BytesIO(data), sink, key=key, salt=bytes(32), about=said, chunk_bytes=4096)
    given = {
        "name": name,
        "role": name,
        "weights": DIGEST,
        "price": 25,
        "unit": "EUR-micro",
        "token": GRAIN,
        "total": 99 * GRAIN,
    }
    released: Any = SimpleNamespace(manifest=manifest, key=key)
    return Sealed(serve_llm.Source(**(given | changes)), BytesSource(sink.getvalue()), released)


# --- one file -------------------------------------------------------------------------------------------------------


def test_a_packed_source_opens_to_the_same_files(made: Datastore, packed: dict[str, bytes], tmp_path: Path) -> None:
    data = packed["law"]
    table = Table.read(lambda offset, length: data[offset : offset + length], len(data))
    found = made.source("law")
    for name, (offset, size) in zip(NAMES, table.places, strict=True):
        assert data[offset : offset + size] == (found.folder / name).read_bytes()
        (tmp_path / name).write_bytes(data[offset : offset + size])
    check(tmp_path, made.parts)
    files = opened(sealed("law", data))
    try:
        paths = iter(f"/proc/self/fd/{file.descriptor}" for file in files)
        folder: Any = Folder.of(NAMES, paths)
        assert check(folder, made.parts).manifest == found.manifest
    finally:
        for file in files:
            file.close()


@pytest.mark.parametrize("cut", [0, 7, 8, 100, -1])
def test_a_packed_source_that_was_cut_is_refused(packed: dict[str, bytes], cut: int) -> None:
    data = packed["law"][:cut]
    with pytest.raises(DatastoreError):
        Table.read(lambda offset, length: data[offset : offset + length], len(data))


def test_what_stands_behind_a_packed_source_is_refused(packed: dict[str, bytes]) -> None:
    data = packed["law"] + b"x"
    with pytest.raises(StoreTruncated):
        Table.read(lambda offset, length: data[offset : offset + length], len(data))


def test_a_source_built_with_other_parts_is_refused_by_name(tmp_path: Path) -> None:
    place = store(tmp_path / "store")
    source(place, "law")
    assert parts().digest != parts_digest()
    with pytest.raises(OtherParts, match="'law'"):
        opened(sealed("law", _packed(Datastore.open(place), "law")))


def test_another_source_under_an_agreed_name_is_refused(packed: dict[str, bytes]) -> None:
    with pytest.raises(BadManifest, match="'law'"):
        Held.of([sealed("law", packed["cells"])])


# --- the engine -----------------------------------------------------------------------------------------------------


def paths_of(made: Datastore, names: tuple[str, ...] = KINDS) -> list[str]:
    found = [str(PARTS / name) for name in FILES]
    return found + [str(made.source(name).folder / file) for name in names for file in NAMES]


def engine(made: Datastore, names: tuple[str, ...] = KINDS, **budget: int) -> Retrieval:
    said = [{"name": name, "token": GRAIN, "total": 99 * GRAIN, **budget} for name in names]
    given = {"context_tokens": 512, "parallel": 2, "threads": 1, "max_tokens": 24, "embeds": False}
    return Retrieval(str(MODEL), Path("unused"), files=paths_of(made, names), sources=said, **given)


@pytest.fixture(scope="module")
def retrieval(made: Datastore) -> Retrieval:
    return engine(made)


def ask(of: Retrieval, route: Any = "completions", **body: Any) -> Said:
    asked = {"prompt": PROMPT} if route == "completions" else {"messages": [{"role": "user", "content": PROMPT}]}
    normal = read(route, json.dumps({"model": "m", "temperature": 0, **asked, **body}).encode()).normal
    said = Said()
    counted = of.answer(route, normal, 0, Seat(0, False), said)
    assert counted.completion_tokens == len(said.rows)
    return said


def test_what_is_drawn_is_what_writing_by_itself_draws(retrieval: Retrieval, made: Datastore) -> None:
    said = ask(retrieval)
    answer = RetrievalLM.load(MODEL).generate(PROMPT, store=made, tokens=24)
    assert "".join(said.texts) == answer.text
    assert {name: sum(row[at] for row in said.rows) for at, name in enumerate(KINDS)} == answer.drawn
    assert sum(row[1] for row in said.rows) > GRAIN  # it did draw on law
    assert said.finish == "length"


def test_a_chat_is_its_texts(retrieval: Retrieval) -> None:
    assert ask(retrieval, "chat").texts == ask(retrieval).texts


def test_without_a_source_an_answer_is_to_the_bit_that_of_a_model_that_never_had_it(
    retrieval: Retrieval, made: Datastore
) -> None:
    whole = ask(retrieval)
    retrieval.draw(["cells"], [])
    without = ask(retrieval)
    retrieval.draw(["cells", "law"], [])
    again = ask(retrieval)
    never = ask(engine(made, ("cells",)))
    assert (whole.texts, whole.rows) == (again.texts, again.rows)
    assert without.texts == never.texts != whole.texts
    assert [row[0] for row in without.rows] == [row[0] for row in never.rows]
    assert not any(row[1] for row in without.rows)


def test_budgets_are_kept(made: Datastore) -> None:
    narrow = ask(engine(made, token=GRAIN // 4, total=GRAIN))
    assert max(row[1] for row in narrow.rows) <= GRAIN // 4
    assert sum(row[1] for row in narrow.rows) <= GRAIN


def test_a_stop_word_ends_an_answer(retrieval: Retrieval) -> None:
    words = "".join(ask(retrieval).texts).split()
    said = ask(retrieval, stop=[words[3]])
    assert said.finish == "stop"
    assert words[3] not in "".join(said.texts)


@pytest.mark.parametrize(
    "more", [{"n": 2}, {"logprobs": 1}, {"top_p": 0.5}, {"frequency_penalty": 1}, {"logit_bias": {"5": 1}}]
)
def test_what_it_cannot_do_it_refuses(retrieval: Retrieval, more: dict[str, Any]) -> None:
    with pytest.raises(EngineRefused):
        ask(retrieval, **more)


def test_a_prompt_that_is_too_long_is_refused(retrieval: Retrieval) -> None:
    with pytest.raises(PromptTooLong):
        ask(retrieval, prompt="the mayor " * 600)


def test_weights_that_are_no_retrieval_model_are_refused(made: Datastore, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"GGUF")
    given = {"context_tokens": 512, "parallel": 1, "threads": 1, "max_tokens": 8, "embeds": False}
    said = [{"name": name, "token": GRAIN, "total": GRAIN} for name in KINDS]
    with pytest.raises(ModelUnreadable):
        Retrieval(str(tmp_path / "weights"), tmp_path, files=paths_of(made), sources=said, **given)


def test_a_source_that_is_not_what_its_manifest_says_is_refused(made: Datastore, tmp_path: Path) -> None:
    bad = tmp_path / "tokens.u16"
    data = bytearray((made.source("law").folder / "tokens.u16").read_bytes())
    data[40] ^= 1
    bad.write_bytes(data)
    files = [str(bad) if path.endswith("tokens.u16") and "law-" in path else path for path in paths_of(made)]
    given = {"context_tokens": 512, "parallel": 1, "threads": 1, "max_tokens": 8, "embeds": False}
    said = [{"name": name, "token": GRAIN, "total": GRAIN} for name in KINDS]
    with pytest.raises(ModelUnreadable):
        Retrieval(str(MODEL), tmp_path, files=files, sources=said, **given)


# --- a real child ---------------------------------------------------------------------------------------------------


@pytest.fixture
def held(packed: dict[str, bytes]) -> Iterator[Held]:
    found = Held.of([sealed(name, packed[name]) for name in KINDS])
    yield found
    found.close()


def test_a_child_draws_is_told_and_comes_back_without_what_is_gone(held: Held) -> None:
    weights = Weights.of_file(MODEL)
    listed = [{**vars_of(one), "weights": DIGEST} for one in held.sources.values()]
    models = [{"engine": "retrieval", "name": "lab/retrieval", "role": "model"}]
    few = {"context_tokens": 512, "max_tokens": 24, "parallel": 2}
    given = serve_llm.read({**serve_llm.DEFAULTS, **few, "models": models, "sources": listed})

    async def story() -> None:
        limits = worker.Limits(memory_bytes=2 << 30)
        found = await worker.start(given, given.models[0], weights, limits, sandbox=SANDBOX, held=held)

        async def asked() -> tuple[str, dict[str, int]]:
            question = found.ask("completions", json.dumps({"model": "m", "prompt": PROMPT, "temperature": 0}).encode())
            said = "".join([piece.delta.get("text", "") async for piece in question if hasattr(piece, "delta")])
            assert question.draws is not None
            return said, {s.name: sum(row) for s, row in zip(question.draws.sources, question.draws.rows, strict=True)}

        try:
            text, drew = await asked()
            assert drew["law"] > GRAIN
            found.draw(["cells"])
            without, drew = await asked()
            assert drew["law"] == 0
            assert without != text
            found.draw(["cells", "law"])
            assert (await asked())[0] == text
            before = found.restarts
            assert found._life is not None
            os.kill(found._life.child.pid, signal.SIGKILL)  # as a crash
            while found.restarts == before or not found.alive:  # noqa: ASYNC110 - a state of another's
                await asyncio.sleep(0.05)
            assert (await asked())[0] == text
            found.draw(["cells"], ["law"])
            assert (await asked())[0] == without
            assert "law" not in held.files
        finally:
            await found.close()
            weights.close()

    asyncio.run(story())


def vars_of(one: serve_llm.Source) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__slots__}
