"""That shared memory counts as a run's own. How many bytes are too many is another number in another build of Python."""
# ruff: noqa: F811 - fixtures of another module

from __future__ import annotations

import io
from typing import Any

from strongroom.errors import OutOfMemory, ProgramCrashed
from test_sandbox import LIMITS, OUTPUTS, Opened, start
from test_sandbox_window import inputs, kind, refused  # noqa: F401 - fixtures


def test_the_window_counts_as_the_child_s_memory(kind: str, inputs: Any) -> None:
    # so much fits beside a small input, and not beside a window
    body = """
        import mmap
        held = mmap.mmap(-1, 228 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for at in range(0, len(held), 4096):
            held[at] = 1
        time.sleep(WAIT)
        found = 1
        """
    small = {"data": Opened("a/b", 4, io.BytesIO(b"data"))}
    with start(body.replace("WAIT", "0.2"), kind) as room:
        assert room.run({}, small, OUTPUTS, LIMITS)["report"] == b"1"
    body = "take = bytearray(9 << 20); inputs['data'].open().raw.readinto(take)\n" + body.replace("        ", "")
    refused((OutOfMemory, ProgramCrashed), body.replace("WAIT", "600"), inputs, kind=kind)
