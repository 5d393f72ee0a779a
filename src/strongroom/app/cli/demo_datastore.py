"""demo datastore: a small model writes law once a council lets it, is metered for it, and then no longer can.

The model is the one that ships (docs/retrieval.md): it was trained on old novels and on an old encyclopedia, and never on
law. The texts are excerpts of the same kind, and statutes (``demo_store/README.md``). Every step goes the way that it would
go between strangers: three owners, one contract, an enclave, receipts.
"""

from __future__ import annotations

import hashlib
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from strongroom import lm
from strongroom.app.client.draft import Draft
from strongroom.app.client.home import Home, read, reference
from strongroom.app.client.room import Room
from strongroom.app.client.sources import PARTS, revise, seal_source
from strongroom.asset import Manifest
from strongroom.attest.simulated import LABEL
from strongroom.contract import MAX_SECONDS
from strongroom.drawing import GRAIN, Drawing, Price
from strongroom.errors import BadUsage, MissingExtra
from strongroom.inference.events import SourceUsed
from strongroom.policy import Policy
from strongroom.wire import JSON

from . import standing
from .demo import Clock, commands, fresh
from .fleet import Fleet
from .parties import make
from .runs import Steps
from .screen import Screen
from .sources import ROUTES

if TYPE_CHECKING:
    from strongroom.app.client.verified import VerifiedClient

TITLE: Final = "The lab's small model, with the archive's books and encyclopedia and the council's statutes"
MODEL: Final = "lab/retrieval"
NOVEL: Final = "she said, and"
PROMPT: Final = "The Mayor, pursuant to subchapter I of Chapter 5 of Title 2, shall issue rules"
TOKENS: Final = 48
OWNERS: Final = {"books": "archive", "encyclopedia": "archive", "law": "council"}
ABOUT: Final = {
    "books": ("Public domain", "CC0-1.0"),
    "encyclopedia": ("Public domain", "CC0-1.0"),
    "law": ("Council of the District of Columbia", "LicenseRef-edict-of-government"),
}
PRICES: Final = {"books": 0, "encyclopedia": 0, "law": 25_000_000}
UNIT: Final = "EUR-nano"
BUDGET: Final = 64 * GRAIN
LOGGED_SECONDS: Final = 60.0  # that receipts may take to the log


@dataclass(frozen=True, slots=True)
class Said:
    """One answer, verified.

    Attributes:
        prompt: what it goes on from.
        text: of it.
        used: what it drew, by the source's name.
    """

    prompt: str
    text: str
    used: dict[str, SourceUsed]


def run(args: Namespace, screen: Screen) -> int:
    from strongroom.app.client.verified import verified_client

    for library in ("torch", "faiss", "tokenizers"):
        if find_spec(library) is None:
            raise MissingExtra(f"{library} is not installed, which the model needs", hint="pip install 'strongroom[lm]'")
    folder, clock = fresh(args.folder), Clock()
    screen.line("A model keeps grammar in itself, and looks up what it knows in sources that belong to others.", "bold")
    screen.line("Their owners let it, are paid by the grain for what it drew, and can end it: from the next answer on.")
    screen.line(f"{LABEL}: this demo shows the path, not the protection.", "yellow")
    screen.heading("1  Each owner prepares what it holds")
    with clock("build the sources"):
        stores = prepare(folder, screen)
    home = Home(folder)
    names = ("archive", "council", "lab")
    for name in names:
        make(home, name)
    with Fleet(home, extras=("lm",)) as fleet:
        _start(fleet, clock, screen)
        rooms = {
            name: Room(home.party(name), exchange=fleet.config.exchange, enclave=fleet.config.enclave) for name in names
        }
        _pin(rooms, fleet, screen)
        with clock("seal and upload"):
            assets = _seal(rooms, stores, folder, screen)
        with clock("propose and approve"):
            contract = _agree(rooms, assets, screen)
        with clock("open the room"):
            screen.heading("6  The enclave proves what it is, gets every owner's key, and opens the room")
            rooms["lab"].serve(contract, Steps(screen))
        trust = home.party("lab").folder / "trust.json"
        with verified_client(fleet.config.enclave, trust=trust, contract=contract) as client:
            result = _story(client, rooms["council"], assets, clock, screen)
        with clock("recompute the bill"):
            owed = _bill(rooms["council"], contract, fleet.config.enclave, folder, screen)
    _end(folder, contract, clock, screen, {**result, "owed": owed})
    return 0


