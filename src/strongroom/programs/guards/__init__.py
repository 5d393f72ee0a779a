"""Guards: what looks at a request before a language model does, and at an answer before anybody else does.

Three, by the names that a policy has for them: ``pii`` (personal data, by patterns and their check digits), ``injection``
(markers of prompt injection) and ``model`` (a guard model among the contract's assets). A guard allows, changes or refuses,
and keeps nothing: no text is logged, and an error inside a guard is a refusal.

What a guard runs by is its *settings*, a part of the contract. Its ``program`` is a digest of its source, its libraries'
versions and these settings, so that two rooms with one digest guard alike.

See ``docs/guards.md`` and ``spec/guards.md``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import Any, Final, Literal, NoReturn, Protocol, TypeAlias

from strongroom.errors import BadParameters, MissingExtra

Decision: TypeAlias = Literal["allowed", "changed", "refused"]

Ask: TypeAlias = Callable[[bytes], str]
"""Puts one request of the kind ``chat`` (``lm.engine``) to the guard model and returns the whole answer's text. It blocks,
and may raise anything: that is a refusal."""

STAGES: Final = ("input", "output")

ENTITIES: Final[Mapping[str, str]] = {
    "CREDIT_CARD": "CreditCardRecognizer",
    "CRYPTO": "CryptoRecognizer",
    "EMAIL_ADDRESS": "EmailRecognizer",
    "IBAN_CODE": "IbanRecognizer",
    "IP_ADDRESS": "IpRecognizer",
    "MAC_ADDRESS": "MacAddressRecognizer",
    "PHONE_NUMBER": "PhoneRecognizer",
    "UK_NHS": "NhsRecognizer",
    "UK_NINO": "UkNinoRecognizer",
    "US_ITIN": "UsItinRecognizer",
    "US_SSN": "UsSsnRecognizer",
}
"""What ``pii`` knows: kinds of personal data, and Presidio's recogniser of each."""

DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "injection": {"refuse_at": 100},
    "model": {"max_tokens": 16, "passed": "safe", "prompt": "llama-guard"},
    "pii": {"entities": sorted(ENTITIES), "found": "change", "threshold": 40},
}
"""The settings of each guard that a person need not say."""

MAX_PROMPT: Final = 16_384
_WORD: Final = 64
_MODULES: Final[Mapping[str, tuple[str, ...]]] = {
    "injection": ("injection.py", "markers.py", "plain.py"),
    "model": ("judge.py",),
    "pii": ("pii.py",),
}
_LIBRARIES: Final[Mapping[str, tuple[str, ...]]] = {
    "injection": (),
    "model": (),
    "pii": ("phonenumbers", "presidio-analyzer", "regex", "spacy", "tldextract"),
}

