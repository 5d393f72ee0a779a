"""demo --brokers T-of-N: the hospital's key is shared over other people's brokers. One is killed, and the run goes on.

The same lab, hospital, model and records as in ``demo``, with a process for every broker. When one broker alone is left it
opens nothing, whoever has it.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from strongroom import wire
from strongroom.app.client import sharing
from strongroom.app.client.draft import MAX_BYTES, Draft, Wanted
from strongroom.app.client.home import Home, read, reference
from strongroom.app.client.room import Opened, Room
from strongroom.asset import Manifest
from strongroom.attest.simulated import LABEL
from strongroom.errors import ReleaseRefused, RunFailed, TooFewShares, Usage
from strongroom.policy import ANY_PARTY, OutputRule, Policy
from strongroom.threshold import HolderCard, require_majority

from . import demo
from .demo import Clock
from .fleet import Fleet
from .parties import make
from .runs import Steps
from .screen import Screen
from .shares import counted, patient

NAMES = ("clinic", "notary", "union", "court", "library", "museum", "school")
RUNS = 2


def run(args: Namespace, screen: Screen) -> int:
    """Raises Usage: of so many brokers none can be killed, or one alone is enough. BadEnrolment: not more than half."""
    threshold, count = counted(args.brokers)
    require_majority(threshold, count)
    if not 2 <= threshold < count <= len(NAMES):
        raise Usage(
            f"{args.brokers} is no story: two at least must be needed, one must be to spare, and {len(NAMES)} are at most",
            hint="Try: strongroom demo --brokers 2-of-3",
        )
    folder, clock = demo.fresh(args.folder), Clock()
    screen.line(
        "A broker has the keys of its owner's data. Whoever has the broker, has them; and when it is off, nothing runs."
    )
    screen.line(
        f"So a hospital shares a key over {count} brokers of other people: any {threshold} open it, one never.", "bold"
    )
    screen.line(f"{LABEL}: this demo shows the path, not the protection.", "yellow")
    screen.heading("1  Each side prepares what it holds")
    with clock("train the model"), patient(screen, "training the model"):
        demo.prepare(folder, screen)
    home = Home(folder)
    for name in ("lab", "hospital", *NAMES[:count]):
        make(home, name)
    with Fleet(home) as fleet:
        _start(fleet, count, clock, screen)
        config = fleet.config
        lab, hospital = (Room(home.party(n), exchange=config.exchange, enclave=config.enclave) for n in ("lab", "hospital"))
        demo.pin(lab, hospital, fleet, screen)
        cards = [_holder(home, name, hospital, fleet, screen) for name in NAMES[:count]]
        with clock("seal, share and upload"):
            _seal(lab, hospital, folder, (threshold, cards), screen)
        contract = _agree(lab, hospital, folder, clock, screen)
        screen.heading(f"6  The broker of {cards[0].name} dies, in front of you")
        _kill(fleet, cards[:1], screen)
        bundle = demo.enclave_runs(lab, contract, clock, screen)
        parts = [wire.loads(e.payload) for e in bundle.releases]
        took = [cards[part["index"] - 1].name for part in parts if "index" in part]
        screen.said("opened by", f"the shares of {' and '.join(took)}, as the receipt says")
        opened = _outputs(lab, hospital, contract, clock, screen)
        path = demo.check(lab, bundle, clock, screen)
        screen.heading(f"9  All others die too, but that of {cards[-1].name}")
        _kill(fleet, cards[1:-1], screen)
        code = _alone(lab, contract, cards[-1].name, clock, screen)
    demo.end(folder, path, opened, clock, screen, alone=code, brokers=args.brokers)
    return 0


def _start(fleet: Fleet, count: int, clock: Clock, screen: Screen) -> None:
    what = f"an exchange, the brokers of lab and hospital, {count} brokers of other people, a platform, an enclave"
    screen.heading(f"2  The processes start: {what}")
    with clock("start the processes"):
        fleet.start(
            on_ready=lambda role: screen.said(role.name, f"{role.url}   process {role.process.pid}, {role.seconds:.1f} s"),
            on_wait=lambda names: screen.said("", f"waiting for the {names} (the first start compiles what it measured)"),
        )


def _holder(home: Home, name: str, hospital: Room, fleet: Fleet, screen: Screen) -> HolderCard:
    """Somebody else's broker: its people pin the hospital and nobody else, and look at enclaves themselves."""
    party = home.party(name)
    values = reference(read(fleet.reference()))
    trust = party.trust.pin(hospital.home.card).with_enclaves(values.roots, values.measurements)
    for vkey in values.logs:
        trust = trust.with_log(vkey)
    party.save_trust(trust)
    card = sharing.card(party)
    screen.said(name, f"pins the hospital alone, expects the same measurement; its card is {card.fingerprint[:30]}…")
    return card


