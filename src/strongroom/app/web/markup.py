"""HTML from text, in one place: nothing that somebody wrote becomes an element, and nothing of it is invisible."""

from __future__ import annotations

import html
from collections.abc import Iterable


class Markup(str):
    """Text that is HTML already. Made by this module's functions alone."""

    __slots__ = ()


def text(value: object) -> Markup:
    """Anything as text: escaped, and what cannot be seen or turns the direction of writing is spelled out."""
    if isinstance(value, Markup):
        return value
    return Markup("".join(_char(c) for c in str(value)))


def _char(char: str) -> str:
    if char == "\n" or char.isprintable():
        return html.escape(char)
    return f'<span class="odd">U+{ord(char):04X}</span>'


def code(line: str) -> Markup:
    """A line of code: as :func:`text`, tabs kept, and what is not ASCII marked."""
    if line.isascii() and line.isprintable():
        return Markup(html.escape(line))
    return Markup("".join(_code_char(c) for c in line))


def _code_char(char: str) -> str:
    if char == "\t" or (char.isascii() and char.isprintable()):
        return html.escape(char)
    if char.isprintable():
        return f'<span class="other" title="U+{ord(char):04X}">{html.escape(char)}</span>'
    return f'<span class="odd">U+{ord(char):04X}</span>'


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """An element. ``class_`` is ``class``, ``_`` in other names ``-``; ``True`` is an attribute without a value.

    One of ``None`` or ``False`` is left out. Children that are not :class:`Markup` are text, and lists are their members.
    """
    given = "".join(
        f" {_name(key)}" if value is True else f' {_name(key)}="{html.escape(str(value), quote=True)}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in ("input", "meta", "link", "br", "hr", "img"):
        return Markup(f"<{name}{given}>")
    return Markup(f"<{name}{given}>{together(children)}</{name}>")


def _name(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def together(parts: Iterable[object]) -> Markup:
    """Parts one after the other."""
    return Markup(
        "".join(together(part) if isinstance(part, list | tuple) else text(part) for part in parts if part is not None)
    )
