"""What is asked of a language model: requests as OpenAI's clients send them, read strictly into one normal form.

The members that are known stand in a closed list. One that would change the answer and is not served is refused by its
name; one that changes nothing (``user``, ``metadata``, …) is read and forgotten; one that nobody knows is refused, since a
service that ignores it does something else than it was asked. Everything has a bound.

The normal form says the same with one spelling: lists where a string would do, text where parts of text would, no member
that is at its default. It is a fixed point: reading it gives it again. An engine reads the bytes that it is given with
:func:`read` too, so that what a receipt hashes as forwarded is what the client sent, unless a guard changed it.

See ``spec/inference.md``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, NoReturn

from strongroom.errors import BadMember, NotARequest, NotSupported, RequestTooLarge, UnknownMember

from .engine import Route

MAX_BODY: Final = 4 << 20
"""Bytes of a body, which is held in memory."""

MAX_VALUES: Final = 1 << 17
MAX_DEPTH: Final = 32
MAX_MESSAGES: Final = 2048
MAX_PARTS: Final = 1024
MAX_TEXTS: Final = 2048  # to embed at once
MAX_CHOICES: Final = 8
MAX_STOPS, MAX_STOP_CHARS = 4, 256
MAX_BIASES: Final = 1024
MAX_TOOLS, MAX_CALLS = 128, 128
MAX_NAME, MAX_MODEL = 64, 256
MAX_SCHEMA_BYTES: Final = 256 << 10
MAX_TOKENS: Final = 1 << 24
_MAX_DIGITS: Final = 40  # of a number

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_ID = re.compile(r"[!-~]{1,128}\Z")
_STRING = re.compile(rb'"(?:[^"\\]++|\\.?)*+"?', re.DOTALL)  # closed or not: it never has to try again
_TOKEN_ID = re.compile(r"(?:0|[1-9][0-9]{0,9})\Z")


# --- JSON -----------------------------------------------------------------------------------------------------------


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NotARequest("an object has the same member twice")
    return found


def _constant(_text: str) -> NoReturn:
    raise NotARequest("a number is none")


def _float(text: str) -> float:
    value = float(text) if len(text) <= _MAX_DIGITS else math.inf
    if not math.isfinite(value):
        raise NotARequest("a number is too large or too long")
    return value


def _int(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise NotARequest("a number is too long")
    return int(text)


_canonical = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True).encode


def _decode(body: bytes) -> dict[str, Any]:
    if len(body) > MAX_BODY:
        raise RequestTooLarge(f"the request has more than {MAX_BODY:,} bytes")
    if _values(body) > MAX_VALUES and _values(_STRING.sub(b"", body)) > MAX_VALUES:  # what stands in texts is none
        raise RequestTooLarge(f"the request has more than {MAX_VALUES:,} values")
    try:
        value = json.loads(
            body.decode("utf-8"), object_pairs_hook=_pairs, parse_float=_float, parse_constant=_constant, parse_int=_int
        )
    except (ValueError, RecursionError):
        raise NotARequest("the body is not JSON in UTF-8") from None  # the cause quotes the body
    if not isinstance(value, dict):
        raise NotARequest("the body is not a JSON object")
    if any("\ud800" <= c <= "\udfff" for c in _unpaired(value)):
        raise NotARequest("a string holds half a character")
    return value


def _values(body: bytes) -> int:
    """At least as many as JSON has values, less one."""
    return body.count(b",") + body.count(b"[") + body.count(b"{")


def _unpaired(value: dict[str, Any]) -> str:
    """The text in which a lone surrogate would stand: nothing, where UTF-8 can say it all."""
    try:
        text = _canonical(value)
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text
    except RecursionError:
        raise NotARequest("the body is nested too deeply") from None
    return ""


# --- members --------------------------------------------------------------------------------------------------------


class _Members:
    """One object of a request; ``null`` is as good as absent. What is wrong is named, and never shown.

    Args:
        value: the object.
        where: how OpenAI's clients would write where it stands: ``messages[0].``; empty for the request itself.
    """

    __slots__ = ("_left", "where")

    def __init__(self, value: object, where: str = "") -> None:
        if not isinstance(value, dict):
            raise BadMember(f"{where.rstrip('.') or 'the body'} is not an object", param=where.rstrip(".") or None)
        self._left = {name: item for name, item in value.items() if item is not None}
        self.where = where

    def path(self, name: str) -> str:
        return self.where + name

    def fail(self, name: str, why: str) -> NoReturn:
        raise BadMember(f"{self.path(name)} {why}", param=self.path(name))

    def take(self, name: str) -> Any:
        """The member, or ``None``."""
        return self._left.pop(name, None)

    def need(self, name: str) -> Any:
        if name not in self._left:
            self.fail(name, "is missing")
        return self._left.pop(name)

    def text(self, name: str, *, high: int = MAX_BODY, low: int = 0) -> str:
        return self._text(name, self.need(name), low, high)

    def maybe_text(self, name: str, *, high: int = MAX_BODY, low: int = 0) -> str | None:
        value = self.take(name)
        return None if value is None else self._text(name, value, low, high)

    def _text(self, name: str, value: object, low: int, high: int) -> str:
        if not isinstance(value, str) or not low <= len(value) <= high:
            self.fail(name, f"is not a string of {low} to {high:,} characters")
        return value

    def matching(self, name: str, pattern: re.Pattern[str], what: str) -> str:
        value = self.need(name)
        if not isinstance(value, str) or not pattern.match(value):
            self.fail(name, f"is not {what}")
        return value

    def choice(self, name: str, *choices: str) -> str:
        value = self.need(name)
        if not isinstance(value, str) or value not in choices:
            self.fail(name, f"is not one of {', '.join(choices)}")
        return value

    def flag(self, name: str) -> bool | None:
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            self.fail(name, "is not true or false")
        return value

    def whole(self, name: str, low: int, high: int) -> int | None:
        value = self.take(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high):
            self.fail(name, f"is not a whole number from {low:,} to {high:,}")
        return value

    def number(self, name: str, low: float, high: float) -> float | None:
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            self.fail(name, f"is not a number from {low:g} to {high:g}")
        return _plain(value)

    def items(self, name: str, value: object, *, low: int, high: int) -> list[Any]:
        if not isinstance(value, list) or not low <= len(value) <= high:
            self.fail(name, f"is not a list of {low} to {high:,} items")
        return value

    def refuse(self, *names: str) -> None:
        """Members that OpenAI knows, and this service does not do."""
        for name in names:
            if name in self._left:
                raise NotSupported(f"{self.path(name)} is not supported", param=self.path(name))

    def ignore(self, *names: str) -> None:
        """Members that change nothing in an answer."""
        for name in names:
            self._left.pop(name, None)

    def empty(self, *names: str) -> None:
        """Members that are there and say nothing: ``[]``, ``{}``, ``""`` or ``false``."""
        for name in names:
            if self._left.get(name) in ([], {}, "", False):
                del self._left[name]

    def end(self) -> None:
        for name in self._left:
            plain = _NAME.match(name)
            shown = self.path(name if plain else "a member")
            raise UnknownMember(f"{shown} is not known here", param=self.path(name) if plain else None)


def _plain(value: float) -> float:
    """One spelling of each number: 1, and not 1.0 or -0.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _free(members: _Members, name: str, value: object) -> Any:
    """JSON that others wrote: a schema. Bounded in size and depth."""
    if not isinstance(value, dict):
        members.fail(name, "is not an object")
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for one in level
            for item in (one.values() if isinstance(one, dict) else one)
            if isinstance(item, dict | list)
        ]
    if level:
        members.fail(name, f"is nested deeper than {MAX_DEPTH} levels")
    if len(_canonical(value).encode()) > MAX_SCHEMA_BYTES:
        members.fail(name, f"is longer than {MAX_SCHEMA_BYTES:,} bytes")
    return _numbers(value)


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _numbers(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return _plain(value) if isinstance(value, float) else value


def _put(found: dict[str, Any], **members: Any) -> None:
    """What was said; ``None`` was not."""
    found.update((name, value) for name, value in members.items() if value is not None)


# --- messages -------------------------------------------------------------------------------------------------------


def _content(members: _Members, value: object) -> str:
    """Text, or parts of text one after the other."""
    if isinstance(value, str):
        return value
    texts = []
    for n, part in enumerate(members.items("content", value, low=1, high=MAX_PARTS)):
        one = _Members(part, f"{members.where}content[{n}].")
        kind = one.text("type", high=MAX_NAME)
        if kind != "text":
            raise NotSupported(f"{one.path('type')}: only parts of text are supported", param=one.path("type"))
        texts.append(one.text("text"))
        one.end()
    return "".join(texts)


def _calls(members: _Members, value: object) -> list[dict[str, Any]]:
    found = []
    for n, item in enumerate(members.items("tool_calls", value, low=1, high=MAX_CALLS)):
        call = _Members(item, f"{members.where}tool_calls[{n}].")
        call.ignore("index")
        call.choice("type", "function")
        function = _Members(call.need("function"), call.path("function."))
        said = {
            "arguments": function.text("arguments"),
            "name": function.matching("name", _NAME, "a name of letters, digits, '_', '-' and '.'"),
        }
        function.end()
        found.append({"function": said, "id": call.matching("id", _ID, "an id"), "type": "function"})
        call.end()
    return found


def _message(n: int, value: object) -> dict[str, Any]:
    m = _Members(value, f"messages[{n}].")
    role = m.choice("role", "assistant", "developer", "system", "tool", "user")
    found: dict[str, Any] = {"role": "system" if role == "developer" else role}
    content = m.take("content")
    if role == "assistant":
        m.empty("annotations", "tool_calls", "audio", "function_call", "refusal", "reasoning_content")
        m.refuse("audio", "function_call", "refusal")
        calls = m.take("tool_calls")
        _put(
            found,
            tool_calls=None if calls is None else _calls(m, calls),
            reasoning_content=m.maybe_text("reasoning_content"),
        )
        if content is None and calls is None:
            m.fail("content", "is missing")
    elif content is None:
        m.fail("content", "is missing")
    if content is not None:
        found["content"] = _content(m, content)
    if role == "tool":
        found["tool_call_id"] = m.matching("tool_call_id", _ID, "an id")
    name = m.maybe_text("name", low=1, high=MAX_NAME)
    if name is not None and not _NAME.match(name):
        m.fail("name", "is not a name of letters, digits, '_', '-' and '.'")
    _put(found, name=name)
    m.end()
    return found


# --- tools and formats ----------------------------------------------------------------------------------------------


def _tools(m: _Members) -> list[dict[str, Any]] | None:
    value = m.take("tools")
    if value is None or value == []:
        return None
    found, names = [], set()
    for n, item in enumerate(m.items("tools", value, low=1, high=MAX_TOOLS)):
        tool = _Members(item, f"tools[{n}].")
        if tool.text("type", high=MAX_NAME) != "function":
            raise NotSupported(f"{tool.path('type')}: only functions are supported", param=tool.path("type"))
        function = _Members(tool.need("function"), tool.path("function."))
        tool.end()
        said: dict[str, Any] = {"name": function.matching("name", _NAME, "a name of letters, digits, '_', '-' and '.'")}
        parameters = function.take("parameters")
        _put(
            said,
            description=function.maybe_text("description", high=1 << 14),
            parameters=None if parameters is None else _free(function, "parameters", parameters),
            strict=function.flag("strict") or None,
        )
        function.end()
        if said["name"] in names:
            function.fail("name", "is another tool's too")
        names.add(said["name"])
        found.append({"function": said, "type": "function"})
    return found


def _tool_choice(m: _Members, tools: list[dict[str, Any]] | None) -> Any:
    value = m.take("tool_choice")
    if value is None or value == ("auto" if tools else "none"):
        return None
    if not tools:
        if value == "auto":
            return None
        m.fail("tool_choice", "needs tools to choose from")
    if isinstance(value, str):
        if value not in ("none", "required"):
            m.fail("tool_choice", "is not one of none, auto, required, or a function's name")
        return value
    choice = _Members(value, "tool_choice.")
    choice.choice("type", "function")
    function = _Members(choice.need("function"), "tool_choice.function.")
    choice.end()
    name = function.text("name", high=MAX_NAME)
    function.end()
    if all(tool["function"]["name"] != name for tool in tools):
        function.fail("name", "is no tool's")
    return {"function": {"name": name}, "type": "function"}


def _response_format(m: _Members) -> dict[str, Any] | None:
    value = m.take("response_format")
    if value is None:
        return None
    form = _Members(value, "response_format.")
    kind = form.choice("type", "json_object", "json_schema", "text")
    found: dict[str, Any] = {"type": kind}
    if kind == "json_schema":
        schema = _Members(form.need("json_schema"), "response_format.json_schema.")
        said: dict[str, Any] = {
            "name": schema.matching("name", _NAME, "a name of letters, digits, '_', '-' and '.'"),
            "schema": _free(schema, "schema", schema.need("schema")),
        }
        _put(said, description=schema.maybe_text("description", high=1 << 14), strict=schema.flag("strict") or None)
        schema.end()
        found["json_schema"] = said
    form.end()
    return None if kind == "text" else found


def _biases(m: _Members) -> dict[str, float] | None:
    value = m.take("logit_bias")
    if value is None or value == {}:
        return None
    if not isinstance(value, dict) or len(value) > MAX_BIASES:
        m.fail("logit_bias", f"is not an object of at most {MAX_BIASES:,} members")
    for token, bias in value.items():
        good = isinstance(bias, int | float) and not isinstance(bias, bool) and -100 <= bias <= 100
        if not _TOKEN_ID.match(token) or not good:
            m.fail("logit_bias", "is not a map from token ids to numbers from -100 to 100")
    return {token: _plain(bias) for token, bias in value.items()}


def _stops(m: _Members) -> list[str] | None:
    value = m.take("stop")
    if value is None or value == []:
        return None
    stops = [value] if isinstance(value, str) else m.items("stop", value, low=1, high=MAX_STOPS)
    if any(not isinstance(stop, str) or not 1 <= len(stop) <= MAX_STOP_CHARS for stop in stops):
        m.fail("stop", f"is not 1 to {MAX_STOPS} strings of 1 to {MAX_STOP_CHARS} characters")
    return stops


# --- the routes -----------------------------------------------------------------------------------------------------

HARMLESS: Final = (
    "metadata",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
)


def _streaming(m: _Members) -> tuple[bool, bool]:
    """Whether the answer is streamed, and whether its usage is. They are for who answers: the engine answers in pieces."""
    stream = m.flag("stream") or False
    options = m.take("stream_options")
    usage = False
    if options is not None:
        one = _Members(options, "stream_options.")
        usage = one.flag("include_usage") or False
        one.ignore("include_obfuscation")
        one.end()
    return stream, usage


def _sampling(m: _Members, found: dict[str, Any]) -> None:
    _put(
        found,
        frequency_penalty=m.number("frequency_penalty", -2, 2) or None,
        logit_bias=_biases(m),
        min_p=m.number("min_p", 0, 1),
        n=_not(1, m.whole("n", 1, MAX_CHOICES)),
        presence_penalty=m.number("presence_penalty", -2, 2) or None,
        seed=m.whole("seed", -(2**63), 2**63 - 1),
        stop=_stops(m),
        temperature=m.number("temperature", 0, 2),
        top_k=m.whole("top_k", 0, 1 << 20),
        top_p=m.number("top_p", 0, 1),
    )


def _not(default: Any, value: Any) -> Any:
    return None if value == default else value


def _chat(m: _Members, found: dict[str, Any]) -> None:
    m.refuse("audio", "function_call", "functions", "moderation", "prediction", "reasoning_effort", "verbosity")
    m.refuse("web_search_options")
    if m.take("modalities") not in (None, ["text"]):
        raise NotSupported("modalities: only text is supported", param="modalities")
    messages = m.items("messages", m.need("messages"), low=1, high=MAX_MESSAGES)
    found["messages"] = [_message(n, message) for n, message in enumerate(messages)]
    _sampling(m, found)
    most, older = m.whole("max_completion_tokens", 1, MAX_TOKENS), m.whole("max_tokens", 1, MAX_TOKENS)
    if None not in (most, older) and most != older:
        m.fail("max_completion_tokens", "is not max_tokens, which is there too")
    logprobs, top = m.flag("logprobs") or False, m.whole("top_logprobs", 0, 20)
    tools = _tools(m)
    parallel = m.flag("parallel_tool_calls")
    _put(
        found,
        logprobs=logprobs or None,
        max_tokens=older if most is None else most,
        parallel_tool_calls=False if tools and parallel is False else None,
        response_format=_response_format(m),
        tool_choice=_tool_choice(m, tools),
        tools=tools,
        top_logprobs=(top or None) if logprobs else None,
    )


def _completions(m: _Members, found: dict[str, Any]) -> None:
    m.empty("echo", "suffix")
    m.refuse("echo", "suffix")
    prompt = m.need("prompt")
    if isinstance(prompt, list):
        if len(prompt) != 1 or not isinstance(prompt[0], str):
            raise NotSupported("prompt: one text is supported, and no token ids", param="prompt")
        prompt = prompt[0]
    if not isinstance(prompt, str):
        m.fail("prompt", "is not a string")
    found["prompt"] = prompt
    if m.whole("best_of", 1, MAX_CHOICES) not in (None, 1):
        raise NotSupported("best_of is not supported", param="best_of")
    _sampling(m, found)
    _put(found, logprobs=m.whole("logprobs", 0, 20), max_tokens=m.whole("max_tokens", 1, MAX_TOKENS))


def _embeddings(m: _Members, found: dict[str, Any]) -> None:
    m.refuse("dimensions")
    value = m.need("input")
    texts = [value] if isinstance(value, str) else m.items("input", value, low=1, high=MAX_TEXTS)
    if any(not isinstance(text, str) for text in texts):
        raise NotSupported("input: texts are supported, and no token ids", param="input")
    if any(text == "" for text in texts):
        m.fail("input", "holds an empty text")
    found["input"] = texts


_READERS: Final[Mapping[Route, Callable[[_Members, dict[str, Any]], None]]] = MappingProxyType(
    {"chat": _chat, "completions": _completions, "embeddings": _embeddings}
)


@dataclass(frozen=True, slots=True)
class Request:
    """A request in its normal form. Made by :func:`read`.

    Attributes:
        route: what is asked for.
        model: by which model.
        normal: the normal form; nobody writes to it.
        stream: whether the answer comes in events.
        include_usage: whether the last event says what was used.
        base64: whether embeddings come in base64.
    """

    route: Route
    model: str
    normal: Mapping[str, Any]
    stream: bool = False
    include_usage: bool = False
    base64: bool = False

    def encode(self) -> bytes:
        """The normal form's one spelling."""
        return _canonical(dict(self.normal)).encode()

    @property
    def choices(self) -> int:
        """How many answers are asked for."""
        n = self.normal.get("n", 1)
        assert isinstance(n, int)
        return n

    def texts(self) -> tuple[str, ...]:
        """Everything in words that the model will read, in order: what guards look at. Of a schema all words together, its
        members' names too, with ``BETWEEN`` between them. Not what only steers the answer (``stop``, ``tool_choice``)."""
        return tuple(place.text for place in _places(self.normal))

    def with_texts(self, texts: Sequence[str]) -> Request:
        """The same request with other words.

        Args:
            texts: one for each of :meth:`texts`.

        Raises:
            ValueError: fewer, or more.
            BadMember, RequestTooLarge: such a request could not be sent: a name that is none any more, or a schema with
                another shape.
        """
        normal = deepcopy(dict(self.normal))
        for place, text in zip(list(_places(normal)), texts, strict=True):
            if text != place.text:
                place.write(text)
        changed = read(self.route, _canonical(normal).encode("utf-8", "replace"))
        return replace(self, normal=changed.normal)


BETWEEN: Final = "\n\n"
"""Stands between the words of a schema, where guards look at them."""


class _Text:
    """A member that is a text."""

    __slots__ = ("_holder", "_name")

    def __init__(self, holder: Any, name: Any) -> None:
        self._holder, self._name = holder, name

    @property
    def text(self) -> str:
        found: str = self._holder[self._name]
        return found

    def write(self, text: str) -> None:
        self._holder[self._name] = text


class _Schema:
    """All the words of a schema."""

    __slots__ = ("_param", "_schema")

    def __init__(self, schema: Any, param: str) -> None:
        self._schema, self._param = schema, param

    @property
    def text(self) -> str:
        return BETWEEN.join(word for word, _ in _words(self._schema))

    def write(self, text: str) -> None:
        """Raises BadMember: a member's name is another, or it cannot be told which word became which."""
        said = text.split(BETWEEN)
        found = list(_words(self._schema))
        apart = len(said) == len(found) and not any(BETWEEN in word for word, _ in found)
        for (word, place), now in zip(found, said, strict=False) if apart else ():
            if word != now and place is not None:
                place.write(now)
        if self.text != text:
            raise BadMember(f"{self._param}: a guard would change what cannot be changed", param=self._param)


def _words(value: Any) -> Iterator[tuple[str, _Text | None]]:
    """Every string in a schema: the names of members, which cannot be written to, and values."""
    members: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        members = value.items()
    elif isinstance(value, list):
        members = enumerate(value)
    for name, item in members:
        if isinstance(name, str):
            yield name, None
        if isinstance(item, str):
            yield item, _Text(value, name)
        else:
            yield from _words(item)


def _places(normal: Mapping[str, Any]) -> Iterator[_Text | _Schema]:
    """Where words stand in a normal form."""
    if "prompt" in normal:
        yield _Text(normal, "prompt")
    texts = normal.get("input", [])
    yield from (_Text(texts, n) for n in range(len(texts)))
    for message in normal.get("messages", []):
        yield from (
            _Text(message, name) for name in ("name", "content", "reasoning_content", "tool_call_id") if name in message
        )
        for call in message.get("tool_calls", []):
            yield from (_Text(call, "id"), _Text(call["function"], "name"), _Text(call["function"], "arguments"))
    for n, tool in enumerate(normal.get("tools", [])):
        yield from _described(tool["function"], "parameters", f"tools[{n}].function.parameters")
    form = normal.get("response_format", {})
    if "json_schema" in form:
        yield from _described(form["json_schema"], "schema", "response_format.json_schema.schema")


def _described(holder: Any, schema: str, param: str) -> Iterator[_Text | _Schema]:
    """What has a name, perhaps a description, and perhaps a schema."""
    yield from (_Text(holder, name) for name in ("name", "description") if name in holder)
    if schema in holder:
        yield _Schema(holder[schema], param)


def read(route: Route, body: bytes) -> Request:
    """Read a request.

    Args:
        route: which it came by.
        body: untrusted; any bytes.

    Raises:
        RequestTooLarge: more than ``MAX_BODY`` bytes or ``MAX_VALUES`` values.
        NotARequest: not one JSON object in UTF-8, or a member twice.
        UnknownMember, NotSupported, BadMember: with the member's name in ``param``.
    """
    m = _Members(_decode(body))
    model = m.text("model", low=1, high=MAX_MODEL)
    found: dict[str, Any] = {"model": model}
    m.ignore(*HARMLESS)
    stream = usage = base64 = False
    if route == "embeddings":
        form = m.take("encoding_format")
        if form not in (None, "base64", "float"):
            m.fail("encoding_format", "is not float or base64")
        base64 = form == "base64"
    else:
        stream, usage = _streaming(m)
    _READERS[route](m, found)
    m.end()
    return Request(route, model, MappingProxyType(found), stream, usage, base64)


def model_of(body: bytes) -> str | None:
    """The model that a body names, however wrong the rest of it is; ``None`` where it names none."""
    try:
        model = _decode(body).get("model")
    except (NotARequest, RequestTooLarge):
        return None
    return model if isinstance(model, str) else None
