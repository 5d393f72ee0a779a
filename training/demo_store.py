"""Cuts the excerpts that ``strongroom demo datastore`` builds its sources of (``app/cli/demo_store``).

    python training/demo_store.py CORPORA src/strongroom/app/cli/demo_store

CORPORA has books, encyclopedia and law as ``.jsonl.xz``: one document a line, ``id`` and ``text``. What is taken depends on
those files alone: of each the first documents of a middling length, of novels the beginning.
"""

from __future__ import annotations

import json
import lzma
import sys
from collections.abc import Iterator
from pathlib import Path

NOVEL = 40_000  # characters of a novel
SIZES = {"books": 320_000, "encyclopedia": 300_000, "law": 500_000}  # characters of each
SHORT, LONG = 400, 6_000  # characters of what is taken whole


def documents(path: Path) -> Iterator[dict[str, str]]:
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def excerpts(path: Path, size: int, *, novels: bool) -> Iterator[dict[str, str]]:
    left = size
    for found in documents(path):
        text = found["text"]
        if novels:
            text = text[:NOVEL].rpartition("\n")[0]
        elif not SHORT <= len(text) <= LONG:
            continue
        if len(text) > left:
            return
        left -= len(text)
        yield {"id": found["id"], "text": text}


def main(corpora: Path, out: Path) -> None:
    out.mkdir(exist_ok=True)
    for name, size in SIZES.items():
        taken = excerpts(corpora / f"{name}.jsonl.xz", size, novels=name == "books")
        lines = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in taken)
        data = lzma.compress(lines.encode(), preset=9 | lzma.PRESET_EXTREME)
        (out / f"{name}.jsonl.xz").write_bytes(data)
        print(f"{name}: {lines.count(chr(10)):,} documents, {len(lines):,} characters, {len(data):,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
