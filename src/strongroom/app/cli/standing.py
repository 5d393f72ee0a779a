"""What may be asked of a served model, as flags: in the terms of an asset, and in a proposal."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import replace

from strongroom.errors import BadField, UnknownDimension, Usage
from strongroom.serving import GUARDS, OBSERVABILITY, ROUTES, Serving

USE = "serve-llm"
DAY = 24 * 3600
# What is meant where a flag is not given: an operator who sees nothing, lengths that say little, leases of an hour.
USUAL = Serving(frozenset(ROUTES), lease_s=3600, padding=1024, retention_s=DAY)


def declare(parser: ArgumentParser) -> None:
    """The flags. Given one of them, a model is to be served, and not run."""
    group = parser.add_argument_group("serving a model")
    group.add_argument("--serve", metavar="ROUTE[,ROUTE]", help=f"what may be asked: {', '.join(ROUTES)}")
    group.add_argument("--lease", type=int, metavar="SECONDS", help="how long keys are released for (3600)")
    group.add_argument("--retention", type=int, metavar="SECONDS", help="how long receipts of requests are kept (a day)")
    group.add_argument("--padding", type=int, metavar="BYTES", help="smallest size of an encrypted body; 0 for none (1024)")
    group.add_argument("--observability", choices=OBSERVABILITY, help="what the operator may see (none)")
    group.add_argument("--plain-bodies", action="store_true", help="requests may come unencrypted, in TLS alone")
    group.add_argument("--input-guard", action="append", choices=GUARDS, help="must look at every request")
    group.add_argument("--output-guard", action="append", choices=GUARDS, help="must look at every answer")


_FLAGS = {
    "input_guard": "input_guards",
    "lease": "lease_s",
    "observability": "observability",
    "output_guard": "output_guards",
    "padding": "padding",
    "plain_bodies": "plain_bodies",
    "retention": "retention_s",
    "serve": "routes",
}


def said(args: Namespace, base: Serving | None = None) -> Serving | None:
    """What the flags mean.

    Args:
        base: what holds where a flag is not given; ``None``: nothing is served unless ``--serve`` says so.

    Returns:
        ``None`` where nothing is said of serving.

    Raises:
        Usage: other flags without ``--serve``, or a value that no policy can hold.
    """
    said_of = {member: getattr(args, flag) for flag, member in _FLAGS.items()}
    given = {member: value for member, value in said_of.items() if value is not None and value is not False}
    if not given:
        return None
    if base is None and "routes" not in given:
        raise Usage("say what may be asked", hint=f"--serve {','.join(ROUTES)}")
    if "routes" in given:
        given["routes"] = frozenset(given["routes"].split(","))
    for guards in ("input_guards", "output_guards"):
        if guards in given:
            given[guards] = frozenset(given[guards])
    try:
        return replace(base or USUAL, **given)
    except (BadField, UnknownDimension) as error:
        raise Usage(error.message, hint="The flags under 'serving a model' in --help say what is possible.") from error
