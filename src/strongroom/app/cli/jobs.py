"""jobs: runs that wait for their turn: ask, list, follow, cancel, try again; and keep the queue itself."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser, Namespace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strongroom.errors import NotFound, Usage

from .assets import size
from .place import example, home, room
from .screen import Screen

if TYPE_CHECKING:
    from strongroom.app.client.jobs import Jobs
    from strongroom.app.queue.places import Place
    from strongroom.job import Job

MOST_RUNS = 256
DEFAULT_RUNS = 2


def declare(_verb: str, parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom jobs --as lab                             # your jobs, and those of contracts that you are a party to
strongroom jobs add sha256:3f2a --as lab --wait      # ask for a run, and follow it to its receipt
strongroom jobs show 7c1e --as lab
strongroom jobs cancel 7c1e --as hospital
strongroom jobs retry 7c1e --as lab                  # free, unless a key had been released
strongroom jobs serve --runs 2 --memory 8G           # keep the queue of an enclave
strongroom jobs serve --on ray://head:10001          # and of enclaves that a Ray cluster starts
""",
    )
    verbs = parser.add_subparsers(dest="what", metavar="list|add|show|wait|cancel|retry|serve")
    verbs.add_parser("list", help="every job of your contracts (where nothing else is said)")
    added = verbs.add_parser("add", help="ask for a run, which waits for its turn")
    added.add_argument("contract", nargs="?", help="its digest or the beginning of it; the newest where not given")
    for name, line in (
        ("show", "one job"),
        ("wait", "follow a job until it is over, and keep its receipt"),
        ("cancel", "have a job end, or not begin: who asked for it may, and the owners of what it reads"),
        ("retry", "ask again for a job that is over"),
    ):
        sub = verbs.add_parser(name, help=line)
        sub.add_argument("job", nargs="?", help="its run id or the beginning of it; the newest where not given")
        if name == "retry":
            sub.add_argument("--another", action="store_true", help="another run, which counts and is charged anew")
    for name in ("add", "retry"):
        verbs.choices[name].add_argument("--hours", type=int, default=24, metavar="N", help="how long it may wait (24)")
        verbs.choices[name].add_argument("--wait", action="store_true", help="follow it until it is over")
    _declare_serve(verbs.add_parser("serve", help="keep a queue"))
    for sub in verbs.choices.values():
        for flag, dest in (("--home", "home"), ("--as", "party"), ("--exchange-url", "exchange_url")):
            sub.add_argument(flag, dest=dest, default=SUPPRESS)
        sub.add_argument("--enclave-url", dest="enclave_url", default=SUPPRESS)
        sub.add_argument("--queue-url", dest="queue_url", default=SUPPRESS)
        sub.add_argument("--json", action="store_true", default=SUPPRESS)
    parser.add_argument("--queue-url", metavar="URL", help="address of the queue, else the folder's own")
    parser.set_defaults(run=jobs)


def jobs(args: Namespace, screen: Screen) -> int:
    if args.what == "serve":
        return serve(args, screen)
    from strongroom.app.client.jobs import Jobs

    url = args.queue_url or home(args).config.queue
    if url is None:
        raise NotFound("no queue is known here", hint="Start one with `strongroom up --queue`, or give --queue-url URL.")
    here = Jobs(room(args), url)
    return {"add": _add, "show": _show, "wait": _wait, "cancel": _cancel, "retry": _retry}.get(args.what, _list)(
        here, args, screen
    )


def _time(at: int | None) -> str:
    return "-" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _list(here: Jobs, _args: Namespace, screen: Screen) -> int:
    found = here.all()
    rows = [[j.run_id[:12], j.state.value, j.party, j.contract[:19] + "…", _time(j.created_at), j.code] for j in found]
    if rows:
        screen.table(["job", "state", "asked by", "contract", "asked at (UTC)", "why"], rows)
    else:
        screen.said("jobs", "there are none of yours")
    screen.result({"jobs": [job.to_json() for job in found]})
    return 0


def _add(here: Jobs, args: Namespace, screen: Screen) -> int:
    return _asked(here, here.add(room(args).find(args.contract), hours=args.hours), args, screen)


def _retry(here: Jobs, args: Namespace, screen: Screen) -> int:
    return _asked(here, here.retry(here.find(args.job), another=args.another, hours=args.hours), args, screen)


def _asked(here: Jobs, job: Job, args: Namespace, screen: Screen) -> int:
    screen.said("job", f"{job.run_id}   {job.state.value}")
    if args.wait:
        return _follow(here, job, screen)
    screen.said("next", f"strongroom jobs wait {job.run_id[:12]}")
    screen.result({"job": job.to_json()})
    return 0


def _show(here: Jobs, args: Namespace, screen: Screen) -> int:
    job = here.find(args.job)
    _tell(job, screen)
    steps: list[dict[str, Any]] = []
    if not job.state.over:
        from strongroom.errors import StrongroomError

        try:
            steps = [{"detail": detail, "step": step} for step, detail in here.going(job)]
        except StrongroomError as error:
            screen.said("progress", f"cannot be had: {error.message}")
        for said in steps:
            screen.said(said["step"], said["detail"])
    screen.result({"going": steps, "job": job.to_json()})
    return 0