def prepare(folder: Path, screen: Screen) -> dict[str, Path]:
    """Build each source as its owner would, with the frozen parts that ship; where the stores are, by owner."""
    from strongroom.lm.build import build
    from strongroom.lm.datastore import Datastore
    from strongroom.lm.parts import Parts
    from strongroom.lm.source import About
    from strongroom.lm.source import Price as Asked
    from strongroom.lm.texts import Texts

    parts, found = Parts.load(PARTS), {}
    model = Path(lm.__file__).parent / "model" / "retrieval.safetensors"
    screen.said("lab", f"{model.name}, {model.stat().st_size:,} bytes: trained on novels and an encyclopedia, never on law")
    for name, owner in OWNERS.items():
        store = folder / "stores" / owner
        if owner not in found:
            Datastore.create(store, parts)
            found[owner] = store
        text = files(__package__).joinpath("demo_store", f"{name}.jsonl.xz")
        whose, licence = ABOUT[name]
        path = folder / f"{name}.jsonl.xz"
        path.write_bytes(text.read_bytes())
        about = About(name, whose, licence, Asked(PRICES[name], UNIT))
        manifest = build(store, about, Texts.of([path]))
        screen.said(
            owner, f"{name}: {manifest.documents:,} documents, {manifest.tokens:,} tokens, {manifest.chunks:,} passages"
        )
    return found


def _start(fleet: Fleet, clock: Clock, screen: Screen) -> None:
    screen.heading("2  Processes start: an exchange, three brokers, a platform, an enclave")
    screen.said("", "the enclave measures torch too; the first time takes longest")
    with clock("start every role"):
        fleet.start(
            on_ready=lambda role: screen.said(role.name, f"{role.url}   after {role.seconds:.1f} s"),
            on_wait=lambda names: screen.note(f"waiting for: {names}"),
        )


def _pin(rooms: dict[str, Room], fleet: Fleet, screen: Screen) -> None:
    screen.heading("3  Each pins what it trusts: the others' keys, the enclave's measurement, the log's key")
    values = reference(read(fleet.reference()))
    for me in rooms.values():
        trust = me.trust.with_enclaves(values.roots, values.measurements)
        for other in rooms.values():
            trust = trust if other is me else trust.pin(other.home.card)
        for vkey in values.logs:
            trust = trust.with_log(vkey)
        me.home.save_trust(trust)
    screen.said("all", f"expect the measurement {values.measurements[0].digest[:30]}… (strongroom measure prints it)")


def _seal(rooms: dict[str, Room], stores: dict[str, Path], folder: Path, screen: Screen) -> dict[str, Manifest]:
    screen.heading("4  Each owner seals its asset, with its terms; the key stays with its own broker")
    model = Path(lm.__file__).parent / "model" / "retrieval.safetensors"
    weights = f"sha256:{hashlib.sha256(model.read_bytes()).hexdigest()}"
    found = {
        "model": rooms["lab"].seal(
            model,
            terms=Policy(frozenset({standing.USE}), serve=ROUTES),
            name="retrieval",
            kind="model",
            media_type="application/vnd.safetensors",
            reveal_digest=True,
            out=folder / "retrieval.sealed",
        )
    }
    screen.said("lab", f"{MODEL}: weights {weights[:30]}…")
    for name, owner in OWNERS.items():
        drawing = Drawing(frozenset({weights}), Price(PRICES[name], UNIT), GRAIN, BUDGET)
        sealed = seal_source(
            rooms[owner], stores[owner], drawing=drawing, serve=ROUTES, source=name, out=folder / f"{name}.sealed"
        )
        found[name] = sealed
        price = f"{PRICES[name]:,} {UNIT} for a thousand tokens drawn" if PRICES[name] else "for nothing"
        screen.said(owner, f"{name}: these weights alone may draw, at most {BUDGET // GRAIN} tokens of an answer, {price}")
    screen.said("exchange", "holds the sealed files; it has no key, and never will")
    return found


def _agree(rooms: dict[str, Room], assets: dict[str, Manifest], screen: Screen) -> str:
    screen.heading("5  The lab proposes one standing contract; archive and council sign exactly that")
    parameters: dict[str, JSON] = {"context_tokens": 512, "max_tokens": 128, "parallel": 2}
    draft = Draft(
        title=TITLE,
        program=standing.USE,
        assets=assets,
        outputs={},
        parameters=parameters,
        runs=4,
        seconds=MAX_SECONDS,
        memory_bytes=3 << 30,
        serve=ROUTES,
    )
    proposal = rooms["lab"].propose(draft)
    for name in ("archive", "council"):
        rooms[name].approve(proposal.digest)
    screen.said("contract", proposal.digest)
    return proposal.digest


