"""``pii``: personal data, found by Presidio's recognisers: patterns, check digits, and words that stand before.

Nothing is fetched and nothing is written: domain names are checked against the list that comes with ``tldextract``, and the
tokenizer is a blank one. Names of people, places and what has no pattern are not found.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import presidio_analyzer.predefined_recognizers as recognisers
import spacy
import tldextract
from presidio_analyzer import EntityRecognizer, RecognizerResult
from presidio_analyzer.context_aware_enhancers import LemmaContextAwareEnhancer
from presidio_analyzer.nlp_engine import NlpArtifacts

from . import ENTITIES, Mark, Verdict, judged

WINDOW_CHARS: Final = 4096
"""How much is looked at in one go. The patterns of some recognisers take time that grows with the square of a text."""

HOLD_CHARS: Final = 320

_OVERLAP_CHARS = 512
_LONGEST_DOMAIN = 255
# Every number that could be one has seven digits with at most this between two of them. Looking for that first spares most
# text the slow reader of phone numbers.
_DIGITS = re.compile(r"\d(?:\D{0,6}\d){6}")
_WORD = re.compile(r"\S+")
# What a number in several words can have between its digits: brackets, punctuation, a bank's short code.
_BETWEEN = re.compile(r"[(+].*|\W+|[A-Z]{1,6}")
_LONGEST_TAIL = 400

_suffixes = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)


class _Silent(logging.Filter):
    """Lets no record of Presidio's through, for some hold the text; notes that something went wrong, for then it skips the
    pattern that did (a time-out), and goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.complaints = 0

    def filter(self, record: logging.LogRecord) -> bool:
        self.complaints += record.levelno >= logging.WARNING
        return False


_silent = _Silent()
logging.getLogger("presidio-analyzer").addFilter(_silent)


class _Email(recognisers.EmailRecognizer):
    """Presidio's, with a list of public suffixes that is not fetched."""

    def validate_result(self, pattern_text: str) -> bool:
        return bool(_suffixes(pattern_text[-_LONGEST_DOMAIN:]).fqdn)


def _recogniser(entity: str) -> EntityRecognizer:
    return _Email() if entity == "EMAIL_ADDRESS" else getattr(recognisers, ENTITIES[entity])()


class PersonalData:
    """The guard.

    Args:
        program: its digest.
        settings: ``entities``, ``found``, ``threshold``.
    """

    name = "pii"
    hold_chars = HOLD_CHARS
    whole = False

    def __init__(self, program: str, settings: Mapping[str, Any]) -> None:
        self.program = program
        self._threshold = settings["threshold"] / 100
        self._refuses = settings["found"] == "refuse"
        self._recognisers = [_recogniser(entity) for entity in settings["entities"]]
        self._words = spacy.blank("en")
        self._context = LemmaContextAwareEnhancer()
        self._lock = threading.Lock()  # the tokenizer and what notes a complaint are not made for two at once
        self.look(["begin 10.0.0.1 a@b.example (212) 555-0187 end"])  # what is made at the first use is made now

    def look(self, texts: Sequence[str]) -> Verdict:
        return judged(self, texts)

    def mark(self, text: str) -> tuple[Mark, ...] | None:
        found: list[tuple[int, int, str]] = []
        for start, end in _windows(text):
            with self._lock:  # for no longer than a window: others wait
                before = _silent.complaints
                found += self._within(text[start:end], start)
                if _silent.complaints != before:
                    return None
            if found and self._refuses:
                return None
        return _apart(sorted(set(found)))

    def settled(self, text: str) -> int:
        """All but the last word and the words before it that one number may be made of."""
        base = max(0, len(text) - _LONGEST_TAIL)
        words = list(_WORD.finditer(text, base))
        at = len(text)
        unfinished = bool(text) and not text[-1].isspace()
        for word in reversed(words):
            said = word.group()
            if not (unfinished or any(c.isdigit() for c in said) or _BETWEEN.fullmatch(said)):
                break
            at, unfinished = word.start(), False
        return max(at, len(text) - self.hold_chars)

    def _within(self, text: str, offset: int) -> Iterator[tuple[int, int, str]]:
        """What is in one window: start and end in the whole text, and what it is."""
        results: list[RecognizerResult] = []
        numbers = _DIGITS.search(text) is not None
        for one in self._recognisers:
            if numbers or one.supported_entities[0] != "PHONE_NUMBER":
                results += one.analyze(text, one.supported_entities, None)  # type: ignore[arg-type] # patterns need none
        if results:
            results = self._context.enhance_using_context(text, results, self._artifacts(text), self._recognisers)
        for result in results:
            if result.score >= self._threshold:
                yield offset + result.start, offset + result.end, result.entity_type

    def _artifacts(self, text: str) -> NlpArtifacts:
        """The words of a text, for the words that make a number mean something (``phone``, ``iban``)."""
        words = self._words(text)
        lemmas = [word.text.lower() for word in words]
        found = NlpArtifacts(
            entities=[],
            tokens=words,
            tokens_indices=[word.idx for word in words],
            lemmas=lemmas,
            nlp_engine=None,
            language="en",
            scores=[],
        )
        found.keywords = lemmas  # those that it would choose itself need a trained model
        return found


def _windows(text: str) -> Iterator[tuple[int, int]]:
    """Parts of a text that overlap by more than what is looked for can be long."""
    start = 0
    while True:
        yield start, min(len(text), start + WINDOW_CHARS)
        if start + WINDOW_CHARS >= len(text):
            return
        start += WINDOW_CHARS - _OVERLAP_CHARS


def _apart(found: Sequence[tuple[int, int, str]]) -> tuple[Mark, ...]:
    """Passages that overlap are one, named for the longest."""
    marks: list[tuple[int, int, str, int]] = []
    for start, end, entity in found:
        if marks and start < marks[-1][1]:
            low, high, name, longest = marks[-1]
            kept = (name, longest) if longest >= end - start else (entity, end - start)
            marks[-1] = (low, max(high, end), *kept)
        else:
            marks.append((start, end, entity, end - start))
    return tuple(Mark(start, end, f"<{entity}>") for start, end, entity, _ in marks)