def _tell(job: Job, screen: Screen) -> None:
    screen.said("job", job.run_id)
    screen.said("contract", job.contract)
    screen.said("asked by", f"{job.party}, {_time(job.created_at)}; it may begin until {_time(job.until)} UTC")
    screen.said("state", job.state.value + (" (cancelled)" if job.cancelled and not job.state.over else ""))
    screen.said("begun", f"{_time(job.started_at)}; tries: {job.tries}")
    screen.said("over", _time(job.ended_at))
    if job.code:
        screen.said("why", f"{job.code}: {job.message}")
    if job.receipt:
        screen.said("receipt", job.receipt)


def _wait(here: Jobs, args: Namespace, screen: Screen) -> int:
    return _follow(here, here.find(args.job), screen)


def _follow(here: Jobs, job: Job, screen: Screen) -> int:
    from strongroom.errors import JobCancelled, RunFailed, leaves
    from strongroom.job import JobState

    found = here.wait(job, screen.said)
    value: dict[str, Any] = {"job": found.to_json()}
    if found.receipt:
        receipt = here.receipt(found)
        screen.said("receipt", f"{found.receipt}   verified")
        screen.said("", receipt.label)
        value["statement"] = receipt.statement.to_json()
    if found.state is JobState.DONE:
        screen.result(value)
        screen.said("next", f"strongroom outputs {found.contract[:15]}")
        return 0
    known = leaves().get(found.code)
    kind = JobCancelled if found.state is JobState.CANCELLED else RunFailed
    stopped = kind(f"the job is {found.state.value}: {found.code}: {found.message}", hint=known.hint if known else None)
    screen.error(stopped, **value)
    return 1


def _cancel(here: Jobs, args: Namespace, screen: Screen) -> int:
    job, missed = here.cancel(here.find(args.job))
    if job is not None:
        screen.said("job", f"{job.run_id}   {job.state.value}{'' if job.state.over else ', and told to end'}")
    for who in missed:
        screen.said("not told", who)
    if missed:
        screen.said("", "Until they are, the job may run there: cancel it again, or withdraw from its contract.")
    screen.result({"job": None if job is None else job.to_json(), "missed": missed})
    return 1 if missed else 0


# --- the queue itself ---


def _declare_serve(parser: ArgumentParser) -> None:
    from .roles import serving

    serving(parser)
    parser.add_argument("--runs", type=int, default=DEFAULT_RUNS, metavar="N", help=f"at once ({DEFAULT_RUNS})")
    parser.add_argument(
        "--memory", type=size, metavar="SIZE", help="of all of them together (three quarters of this machine's)"
    )
    parser.add_argument("--on", metavar="ray://HOST:PORT", help="have a Ray cluster start enclaves; needs strongroom[ray]")
    parser.add_argument("--node-home", type=Path, metavar="FOLDER", help="on each node, the enclave's folder (this --home)")
    parser.add_argument(
        "--node-platform", default="simulated", metavar="NAME", help="what proves what runs on a node (simulated)"
    )
    from .roles import extras

    extras(parser)


def _place(args: Namespace, exchange: str) -> Place:
    from strongroom.app.queue.places import AtAddress

    if args.on is None:
        return AtAddress(args.enclave_url or home(args).config.enclave)
    if not args.on.startswith("ray://"):
        raise Usage(f"--on {args.on[:80]!r} is no cluster", hint="A Ray cluster: --on ray://HOST:PORT")
    from strongroom.app.queue.cluster import Cluster

    words = ["enclave", "--platform", args.node_platform, "--exchange-url", exchange]
    words += ["--home", str((args.node_home or home(args).folder).absolute())]
    words += [word for extra in args.extras for word in ("--with", extra)]
    return Cluster(args.on, words, enclaves=args.runs)


def serve(args: Namespace, screen: Screen) -> int:
    """Keep a queue until it is told to end. Raises Conflict: another process keeps this one."""
    from strongroom.app.exchange.client import ExchangeClient
    from strongroom.app.http import Client, listen
    from strongroom.app.http import serve as answer
    from strongroom.app.queue.keeper import Keeper
    from strongroom.app.queue.order import Room
    from strongroom.app.queue.server import queue
    from strongroom.app.stores.queue import QueueStore, alone

    from .roles import announced

    if not 1 <= args.runs <= MOST_RUNS:
        raise Usage(f"--runs is 1 to {MOST_RUNS}")
    place = home(args)
    exchange = args.exchange_url or place.config.exchange
    folder = place.folder / "queue"
    folder.mkdir(mode=0o700, exist_ok=True)
    with alone(folder):
        sock = listen(args.host, args.port)
        where = _place(args, exchange)
        store = QueueStore(folder / "queue.db")
        keeper = Keeper(store, ExchangeClient(Client(exchange)), where, Room(args.runs, args.memory or _memory() * 3 // 4))
        keeper.start()
        try:
            answer(queue(keeper), sock, announce=announced(args, screen, "queue"), until_eof=args.announce)
        finally:
            keeper.stop()
            where.close()
            store.close()
    return 0


def _memory() -> int:
    """Bytes of memory of this machine; of the container that it is, where that is less."""
    import os

    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            found = min(found, int(Path(path).read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue
    return found
