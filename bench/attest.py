"""What attestation costs: one appraisal, and measuring an installation, cold and warm.

Cold means that this process has hashed nothing yet; the operating system may hold the files in memory, as it does after an
installation or a first start. The bare loops do the same hashing and the same signature checks, and nothing else.
"""

from __future__ import annotations

import hashlib
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from strongroom import wire
from strongroom.app.enclave.measure import FileDigests, Installation
from strongroom.attest.appraisal import appraise

ROUNDS = 5
APPRAISALS = 100


def worlds() -> ModuleType:
    """The vectors' own enclave and verifier."""
    path = Path(__file__).parent.parent / "vectors" / "make_attest.py"
    spec = importlib.util.spec_from_file_location("make_attest", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def seconds(run: Callable[[], object], rounds: int) -> float:
    """The median time of one call."""
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def signatures(make: ModuleType) -> Callable[[], None]:
    """The two signature checks of an appraisal, bare."""
    checks = []
    for envelope in (make.GOOD.envelope, wire.Envelope.parse(make.GOOD.endorsements.documents[0].data)):
        key = make.PLATFORM_KEY if not checks else make.ROOT
        message = wire.pae(envelope.payload_type, envelope.payload)
        checks.append((Ed25519PublicKey.from_public_bytes(key.public.raw), envelope.signatures[0].sig, message))

    def run() -> None:
        for key, signature, message in checks:
            key.verify(signature, message)

    return run


def bare_hash(place: Installation) -> float:
    """Seconds of one thread that reads and hashes the same files, the slowest register alone."""
    folders = [path for path in place.links.values() if path != place.package]
    paths = [f for folder in folders for f in ([folder] if folder.is_file() else folder.rglob("*"))]
    files = [f for f in paths if f.is_file() and "__pycache__" not in f.parts]
    start = time.perf_counter()
    for file in files:
        hashlib.sha256(file.read_bytes()).digest()
    return time.perf_counter() - start


def figures() -> list[dict[str, Any]]:
    make = worlds()
    question = make.GOOD.question()
    assert appraise(**question).affirming
    one = seconds(lambda: appraise(**question), APPRAISALS)
    bare = seconds(signatures(make), APPRAISALS)
    place = Installation.here()
    place.measure(FileDigests())  # the operating system reads the files once
    cold = seconds(lambda: place.measure(FileDigests()), ROUNDS)
    digests = FileDigests()
    place.measure(digests)
    warm = seconds(lambda: place.measure(digests), ROUNDS)
    hashing = statistics.median(bare_hash(place) for _ in range(ROUNDS))
    here = seconds(Installation.here, ROUNDS)
    return [
        row("one appraise(), evidence to result", one * 1e3, "ms", 2.0, f"two bare signature checks: {bare * 1e3:.3f} ms"),
        row("measure, cold", cold, "s", 1.0, f"one thread hashing the dependencies alone: {hashing:.2f} s"),
        row("measure, warm (at each quote)", warm, "s", 0.1, "cold, same run"),
        row("find what is installed", here, "s", None, ""),
    ]


def row(name: str, value: float, unit: str, goal: float | None, beside: str, *, better: str = "lower") -> dict[str, Any]:
    return {"name": name, "value": round(value, 3), "unit": unit, "goal": goal, "better": better, "compared_with": beside}


def main() -> None:
    print(f"median of {APPRAISALS} appraisals, of {ROUNDS} measurements\n")
    for found in figures():
        goal = "" if found["goal"] is None else f"goal {found['goal']}"
        print(f"{found['name']:<40}{found['value']:>9} {found['unit']:<4}{goal:<10} {found['compared_with']}")


if __name__ == "__main__":
    main()
