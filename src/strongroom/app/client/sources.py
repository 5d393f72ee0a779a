"""A source of one's own: sealed with the terms under which models draw from it, and those terms revised while it is served.

See ``docs/paid-sources.md``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from strongroom import lm
from strongroom.app.http import Client, anybody
from strongroom.asset import Manifest, verify_manifest
from strongroom.asset.manifest import SOURCE
from strongroom.drawing import Drawing, Revision
from strongroom.errors import NotFound, RoomClosed, Unreachable, Usage
from strongroom.policy import Policy
from strongroom.serving import Serving

if TYPE_CHECKING:
    from .room import Room

PARTS: Final = Path(lm.__file__).parent / "model" / "parts"
"""The frozen parts with which a source must be built that is drawn from in a room."""
USE: Final = "serve-llm"
PATIENCE: Final = 30.0  # seconds


def seal_source(
    room: Room,
    origin: Path,
    *,
    drawing: Drawing,
    serve: Serving,
    source: str | None = None,
    out: Path | None = None,
    progress: Callable[[int], None] | None = None,
    upload: bool = True,
) -> Manifest:
    """Look at all of a source, put it into one file, and seal that.

    Args:
        room: its owner's.
        origin: the source's folder, or a store's.
        drawing: who may draw from it, how much of a token and of an answer, and for what.
        serve: what may be asked of such a model, and what its operator may see.
        source: which one, of a store with several.
        out: where to write the sealed file; beside the source by default.
        progress: called with how many bytes were sealed.
        upload: also put it on the exchange.

    Raises:
        DatastoreError: it is no source that could be served. OtherParts: it was built with other frozen parts than those
            that ship. And as of ``Room.seal``.
    """
    from strongroom.lm.moving import found
    from strongroom.lm.packed import MEDIA_TYPE, pack
    from strongroom.lm.parts import Parts
    from strongroom.lm.source import check

    folder = found(origin, source)
    checked = check(folder, Parts.load(PARTS))
    about = checked.manifest.about
    out = out or folder.parent / f"{about.name}.sealed"
    packed = out.with_name(f".{out.name}.packed")
    try:
        with packed.open("xb") as sink:
            pack(folder, checked.manifest, sink)
        checked.unchanged()
        return room.seal(
            packed,
            terms=Policy(frozenset({USE}), serve=serve),
            name=about.name,
            kind=SOURCE,
            media_type=MEDIA_TYPE,
            drawing=drawing,
            out=out,
            progress=progress,
            upload=upload,
        )
    finally:
        packed.unlink(missing_ok=True)


def own_terms(room: Room, manifest: Manifest) -> Drawing:
    """The terms that this party sealed a source with. Raises Usage: it is no source of this party's."""
    signed = room.home.book.manifest(manifest.digest)
    if manifest.owner != room.name or signed is None:
        raise Usage(f"{manifest.owner}/{manifest.name} is not yours", hint="Its owner says what holds of it.")
    terms = verify_manifest(signed, room.home.keys.signing.public).manifest.drawing
    if terms is None:
        raise Usage(f"{manifest.name} has no terms of drawing", hint="It is no source: strongroom lm seal seals one.")
    return terms


def said(room: Room, manifest: Manifest) -> Revision | None:
    """What this party said last of a source of its own; ``None``: nothing since it was sealed.

    Raises:
        WireError, BadDrawing: what its broker keeps is no such word of this party's.
    """
    envelope = room.home.book.revision(manifest.digest)
    return None if envelope is None else Revision.verify(envelope, room.home.keys.signing.public)


def terms_now(room: Room, manifest: Manifest) -> Drawing | None:
    """The terms that hold of a source now; ``None``: nobody draws from it. Raises as :func:`own_terms` and :func:`said`."""
    sealed, newest = own_terms(room, manifest), said(room, manifest)
    return sealed if newest is None else newest.terms


def revise(room: Room, manifest: Manifest, terms: Drawing | None, *, url: str) -> tuple[Revision, bool]:
    """Say what holds of a source from now on: to this party's own broker, and then to an enclave that draws from it.

    The broker releases no key under other terms from now on, and renews no lease. What the enclave answers is nobody's word:
    whoever is in between may have given that answer, and told the enclave nothing.
    That it keeps to what was said is its measured code's; what was drawn stands in receipts.

    Args:
        room: the owner's.
        manifest: of the sealed source.
        terms: from now on; ``None``: nobody may draw from it.
        url: of the enclave.

    Returns:
        what was said, and whether what answers at the address says that it draws from the source, and heard it.

    Raises:
        Usage: it is no source of this party's. Unreachable: the enclave does not answer, and may not have heard it.
    """
    own_terms(room, manifest)
    at, newest = time.time(), room.home.book.revision(manifest.digest)
    after = 0 if newest is None else Revision.peek(newest).number  # whoever said it: what is said now comes after it
    number = max(int(at * 1000), after + 1)  # also where the clock was set back
    found = Revision(manifest.digest, number, int(at), terms)
    signed = found.sign(room.home.keys.signing)
    room.home.book.revise(found, signed)
    try:
        with closing(Client(url, timeout=PATIENCE, context=anybody())) as client:
            client.post("/v1/sources", signed.encode())
    except Unreachable as error:
        hint = "Your broker knows: it renews no lease under other terms. Say it again once the enclave answers."
        raise Unreachable(error.message, hint=hint) from error
    except (NotFound, RoomClosed):
        return found, False
    return found, True


def sources_of(room: Room, contract: str) -> list[Manifest]:
    """This party's own sources in a contract. Raises NotFound: it has none there."""
    refs = room.view(contract).proposal.assets
    mine = [room.asset(ref.manifest) for ref in refs if ref.owner == room.name]
    found = [manifest for manifest in mine if manifest.drawing is not None]
    if not found:
        raise NotFound(f"{room.name} has no source in this contract")
    return found