NAMES: Final = tuple(sorted(_MODULES))
"""The guards that there are."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A passage that must not go on.

    Attributes:
        start, end: where it is, in characters of the text that was looked at.
        instead: what stands in its place.
    """

    start: int
    end: int
    instead: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a guard decided.

    Attributes:
        decision: ``changed`` where what goes on is not what was given.
        texts: what goes on, as many texts as were given; none where it refused.
    """

    decision: Decision
    texts: tuple[str, ...]


REFUSED: Final = Verdict("refused", ())

MAX_TEXTS: Final = 1_000_000
"""Characters that are looked at together; more are refused: time is not without bounds."""


class Guard(Protocol):
    """One guard, ready. Used from any thread.

    Attributes:
        name: one of ``NAMES``.
        program: the digest of what runs.
        hold_chars: how much of an answer that is still being written is held back at most, characters: what it looks for is
            no longer than that.
        whole: whether it judges an answer only when all of it is there, so that nothing of it leaves before.
    """

    name: str
    program: str
    hold_chars: int
    whole: bool

    def look(self, texts: Sequence[str]) -> Verdict:
        """Judge the texts of one request or of one answer, together. Never raises."""

    def mark(self, text: str) -> tuple[Mark, ...] | None:
        """What of a text must not go on, in order and apart from each other; ``None`` where it refuses. May raise."""

    def settled(self, text: str) -> int:
        """How many of the first characters no longer depend on what comes after this text. At least all but
        ``hold_chars``."""


def applied(text: str, marks: Sequence[Mark]) -> str:
    """The text with what stands in place of each marked passage."""
    parts, at = [], 0
    for mark in marks:
        parts += [text[at : mark.start], mark.instead]
        at = mark.end
    return "".join([*parts, text[at:]])


def judged(guard: Guard, texts: Sequence[str]) -> Verdict:
    """Each text marked by itself: how rules look. Whatever goes wrong inside is a refusal."""
    found: list[str] = []
    if sum(map(len, texts)) > MAX_TEXTS:
        return REFUSED
    for text in texts:
        try:
            marks = guard.mark(text)
        except Exception:  # noqa: BLE001 - a guard that fails lets nothing through, and says nothing of the text
            return REFUSED
        if marks is None:
            return REFUSED
        found.append(applied(text, marks))
    return Verdict("allowed" if found == list(texts) else "changed", tuple(found))


def _bad(why: str) -> NoReturn:
    raise BadParameters(f"guards: {why}", step="check parameters")


def _members(value: object, names: Collection[str], what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or set(value) != set(names):
        _bad(f"{what} does not have exactly the members {', '.join(sorted(names))}")
    return value


def _whole(value: object, low: int, high: int, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        _bad(f"{what} is not a whole number from {low} to {high}")


def _word(value: object, what: str) -> None:
    if (
        not isinstance(value, str)
        or not 0 < len(value) <= _WORD
        or not value.isprintable()
        or value != value.strip().lower()
    ):
        _bad(f"{what} is not a text of 1 to {_WORD} printable characters without capitals")


def _check_pii(given: Mapping[str, Any]) -> None:
    entities = given["entities"]
    if not isinstance(entities, list | tuple) or not entities or list(entities) != sorted(set(map(str, entities))):
        _bad("pii: entities are not a sorted list of distinct names")
    for stranger in set(entities) - set(ENTITIES):
        _bad(f"pii: the entity {str(stranger)[:40]!r} is not one of {', '.join(sorted(ENTITIES))}")
    if given["found"] not in ("change", "refuse"):
        _bad("pii: found is neither change nor refuse")
    _whole(given["threshold"], 1, 100, "pii: threshold")


def _check_model(given: Mapping[str, Any]) -> None:
    _word(given["passed"], "model: passed")
    _whole(given["max_tokens"], 1, 256, "model: max_tokens")
    prompt = given["prompt"]
    if not isinstance(prompt, str) or len(prompt) > MAX_PROMPT:
        _bad(f"model: prompt is not a text of at most {MAX_PROMPT} characters")
    if prompt != "llama-guard" and prompt.count("{texts}") != 1:
        _bad("model: prompt is neither llama-guard nor a text with {texts} in exactly one place")


def check(settings: Mapping[str, Any]) -> None:
    """Refuse settings that no guard could run by: an object with one member for each guard that is set, each with exactly
    the members that ``DEFAULTS`` has.

    Raises:
        BadParameters: see ``spec/guards.md`` for what they must be.
    """
    if not isinstance(settings, Mapping) or not set(settings) <= set(NAMES):
        _bad(f"the settings name something else than {', '.join(NAMES)}")
    for name, value in settings.items():
        given = _members(value, DEFAULTS[name], name)
        if name == "pii":
            _check_pii(given)
        elif name == "model":
            _check_model(given)
        else:
            _whole(given["refuse_at"], 1, 1000, "injection: refuse_at")


def program(name: str, settings: Mapping[str, Any] | None = None) -> str:
    """The digest of a guard as it is installed here: ``sha256:`` of the canonical JSON object with its files, libraries and
    settings (``spec/guards.md``).

    Args:
        name: one of ``NAMES``.
        settings: of this guard; ``None`` for its defaults.

    Raises:
        MissingExtra: a library that it needs is not installed.
    """
    here = files(__name__)
    sources = ("__init__.py", *_MODULES[name])
    try:
        libraries = {library: version(library) for library in _LIBRARIES[name]}
    except PackageNotFoundError as error:
        raise MissingExtra(
            f"guard {name!r} needs libraries that are not installed", hint="pip install 'strongroom[guards]'"
        ) from error
    described = {
        "files": {
            f"programs/guards/{file}": "sha256:" + hashlib.sha256(here.joinpath(file).read_bytes()).hexdigest()
            for file in sources
        },
        "guard": name,
        "libraries": libraries,
        "settings": dict(DEFAULTS[name] if settings is None else settings),
    }
    said = json.dumps(described, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return "sha256:" + hashlib.sha256(said.encode()).hexdigest()


def load(
    names: Collection[str],
    stage: str,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    ask: Ask | None = None,
) -> list[Guard]:
    """The guards of one stage, ready, in the order of their names.

    Args:
        names: from the policy.
        stage: ``input`` or ``output``.
        settings: by guard, from the contract; a guard that is not there runs by ``DEFAULTS``.
        ask: puts a question to the guard model; only ``model`` needs it.

    Raises:
        BadParameters: a name or settings that are not known, or ``model`` without a model to ask.
        MissingExtra: a guard's libraries are not installed.
    """
    settings = {} if settings is None else settings
    check(settings)
    if stage not in STAGES or not set(names) <= set(NAMES):
        _bad(f"a guard is none of {', '.join(NAMES)}, or a stage none of {', '.join(STAGES)}")
    found: list[Guard] = []
    for name in sorted(set(names)):
        given = dict(settings.get(name, DEFAULTS[name]))
        digest = program(name, given)
        if name == "model":
            if ask is None:
                _bad("the policy asks for a guard model, and the contract has none")
            found.append(import_module(f"{__name__}.judge").Judge(digest, stage, given, ask))
        elif name == "pii":
            found.append(import_module(f"{__name__}.pii").PersonalData(digest, given))
        else:
            found.append(import_module(f"{__name__}.injection").Injection(digest, given))
    return found
