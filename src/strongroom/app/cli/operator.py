"""What the operator of an exchange can see: everything that it holds, and what that amounts to."""

from __future__ import annotations

import math
import zlib
from collections import Counter
from pathlib import Path

from strongroom.app.client.prose import clauses
from strongroom.app.stores.exchange import ExchangeStore
from strongroom.asset import MANIFEST_TYPE, Manifest
from strongroom.contract import PROPOSAL_TYPE, Proposal
from strongroom.errors import NotFound
from strongroom.ledger import LogKey
from strongroom.party import SigningKey

from .screen import Screen

SAMPLE = 1 << 20


def look(folder: Path, screen: Screen, *, brief: bool = False) -> dict[str, object]:
    """Show an exchange's folder as its operator sees it.

    Args:
        folder: the exchange's folder.
        brief: leave out the words of each contract.

    Raises:
        NotFound: no exchange's folder.
    """
    if not (folder / "exchange.db").is_file():
        raise NotFound(f"{folder} is no exchange's folder")
    store = ExchangeStore(folder, LogKey("nobody", SigningKey(bytes(32))))  # only to read
    try:
        files = _files(folder, screen)
        for envelope in store.manifests():
            manifest = Manifest.parse(envelope.expect(MANIFEST_TYPE))
            screen.said(
                "manifest",
                f"{manifest.owner}/{manifest.name}: a {manifest.kind} of {manifest.plaintext_bytes:,} bytes, its terms",
            )
        for digest in store.proposals():
            proposal = Proposal.parse(store.proposal(digest).expect(PROPOSAL_TYPE))
            screen.said(
                "contract",
                f"{proposal.title}: who, which program, which outputs to whom; {len(store.receipts(digest))} receipts",
            )
            if not brief:
                for clause in clauses(proposal):
                    screen.said("  " + clause.about, clause.text, width=28)
        screen.said("receipts", "which run, digests of encrypted outputs, salted commitments to their contents")
        screen.said(
            "never", "a key, a weight, a record, a figure: what is sealed has no pattern to compress (1.00 means none)"
        )
        return {"files": files, "manifests": len(store.manifests()), "proposals": store.proposals()}
    finally:
        store.close()


def _files(folder: Path, screen: Screen) -> list[dict[str, object]]:
    rows, found = [], []
    for kind, what in (("sealed", "sealed asset"), ("output", "sealed output"), ("mock", "mock (public)")):
        for path in sorted((folder / kind).iterdir()):
            with path.open("rb") as file:
                sample = file.read(SAMPLE)
            ratio = len(zlib.compress(sample, 9)) / max(len(sample), 1)
            entropy = _entropy(sample)
            rows.append([what, path.name[:16] + "…", f"{path.stat().st_size:,}", f"{min(ratio, 1.0):.2f}", f"{entropy:.2f}"])
            found.append(
                {"bytes": path.stat().st_size, "compresses_to": round(ratio, 3), "entropy": round(entropy, 3), "kind": kind}
            )
    screen.table(["file", "name", "bytes", "compresses to", "bits a byte"], rows)
    return found


def _entropy(data: bytes) -> float:
    """Shannon entropy of the bytes, bits a byte."""
    counts = Counter(data)
    return -sum(n / len(data) * math.log2(n / len(data)) for n in counts.values()) if data else 0.0
