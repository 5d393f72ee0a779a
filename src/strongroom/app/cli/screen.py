"""What people see. Results go to standard output, progress and errors to standard error; with ``--json`` one JSON object.

Rules: one line for an error, with its stable code and what to do; a mark before each check; colour only where a terminal
shows it
and ``NO_COLOR`` is not set; nothing moves unless it takes longer than two seconds.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from strongroom.errors import StrongroomError
from strongroom.transcript import Check, Status, Transcript

_COLOURS = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}
_MARKS = {Status.PASSED: ("✓", "green"), Status.FAILED: ("✗", "red"), Status.NOT_ESTABLISHED: ("?", "yellow")}
QUIET_SECONDS = 2.0


def printable(text: str) -> str:
    """Text from elsewhere: what a screen would obey or hide (control characters, turned writing, no width) is shown."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


class Screen:
    """Prints for people, or one JSON object for machines.

    Args:
        as_json: print one JSON object and nothing else on standard output.
    """

    def __init__(self, *, as_json: bool = False, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.as_json = as_json
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._colour = self._out.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"

    def paint(self, text: str, *styles: str) -> str:
        if not self._colour:
            return text
        return "".join(f"\x1b[{_COLOURS[s]}m" for s in styles) + text + "\x1b[0m"

    def line(self, text: str = "", *styles: str) -> None:
        if not self.as_json:
            text = "\n".join(printable(part) for part in text.split("\n"))
            print(self.paint(text, *styles) if styles else text, file=self._out, flush=True)

    def heading(self, text: str) -> None:
        self.line()
        self.line(text, "bold")

    def said(self, about: str, text: str, *, width: int = 24) -> None:
        """A name and what is said of it, wrapped under itself."""
        if self.as_json:
            return
        columns = max(60, min(_columns(), 140))
        wrapped = textwrap.wrap(printable(text), columns - width - 2, break_long_words=False, break_on_hyphens=False) or [""]
        print(f"  {self.paint(printable(about).ljust(width - 1), 'dim')} {wrapped[0]}", file=self._out)
        for more in wrapped[1:]:
            print(" " * (width + 2) + more, file=self._out)

    def check(self, check: Check) -> None:
        mark, colour = _MARKS[check.status]
        said = f" ({check.status.value})" if check.status is not Status.PASSED else ""
        if self.as_json:
            return
        head = f"  {self.paint(mark, colour)} {check.number:<3} {printable(check.name)}{self.paint(said, colour)}"
        detail = printable(check.detail)
        print(head, file=self._out)
        if detail and check.status is not Status.PASSED:
            print(f"         {self.paint(detail, colour)}", file=self._out)
        elif detail:
            print(f"         {self.paint(_shorten(detail), 'dim')}", file=self._out)

    def transcript(self, transcript: Transcript) -> None:
        for check in transcript.checks:
            self.check(check)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        if self.as_json:
            return
        header, rows = [printable(h) for h in header], [[printable(cell) for cell in row] for row in rows]
        widths = [max(len(row[i]) for row in [list(header), *rows]) for i in range(len(header))]
        print(
            "  " + self.paint("  ".join(h.ljust(w) for h, w in zip(header, widths, strict=True)).rstrip(), "dim"),
            file=self._out,
        )
        for row in rows:
            print("  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip(), file=self._out)

    def result(self, value: Any) -> None:
        """The verb's answer for machines; nothing where people watch."""
        if self.as_json:
            print(json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True), file=self._out, flush=True)

    def error(self, error: StrongroomError, **beside: Any) -> None:
        """What went wrong: a line and a hint for people; for machines one object, with what else there is to say."""
        if self.as_json:
            self.result({**beside, "error": error.to_json()})
            return
        red, plain = ("\x1b[31m", "\x1b[0m") if self._err.isatty() and self._colour else ("", "")
        print(f"{red}strongroom: {error.code}: {printable(error.message)}{plain}", file=self._err)
        print(f"  {printable(error.hint)}", file=self._err, flush=True)

    def note(self, text: str) -> None:
        """A word on standard error: where something is, what is going on."""
        if not self.as_json:
            print(printable(text), file=self._err, flush=True)

    @contextmanager
    def progress(self, label: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """Progress of something counted in bytes, shown once it takes longer than two seconds.

        Args:
            label: what is going on.
            total: bytes in all, where known.

        Yields:
            what to call with the bytes done so far.
        """
        if self.as_json:
            yield lambda _done: None
        elif self._err.isatty():
            from tqdm import tqdm

            shape = {"unit": "B", "unit_scale": True, "leave": False, "delay": QUIET_SECONDS, "file": self._err}
            with tqdm(desc=label, total=total, **shape) as bar:
                yield lambda done: bar.update(done - bar.n)
        else:
            yield _lines(label, total, self._err)


def _lines(label: str, total: int | None, err: TextIO) -> Callable[[int], None]:
    began = last = time.monotonic()

    def advance(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= QUIET_SECONDS:
            last = now
            share = f" of {total:,} ({100 * done // total} %)" if total else ""
            print(f"{label}: {done:,}{share} bytes, {done / (now - began) / 1e6:,.0f} MB/s", file=err, flush=True)

    return advance


def _columns() -> int:
    return shutil.get_terminal_size((120, 24)).columns


def _shorten(text: str, limit: int = 150) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
