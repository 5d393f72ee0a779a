"""Who is at work: from ``--home``, ``--as`` and the addresses to a party's folder or room."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.app.client.home import Home, PartyHome

if TYPE_CHECKING:
    from strongroom.app.client.room import Room


def home(args: Namespace) -> Home:
    return Home(Path(args.home))


def party(args: Namespace) -> PartyHome:
    """Raises NoKeys, Usage."""
    return home(args).party(args.party)


def room(args: Namespace) -> Room:
    """Raises NoKeys, Usage, NotFound."""
    from strongroom.app.client.room import Room

    place = home(args)
    exchange, enclave = args.exchange_url, args.enclave_url
    if exchange is None or enclave is None:
        config = place.config
        exchange, enclave = exchange or config.exchange, enclave or config.enclave
    return Room(place.party(args.party), exchange=exchange, enclave=enclave)


def example(parser: ArgumentParser, text: str) -> None:
    """Show an example under ``--help``."""
    parser.epilog = "example:\n" + "\n".join(f"  {line}" for line in text.strip().splitlines())
