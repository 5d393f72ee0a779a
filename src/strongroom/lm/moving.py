"""Bringing a source from elsewhere into a store: copied into the store's own ``building``, and all of it read there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from strongroom.errors import HalfBuilt, NoSource, NotAStore, SourceTwice

from .datastore import BUILDING, HEAD, PARTS, SOURCES, Head
from .disk import durable, remove, roomy
from .locks import alone, emptied
from .parts import Parts
from .source import Checked, Said, check, lengths, read_manifest

_PIECE: Final = 1 << 20


def found(origin: Path, name: str | None = None) -> Path:
    """The folder of a source.

    Args:
        origin: that folder, or a store's.
        name: which source of the store; can be left out where it has one.

    Raises:
        NotAStore, NoSource, SourceTwice: it has several.
    """
    if not (origin / HEAD).exists():
        if not origin.is_dir():
            raise NotAStore("there is neither a source nor a store in that folder")
        return origin
    head = Head.read(origin)
    if name is None and len(head.sources) != 1:
        raise SourceTwice("the store has no source, or several", hint="Say which: --source NAME")
    chosen = name if name is not None else next(iter(head.sources))
    if chosen not in head.sources:
        raise NoSource("the store has no source of that name")
    return origin / SOURCES / head.folder(chosen)


@contextmanager
def brought(store: Path, folder: Path, said: Said = lambda _done: None) -> Iterator[Checked]:
    """Copy a source into a store's ``building``, and read all of the copy; removed again, unless it is added meanwhile.

    Args:
        store: where it is to be.
        folder: the source's.
        said: told how many bytes were copied or read; twice the source's size in all.

    Raises:
        StoreBusy: another process brings it at the same time. DiskFull. And as of ``lm.source.check``.
    """
    parts = Parts.load(store / PARTS)
    manifest = read_manifest(folder)
    lengths(folder, manifest)
    place = store / BUILDING / f"brought-{manifest.about.name}"
    with roomy(), alone(place):
        try:
            _copied(folder, place / "whole", [*manifest.files, "manifest.json"], said)
            if read_manifest(place / "whole") != manifest:
                raise HalfBuilt("the source was changed while it was copied")
            yield check(place / "whole", parts, lambda read: said(manifest.size + read))
        finally:
            emptied(place)


def _copied(folder: Path, place: Path, names: Sequence[str], said: Said) -> None:
    remove(place)
    place.mkdir()
    done = 0
    for name in names:
        with (folder / name).open("rb") as origin, (place / name).open("wb") as target:
            while piece := origin.read(_PIECE):
                target.write(piece)
                done += len(piece)
                said(done)
            target.flush()
            os.fsync(target.fileno())
    durable(place)
