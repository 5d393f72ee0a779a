"""How fast sealing and opening are, beside a bare loop that does the least that the format needs, and beside age.

The bare loops read the same bytes in the same pieces, make one pass of AES-256-GCM with a reused buffer and one SHA-256 for
each of the format's two digests (the content and the chunks' hashes), and write the same bytes: no headers, no checks, no
Python around it. Every round times everything once, back to back, and a ratio is taken within its round; figures are medians
over rounds. Files lie in memory where the machine has such a place: disks vary by more than what is measured.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyrage
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom.asset import TAG_BYTES, About, AssetKey, FileSource, SealedReader, seal, unseal
from strongroom.policy import Policy

SIZE = 256 << 20
CHUNK = 1 << 20
ROUNDS = 7
KEY, SALT = AssetKey(bytes(range(32))), bytes(32)
ABOUT = About("weights", "model", "application/octet-stream", "lab", 0, Policy())


def bare_seal(plain: Path, out: Path) -> None:
    source, target = bytearray(CHUNK), bytearray(CHUNK + TAG_BYTES)
    cipher, content = AESGCM(KEY.raw), hashlib.sha256()
    with plain.open("rb", buffering=0) as reader, out.open("wb", buffering=0) as writer:
        index = 0
        while reader.readinto(source):
            content.update(source)
            cipher.encrypt_into(index.to_bytes(12, "big"), source, None, target)
            hashlib.sha256(target).digest()
            writer.write(target)
            index += 1


def bare_open(sealed: Path, out: Path) -> None:
    source, target = bytearray(CHUNK + TAG_BYTES), bytearray(CHUNK)
    cipher, content = AESGCM(KEY.raw), hashlib.sha256()
    with sealed.open("rb", buffering=0) as reader, out.open("wb", buffering=0) as writer:
        index = 0
        while reader.readinto(source):
            hashlib.sha256(source).digest()
            cipher.decrypt_into(index.to_bytes(12, "big"), source, None, target)
            content.update(target)
            writer.write(target)
            index += 1


def tasks(folder: Path) -> dict[str, Callable[[], object]]:
    """Everything that a round times, in the order in which each finds its input made."""
    plain, bare, sealed, aged, out = (folder / name for name in ("plain", "bare", "sealed", "aged", "out"))
    piece = os.urandom(CHUNK)
    with plain.open("wb") as writer:
        for _ in range(SIZE // CHUNK):
            writer.write(piece)
    identity = pyrage.x25519.Identity.generate()
    manifest: list[Any] = []

    def seal_with(threads: int) -> None:
        with plain.open("rb", buffering=0) as reader, sealed.open("wb", buffering=0) as writer:
            manifest[:] = [seal(reader, writer, key=KEY, salt=SALT, about=ABOUT, chunk_bytes=CHUNK, threads=threads)]

    def open_with(threads: int) -> None:
        with FileSource(sealed) as source, out.open("wb", buffering=0) as writer:
            unseal(source, manifest[0], KEY, writer, threads=threads)

    def read_ranges() -> None:
        with FileSource(sealed) as source, SealedReader(source, manifest[0], KEY) as reader:
            for n in range(100):
                reader.read_at((n * 7919 * CHUNK + 12345) % SIZE, 100)

    return {
        "bare seal": lambda: bare_seal(plain, bare),
        "seal 1": lambda: seal_with(1),
        "seal 2": lambda: seal_with(2),
        "age seal": lambda: pyrage.encrypt_file(str(plain), str(aged), [identity.to_public()]),
        "bare open": lambda: bare_open(bare, out),
        "open 1": lambda: open_with(1),
        "open 2": lambda: open_with(2),
        "age open": lambda: pyrage.decrypt_file(str(aged), str(out), [identity]),
        "ranges": read_ranges,
    }


def measure() -> list[dict[str, float]]:
    """Seconds of each task, one dict a round; the first round warms up and is dropped."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        found = []
        todo = tasks(Path(name))
        for _ in range(ROUNDS + 1):
            seconds = {}
            for task, run in todo.items():
                start = time.perf_counter()
                run()
                seconds[task] = time.perf_counter() - start
            found.append(seconds)
    return found[1:]


def figures() -> list[dict[str, Any]]:
    rounds = measure()

    def median(value: Callable[[dict[str, float]], float]) -> float:
        return round(statistics.median(map(value, rounds)), 3)

    rows: list[dict[str, Any]] = []
    for verb in ("seal", "open"):
        bare, age = f"bare {verb}", f"age {verb}"
        for threads in (1, 2):
            task, label = f"{verb} {threads}", f"{verb}, {threads} thread{'s' * (threads - 1)}"
            ratio = median(lambda s, task=task, bare=bare: s[bare] / s[task])
            rows.append(row(f"{label}: speed over the bare loop", ratio, "x", 0.8, "the bare loop, 1 thread, same run"))
            against = median(lambda s, task=task, age=age: s[age] / s[task])
            rows.append(row(f"{label}: speed over age", against, "x", None, f"pyrage {verb}, same data, same run"))
            rows.append(row(label, median(lambda s, task=task: SIZE / 1e9 / s[task]), "GB/s", None, ""))
        rows.append(row(f"{verb}, bare loop", median(lambda s, bare=bare: SIZE / 1e9 / s[bare]), "GB/s", None, ""))
        rows.append(row(f"{verb}, age (pyrage)", median(lambda s, age=age: SIZE / 1e9 / s[age]), "GB/s", None, ""))
    each = median(lambda s: s["ranges"] * 1000 / 100)
    rows.append(row("100 bytes from a chunk of 1 MiB not read before", each, "ms", None, "", better="lower"))
    return rows


def row(name: str, value: float, unit: str, goal: float | None, beside: str, *, better: str = "higher") -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "goal": goal, "better": better, "compared_with": beside}


def main() -> None:
    print(f"{SIZE >> 20} MiB in chunks of {CHUNK >> 20} MiB, median of {ROUNDS} rounds\n")
    for found in figures():
        goal = "" if found["goal"] is None else f"goal {found['goal']}"
        print(f"{found['name']:<50}{found['value']:>9} {found['unit']:<5} {goal:<10} {found['compared_with']}")


if __name__ == "__main__":
    main()
