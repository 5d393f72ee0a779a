"""Pictures: a PNG that is taken apart chunk by chunk. What it shows is the program's own care; it is told the rule.

See ``spec/output.md``.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Mapping
from typing import Final

from strongroom.policy import OutputRule

from .refusing import refuse

MAX_SIDE: Final = 4096
MAX_PIXEL_BYTES: Final = 64 << 20

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_CRITICAL: Final = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})

# Samples per pixel, and the bit depths allowed, by colour type (PNG, third edition, table 11.1).
_COLOURS: Final[Mapping[int, tuple[int, tuple[int, ...]]]] = {
    0: (1, (1, 2, 4, 8, 16)),
    2: (3, (8, 16)),
    3: (1, (1, 2, 4, 8)),
    4: (2, (8, 16)),
    6: (4, (8, 16)),
}


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """A PNG's chunks: type and data. Raises OutputRefused."""
    if not data.startswith(_PNG):
        refuse("the picture is no PNG")
    found, at = [], len(_PNG)
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        kind, body, crc = data[at + 4 : at + 8], data[at + 8 : at + 8 + size], data[at + 8 + size : at + 12 + size]
        if len(crc) != 4 or int.from_bytes(crc, "big") != zlib.crc32(kind + body):
            refuse("the picture has a chunk that is broken off, or whose checksum is wrong")
        found.append((kind, body))
        at += 12 + size
        if kind == b"IEND":
            break
    if at != len(data) or not found or found[-1] != (b"IEND", b""):
        refuse("the picture does not end where it says")
    return found


def _pixels(header: bytes, compressed: bytes) -> None:
    """Check that the compressed data are exactly the lines that the header promises. Raises OutputRefused."""
    if len(header) != 13:
        refuse("the picture's header is malformed")
    width, height, depth, colour, compression, filters, interlace = struct.unpack(">IIBBBBB", header)
    samples, depths = _COLOURS.get(colour, (0, ()))
    if depth not in depths or (compression, filters, interlace) != (0, 0, 0):
        refuse("the picture is of a form that is not let through")
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        refuse(f"the picture is larger than {MAX_SIDE} by {MAX_SIDE}")
    line = 1 + (width * samples * depth + 7) // 8
    if line * height > MAX_PIXEL_BYTES:
        refuse(f"the picture takes more than {MAX_PIXEL_BYTES} bytes")
    inflate = zlib.decompressobj()
    try:
        lines = inflate.decompress(compressed, line * height + 1)
    except zlib.error:
        refuse("the picture's data cannot be inflated")
    if len(lines) != line * height or not inflate.eof or inflate.unused_data or max(lines[::line]) > 4:
        refuse("the picture's data are not the lines that its header promises")


def picture(rule: OutputRule, data: bytes) -> bytes:
    del rule  # sizes were checked, and what is drawn cannot be
    chunks = _chunks(data)
    if any(kind not in _CRITICAL and not kind[0] & 0x20 for kind, _ in chunks):
        refuse("the picture has a critical chunk that is unknown")
    kept = [(kind, body) for kind, body in chunks if kind in _CRITICAL or kind == b"tRNS"]
    if not re.fullmatch(rb"IHDR(PLTE)?(tRNS)?(IDAT)+IEND", b"".join(kind for kind, _ in kept)):
        refuse("the picture's chunks are not in their order")
    header = kept[0][1]
    _pixels(header, b"".join(body for kind, body in kept if kind == b"IDAT"))
    _palette(header[9], dict(kept))
    return _PNG + b"".join(
        len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big") for kind, body in kept
    )


def _palette(colour: int, kept: Mapping[bytes, bytes]) -> None:
    """Check that palette and transparency are there where they must be, and of the right size. Raises OutputRefused."""
    palette, clear = kept.get(b"PLTE"), kept.get(b"tRNS")
    if colour in ({3} if palette is None else {0, 4}):
        refuse("the picture has a palette where none may be, or none where one must be")
    if palette is not None and (len(palette) % 3 or not 3 <= len(palette) <= 768):
        refuse("the picture's palette is malformed")
    most = {0: (2, 2), 2: (6, 6), 3: (1, len(palette or b"") // 3)}.get(colour, (1, 0))
    if clear is not None and not most[0] <= len(clear) <= most[1]:
        refuse("the picture's transparency is malformed")
