"""What guards find, what they stop wrongly, and how long they look: per thousand characters, and until they are ready.

Attempts and harmless requests are those of ``guards_attacks.txt`` and ``guards_benign.txt``, written for this bench; the
rules were not changed after they were first measured on them. Real text comes from the corpora beside the project, where
they are.
"""

from __future__ import annotations

import json
import lzma
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from strongroom.programs.guards import Guard, load

HERE = Path(__file__).resolve().parent
CORPORA = HERE.parents[1] / "shared" / "corpora"
PARAGRAPHS, CHARS = 4000, 10_000
READY = """
import os, sys, time
from strongroom.programs.guards import load
load({sys.argv[1]}, "input")
print(time.process_time(), int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
"""
# What is personal, of invented people, and what only looks like it.
PERSONAL = {
    "CREDIT_CARD": ("4111 1111 1111 1111", "5500-0000-0000-0004", "340000000000009"),
    "EMAIL_ADDRESS": ("ann.lee@example.com", "b_smith+news@mail.example.co.uk", "o'neil@sub.example.org"),
    "IBAN_CODE": ("GB29NWBK60161331926819", "DE89370400440532013000", "FR1420041010050500013M02606"),
    "IP_ADDRESS": ("192.0.2.7", "2001:db8::ff00:42:8329"),
    "PHONE_NUMBER": ("(212) 555-0187", "+44 20 7946 0018", "+49 30 901820"),
    "US_SSN": ("536-22-1234", "219-09-9998"),
}
FRAMES = ("It is {}.", "Please note {} for later.", "She wrote: {}, and left.", "My number, in case you need it: {}")


def lines(name: str) -> list[str]:
    found = (HERE / name).read_text(encoding="utf-8").splitlines()
    return [line.replace("\\n", "\n").replace("\\u200b", "\u200b") for line in found if line and not line.startswith("# ")]


def paragraphs(name: str) -> list[str]:
    """Paragraphs of a corpus, evenly from all of it."""
    with lzma.open(CORPORA / f"{name}.jsonl.xz", "rt", encoding="utf-8") as documents:
        found = [p for line in documents for p in json.loads(line)["text"].split("\n") if 200 <= len(p) <= 2000]
    return found[:: max(1, len(found) // PARAGRAPHS)][:PARAGRAPHS]


def stopped(guard: Guard, texts: list[str]) -> int:
    return sum(guard.look([text]).decision != "allowed" for text in texts)


def per_thousand(guard: Guard, text: str) -> float:
    """Milliseconds of the processor for a thousand characters: the median of nine."""
    found = []
    for _ in range(10):
        began = time.process_time()
        guard.look([text])
        found.append(time.process_time() - began)
    return statistics.median(found[1:]) * 1e6 / len(text)


def figure(name: str, value: float, unit: str, better: str, against: str) -> dict[str, Any]:
    found = {"name": f"guards: {name}", "value": round(value, 4), "unit": unit, "goal": None}
    return found | {"better": better, "compared_with": against}


def figures() -> list[dict[str, Any]]:
    (injection,), (pii,) = load({"injection"}, "input"), load({"pii"}, "input")
    attacks, harmless = lines("guards_attacks.txt"), lines("guards_benign.txt")
    right, wrong = stopped(injection, attacks), stopped(injection, harmless)
    found = [
        figure("injection, recall", right / len(attacks), "share", "higher", f"{len(attacks)} attempts"),
        figure(
            "injection, precision",
            right / (right + wrong),
            "share",
            "higher",
            f"and {len(harmless)} harmless requests",
        ),
    ]
    personal = [(frame.format(one), kind) for kind, some in PERSONAL.items() for one in some for frame in FRAMES]
    named = sum(f"<{kind}>" in pii.look([text]).texts[0] for text, kind in personal)
    found.append(figure("pii, recall", named / len(personal), "share", "higher", f"{len(personal)} sentences with one each"))
    text = ""
    for corpus in ("books", "encyclopedia", "law", "biology"):
        if (CORPORA / f"{corpus}.jsonl.xz").exists():
            real = paragraphs(corpus)
            text = text or "\n".join(real)[:CHARS]
            for name, guard in (("injection", injection), ("pii", pii)):
                share = stopped(guard, real) / len(real)
                found.append(figure(f"{name}, stops of {corpus}", share, "share", "lower", f"{len(real):,} paragraphs"))
    text = text or " ".join(harmless * 3)[:CHARS]
    dense = " ".join(frame.format(one) for some in PERSONAL.values() for one in some for frame in FRAMES)[:4000]
    hard = " ".join(attacks)[:4000]
    for name, guard, said, what in (
        ("injection", injection, text, "of plain text"),
        ("injection", injection, hard, "of nothing but attempts"),
        ("pii", pii, text, "of plain text"),
        ("pii", pii, dense, "of nothing but personal data"),
    ):
        found.append(figure(f"{name}, 1,000 characters {what}", per_thousand(guard, said), "ms", "lower", "processor time"))
    for name in ("injection", "pii"):
        command = [sys.executable, "-W", "ignore", "-c", READY, name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        found.append(figure(f"{name}, ready", float(said[0]), "s", "lower", "processor time of a process of its own"))
        found.append(figure(f"{name}, memory when ready", int(said[1]) / 1e6, "MB", "lower", "that process"))
    return found


if __name__ == "__main__":
    for one in figures():
        print(f"{one['name']:50} {one['value']:>10} {one['unit']:6} {one['compared_with']}")
