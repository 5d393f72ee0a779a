"""The command line. Each verb shows an example with ``--help``, prints JSON with ``--json``, and exits non-zero when wrong.

Verbs are imported when they are used: ``strongroom verify`` loads no server, no HTTP client and no program.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from importlib import import_module
from typing import Any

from strongroom import __version__
from strongroom.errors import Internal, NotFound, StrongroomError, Usage

from .screen import Screen

# verb -> (module that declares it, one line)
VERBS = {
    "up": ("roles", "start an exchange, brokers and an enclave on this machine"),
    "party": ("parties", "make a party, show its card, trust another's"),
    "seal": ("assets", "encrypt a file; its key stays with your broker"),
    "offer": ("offer", "publish a mock of a table for researchers, and seal the table"),
    "assets": ("offer", "list what pinned owners offer, with its terms and its mock"),
    "open": ("assets", "decrypt your own sealed file, or a range of it"),
    "inspect": ("assets", "say what a card, manifest, proposal, receipt or sealed file holds"),
    "propose": ("contracts", "propose a computation over sealed assets"),
    "try": ("code", "run your own code on stand-ins, as an enclave would"),
    "submit": ("code", "publish your own code, and propose to run it on sealed assets"),
    "code": ("code", "show the code of a proposal, or what changes between two"),
    "show": ("contracts", "show a proposal in words"),
    "diff": ("contracts", "show what changes between two proposals"),
    "counter": ("contracts", "answer a proposal with another"),
    "approve": ("contracts", "sign exactly what a proposal says"),
    "inbox": ("inbox", "what waits for your decision: read the code, comment, ask, approve, refuse"),
    "notify": ("notify", "be told by webhook or e-mail when something waits for you"),
    "audit": ("audit", "who decided what, when and why, from the ledger and the signed documents"),
    "withdraw": ("contracts", "stop every later release"),
    "grant": ("contracts", "let your broker give keys for more runs"),
    "budget": ("budget", "say what may be spent of an asset in total, and see what was"),
    "run": ("runs", "have the enclave run a contract"),
    "jobs": ("jobs", "have runs wait for their turn; list, follow, cancel and retry them"),
    "progress": ("runs", "hear where a run is that another party asked for"),
    "outputs": ("runs", "open what was delivered to you"),
    "airlock": ("airlock", "read what waits for you, and pass or refuse it"),
    "carry": ("carry", "take what must cross an air gap out into one file, and in from one"),
    "guest": ("guests", "contracts for confidential containers, and which of them may run"),
    "receipt": ("runs", "fetch the receipts of a contract"),
    "serve": ("serving", "open a room under a standing contract, and have an enclave serve its models"),
    "proxy": ("proxy", "let any OpenAI client on this machine speak to a verified service"),
    "verify": ("verify", "check a receipt from your own trust file, offline"),
    "attest": ("attest", "look at hardware evidence, and say what to accept of it"),
    "endorsements": ("endorsements", "what hardware vendors vouch for: fetch it, carry it, list it"),
    "keys": ("keys", "give out, list and revoke the API keys of what you serve"),
    "usage": ("keys", "recompute what was used, and what is owed, from the receipts of requests"),
    "log": ("state", "every decision of your broker; the ledger"),
    "status": ("state", "where your contracts stand; releases without receipts"),
    "lm build": ("datastore", "make a store that models retrieve from, or build another source into one"),
    "lm add": ("datastore", "put a source that was built elsewhere into a store"),
    "lm drop": ("datastore", "take a source out of a store: at once, and as if it had never been there"),
    "lm sources": ("datastore", "list the sources of a store: how much, whose, under which licence, at what price"),
    "lm copy": ("datastore", "bring a store to an S3 bucket, or from one"),
    "lm seal": ("sources", "seal a source, with what models may draw from it at what price"),
    "lm revise": ("sources", "say anew who may draw from your sealed source, or that nobody may: from the next answer on"),
    "lm train": ("retrieval", "train a model against a store; goes on where it was killed"),
    "lm eval": ("retrieval", "what a store is worth to a model: bits a byte with it, without it, and by chance"),
    "lm generate": ("retrieval", "write with a store, and say of each token what it was drawn from"),
    "measure": ("measure", "what this installation measures, its programs, or an image of your own"),
    "demo": ("demo", "two parties, one secret model, secret records: the whole story"),
    "exchange": ("roles", "serve an exchange"),
    "broker": ("roles", "serve a party's broker"),
    "enclave": ("roles", "serve an enclave on the hardware found here, or on the simulated platform by name"),
}


# The process ends and all of it with it: what is still there is not looked through for garbage once more.
atexit.register(gc.freeze)


class _Parser(argparse.ArgumentParser):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "allow_abbrev": False})  # what is signed is said in full

    def error(self, message: str) -> None:  # type: ignore[override]
        raise Usage(message, hint=f"See: {self.prog} --help")


def _overview(of: str = "") -> str:
    found = {verb: line for verb, (_, line) in VERBS.items() if verb.startswith(of)}
    width = max(map(len, found))
    return "verbs:\n" + "\n".join(f"  {verb.ljust(width)}  {line}" for verb, line in found.items())


def parser_of(verb: str) -> argparse.ArgumentParser:
    """The parser of one verb."""
    module, line = VERBS[verb]
    common = _Parser(add_help=False)
    group = common.add_argument_group("common")
    group.add_argument("--json", action="store_true", help="print one JSON object")
    group.add_argument(
        "--home", default=os.environ.get("STRONGROOM_HOME", "room"), help="folder of this machine's parties (room)"
    )
    group.add_argument(
        "--as", dest="party", default=os.environ.get("STRONGROOM_PARTY"), metavar="NAME", help="which party you are"
    )
    group.add_argument("--exchange-url", metavar="URL", help="address of the exchange, else the folder's own")
    group.add_argument("--enclave-url", metavar="URL", help="address of the enclave, else the folder's own")
    parser = _Parser(
        prog=f"strongroom {verb}",
        description=line[0].upper() + line[1:] + ".",
        parents=[common],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _loaded(module).declare(verb, parser)
    return parser


def verbed(words: Sequence[str]) -> list[str]:
    """Words with the verb first, in one word where it is of two: ``lm build`` and its like."""
    return [" ".join(words[:2]), *words[2:]] if words[0] == "lm" else list(words)


def _loaded(module: str) -> Any:
    # What is loaded stays: nothing is looked through for garbage meanwhile, which is a tenth of the time that it takes.
    gc.disable()
    try:
        return import_module(f".{module}", __package__)
    finally:
        gc.enable()


def _run(words: list[str], screen: Screen) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        screen.line(
            "usage: strongroom VERB ...\n\nCompute together on things that none may hand over, and prove what happened.\n"
        )
        screen.line(_overview() + "\n\nstrongroom VERB --help shows an example.")
        return 0 if words else 2
    if words[0] == "--version":
        screen.line(f"strongroom {__version__}")
        return 0
    words = verbed(words)
    if words[0] in ("lm", "lm -h", "lm --help"):
        screen.line(_overview("lm ") + "\n\nstrongroom lm VERB --help shows an example.")
        return 0 if len(words[0]) > 2 else 2
    if words[0] not in VERBS:
        raise Usage(f"there is no verb {words[0]!r}", hint="See: strongroom --help")
    args = parser_of(words[0]).parse_args(words[1:])
    with ExitStack() as args.opened:
        found: int = args.run(args, screen)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; the exit status: 0, 1 for an error, 2 for wrong usage, 3 of `attest verify`, 130 when interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    screen = Screen(as_json="--json" in words)
    status = 1
    try:
        status = _run(words, screen)
    except Usage as error:
        screen.error(error)
        status = 2
    except StrongroomError as error:
        screen.error(error)
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:  # whoever read it has gone; nothing more is said, at exit neither
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        screen.error(NotFound(f"{where}{error.strerror or error.__class__.__name__}"))
    except Exception as error:  # the last line of defence: one line, and the traceback only for who asks for it
        if os.environ.get("STRONGROOM_DEBUG"):
            raise
        screen.error(Internal(f"{error.__class__.__name__} in {words[0]}"))
    return status
