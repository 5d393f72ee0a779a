"""serve, and ``up --chat``: a standing contract's room, opened by a party, and a whole one on this machine."""

from __future__ import annotations

import hashlib
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strongroom.app.client.draft import Draft
from strongroom.app.client.home import Home, read, reading, reference
from strongroom.app.client.prose import SEEN
from strongroom.app.client.room import Room, manifest_path
from strongroom.asset import MANIFEST_TYPE, Manifest
from strongroom.contract import MAX_SECONDS, Proposal, State
from strongroom.errors import ManifestMismatch, NotFound, StrongroomError, Usage
from strongroom.policy import Policy
from strongroom.wire import Envelope

from . import standing
from .fleet import Fleet, Role
from .place import example, home, room
from .runs import Steps
from .screen import Screen

if TYPE_CHECKING:
    from strongroom.app.enclave.client import OpenRoom

OWNER, USER = "owner", "user"
EMBEDDED = Path(__file__).parents[1] / "inference" / "model"
PAGE_PORT = 8989
RUNS = 10_000
TITLE = "A model of this machine's, served to its own user"


def declare(_verb: str, parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom serve model.gguf.sealed --contract sha256:3f2a --as lab
strongroom serve --contract sha256:3f2a --as lab --enclave-url https://enclave.example    # one that runs elsewhere
""",
    )
    parser.add_argument("sealed", nargs="?", type=Path, help="the sealed model, where the exchange may not have it yet")
    parser.add_argument("--contract", metavar="DIGEST", help="its digest or the beginning of it; the newest where not given")
    parser.add_argument(
        "--spares",
        type=int,
        default=0,
        metavar="N",
        help="rooms that it may open by itself when its keys are used up; a run each",
    )
    parser.set_defaults(run=run)


def run(args: Namespace, screen: Screen) -> int:
    here = room(args)
    digest = here.find(args.contract)
    proposal = here.view(digest).proposal
    if args.sealed is not None:
        _publish(here, args.sealed, proposal, screen)
    url = args.enclave_url or home(args).config.enclave
    if args.enclave_url or _answers(url):
        _open(here, digest, args.spares, screen)
        shown(proposal, url, screen)
        screen.result({"contract": digest, "url": url})
        return 0
    with Fleet(home(args), ["chat"]) as fleet:
        screen.note("no enclave runs here; starting one on the simulated platform …")
        fleet.start_enclave(digest).wait()
        _open(here, digest, args.spares, screen)
        shown(proposal, url, screen)
        screen.said("", "platform: simulated (no hardware protection). Ctrl-C ends it.")
        screen.result({"contract": digest, "url": url})
        watch(fleet)
    return 0


def _answers(url: str) -> bool:
    from strongroom.app.http import Client, anybody

    try:
        with closing(Client(url, timeout=5, context=anybody())) as client:
            client.get("/v1/health")
    except StrongroomError:
        return False
    return True


def _publish(here: Room, sealed: Path, proposal: Proposal, screen: Screen) -> None:
    """Put a sealed model on the exchange, if the contract names it. Raises ManifestMismatch, NotFound."""
    path = manifest_path(sealed)
    with reading(path):
        envelope = Envelope.parse(read(path))
        manifest = Manifest.parse(envelope.expect(MANIFEST_TYPE))
    if proposal.asset(manifest.digest) is None:
        raise ManifestMismatch(f"the contract names no {manifest.name!r} with this manifest, {manifest.digest}")
    if manifest.owner != here.name:
        raise Usage(
            f"{sealed} is {manifest.owner}'s", hint="Its owner puts it on the exchange: strongroom seal --only-upload"
        )
    with screen.progress(f"uploading {sealed.name}", sealed.stat().st_size if sealed.is_file() else None) as progress:
        here.publish(sealed, envelope, progress=progress)


def _open(here: Room, digest: str, spares: int, screen: Screen) -> OpenRoom:
    return here.serve(digest, Steps(screen), spares=spares)


def shown(proposal: Proposal, url: str, screen: Screen) -> None:
    """What is served now, to whom, and what of it can be seen by whom."""
    serve = proposal.policy.serve
    assert serve is not None
    screen.line()
    owners = {asset.role: asset.owner for asset in proposal.assets}
    for model in _models(proposal):
        screen.said("serves", f"{model['name']}, {owners[model['role']]}'s: {', '.join(sorted(serve.routes))}")
    screen.said("at", f"{url}/v1")
    screen.said("contract", proposal.digest)
    screen.said("users see", "answers, and receipts of their own requests")
    screen.said("the operator sees", SEEN[serve.observability])
    sees = f"usage in tokens, renewed leases at least every {serve.lease_s} s; withdrawing ends it within that time"
    screen.said("owners see", sees)
    screen.said("next", f"users: strongroom proxy {url} --contract {proposal.digest} --trust TRUST")


def _models(proposal: Proposal) -> list[dict[str, Any]]:
    found = proposal.program.parameters.get("models")
    return [m for m in found if isinstance(m, dict)] if isinstance(found, list) else []


def watch(fleet: Fleet, also: Callable[[], None] = lambda: None) -> None:
    """Until SIGINT or SIGTERM. Raises EnclaveError when a role has ended."""
    import signal
    import threading

    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGINT, lambda *_: stopping.set())
    while not stopping.wait(0.5):
        fleet.check()
        also()


# --- everything on one machine ----------------------------------------------------------------------------------------


def model_file(said: Path | None) -> Path:
    """The model to be served: the one that was named, or the embedded one. Raises Usage, NotFound."""
    if said is not None:
        if not said.is_file():
            raise NotFound(f"there is no file {said}")
        return said
    found = sorted(EMBEDDED.glob("*.gguf"))
    if not found:
        hint = "Name any GGUF file: strongroom up --chat --model FILE"
        raise Usage("no model is part of this installation", hint=hint)
    return found[0]


def chat(place: Home, fleet: Fleet, model: Path, screen: Screen) -> Role:
    """Seal a model, agree on a contract, open the room, and start a proxy with the chat page.

    Args:
        place: this machine's folder; its parties ``owner`` and ``user`` are at work.
        fleet: running, with a broker for both.
        model: a GGUF file.

    Returns:
        the proxy.

    Raises:
        MissingExtra, AssetError, ContractError, EnclaveError, EngineError, Unreachable, and their leaves.
    """
    config = fleet.config
    with (
        Room(place.party(OWNER), exchange=config.exchange, enclave=config.enclave) as owner,
        Room(place.party(USER), exchange=config.exchange, enclave=config.enclave) as user,
    ):
        trust_each_other(owner, user, fleet)
        asset = _sealed(owner, model, place.folder / "served", screen)
        contract = _agreed(owner, user, asset)
        _open(owner, contract, 0, screen)
        shown(owner.view(contract).proposal, config.enclave, screen)
    return fleet.start_proxy(USER, contract, PAGE_PORT)


def trust_each_other(owner: Room, user: Room, fleet: Fleet) -> None:
    """Two parties of this machine pin each other, its enclave and its log."""
    values = reference(fleet.reference().read_bytes())
    for me, other in ((owner, user), (user, owner)):
        trust = me.trust.pin(other.home.card).with_enclaves(values.roots, values.measurements)
        me.home.save_trust(trust.with_log(values.logs[0]))


def _sealed(owner: Room, model: Path, folder: Path, screen: Screen) -> Manifest:
    """The model as an asset: the one that was sealed before, if it is this file."""
    with screen.progress(f"reading {model.name}", model.stat().st_size) as progress, model.open("rb") as source:
        digest, done = hashlib.sha256(), 0
        while piece := source.read(1 << 20):
            digest.update(piece)
            progress(done := done + len(piece))
    for manifest in reversed(owner.manifests()):
        same = manifest.owner == owner.name and manifest.content.value == digest.digest()
        if same and manifest.terms.serve == standing.USUAL:
            return manifest
    folder.mkdir(parents=True, exist_ok=True)
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in model.stem.lower())[:64]
    out = folder / f"{name}-{int(time.time())}.sealed"
    terms = Policy(uses=frozenset({standing.USE}), serve=standing.USUAL)
    with screen.progress(f"sealing {model.name}", model.stat().st_size) as progress:
        found = owner.seal(
            model,
            terms=terms,
            name=name.strip("._-") or "model",
            kind="model",
            media_type="application/vnd.gguf",
            reveal_digest=True,
            out=out,
            progress=progress,
        )
    screen.said("sealed", f"{out} ({found.sealed.size:,} bytes)")
    return found


def _agreed(owner: Room, user: Room, asset: Manifest) -> str:
    """A standing contract for the model as it is installed here: the one in force, or a new one that both sign."""
    from strongroom.enclave.sandbox import program_digest

    wanted = program_digest(standing.USE)
    for view in reversed(owner.views()):
        found = view.proposal
        same = found.asset(asset.digest) is not None and found.program.digest == wanted
        measured = set(found.enclave.measurements) == set(owner.trust.measurements)
        if view.state in (State.APPROVED, State.ACTIVE) and found.standing and same and measured:
            return found.digest
    draft = Draft(
        title=TITLE,
        program=standing.USE,
        assets={"model": asset},
        outputs={},
        runs=RUNS,
        seconds=MAX_SECONDS,
        memory_bytes=2 << 30,
        days=30,
        serve=standing.USUAL,
        among=(USER,),
    )
    proposal = owner.propose(draft)
    user.approve(proposal.digest)
    return proposal.digest
