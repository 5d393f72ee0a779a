"""Who is at work: from ``--home``, ``--as`` and the addresses to a party's folder or room."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.app.client.home import Home, PartyHome

if TYPE_CHECKING:
    from strongroom.app.client.room import Room


NOWHERE = "http://127.0.0.1:0"


def home(args: Namespace) -> Home:
    return Home(Path(args.home))


def party(args: Namespace) -> PartyHome:
    """Whose verb it is; its book is closed when the verb ends. Raises NoKeys, Usage."""
    found = home(args).party(args.party)
    args.opened.callback(found.close)
    return found


def room(args: Namespace, *, offline: bool = False) -> Room:
    """The party at work; its connections are closed when the verb ends.

    Args:
        offline: no exchange needs to be known; nothing is asked of any.

    Raises:
        NoKeys, Usage, NotFound.
    """
    from strongroom.app.client.room import Room

    place = home(args)
    exchange, enclave = (NOWHERE, NOWHERE) if offline else (args.exchange_url, args.enclave_url)
    if exchange is None or enclave is None:
        config = place.config
        exchange, enclave = exchange or config.exchange, enclave or config.enclave
    found = Room(place.party(args.party), exchange=exchange, enclave=enclave)
    args.opened.callback(found.close)
    return found


def example(parser: ArgumentParser, text: str) -> None:
    """Show an example under ``--help``."""
    parser.epilog = "example:\n" + "\n".join(f"  {line}" for line in text.strip().splitlines())
