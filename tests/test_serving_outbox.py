"""What a served child says, and when: nothing lost, nothing out of order, whoever says it and whoever sends it."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.programs import frames
from strongroom.programs.serving import Outbox


def heard(channel: socket.socket, until: int) -> list[list[Any]]:
    """The entries that came, up to so many endings."""
    found: list[list[Any]] = []
    reader = frames.Frames(frames.FROM_SERVING)
    while sum(entry[0] == "e" for entry in found) < until:
        data = channel.recv(1 << 16)
        assert data
        reader.feed(data)
        while (frame := reader.next()) is not None:
            if frame[0] == frames.ANSWERS:
                found += json.loads(frame[1])
    return found


@settings(deadline=None, max_examples=20)
@given(st.lists(st.lists(st.sampled_from(["", "a", "bc", "é", None]), max_size=30), min_size=1, max_size=6))
def test_whatever_is_said_at_once_arrives_whole_and_in_order(questions: list[list[str | None]]) -> None:
    """``None``: something that is no text."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        outbox = Outbox(theirs)
        threading.Thread(target=outbox.run, daemon=True).start()

        def say(number: int, parts: list[str | None]) -> None:
            for n, part in enumerate(parts):
                if part is None:
                    outbox.say(number, 0, "p", number, 0, {"n": n}, None, None)
                else:
                    outbox.text(number, 0, part)
                if n % 7 == 3:
                    outbox.send(frames.VECTORS, frames.VECTORS_BODY.pack(number, 0, 0))
            outbox.say(number, 0, "e", number, 0, 0, 0, now=True)

        threads = [threading.Thread(target=say, args=given) for given in enumerate(questions)]
        for thread in threads:
            thread.start()
        found = heard(ours, len(questions))
        for thread in threads:
            thread.join()
        assert outbox.take() == []
    for number, parts in enumerate(questions):
        mine = [entry for entry in found if entry[0] != "w" and entry[1] == number]
        assert mine.pop()[0] == "e"
        expected: list[Any] = []
        for n, part in enumerate(parts):
            if part is None:
                expected.append(n)
            elif expected and isinstance(expected[-1], str):
                expected[-1] += part
            else:
                expected.append(part)
        said: list[Any] = []
        for entry in mine:
            if entry[0] == "p":
                said.append(entry[3]["n"])
            elif said and isinstance(said[-1], str):
                said[-1] += entry[3]
            else:
                said.append(entry[3])
        assert said == expected


def test_the_first_and_the_last_word_wait_for_nobody() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        outbox = Outbox(theirs)  # the thread that sends later does not run
        outbox.text(1, 0, "first")
        assert heard_now(ours) == [["t", 1, 0, "first"]]
        outbox.text(2, 0, "of another", now=True)
        assert heard_now(ours) == [["t", 2, 0, "of another"]]
        outbox.text(1, 0, "second")
        outbox.say(1, 0, "e", 1, 0, 0, 0, now=True)
        outbox.working()  # something was said just now
        assert [entry for entry in heard_now(ours) if entry[0] != "w"][-1][0] == "e"


def heard_now(channel: socket.socket) -> list[list[Any]]:
    reader = frames.Frames(frames.FROM_SERVING)
    reader.feed(channel.recv(1 << 16))
    found: list[list[Any]] = []
    while (frame := reader.next()) is not None:
        found += json.loads(frame[1])
    return found
