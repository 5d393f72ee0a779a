"""What the embedded model reads: documents cleaned, split by document, and conversations made from them.

Nothing here needs more than the standard library.
"""

import hashlib
import json
import lzma
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

BEGIN, END, SYSTEM, USER, ASSISTANT = SPECIAL = ("<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")

# Whole novels that training never reads, each the only book of its author in the corpus: TEST for the published figure,
# WATCH for what is looked at while training goes on.
TEST_NOVELS = ("18500_Ainsworth", "18860_Hardy", "18920_Grossmith", "18931_Harraden", "19111_Hornung", "19170_Conrad")
WATCH_NOVELS = ("18552_Kavanagh", "19150_Buchan")
TRAINED_ON = ("books", "encyclopedia")  # the corpora's other files are their owners' sources and only read by `evaluate`


@dataclass(frozen=True, slots=True)
class Document:
    id: str
    text: str


def read(path: Path) -> Iterator[Document]:
    """The documents of an xz-compressed file of JSON lines, `{"id": ..., "text": ...}` each."""
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            fields = json.loads(line)
            yield Document(fields["id"], fields["text"])


# --- which documents are held out --------------------------------------------------------------------------------------


def headword(document: Document) -> str:
    """The first line, by which an article is known in either edition."""
    return document.text.split("\n", 1)[0].strip().upper()


def part(corpus: str, document: Document) -> str:
    """`train`, `watch` or `test`: novels by name; articles by the digest of their headword, 1 in 256 each, so that both
    editions of an article fall on the same side; other corpora are only measured on."""
    if corpus == "books":
        name = document.id.rpartition("/ENG")[2].removesuffix(".xml")
        return "test" if name in TEST_NOVELS else "watch" if name in WATCH_NOVELS else "train"
    if corpus == "encyclopedia":
        return {0: "test", 1: "watch"}.get(hashlib.sha256(headword(document).encode()).digest()[0], "train")
    return "test"


# --- cleaning ----------------------------------------------------------------------------------------------------------

_SAME = str.maketrans(
    {
        **dict.fromkeys("“”„‟″«»", '"'),
        **dict.fromkeys("‘’‚‛´`′", "'"),
        **dict.fromkeys("‐‑‒–−", "-"),
        **dict.fromkeys("―─", "—"),
        **dict.fromkeys("\u00a0\u2002\u2003\u2009\u200a\u202f\t", " "),
        **dict.fromkeys("\u00ad\u200b\u200c\u200d\u2060\ufeff\ufffd\r", ""),
        "…": "...",
        "ﬁ": "fi",
        "ﬂ": "fl",
        "ſ": "s",
    }
)
_RULES = tuple(
    (re.compile(pattern), by)
    for pattern, by in (
        (r"[\x00-\x09\x0b-\x1f\x7f]", ""),
        (r" {2,}", " "),
        (r" ?(?:-{2,}|—+) ?", "—"),  # a dash is written --, --- or — and spaced as the printer liked
        (r" ?(?:(?:\* ?){2,}|_{2,}|\[\d+\]) ?", " "),
        (r"(?<=\w) (?=[,;:.!?](?:\s|$))", ""),  # "donovan ," as some scans have it
        (r" ?\n ?", "\n"),
        (r"\n{2,}", "\n"),
    )
)


def clean(text: str) -> str:
    """One spelling of quotation marks, dashes and spaces; one paragraph a line; no empty lines."""
    text = unicodedata.normalize("NFC", text).translate(_SAME)
    for pattern, by in _RULES:
        text = pattern.sub(by, text)
    return text.strip()


_WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")


