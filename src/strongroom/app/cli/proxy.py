"""proxy: a local server through which any OpenAI client speaks to a verified service."""

from __future__ import annotations

import json
import os
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strongroom.app.client.room import is_whole
from strongroom.errors import NotFound, StrongroomError, Usage

from .place import example, party
from .screen import Screen

if TYPE_CHECKING:
    from strongroom.app.client.asking import Outcome, Verifier
    from strongroom.app.client.session import Session
    from strongroom.trust import Trust

PORT = 8989
API_KEY = "STRONGROOM_API_KEY"


def declare(_verb: str, parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom proxy https://models.example               # shows what it serves, and under which contract
strongroom proxy https://models.example --contract sha256:3f2a…91cc --trust trust.json
""",
    )
    parser.add_argument("url", help="address of the service")
    parser.add_argument("--contract", metavar="DIGEST", help="the contract under which to be served, the whole digest")
    parser.add_argument("--trust", type=Path, metavar="FILE", help="your trust file (the party's own)")
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="MODEL=DIGEST",
        help="a model's weights, where the owner does not show their digest",
    )
    parser.add_argument(
        "--receipts",
        choices=("required", "background"),
        default="required",
        help="withhold the end of an answer until its receipt is verified (required), or verify it afterwards",
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep each answer with its receipt and report")
    parser.add_argument("--key", metavar="KEY", help=f"the service's API key, in place of the clients' (${API_KEY})")
    parser.add_argument("--host", default="127.0.0.1", help="(127.0.0.1) others are reached without encryption")
    parser.add_argument("--port", type=int, default=PORT, help=f"({PORT}) 0 chooses a free one")
    parser.add_argument(
        "--announce", action="store_true", help="say the address in one JSON line, and end with standard input"
    )
    parser.set_defaults(run=run)


def run(args: Namespace, screen: Screen) -> int:
    if args.contract is None:
        return _look(args, screen)
    if not is_whole(args.contract):
        raise Usage("--contract is a digest, the whole of it", hint="Another contract can be made to begin like yours.")
    from strongroom.app.client.asking import Verifier
    from strongroom.app.client.carrier import AsyncCarrier, Carrier
    from strongroom.app.client.proxy import addresses, proxy
    from strongroom.app.client.session import Terms
    from strongroom.app.client.verified import AsyncVerifiedTransport, VerifiedTransport
    from strongroom.app.http import listen, serve

    trust = _trust(args)
    verifier = Verifier(
        args.url,
        Terms(trust=trust, contract=args.contract, weights=weights_of(args.weights)),
        receipts=args.receipts,
        api_key=args.key or os.environ.get(API_KEY) or None,
        on_answer=Told(screen, _folder(args.keep), aloud=not args.announce),
        keep=args.keep is not None,
    )
    once = VerifiedTransport(verifier, Carrier(verifier.origin))
    try:
        session = once.establish({"timeout": {"connect": 10.0, "pool": 10.0, "read": 60.0, "write": 60.0}})
    finally:
        once.close()
    sock = listen(args.host, args.port)
    hosts = addresses(args.host, sock.getsockname()[1])
    inner = [AsyncCarrier(verifier.origin) for _ in range(2)]
    offered = json.dumps(trust.to_json()).encode()
    app = proxy(AsyncVerifiedTransport(verifier, inner[0]), inner[1], hosts, trust=offered)
    if not args.announce:
        show(session, verifier, screen)
    serve(app, sock, announce=_announce(args, screen, session), until_eof=args.announce)
    return 0


def _trust(args: Namespace) -> Trust:
    if args.trust is None:
        return party(args).trust
    from strongroom.app.client.home import trust_file

    return trust_file(args.trust)


def weights_of(said: list[str]) -> dict[str, str]:
    """``MODEL=DIGEST``, each. Raises Usage."""
    found = {}
    for text in said:
        name, sign, digest = text.rpartition("=")
        if not (name and sign and digest.startswith("sha256:")):
            raise Usage(f"{text!r} is not MODEL=sha256:…")
        found[name] = digest
    return found


def _folder(keep: Path | None) -> Path | None:
    if keep is None:
        return None
    try:
        keep.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise NotFound(f"cannot write {keep}: {error.strerror}") from error
    return keep


def _look(args: Namespace, screen: Screen) -> int:
    """What a service says of itself, for who has not yet decided to rely on it."""
    from contextlib import closing

    from strongroom.app.client.asking import origin_of
    from strongroom.app.client.prose import clauses
    from strongroom.app.client.session import ROOM_PATH, Reply, look
    from strongroom.app.http import Client, anybody

    with closing(Client(str(origin_of(args.url)), timeout=10, context=anybody())) as client:
        contract = look(Reply(200, client.get(ROOM_PATH)))
    for clause in clauses(contract.proposal):
        screen.said(clause.about, clause.text)
    screen.line()
    hint = f"Ask its owner whether this is the contract, by another channel; then: --contract {contract.digest}"
    raise Usage(f"{args.url} says that it serves under {contract.digest}, and nothing of that is verified", hint=hint)


def show(session: Session, verifier: Verifier, screen: Screen) -> None:
    """What was established of a service, and what its operator may see, before the first message."""
    from strongroom.app.client.prose import ON_NO_DISK, SEEN

    screen.heading(str(verifier.origin).rstrip("/"))
    screen.transcript(session.transcript)
    screen.line()
    proposal, serve = session.contract.proposal, session.contract.proposal.policy.serve
    assert serve is not None
    screen.said("", session.label)
    screen.said("contract", f"{session.contract.digest}: {proposal.title}")
    for name, agreed in session.models.items():
        screen.said("model", f"{name}, weights {agreed.weights}")
    screen.said("the operator sees", SEEN[serve.observability])
    screen.said("receipts are kept", f"{serve.retention_s} seconds" if serve.retention_s else ON_NO_DISK)
    screen.said("verified until", time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(session.until)) + " UTC, then again")


def _announce(args: Namespace, screen: Screen, session: Session) -> Callable[[str], None]:
    def said(url: str) -> None:
        value: dict[str, Any] = {
            "base_url": f"{url}/v1",
            "contract": session.contract.digest,
            "label": session.label,
            "models": sorted(session.models),
            "role": "proxy",
            "url": url,
        }
        if args.announce:
            print(json.dumps(value), flush=True)  # noqa: T201 - for the parent process
            return
        screen.result(value)
        screen.said("chat page", f"{url}/")
        screen.said("OpenAI base_url", f"{url}/v1")
        screen.note("Each answer is told of below. Stop it with Ctrl-C.")

    return said


class Told:
    """Tells of each answer in a line, with the shield's word, and keeps what is to be kept.

    Args:
        screen: where to.
        keep: a folder, or ``None``.
        aloud: whether to say it on standard output, which a parent process may be reading; else on standard error.
    """

    def __init__(self, screen: Screen, keep: Path | None, *, aloud: bool) -> None:
        self._screen, self._keep, self._aloud = screen, keep, aloud

    def __call__(self, outcome: Outcome) -> None:
        if self._aloud:
            self._screen.said(outcome.word.value, line(outcome), width=12)
        else:
            self._screen.note(f"{outcome.word.value.ljust(11)} {line(outcome)}")
        if self._keep is not None and outcome.answer is not None:
            self._write(outcome, self._keep)

    def _write(self, outcome: Outcome, folder: Path) -> None:
        from strongroom.app.client.home import pretty, write

        assert outcome.answer is not None
        name = "".join(c for c in outcome.answer.receipt_id or "" if c.isalnum() or c == "-")[:64]
        path = folder / f"{outcome.answer.received_at}-{outcome.word.value}-{name}.json"
        try:
            write(path, pretty(outcome.answer.to_json()), secret=True)
        except StrongroomError as error:  # an answer is not held back because a disk is full
            self._screen.note(f"not kept: {error.message}")


def line(outcome: Outcome) -> str:
    """One answer in one line, and nothing of what was asked."""
    usage = outcome.usage
    tokens = "" if usage is None else f", {usage.prompt + usage.embedding} + {usage.completion} tokens"
    found = f"{outcome.endpoint} {outcome.model or '-'}{tokens}, {outcome.seconds:.2f} s"
    if outcome.error is not None:
        return f"{found}: {outcome.error.code}: {outcome.error.message}"
    if outcome.status is not None and outcome.status >= 400:
        return f"{found}, HTTP {outcome.status}"
    return found
