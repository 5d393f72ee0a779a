"""What it costs to verify hardware evidence with its collateral at hand, and to decide about a release.

Medians of a hundred in one process on one core, parsing included. Where the real evidence is at hand
(shared/vectors/evidence) that is what is verified, else evidence of the same layout that the tests make; the name of each
figure says which. Certificates that were read before are remembered in the process, and so is which of them, of the
revocation lists and of Intel's documents were rightly signed, as in a broker: what is measured is the second and every later
time. Beside it, without a goal, stands a time when nothing is remembered.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import pki_amd
import pki_intel
import pki_nitro
import pki_nvidia
import real
import test_composite
import world
from strongroom.app.endorsements import shipped
from strongroom.app.endorsements.bundle import open_bundle
from strongroom.app.stores.book import SqliteBook
from strongroom.attest import intel, nitro, nvidia, snp, tdx, x509
from strongroom.attest.evidence import Endorsements, Evidence, Roots
from strongroom.attest.roots import ROOTS
from strongroom.broker import Release
from strongroom.contract import EnclaveTerms, Limits
from strongroom.transcript import Transcript

ROUNDS = 100
REMEMBERED: tuple[Any, ...] = (
    x509.certificate, x509.require_certificate_signed, x509.require_list_signed, intel.require_document_signed,
)  # fmt: skip
HERE = real.FOLDER.is_dir()
KIND = "real" if HERE else "made"
Row = dict[str, Any]


def seconds(run: Callable[[], object], rounds: int = ROUNDS) -> float:
    """The median time of one call."""
    run()
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def forgotten(run: Callable[[], object]) -> Callable[[], object]:
    """The same, as if it were the first time."""

    def first() -> object:
        for remembered in REMEMBERED:
            remembered.cache_clear()
        return run()

    return first


def pinned(platform: str) -> Roots:
    return Roots(certificates=tuple(ROOTS[platform].values()))


def carried(*names: str) -> list[Any]:
    return [d.endorsement for name in names for d in open_bundle(real.FOLDER / name).documents]


def verified(module: Any, evidence: Evidence, endorsements: Endorsements, roots: Roots, at: int, **how: Any) -> Any:
    """One whole verification. It must succeed: a failing one is fast and measures nothing."""
    transcript = Transcript(module.STEPS)
    found = module.verify(evidence, endorsements, roots=roots, at=at, transcript=transcript, **how)
    assert transcript.ok
    return found


def of_tdx() -> tuple[Evidence, Endorsements, Roots, int]:
    if not HERE:
        made = pki_intel.World()
        return made.evidence(), made.endorsements(), made.roots(), pki_intel.AT
    documents = Endorsements(tuple(carried("tdx/phala_v4.collateral.json")))
    return Evidence("tdx", real.read("tdx/phala_v4.quote")), documents, pinned("tdx"), 1_750_800_000


def of_snp() -> tuple[Evidence, Endorsements, Roots, int]:
    if not HERE:
        case = pki_amd.good()
        return case.evidence, case.endorsements, case.roots, case.at
    documents = [*carried("snp/ms_milan.vcek.pem", "snp/kds_milan.crl.pem"), *shipped.endorsements("sev_snp")]
    report = Evidence("sev_snp", real.read("snp/ms_milan.report"))
    return report, Endorsements(tuple(documents)), pinned("sev_snp"), 1_772_323_200


def of_nitro() -> tuple[Evidence, Endorsements, Roots, int]:
    if not HERE:
        made = pki_nitro.World()
        return made.evidence, Endorsements(), made.roots, pki_nitro.AT
    return Evidence("nitro", real.read("nitro/evervault_beta.cose")), Endorsements(), pinned("nitro"), 1_665_651_482


def dcap_qvl() -> float | None:
    """The other verifier alone, on the same quote and collateral; ``None`` where it is not installed."""
    if not HERE or find_spec("dcap_qvl") is None:
        return None
    other = import_module("dcap_qvl")
    quote, text = real.read("tdx/phala_v4.quote"), real.read("tdx/phala_v4.collateral.json").decode()
    collateral = other.QuoteCollateralV3.from_json(text)
    assert other.verify(quote, collateral, 1_750_800_000).status == "UpToDate"
    return seconds(lambda: other.verify(quote, collateral, 1_750_800_000))


def decisions(of: str) -> float:
    """Decisions a second: appraise, contract, count and release, each with a keyset, a nonce and a run of its own.

    Args:
        of: ``simulated``, or ``tdx`` (made evidence: the report data must be the request's own).
    """
    with tempfile.TemporaryDirectory() as folder:
        book = lambda name: SqliteBook(Path(folder) / f"{name}.db")  # noqa: E731
        made = world.World(book=book)
        changes: dict[str, Any] = {"limits": Limits(ROUNDS + 8, 300, 1 << 30)}
        if of == "tdx":
            made.platform = test_composite.Td()  # type: ignore[assignment]
            for name, broker in made.brokers.items():
                trust = test_composite.trusting(test_composite.POLICY, name)
                broker.owner = replace(broker.owner, trust=trust, policy=trust.appraisal_policy())
            changes["enclave"] = EnclaveTerms(("tdx",), (test_composite.MEASUREMENT,), "isolated")
        agreed = made.agree(**changes)
        broker = made.brokers["hospital"]
        requests = [world.Asker(made, agreed, f"enclave {n}", run_id=f"{n:032x}").request() for n in range(1, ROUNDS + 2)]
        found = []
        for request in requests:
            start = time.perf_counter()
            decision = broker.decide(request)
            found.append(time.perf_counter() - start)
            assert isinstance(decision, Release), decision
        return 1 / statistics.median(found[1:])


def figures() -> list[Row]:
    quote, milan, document = of_tdx(), of_snp(), of_nitro()
    gpu = pki_nvidia.World()
    ours = seconds(lambda: verified(tdx, *quote, ask_second=False))
    both = seconds(lambda: verified(tdx, *quote, ask_second=True))
    other = dcap_qvl()
    beside = (
        "dcap-qvl is not at hand"
        if other is None
        else f"dcap-qvl 0.7 alone, same quote and collateral: {other * 1e3:.2f} ms"
    )
    device = lambda: verified(nvidia, gpu.evidence, gpu.endorsements, gpu.roots, pki_nvidia.AT)  # noqa: E731
    evidence, endorsements = gpu.evidence, gpu.endorsements
    gpu_ms = seconds(lambda: verified(nvidia, evidence, endorsements, gpu.roots, pki_nvidia.AT)) * 1e3
    assert device().driver_version
    rows = [
        row(f"TDX v4 quote with TCB ({KIND})", ours * 1e3, "ms", 1.5, beside),
        row(f"TDX v4 quote with TCB and a second opinion ({KIND})", both * 1e3, "ms", None, "the same, and dcap-qvl agrees"),
        row(
            f"SEV-SNP report with VCEK, chain and CRL ({KIND})", seconds(lambda: verified(snp, *milan)) * 1e3, "ms", 1.2, ""
        ),
        row(
            "NVIDIA report with both manifests and OCSP (made)",
            gpu_ms,
            "ms",
            12,
            "no intact real set of the three is at hand",
        ),
        row(f"Nitro document ({KIND})", seconds(lambda: verified(nitro, *document)) * 1e3, "ms", 3, ""),
    ]
    for name, check in (
        ("TDX v4 quote with TCB", lambda: verified(tdx, *quote, ask_second=False)),
        ("SEV-SNP report with VCEK, chain and CRL", lambda: verified(snp, *milan)),
        ("Nitro document", lambda: verified(nitro, *document)),
    ):
        rows.append(row(f"{name} ({KIND}), nothing remembered", seconds(forgotten(check)) * 1e3, "ms", None, ""))
    for of in ("simulated", "tdx"):
        name = f"a broker's decisions, evidence of {of}"
        where = "one core, its book in SQLite on disk"
        rows.append(row(name, decisions(of), "1/s", 150, where, better="higher"))
    return rows


def row(name: str, value: float, unit: str, goal: float | None, beside: str, *, better: str = "lower") -> Row:
    return {"name": name, "value": round(value, 3), "unit": unit, "goal": goal, "better": better, "compared_with": beside}


def main() -> None:
    for found in figures():
        goal = "" if found["goal"] is None else f"goal {found['goal']}"
        print(f"{found['name']:<58}{found['value']:>9} {found['unit']:<4}{goal:<10} {found['compared_with']}")


if __name__ == "__main__":
    main()
