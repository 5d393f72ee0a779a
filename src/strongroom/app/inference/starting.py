"""Starting engines as an enclave does: weights are opened into memory, and a child in the sandbox runs them.

See ``docs/engines.md``.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Mapping
from mmap import ACCESS_READ, mmap

from strongroom.asset import Scheme
from strongroom.errors import BadField, Unreachable, WeightsMismatch
from strongroom.programs.serve_llm import SIDECARS

from . import sidecar, worker
from .ports import Started, Starter, Wanted
from .sources import Held
from .weights import Weights

_READ = 1 << 20


def starter(sidecars: Mapping[str, str]) -> Starter:
    """Starts engines; where the contract has a sidecar, attaches it.

    Args:
        sidecars: where the operator says that they listen, by the model's name.
    """

    async def starts(wanted: Wanted) -> Started:
        if wanted.model.engine not in SIDECARS:
            return await start(wanted)
        address = sidecars.get(wanted.model.name)
        if address is None:
            raise Unreachable(
                f"nobody said where the sidecar of {wanted.model.name!r} listens",
                hint=f"Start the enclave with: --sidecar {wanted.model.name}=unix:/path/to/socket",
            )
        return await attach(wanted, address)

    return starts


async def attach(wanted: Wanted, address: str) -> Started:
    """Open a sidecar's description, and attach what listens at an address if it is what is described.

    Raises:
        AssetError: the sealed file is not what the manifest says.
        WireError: it is no description.
        Usage, Unreachable, ProgramNotApproved: as ``sidecar.start``.
    """
    if wanted.released.manifest.plaintext_bytes > sidecar.MAX_DESCRIPTION:
        raise BadField("a sidecar's description is not that long")
    described, digest = await asyncio.to_thread(_opened, wanted)
    try:
        data = os.pread(described.descriptor, described.size, 0)
    finally:
        described.close()
    waiting = 4 * wanted.parameters.parallel
    return Started(await sidecar.start(data, address, max_tokens=wanted.parameters.max_tokens, waiting=waiting), digest)


async def start(wanted: Wanted) -> Started:
    """Open a model's weights and start an engine on them (``ports.Starter``).

    Raises:
        AssetError: the sealed file is not what the manifest says; nothing was started.
        NoSandbox, MissingExtra, ProgramNotApproved, ModelUnreadable, OutOfMemory, EngineFailed: as ``worker.start``.
        WeightsMismatch, DatastoreError: a source is for another model, or is none.
    """
    weights, digest = await asyncio.to_thread(_opened, wanted)
    held: Held | None = None

    def release() -> None:
        weights.close()
        if held is not None:
            held.close()

    try:
        if wanted.sources:
            _require_agreed(wanted, digest)
            held = await asyncio.to_thread(Held.of, wanted.sources)
        proposal = wanted.contract.proposal
        serve = proposal.policy.serve
        assert serve is not None  # a standing contract
        engine = await worker.start(
            wanted.parameters,
            wanted.model,
            weights,
            worker.Limits(memory_bytes=proposal.limits.memory_bytes, waiting=4 * wanted.parameters.parallel),
            sandbox=proposal.enclave.sandbox,
            walls=proposal.enclave.walls,
            embeds="embeddings" in serve.routes,
            program=proposal.program.digest,
            held=held,
        )
    except BaseException:
        release()
        raise
    return Started(engine, digest, release)


def _require_agreed(wanted: Wanted, digest: bytes) -> None:
    """What was opened is the model that the owners of its sources let draw from them. Raises WeightsMismatch."""
    for sealed in wanted.sources:
        if sealed.said.weights != f"sha256:{digest.hex()}":
            raise WeightsMismatch(f"the source {sealed.said.name!r} is for another model than the one that was opened")


def _opened(wanted: Wanted) -> tuple[Weights, bytes]:
    """The weights in memory, and their SHA-256. Opening compares it, where the manifest says it; else it is worked out."""
    released = wanted.released
    weights = Weights.opened(wanted.source, released.manifest, released.key, progress=wanted.progress)
    content = released.manifest.content
    if content.scheme is Scheme.SHA256:
        return weights, content.value
    found = hashlib.sha256()
    if weights.size:
        with mmap(weights.descriptor, weights.size, access=ACCESS_READ) as memory, memoryview(memory) as view:
            for at in range(0, weights.size, _READ):
                with view[at : at + _READ] as part:
                    found.update(part)
    return weights, found.digest()
