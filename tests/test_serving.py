"""The child's half of a served program, in this process: what it says, and in which order."""

from __future__ import annotations

import json
import os
import socket
import threading
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from strongroom.errors import EngineFailed, ModelUnreadable
from strongroom.lm.engine import Counted
from strongroom.lm.seated import Seat, refused, too_long
from strongroom.programs import frames, serve_llm, serving
from strongroom.programs.serving import Desk, Outbox, Question

ABOUT = {"context_tokens": 8, "embedding_size": 2, "engine": "fake", "parallel": 2, "routes": ["chat", "embeddings"]}
CHAT = b'{"messages":[{"content":"a","role":"user"}],"model":"m"}'


class Fake:
    """An engine that does what a test says."""

    about: Mapping[str, Any] = ABOUT

    def __init__(self, does: Callable[..., Counted] | None = None) -> None:
        self.does = does

    def answer(self, route: str, normal: Mapping[str, Any], choice: int, seat: Seat, say: Any) -> Counted:
        assert self.does is not None
        return self.does(route, normal, choice, seat, say)

    def embed(self, texts: Sequence[str], seat: Seat) -> tuple[Sequence[Sequence[float]], int]:
        assert seat == Seat(0, kept=False)
        return [array("f", [len(text), 1]) for text in texts], len(texts)


class Parent:
    """The other end."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        channel.settimeout(60)
        self._frames = frames.Frames(frames.FROM_SERVING)
        self._said: list[list[Any]] = []

    def next(self) -> tuple[bytes, bytes]:
        while (found := self._frames.next()) is None:
            data = self.channel.recv(1 << 16)
            assert data, "the child is gone"
            self._frames.feed(data)
        return found

    def entry(self) -> list[Any]:
        while not self._said:
            kind, body = self.next()
            assert kind == frames.ANSWERS
            self._said = json.loads(body)
        return self._said.pop(0)

    def until_end(self) -> list[list[Any]]:
        found = [self.entry()]
        while found[-1][0] not in "ef":
            found.append(self.entry())
        return found

    def ask(self, number: int, body: bytes = CHAT, seats: int = 1, route: int = 0) -> None:
        places = b"".join(frames.SEAT_BODY.pack(n, False) for n in range(seats))
        self.channel.sendall(frames.frame(frames.QUESTION, frames.QUESTION_BODY.pack(number, route, seats), places, body))

    def cancel(self, number: int) -> None:
        self.channel.sendall(frames.frame(frames.CANCEL, frames.CANCEL_BODY.pack(number)))


@pytest.fixture
def pair() -> Iterator[tuple[Parent, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Parent(ours), theirs


def started(pair: tuple[Parent, socket.socket], engine: Any) -> Parent:
    """A child in a thread, with a model in it."""
    parent, channel = pair

    def live() -> None:
        with suppress(EOFError, OSError):
            serving.serve(channel, lambda said, path, place: engine)

    weights = os.memfd_create("weights")
    socket.send_fds(parent.channel, [frames.frame(frames.MODEL, json.dumps({"parallel": 2}).encode())], [weights])
    os.close(weights)
    threading.Thread(target=live, daemon=True).start()
    kind, body = parent.next()
    assert (kind, json.loads(body)) == (frames.ABOUT, ABOUT)
    return parent


@pytest.fixture(autouse=True)
def lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child ends its process when its parent is gone; these threads only end."""

    def end(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(os, "_exit", end)


def test_what_is_said_comes_in_order_and_then_the_end(pair: tuple[Parent, socket.socket]) -> None:
    def does(route: str, normal: Any, choice: int, seat: Seat, say: Any) -> Counted:
        assert (route, normal["model"], seat) == ("chat", "m", Seat(choice, kept=False))
        say.text("a")
        say.text("b")
        say.piece({"tool_calls": []}, None, None)
        say.text("c")
        say.working()
        say.piece({}, "stop", None)
        return Counted(3, 2, 1)

    parent = started(pair, Fake(does))
    parent.ask(1)
    said = [entry for entry in parent.until_end() if entry[0] != "w"]
    assert "".join(entry[3] for entry in said if entry[0] == "t" and said.index(entry) < 2) in ("ab", "a")
    assert [entry for entry in said if entry[0] == "p"] == [
        ["p", 1, 0, {"tool_calls": []}, None, None],
        ["p", 1, 0, {}, "stop", None],
    ]
    assert said[-1] == ["e", 1, 3, 2, 1]
    at = said.index(["p", 1, 0, {"tool_calls": []}, None, None])
    assert ["t", 1, 0, "c"] in said[at:]


def test_choices_are_counted_together(pair: tuple[Parent, socket.socket]) -> None:
    parent = started(pair, Fake(lambda route, normal, choice, seat, say: Counted(5, choice + 1)))
    parent.ask(1, b'{"messages":[{"content":"a","role":"user"}],"model":"m","n":2}', seats=2)
    assert parent.until_end()[-1] == ["e", 1, 5, 3, 0]


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (too_long(9, 8), ["engine.prompt_too_long", [9, 8]]),
        (refused("template"), ["engine.refused", ["template"]]),
        (EngineFailed("SECRET"), ["engine.failed", []]),
        (KeyError("SECRET"), ["engine.failed", []]),
        (SystemExit(3), ["engine.failed", []]),
    ],
)
def test_what_an_engine_raises_is_a_failure_of_its_question(
    pair: tuple[Parent, socket.socket], raised: BaseException, said: list[Any]
) -> None:
    def does(*_: Any) -> Counted:
        raise raised

    parent = started(pair, Fake(does))
    parent.ask(1)
    assert parent.until_end()[-1] == ["f", 1, *said, 0, 0, 0]