def known_words(texts: Iterable[str], least: int = 5) -> frozenset[str]:
    """Lower-case words that occur at least so often: what scanned lines are judged by."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word.lower() for word in _WORD.findall(text))
    return frozenset(word for word, count in counts.items() if count >= least)


def readable(line: str, known: frozenset[str]) -> bool:
    """False of tables, captions' debris and pages that the scanner misread: under 70 % of the characters in words, or under
    75 % of the words known."""
    words = _WORD.findall(line)
    return (
        sum(map(len, words)) >= 0.7 * len(line.replace(" ", ""))
        and sum(word.lower() in known for word in words) >= 0.75 * len(words)
        and len(words) >= 3
    )


def article(text: str, known: frozenset[str]) -> str:
    """A cleaned article without its unreadable lines; the headword stays. Empty where nothing readable is left."""
    first, *rest = clean(text).split("\n")
    kept = [line for line in rest if readable(line, known)]
    return "\n".join((first, *kept)) if kept else ""


def distinct(articles: Iterable[Document]) -> Iterator[Document]:
    """Without articles of which more than half stood in an earlier one of the same headword: the editions overlap."""
    seen: dict[str, set[int]] = {}
    for document in articles:
        words = document.text.lower().split()
        shingles = {hash(tuple(words[i : i + 6])) for i in range(max(1, len(words) - 5))}
        before = seen.setdefault(headword(document), set())
        if 2 * len(shingles & before) <= len(shingles):
            yield document
        before |= shingles


def section(text: str) -> str:
    """A cleaned chapter section: prose without the markup that its source format left behind."""
    text = re.sub(r"\[([^][]*)\]\([^)]*\)|\[([^][]*)\]\[[^][]*\]", r"\1\2", text)
    lines = (re.sub(r"^#+ |\*+", "", line) for line in text.split("\n"))
    return clean("\n".join(line for line in lines if not re.match(r'\s*(?:class=|"\)|<|-->|D\. -->)', line)))


# --- conversations -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Turn:
    role: str  # SYSTEM, USER or ASSISTANT
    text: str


Conversation = tuple[Turn, ...]


def render(conversation: Conversation) -> str:
    """As the model reads it; the chat template of the exported tokenizer writes the same."""
    return BEGIN + "".join(f"{turn.role}{turn.text}{END}" for turn in conversation)


_SPEECH = re.compile(r'"([^"]+)"?')


def spoken(paragraph: str) -> str:
    """What is said in a paragraph that opens with a quotation mark and is mostly speech, or short; else the empty string."""
    if not paragraph.startswith('"'):
        return ""
    parts = [part.strip() for part in _SPEECH.findall(paragraph)]
    speech = re.sub(
        r",(?= (?!I\b)[A-Z])", ".", " ".join(filter(None, parts))
    )  # '"Talk," he said. "It will"' is two sentences
    if len(paragraph) - len(speech) > max(60, len(speech)) or not 2 <= len(speech) <= 600:
        return ""
    speech = re.sub(r"[,—-]+$", ".", speech)
    return speech if re.search(r"[.!?']$", speech) else ""


def dialogues(novel: str, rng: random.Random, longest: int = 12) -> Iterator[Conversation]:
    """The dialogues of a novel that marks speech with double quotation marks: turns of two speakers, and in half of them the
    narration before as the system's message."""
    turns: list[str] = []
    scene = before = ""
    for paragraph in (*novel.split("\n"), ""):
        speech = spoken(paragraph)
        if speech and len(turns) < longest:
            if not turns:
                scene = before
            turns.append(speech)
            continue
        turns = turns[: len(turns) // 2 * 2]
        if turns:
            head = (Turn(SYSTEM, scene),) if 40 <= len(scene) <= 600 and '"' not in scene and rng.random() < 0.5 else ()
            yield head + tuple(Turn((USER, ASSISTANT)[i % 2], turn) for i, turn in enumerate(turns))
        turns = [speech] if speech else []
        scene = before if speech else ""
        before = paragraph


_CONTINUE = (
    "Continue: {}",
    "Continue this story: {}",
    "Please continue the story. {}",
    "Go on from here: {}",
    "What happens next? {}",
    "{}",
)
_OPEN = ("Tell me a story.", "Write the beginning of a chapter.", "Write a story.", "Begin a novel.", "Tell me something.")
_CHAPTER = re.compile(r"^(?:chapter|book|part)\b.{0,80}$", re.IGNORECASE)


def _prose(paragraph: str, least: int, most: int) -> bool:
    return least <= len(paragraph) <= most and paragraph[-1] in '.!?"' and paragraph[0].isupper()


def continuations(novel: str, rng: random.Random, share: float = 0.05) -> Iterator[Conversation]:
    """Passages of a novel asked for: one paragraph is given and the next ones answer, or a chapter's beginning answers."""
    lines = novel.split("\n")
    for i in range(1, len(lines) - 2):
        answer = "\n".join(lines[i : i + 2])
        if not (lines[i] and _prose(lines[i], 80, 900) and _prose(answer, 200, 1400)):
            continue
        if _CHAPTER.match(lines[i - 1]) and not _CHAPTER.match(lines[i]):
            yield Turn(USER, rng.choice(_OPEN)), Turn(ASSISTANT, answer)
        elif rng.random() < share and lines[i - 1] and _prose(lines[i - 1], 60, 500):
            yield Turn(USER, rng.choice(_CONTINUE).format(lines[i - 1])), Turn(ASSISTANT, answer)


_ASK = ("What is {}?", "Tell me about {}.", "What do you know about {}?", "Explain {}.", "{}", "Define {}.")
_ASK_WHO = ("Who was {}?", "Tell me about {}.", "What do you know about {}?", "{}")


def explanation(text: str, rng: random.Random) -> Conversation | None:
    """An article's opening as the answer to a question about its headword; None where it is no such sentence."""
    head, _, rest = text.partition("\n")
    first = rest.partition("\n")[0]
    if not re.fullmatch(r"[A-Z][A-Za-z' -]{2,40}", head) or len(first) < 40:
        return None
    name, ask = head.capitalize(), _ASK
    if person := re.match(r"([A-Z]{3,}(?: [A-Z]{3,})?), (?=an? )", first):
        name, ask = f"{person[1].title()} {head.title()}", _ASK_WHO
        answer = f"{name}, {first[person.end() :]}"
    elif re.match(r"(?:in|an?|the|among|or|one) ", first):
        answer = f"{name}, {first}"
    elif first[0].islower():
        answer = f"{name} {first}"
    else:
        return None
    sentences = re.split(r"(?<=[a-z]{3}[.!?]) (?=[A-Z])", answer)
    while len(sentences) > 1 and len(" ".join(sentences)) > 900:
        sentences.pop()
    answer = " ".join(sentences)
    asked = rng.choice(ask).format(name if ask is _ASK_WHO or rng.random() < 0.5 else name.lower())
    return (Turn(USER, asked), Turn(ASSISTANT, answer)) if len(answer) <= 1200 and answer[-1] in ".!?" else None