def _rule(kind: str, group: int, decimals: int) -> OutputRule:
    return OutputRule(ANY_PARTY, MAX_BYTES[kind], group, decimals)


def _seal(lab: Room, hospital: Room, folder: Path, over: tuple[int, list[HolderCard]], screen: Screen) -> None:
    threshold, cards = over
    screen.heading(f"4  The hospital seals and shares in one step: strongroom seal --brokers {threshold}-of-{len(cards)}")
    uses, kinds = frozenset({"evaluate"}), ("picture", "report")
    lab.seal(
        folder / "model.onnx", terms=Policy(uses, {k: _rule(k, 1, 15) for k in kinds}), name="classifier", reveal_digest=True
    )
    with patient(screen, "sealing, and bringing the brokers their shares"):
        sharing.probe(cards)
        records = hospital.seal(
            folder / "records.csv",
            terms=Policy(uses, {k: _rule(k, 10, 4) for k in kinds}),
            name="held-out",
            mock=folder / "mock.csv",
            keep=sharing.keeper(hospital.home, threshold, cards),
        )
        found = sharing.send(hospital.home, hospital.exchange, records.digest)
    for card in cards:
        screen.said(
            card.name, "has not taken its share" if card.name in found.waiting else "took its share, encrypted to it"
        )
    screen.said("hospital", f"its own broker holds {_held(hospital, records)}; it never had it")
    screen.said("lab", "keeps the key of its model with its own broker, as ever: each owner decides for itself")


def _held(room: Room, manifest: Manifest) -> str:
    return "no key of these records" if room.home.book.held(manifest.digest) is None else "the key of these records"


def _agree(lab: Room, hospital: Room, folder: Path, clock: Clock, screen: Screen) -> str:
    screen.heading("5  The lab proposes, the hospital approves; what it says reaches the brokers that hold its shares")
    draft = Draft(
        title=demo.TITLE,
        program="evaluate",
        assets={"data": lab.asset("hospital/held-out"), "model": lab.asset("lab/classifier")},
        outputs={"calibration": Wanted(("hospital",)), "report": Wanted(("hospital", "lab"))},
        parameters=demo.parameters(folder),
        runs=RUNS,
        min_group=10,
        decimals=4,
    )
    with clock("propose, approve, tell"), patient(screen, "signing, and telling the brokers"):
        digest = lab.propose(draft).digest
        hospital.approve(digest)
    screen.said("contract", f"{digest}, for {RUNS} runs")
    screen.said("told", f"not {', '.join(hospital.untold)}" if hospital.untold else "all of them; none asks any other")
    return digest


def _kill(fleet: Fleet, cards: list[HolderCard], screen: Screen) -> None:
    for card in cards:
        role = fleet.roles.pop(f"broker of {card.name}")
        screen.said(card.name, f"process {role.process.pid} is killed, as by a power cut; nobody is told")
        role.kill()


def _outputs(lab: Room, hospital: Room, contract: str, clock: Clock, screen: Screen) -> dict[str, list[Opened]]:
    screen.heading("8  Each side opens what was delivered to it, and to it alone")
    with clock("open the outputs"):
        found = {room.name: room.outputs(contract) for room in (lab, hospital)}
    for name, opened in found.items():
        screen.said(name, ", ".join(sorted(o.name for o in opened)))
    screen.said("", LABEL)
    return found


def _alone(lab: Room, contract: str, name: str, clock: Clock, screen: Screen) -> str:
    """Have the contract run with one broker; the code of what stops it. Raises RunFailed: nothing did."""
    screen.heading(f"10 The {name} alone: whoever has it has a share, which is as good as any guess")
    try:
        with clock("the run that is refused"):
            lab.run(contract, Steps(screen))
    except (TooFewShares, ReleaseRefused) as stopped:
        screen.said("refused", f"{stopped.code}: {stopped}", width=24)
        screen.said("", f"Nothing was opened, and nothing left. {LABEL}")
        return stopped.code
    raise RunFailed("one broker alone opened the records")
