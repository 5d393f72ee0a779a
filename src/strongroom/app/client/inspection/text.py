"""Rules over the text of a file, before anybody parses it: what a reader's eye would miss."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator

from .findings import Finding

LONG_LINE = 200  # characters
FAR_RIGHT = 60  # blanks within a line
MAX_LINES = 200_000
ENCODED = 80  # characters without a blank
BITS = 4.2  # of entropy a character, from which a long word is no language

_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
_LINE_END = re.compile("\r(?!\n)|[\x0b\x0c\x85\u2028\u2029]")
_WORD = re.compile(r"[^\W\d]\w*")
_FAR = re.compile(rf"\S\s{{{FAR_RIGHT},}}\S")
_CODING = re.compile(r"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")
_BLOB = re.compile(rf"[A-Za-z0-9+/=_-]{{{ENCODED},}}")
_BLANK = re.compile(r"[ \t]{120,}\S")


def of_text(file: str, text: str, names: frozenset[str] = frozenset()) -> Iterator[Finding]:
    """What the text of one file shows to every eye but a person's.

    Args:
        file: its path.
        text: all of it.
        names: the identifiers in it, as Python reads them; none where it is no Python.
    """
    line, counted = 1, 0
    for found in _LINE_END.finditer(text):
        line, counted = line + text.count("\n", counted, found.start()), found.start()
        yield Finding.of("text.line_end", file, line, f"U+{ord(found[0]):04X} within a line")
    lines = text.split("\n")
    for number, each in enumerate(lines[:MAX_LINES], 1):
        if not each.isascii():
            yield from _of_line(file, number, each)
            yield from _of_letters(file, number, each, names)
        elif len(each) >= FAR_RIGHT or number <= 2 or not each.isprintable():
            yield from _of_line(file, number, each)
    if len(lines) > MAX_LINES:
        yield Finding.of("unread", file, MAX_LINES, f"{len(lines) - MAX_LINES:,} lines after this one")


def _of_line(file: str, number: int, line: str) -> Iterator[Finding]:
    for found in _INVISIBLE.finditer(line[:4000]):
        yield Finding.of("text.invisible", file, number, f"U+{ord(found[0]):04X}, {_named(found[0])}")
    if number <= 2 and (coding := _CODING.match(line)) and coding[1].lower() not in ("utf-8", "utf8"):
        yield Finding.of("text.coding", file, number, f"declares the coding {coding[1]!r}")
    if len(line) > LONG_LINE:
        yield Finding.of("text.long_line", file, number, f"{len(line):,} characters on one line")
    if _FAR.search(line[:100_000]) or _BLANK.match(line):
        yield Finding.of("text.far_right", file, number, "a gap within the line")
    if (blob := _BLOB.search(line[:100_000])) and is_encoded(blob[0]):
        yield Finding.of("string.encoded", file, number, f"{len(blob[0]):,} characters that begin {blob[0][:24]!r}")


def _of_letters(file: str, number: int, line: str, names: frozenset[str]) -> Iterator[Finding]:
    """Words that a reader takes for others: alphabets mixed in one word, or letters that Python reads as plain ones."""
    for word in _WORD.findall(line[:4000]):
        if word.isascii():
            continue
        scripts = {_script(c) for c in word if c.isalpha()}
        read = unicodedata.normalize("NFKC", word)
        if read != word and read in names:
            yield Finding.of("text.homoglyph", file, number, f"{word!r} is read as {read!r}")
        elif len(scripts) > 1 or _looks_latin(word):
            yield Finding.of("text.homoglyph", file, number, f"{word!a} ({' and '.join(sorted(scripts)).lower()})")
        elif read in names:
            yield Finding.of("text.name", file, number, f"{word!r}")


# Small letters of other alphabets that are drawn as Latin ones; a whole word of them passes for a Latin word.
_DRAWN_AS_LATIN = frozenset(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u04bb\u0501\u051b\u051d\u03bf\u03b1\u03bd\u03c1\u03b9\u0261\u0131"
    "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0425\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f"
    "\u03a1\u03a4\u03a5\u03a7"
)


def _looks_latin(word: str) -> bool:
    return all(c in _DRAWN_AS_LATIN or c.isascii() for c in word)


def _script(char: str) -> str:
    return "LATIN" if char.isascii() else unicodedata.name(char, "UNKNOWN").split(" ")[0]


def _named(char: str) -> str:
    return unicodedata.name(char, "a control character").lower()


def is_encoded(text: str) -> bool:
    """Whether a long run without blanks is no language: many different characters, evenly often."""
    piece = text[:4096]
    if len(piece) < ENCODED:
        return False
    if re.fullmatch(r"[0-9a-fA-F]+", piece):
        return len(set(piece)) > 8
    counted = Counter(piece)
    return -sum(n / len(piece) * math.log2(n / len(piece)) for n in counted.values()) > BITS
