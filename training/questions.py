"""Makes the questions of `strongroom demo llm-eval`: 200 with answers that can be checked, for a model that continues text.

    python training/questions.py CORPORA/books.jsonl.xz > src/strongroom/app/cli/demo_llm.jsonl

From six English novels of 1850 to 1917 that the embedded model never read (COST-ELTeC, ELTeC-eng; texts in the public
domain, the collection CC BY 4.0): the last word of a set phrase, and the name of somebody who was named before. And sums.
"""

from __future__ import annotations

import json
import lzma
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator

NOVELS = ("18500_Ainsworth", "18860_Hardy", "18920_Grossmith", "18931_Harraden", "19111_Hornung", "19170_Conrad")
PHRASES = """
a cup of tea; a day or two; a glass of wine; a great deal more; a quarter of an hour; again and again; an hour or two;
arm in arm; as a matter of fact; as pale as death; as soon as possible; as white as snow; at any rate; at the same
time; at the top of his voice; beg your pardon; body and soul; bread and butter; broke the silence; burst into tears;
by no means; cast down her eyes; day and night; fast asleep; flesh and blood; for the first time; from head to foot;
from time to time; half an hour; heart and soul; held out her hand; held out his hand; here and there; husband and
wife; in a loud voice; in a low voice; in the meantime; in the middle of the night; in the twinkling of an eye; knife
and fork; ladies and gentlemen; leaned back in his chair; life and death; looked out of the window; made up his mind;
more or less; my dear fellow; night and day; now and then; of course; on her knees; on the contrary; on the other
hand; once or twice; one by one; opened the door; over and over again; pen and ink; raised his eyes; rang the bell;
right and wrong; sank into a chair; shook hands; shook her head; shook his head; side by side; sooner or later; tears
in her eyes; the day before yesterday; the dining room; the rest of the day; to and fro; took off his hat; up and
down; with a smile; with all my heart; years of age
"""
WORDS = 70
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def novels(path: str) -> Iterator[tuple[str, str]]:
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            book = json.loads(line)
            name = book["id"].rpartition("/ENG")[2].removesuffix(".xml")
            if name in NOVELS:
                yield name.partition("_")[2], re.sub(r"\s+", " ", book["text"])


def before(text: str, at: int) -> str:
    """What stands before a place: whole sentences, and no more than some words."""
    words = text[max(0, at - 8 * WORDS) : at].split(" ")[1:][-WORDS:]
    passage = " ".join(words)
    start = re.search(r"[.!?][\"'”’]? (?=[\"'“‘]?[A-Z])", passage)
    return passage[start.end() :].rstrip() if start else passage.rstrip()


def question(kind: str, book: str, passage: str, word: str) -> dict[str, object]:
    return {"input": passage, "metadata": {"book": book, "kind": kind}, "target": word.lower()}


def phrases(books: list[tuple[str, str]]) -> Iterator[dict[str, object]]:
    for phrase in (each.strip() for each in PHRASES.replace("\n", " ").split(";")):
        for book, text in books:
            for found in list(re.finditer(rf"\b{phrase}\b", text))[:2]:
                start, word = phrase.rpartition(" ")[::2]
                passage = before(text, found.start() + len(start) + 1)
                if len(passage.split()) >= 12:
                    yield question("phrase", book, passage, word)


def names(books: list[tuple[str, str]]) -> Iterator[dict[str, object]]:
    for book, text in books:
        known = Counter(re.findall(r"(?<=[a-z,] )[A-Z][a-z]{3,}", text))
        for found in re.finditer(r"(?<=[a-z] )([A-Z][a-z]{3,})(?=[.,;!?])", text):
            passage = before(text, found.start())
            if known[found[1]] >= 40 and passage.count(found[1]) >= 1 and len(passage.split()) >= 30:
                yield question("name", book, passage, found[1])


def sums() -> Iterator[dict[str, object]]:
    for one in range(1, 9):
        for other in range(1, 13 - one):
            shown = "Two and two make four. Three and one make four. Five and five make ten."
            said = f"{shown} {NUMBERS[one].capitalize()} and {NUMBERS[other]} make"
            yield question("sum", "none", said, NUMBERS[one + other])


def main(path: str) -> None:
    chance = random.Random(4)  # noqa: S311 - a choice that anyone can make again
    books = sorted(novels(path))
    for made, count in ((phrases(books), 100), (names(books), 60), (sums(), 40)):
        for chosen in chance.sample(list(made), count):
            print(json.dumps(chosen, ensure_ascii=False, sort_keys=True))


if __name__ == "__main__":
    main(sys.argv[1])
