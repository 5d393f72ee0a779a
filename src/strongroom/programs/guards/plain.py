"""A text as somebody means it to be read, whatever it was dressed up as: the views in which ``injection`` looks for markers.

Letters that only look like others, invisible characters, letters set apart, digits for letters, and layers of encoding
(base64, hexadecimal, percent signs, HTML entities, rot13), to a depth and a size that are bounded.

The time it all takes grows with a text's length and no faster: a pattern looks no further than a bounded number of
characters, or nothing stands behind what it repeats without a bound that could make it try again.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import html
import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

MAX_DEPTH: Final = 2
"""How many layers of encoding are opened."""

MAX_OPENED: Final = 65_536
"""How many characters of a text's layers are looked at, all together."""

# Letters of other scripts that look like Latin ones, and a few that only stand for them (Unicode Technical Standard 39).
_ALIKE: Final = {
    **dict(zip("авекмнорстухѕіјԛԝһӏѵԁ", "abekmhopctyxsijqwhlvd", strict=True)),
    **dict(zip("αβεικνορτυχωηγ", "abeikvoptuxwny", strict=True)),
    **dict(zip("ıſɡɑƅօսհոаցկՏ", "isgabounhnagks"[:13], strict=True)),
    **dict(zip("ᴀʙᴄᴅᴇғɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ", "abcdefghijklmnoprstuvwyz", strict=True)),
}
_LEET: Final = str.maketrans("013457@$!", "oieastasi")
_TAGS: Final = range(0xE0020, 0xE007F)  # characters that nobody sees, one for each of ASCII

_APART = re.compile(r"(?<![^\W\d_])[^\W\d_](?:[ ._\-*·|][^\W\d_](?![^\W\d_])){4,}")
_GAP = re.compile(r"[ ._\-*·|]")
_LETTER = re.compile(r"[^\W\d_]")
_RUN = re.compile(r"[\w@$!]+")
_SIGNS: Final = "@$!"
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1b\x7f]")

_BASE64 = re.compile(r"(?:[A-Za-z0-9+/_\-]{4}){5,}[A-Za-z0-9+/_\-]{0,4}={0,2}")
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2}[ :,]?|\\x[0-9A-Fa-f]{2}|0x[0-9A-Fa-f]{2}[ ,]{0,2}){12,}")
_PERCENT = re.compile(r"(?:%[0-9A-Fa-f]{2}|[\w.+\-]){4,}")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9A-Fa-f]{1,6}|[A-Za-z]{2,8});")


def plain(text: str) -> str:
    """One view: compatibility forms, case, accents, look-alikes and invisible characters are gone, and so are runs of white
    space."""
    if text.isascii():  # most are, and have nothing else in them than what a terminal would obey
        return " ".join(_CONTROLS.sub("", text).lower().split())
    return " ".join("".join(_ALIKE.get(c, c) for c in "".join(map(_seen, text)).casefold()).split())


@lru_cache(4096)
def _seen(c: str) -> str:
    """What a reader sees of a character: nothing of those that are invisible or only stand on another. One at a time, since
    to bring many marks in a row into their normal order takes time that grows with the square of how many there are."""
    told = unicodedata.normalize("NFKD", chr(ord(c) - 0xE0000) if ord(c) in _TAGS else c)
    return "".join(c for c in told if c.isspace() or unicodedata.category(c) not in ("Cf", "Mn", "Me", "Cc", "Co", "Cn"))


def _joined(text: str) -> str:
    """Letters that stand apart (``i g n o r e``) put together; what is further apart stays so."""
    return _APART.sub(lambda found: _GAP.sub("", found.group()), text)


def _lettered(view: str) -> str:
    """Digits and signs within words read as the letters that they stand for; not in what has no letter at all."""
    return " ".join(_RUN.sub(_read, word) if _LETTER.search(word) else word for word in view.split(" "))


def _read(found: re.Match[str]) -> str:
    run = found.group()
    bare = run.lstrip(_SIGNS)  # a sign at either end is punctuation
    inner = bare.rstrip(_SIGNS)
    return run[: len(run) - len(bare)] + inner.translate(_LEET) + bare[len(inner) :]


def _readable(data: bytes) -> str:
    """Text, if it is some; else nothing."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return ""
    return text if len(text) >= 12 and sum(c.isprintable() or c.isspace() for c in text) >= 0.95 * len(text) else ""


def _opened(text: str) -> Iterator[str]:
    """What is encoded in a text, one layer of it."""
    for found in _BASE64.finditer(text):
        run = found.group().rstrip("=").replace("-", "+").replace("_", "/")
        for short in (0, 1):  # a letter that happens to stand behind
            part = run[: len(run) - short]
            try:
                yield _readable(base64.b64decode(part + "=" * (-len(part) % 4), validate=True))
            except binascii.Error:
                continue
    for found in _HEX.finditer(text):
        digits = re.sub(r"\\x|0x|[^0-9A-Fa-f]", "", found.group())
        yield _readable(bytes.fromhex(digits[: len(digits) // 2 * 2]))
    for found in _PERCENT.finditer(text):
        if found.group().count("%") > 2:
            raw = re.sub(rb"%([0-9A-Fa-f]{2})", lambda one: bytes.fromhex(one.group(1).decode()), found.group().encode())
            yield _readable(raw).replace("+", " ")
    if len(_ENTITY.findall(text[:MAX_OPENED])) > 2:
        yield html.unescape(text)


def views(text: str) -> Iterator[str]:
    """Every view of a text in which markers are looked for.

    Args:
        text: of any length; of its layers no more than ``MAX_OPENED`` characters are opened.
    """
    left = MAX_OPENED
    seen: set[str] = set()
    waiting = [(text, 0)]
    while waiting:
        found, depth = waiting.pop()
        view = plain(found)
        for one in (view, plain(_joined(found)), _lettered(view)):
            if one not in seen:
                seen.add(one)
                yield one
        if depth == MAX_DEPTH:
            continue
        for inner in _opened(found):
            if inner and len(inner) <= left:
                left -= len(inner)
                waiting.append((inner, depth + 1))
    yield plain(codecs.encode(text[:MAX_OPENED], "rot13"))