def _story(
    client: VerifiedClient, council: Room, assets: dict[str, Manifest], clock: Clock, screen: Screen
) -> dict[str, JSON]:
    """Ask without law, with it, and without it again. Raises BadUsage: it is not as it must be."""
    law, url = assets["law"], str(client.base_url).rstrip("/")
    called = {manifest.digest: name for name, manifest in assets.items()}
    screen.heading("7  The council has signed, and keeps its statutes back for now")
    revise(council, law, None, url=url)
    with clock("four answers"):
        novel, before = _asked(client, called, NOVEL), _asked(client, called)
    _show(novel, screen)
    _show(before, screen)
    screen.heading("8  The council lets its statutes in: one signed line, and the room goes on")
    revise(council, law, law.drawing, url=url)
    with clock("four answers"):
        within = _asked(client, called)
    _show(within, screen)
    if "law" not in within.used:
        raise BadUsage("the model did not draw from law where it should have")
    screen.heading("9  The council takes them out again: the next answer is, to the bit, the one from before")
    revise(council, law, None, url=url)
    with clock("four answers"):
        after = _asked(client, called)
    _show(after, screen)
    same = after == before
    screen.said("the same", "text and every weight, of every token" if same else "NO: it differs")
    if not same:
        raise BadUsage("without law the answer is another than before")
    return {
        "after": after.text,
        "before": before.text,
        "drawn": {name: used.to_json() for name, used in within.used.items()},
        "prompt": PROMPT,
        "same": same,
        "within": within.text,
    }


def _asked(client: VerifiedClient, called: dict[str, str], prompt: str = PROMPT) -> Said:
    """One question, answered, its receipt verified."""
    body = {"max_tokens": TOKENS, "model": MODEL, "prompt": prompt, "temperature": 0}
    answer = client.post("/v1/completions", json=body)
    answer.raise_for_status()
    outcome = client.last
    assert outcome is not None
    assert outcome.receipt is not None
    used = outcome.receipt.receipt.every(SourceUsed)
    return Said(prompt, answer.json()["choices"][0]["text"], {called[one.source]: one for one in used})


def _show(said: Said, screen: Screen) -> None:
    for number, line in enumerate((said.prompt + said.text).rstrip("\n").splitlines()):
        screen.line(f"  {'>' if not number else ' '} {line}", "bold")
    if not said.used:
        screen.said("drawn from", "no source: every word is the model's own")
    for name, one in sorted(said.used.items()):
        owed = f"owes {OWNERS[name]} {one.amount:,} {one.unit}" if PRICES[name] else "for nothing"
        screen.said("drawn from", f"{name}: {one.weight / GRAIN:.2f} of {one.tokens} tokens, {owed}")


def _bill(council: Room, contract: str, url: str, folder: Path, screen: Screen) -> int:
    """What the council is owed, from the receipts alone; recomputed from the gates in them."""
    from strongroom.app.client.served import fetch, recount

    screen.heading("10  The council fetches the receipts, and works out what it is owed: from the gates in them alone")
    path, until = folder / "receipts.jsonl", time.monotonic() + LOGGED_SECONDS
    while True:
        path.unlink(missing_ok=True)
        count = fetch(council, contract, url, path)
        found = recount([path], council.trust, weights={}, at=int(time.time()), room=None)
        if not found.refused or time.monotonic() > until:
            break
        screen.note("waiting until every receipt is in the log")
        time.sleep(1)
    due = {one.agreed.name: one for one in found.drawn}
    for refused in found.refused:
        screen.said("not counted", f"{refused.receipt_id}: {refused.why}")
    screen.said("receipts", f"{count}, of which {found.counted} hold and are logged")
    law = due.get("law")
    if law is None:
        screen.said("owed", "nothing yet: no receipt that draws from law is in the log so far")
        return 0
    screen.said("law", f"{law.drawn.weight:,} grains of {law.drawn.tokens} tokens, in {law.drawn.requests} answer")
    screen.said("owed", f"{law.amount:,} {law.drawn.unit}")
    return law.amount


def _end(folder: Path, contract: str, clock: Clock, screen: Screen, result: dict[str, JSON]) -> None:
    screen.heading("What this shows, and what not")
    for line in _HONEST:
        screen.line(f"  {line}")
    screen.heading("Where the time went")
    for name, seconds in clock.spent.items():
        screen.said(name, f"{seconds:6.3f} s")
    screen.heading("Try")
    ours, _ = commands()
    store = folder / "stores" / "council"
    model = Path(lm.__file__).parent / "model" / "retrieval.safetensors"
    screen.line(f'  {ours} lm generate "{PROMPT}" --model {model} --store {store} --show-sources')
    screen.line(f"  {ours} usage {folder / 'receipts.jsonl'} --offline --home {folder} --as council")
    spent: dict[str, JSON] = {name: str(round(seconds, 3)) for name, seconds in clock.spent.items()}
    screen.result({**result, "contract": contract, "folder": str(folder), "platform": LABEL, "seconds": spent})


_HONEST: Final[Sequence[str]] = (
    "The model has two million parameters. It writes law as the words stand in the statutes, and understands none of it.",
    "That it cannot write law without them is exact: nothing of them was in its training, and every number is as if they",
    "had never been there. What it wrote while it had them is written, and whoever has that answer keeps it.",
    "What the council is owed follows from whole numbers in signed receipts. That there was no answer without a receipt",
    "rests on the measured code; on this simulated platform, on the owner of this machine.",
)
