"""Writes ``vectors/composite``. Deterministic: the stand-ins for Intel and NVIDIA in ``tests``, with fixed keys and times.

    python vectors/make_composite.py

One file a case: a processor with GPUs beside it, through the whole appraisal. Each holds its question (evidence, policy,
nonce, keyset, time) and ``expect``: ``ok``, or the stable code of the check that fails first; ``fails`` is its number. The
endorsements, which are long and nearly the same for all, stand in ``vectors/composite_parts.json`` by name.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

import pki_intel  # noqa: E402 - from the tests
import pki_nvidia  # noqa: E402
from evidence_files import BINDING, NONCE, SIGNING, gpus, keyset, with_gpus  # noqa: E402
from strongroom.attest import binding  # noqa: E402
from strongroom.attest.endorsements import INTEL_TCB_INFO  # noqa: E402
from strongroom.attest.evidence import Evidence  # noqa: E402
from strongroom.attest.keyset import Keyset, report_data  # noqa: E402
from strongroom.party import SigningKey  # noqa: E402

AT = pki_nvidia.AT
KEYSET = keyset(AT)
STRANGER = SigningKey.from_seed(b"\x44" * 32)
MACHINES = {count: with_gpus(count) for count in (1, 2)}
NOT_BOUND, NOT_ACCEPTED = "attest.device_not_bound", "attest.devices_not_accepted"


@dataclass(frozen=True, kw_only=True)
class Case:
    """Where everything is right; each case changes one thing.

    Args:
        nonce: what the GPUs answer; what follows from the processor's report data by default.
        devices: the GPUs that are shown; all that the policy asks for by default.
        bound: those that are bound, where they are others.
        signed: what binds them, where nobody signed.
        signer: who signed.
        challenge: what the enclave was asked, where it is another than the verifier asks.
        beside: of how many GPUs the endorsements are, where they are of more.
        data: the report data that is bound, where it is another than the processor's.
    """

    name: str
    description: str
    expect: str = "ok"
    fails: str = ""
    count: int = 1
    keyset: Keyset = KEYSET
    nonce: bytes | None = None
    devices: Sequence[int] | None = None
    bound: Sequence[int] | None = None
    signed: bytes | None = None
    signer: SigningKey = field(default=BINDING)
    data: bytes | None = None
    challenge: bytes = NONCE
    beside: int | None = None

    def evidence(self) -> Evidence:
        """The processor's, whose report data is of the keyset and the challenge, with the devices'."""
        machine = MACHINES[self.count]
        own = report_data(self.keyset.digest, self.challenge)
        world = pki_intel.World(td={"report_data": own})
        answers = gpus(self.count + 1, binding.gpu_nonce(own) if self.nonce is None else self.nonce)
        every = tuple(gpu.evidence for gpu in answers)
        shown = tuple(every[n] for n in (range(self.count) if self.devices is None else self.devices))
        bound = shown if self.bound is None else tuple(every[n] for n in self.bound)
        signed = self.signed or binding.make(self.signer, self.data or own, bound)
        assert machine.evidence.platform == world.evidence().platform
        return replace(world.evidence(), devices=shown, device_binding=signed)

    def to_json(self) -> dict[str, Any]:
        return {
            "at": AT,
            "description": self.description,
            "endorsements_part": f"{self.beside or self.count}",
            "evidence": self.evidence().to_json(),
            "expect": self.expect,
            "fails": self.fails,
            "keyset": self.keyset.to_json(),
            "nonce": NONCE.hex(),
            "policy": MACHINES[self.count].policy.to_json(),
        }


def unbound(name: str, description: str, **changes: Any) -> Case:
    return Case(name=name, description=description, expect=NOT_BOUND, fails="A15", **changes)


def cases() -> list[Case]:
    own = report_data(KEYSET.digest, NONCE)
    another = report_data(KEYSET.digest, bytes(32))
    without = replace(KEYSET, receipt_signing_keys=KEYSET.receipt_signing_keys[1:])
    no_nonce = "GPUs that answer what they were not asked"
    return [
        Case(name="gpu-bound", description="a GPU that answers for this processor, and that the enclave's own key binds"),
        Case(name="gpus-bound", description="two GPUs", count=2),
        unbound("gpu-elsewhere", f"{no_nonce} here: for another enclave's report data", nonce=binding.gpu_nonce(another)),
        unbound("gpu-answers-the-verifier", "a GPU that was asked the public nonce, by anybody", nonce=NONCE),
        unbound("gpu-answers-half", "a GPU that answers the unused half of the report data", nonce=own[32:]),
        unbound("gpu-unbound", "a GPU elsewhere that answers the right nonce; nobody signed for it", signed=b"{}"),
        unbound("gpu-bound-by-a-stranger", "a stranger's key binds the GPU", signer=STRANGER),
        unbound("gpu-bound-by-the-receipt-key", "the keyset's key for receipts binds it: one key per role", signer=SIGNING),
        unbound(
            "gpu-swapped",
            "another GPU than the enclave bound, which answers the same nonce",
            devices=(1,),
            bound=(0,),
            beside=2,
        ),
        unbound("gpus-in-another-order", "the GPUs were put in another order", count=2, devices=(1, 0), bound=(0, 1)),
        unbound("gpu-bound-to-another-report", "bound for another processor's report data", data=bytes(64)),
        unbound("gpu-bound-earlier", "bound for an earlier nonce's report data", data=another),
        Case(
            name="keyset-without-the-key",
            description="the keyset has no key that binds devices",
            expect="attest.bad_keyset",
            fails="A15",
            keyset=without,
        ),
        Case(
            name="one-gpu-of-two",
            description="one of two GPUs was taken away, and the other bound alone",
            expect=NOT_ACCEPTED,
            fails="A14",
            count=2,
            devices=(0,),
        ),
        Case(
            name="gpu-for-a-replayed-report",
            description="the processor's report answers an earlier nonce, and its GPU with it",
            expect="attest.not_bound",
            fails="A6",
            challenge=bytes(32),
        ),
    ]


def parts() -> dict[str, Any]:
    """The endorsements, by how many GPUs they are of."""
    found = {f"{count}": machine.endorsements.to_json() for count, machine in MACHINES.items()}
    assert all(any(d["media_type"] == INTEL_TCB_INFO for d in part) for part in found.values())
    return found


def _text(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def written() -> dict[str, str]:
    """Every file's text, by its name under ``vectors``."""
    found = {f"composite/{case.name}.json": _text(case.to_json()) for case in cases()}
    return {**found, "composite_parts.json": _text(parts())}


if __name__ == "__main__":
    folder = HERE / "composite"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.json"):
        old.unlink()
    for name, text in written().items():
        (HERE / name).write_text(text, encoding="utf-8")
