"""Pictures: a PNG that is taken apart chunk by chunk, and drawn anew from what is seen of it. What it shows is the program's
own care; it is told the rule.

See ``spec/output.md``.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Mapping
from typing import Final

from PIL import Image

from strongroom.policy import OutputRule

from .refusing import refuse

MAX_SIDE: Final = 4096
MAX_PIXEL_BYTES: Final = 64 << 20

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_CRITICAL: Final = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})

# Samples per pixel, and the bit depths allowed, by colour type (PNG, third edition, table 11.1). Of 16 bits the lower eight
# cannot be seen.
_COLOURS: Final[Mapping[int, tuple[int, tuple[int, ...]]]] = {
    0: (1, (1, 2, 4, 8)),
    2: (3, (8,)),
    3: (1, (1, 2, 4, 8)),
    4: (2, (8,)),
    6: (4, (8,)),
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


def _pixels(header: bytes, compressed: bytes) -> bytes:
    """The compressed data, which must be exactly the lines that the header promises. Raises OutputRefused."""
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
    return lines


def picture(rule: OutputRule, data: bytes) -> bytes:
    """What leaves: a PNG of the pixels alone, as they are seen on white."""
    del rule  # sizes were checked, and what is drawn cannot be
    chunks = _chunks(data)
    if any(kind not in _CRITICAL and not kind[0] & 0x20 for kind, _ in chunks):
        refuse("the picture has a critical chunk that is unknown")
    kept = [(kind, body) for kind, body in chunks if kind in _CRITICAL or kind == b"tRNS"]
    if not re.fullmatch(rb"IHDR(PLTE)?(tRNS)?(IDAT)+IEND", b"".join(kind for kind, _ in kept)):
        refuse("the picture's chunks are not in their order")
    header, found = kept[0][1], dict(kept)
    lines = _pixels(header, b"".join(body for kind, body in kept if kind == b"IDAT"))
    _palette(header[9], found)
    named = [(kind, found[kind]) for kind in (b"PLTE", b"tRNS") if kind in found]
    rebuilt = _png([(b"IHDR", header), *named, (b"IDAT", zlib.compress(lines, 1))])
    size, pixels = _seen(rebuilt, len(found.get(b"PLTE", b"")) // 3)
    return _written(*size, pixels)


def _png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    return _PNG + b"".join(
        len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
        for kind, body in [*chunks, (b"IEND", b"")]
    )


def _seen(data: bytes, colours: int) -> tuple[tuple[int, int], bytes]:
    """Width and height, and the pixels as they are seen on white: red, green, blue, 8 bits each.

    Args:
        data: a PNG of our own making. The decoder's code gets no byte of the program's but the lines, whose number, length
            and filters were checked.
        colours: how many its palette has.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as opened:
            if opened.mode == "P" and max(opened.tobytes()) >= colours:
                refuse("the picture has a pixel of a colour that is not in its palette")
            drawn = opened.convert("RGBA")
    except (OSError, ValueError, SyntaxError):
        refuse("the picture's data cannot be decoded")
    # What is not seen must not leave: colours of clear pixels, entries of a palette that no pixel has, their order.
    white = Image.new("RGBA", drawn.size, (255, 255, 255, 255))
    return drawn.size, Image.alpha_composite(white, drawn).convert("RGB").tobytes()


def _written(width: int, height: int, pixels: bytes) -> bytes:
    """The one form of these pixels: no filter, one way to compress, one chunk."""
    line = 3 * width
    lines = b"".join(b"\0" + pixels[at : at + line] for at in range(0, line * height, line))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return _png([(b"IHDR", header), (b"IDAT", zlib.compress(lines, 9))])


def _palette(colour: int, kept: Mapping[bytes, bytes]) -> None:
    """Check that palette and transparency are there where they must be, and of the right size. Raises OutputRefused."""
    palette, clear = kept.get(b"PLTE"), kept.get(b"tRNS")
    if colour in ({3} if palette is None else {0, 4}):
        refuse("the picture has a palette where none may be, or none where one must be")
    if palette is not None and (len(palette) % 3 or not 3 <= len(palette) <= 768):
        refuse("the picture's palette is malformed")
    most = len(palette or b"") // 3 if colour == 3 else 0  # in other pictures it would make one colour clear: none does
    if clear is not None and not 1 <= len(clear) <= most:
        refuse("the picture's transparency is malformed")