def test_a_request_that_is_none_is_refused(pair: tuple[Parent, socket.socket]) -> None:
    parent = started(pair, Fake())
    parent.ask(1, b"{}")
    assert parent.until_end()[-1] == ["f", 1, "engine.refused", ["request"], 0, 0, 0]


def test_giving_up_is_told_to_the_engine(pair: tuple[Parent, socket.socket]) -> None:
    def does(_route: str, _normal: Any, _choice: int, _seat: Seat, say: Any) -> Counted:
        said = 0
        while not (say.working() or say.text("x")):
            said += 1
        return Counted(1, said)

    parent = started(pair, Fake(does))
    parent.ask(7)
    parent.cancel(99)  # no such question
    assert parent.entry()
    parent.cancel(7)
    assert parent.until_end()[-1][:3] == ["e", 7, 1]


def test_vectors_come_before_the_end(pair: tuple[Parent, socket.socket]) -> None:
    parent = started(pair, Fake())
    parent.ask(1, b'{"input":["a","bcd"],"model":"m"}', route=2)
    kind, body = parent.next()
    assert kind == frames.VECTORS
    assert frames.VECTORS_BODY.unpack_from(body) == (1, 2, 2)
    assert list(array("f", body[frames.VECTORS_BODY.size :])) == [1, 1, 3, 1]
    assert parent.until_end() == [["e", 1, 2, 0, 0]]


def test_a_question_that_was_given_up_before_it_began_is_not_begun(pair: tuple[Parent, socket.socket]) -> None:
    _, channel = pair
    desk = Desk(channel, Fake(), 1)
    question = desk._questions[1] = Question(1, 1, given_up=True)
    desk._work(question, "chat", CHAT, 0, Seat(0, kept=False))
    assert pair[0].until_end() == [["e", 1, 0, 0, 0]]
    question = desk._questions[2] = Question(2, 1, given_up=True)
    assert desk._embed(question, ["a"], Seat(0, kept=False)) == Counted(0)


def test_much_to_say_is_said_in_several_frames(pair: tuple[Parent, socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_ANSWERS", 100)
    entries = [["t", n, 0, "x" * 40] for n in range(5)]
    bodies = serving._bodies(entries)
    assert len(bodies) > 1
    assert [entry for body in bodies for entry in json.loads(body)] == entries
    assert serving._bodies([]) == []


def test_texts_of_a_choice_are_joined_and_of_others_are_not(pair: tuple[Parent, socket.socket]) -> None:
    box = Outbox(pair[1])
    with box._sending:  # somebody says something, so that all of this waits
        for choice, text in ((0, "a"), (1, "x"), (0, "b"), (1, "y")):
            box.text(1, choice, text)
        box.say(1, 0, "p", 1, 0, {}, None, None)
        box.text(1, 0, "c")
    assert box.take() == [["t", 1, 0, "ab"], ["t", 1, 1, "xy"], ["p", 1, 0, {}, None, None], ["t", 1, 0, "c"]]
    assert box.take() == []


@pytest.mark.parametrize(
    ("raised", "code"),
    [(ModelUnreadable("x", step="load model"), "program.model_unreadable"), (MemoryError(), "program.out_of_memory")],
)
def test_a_model_that_cannot_be_loaded_is_said(pair: tuple[Parent, socket.socket], raised: BaseException, code: str) -> None:
    parent, channel = pair

    def opens(*_: Any) -> Any:
        raise raised

    socket.send_fds(parent.channel, [frames.frame(frames.MODEL, b"{}")], [0])
    serving.serve(channel, opens)
    assert parent.next() == (frames.FAILED, json.dumps({"code": code}).encode())


def test_without_a_parent_it_ends(pair: tuple[Parent, socket.socket]) -> None:
    parent, channel = pair
    parent.channel.close()
    with pytest.raises(EOFError):
        serving.serve(channel, lambda *_: Fake())
    with pytest.raises(SystemExit):
        Outbox(channel).text(1, 0, "a")
    box = Outbox(channel)
    with box._sending:
        box.text(1, 0, "a")
    box._waits.set()  # as whoever sends does once it is done
    with pytest.raises(SystemExit):
        box.run()


def test_the_engine_is_the_one_that_the_contract_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[Any, ...]] = []

    def made(name: str) -> Any:
        return type(name, (), {"__init__": lambda self, *args, **more: asked.append((name, *args, more))})

    from strongroom.lm import llama, transformers

    monkeypatch.setattr(llama, "Llama", made("Llama"))
    monkeypatch.setattr(transformers, "Transformers", made("Transformers"))
    said = {"context_tokens": 1, "parallel": 2, "threads": 3, "max_tokens": 4, "embeds": True}
    for engine in ("llama.cpp", "transformers"):
        serve_llm._open({"engine": engine, **said}, "weights", tmp_path)
    assert asked == [("Llama", "weights", tmp_path, said), ("Transformers", "weights", tmp_path, said)]


def test_what_is_loaded_ahead_is_what_the_engine_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(serve_llm, "import_module", loaded.append)
    serve_llm.load(["llama.cpp"])
    assert loaded == ["xllamacpp", "strongroom.programs.serving"]


def test_the_child_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Any] = []
    monkeypatch.setattr(serving, "serve", lambda *args: served.append(args))
    serve_llm.serve("channel")
    assert served == [("channel", serve_llm._open)]
