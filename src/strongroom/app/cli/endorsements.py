"""endorsements: fetch what hardware vendors vouch for, carry it to where there is no network, list what is at hand."""

from __future__ import annotations

import time
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from strongroom.app.client.home import write
from strongroom.app.endorsements import intel, shipped
from strongroom.app.endorsements.bundle import Bundle, open_bundle
from strongroom.app.endorsements.cache import Cache, default_folder
from strongroom.app.endorsements.description import Description, describe
from strongroom.app.endorsements.provider import EndorsementProvider, Gathered
from strongroom.app.endorsements.request import SERVICES, Document, Problem
from strongroom.app.endorsements.web import SERVICES_FILE, TIMEOUT_S, Web, checked_url, configured
from strongroom.attest.endorsements import CERTIFICATE
from strongroom.attest.evidence import Endorsement
from strongroom.errors import BadEndorsement, NotFound, Usage

from .appraised import when
from .attest import found_in, moment
from .place import example
from .screen import Screen


def declare(_verb: str, parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom endorsements fetch quote.bin                                # what this evidence needs, into the cache
strongroom endorsements fetch quote.bin --service intel-pcs=https://pccs.example:8081 --timeout 5
strongroom endorsements bundle quote.bin gpus.json --out bundle.json   # the same into one file, for the air gap
strongroom endorsements bundle --endorsements collateral/ --out bundle.json      # from files in the vendors' formats
strongroom endorsements list bundle.json --at 2026-06-30T12:00:00Z
strongroom endorsements list --shipped                                 # the cache, and the certificates that come along
""",
    )
    verbs = parser.add_subparsers(dest="what", required=True, metavar="fetch|bundle|list")
    fetch = verbs.add_parser("fetch", help="ask the vendors for what some evidence needs, and keep it in the cache")
    fetch.add_argument("evidence", nargs="+", type=Path, help="evidence of any kind: a quote, a report, a service's answer")
    bundle = verbs.add_parser("bundle", help="put what some evidence needs into one file")
    bundle.add_argument("evidence", nargs="*", type=Path, help="as for fetch; none, for everything in --endorsements")
    bundle.add_argument("--out", type=Path, required=True, metavar="FILE", help="where to write it")
    bundle.add_argument("--offline", action="store_true", help="ask nobody: from the cache and --endorsements alone")
    bundle.add_argument("--incomplete", action="store_true", help="write it even where something could not be had")
    for sub in (fetch, bundle):
        sub.add_argument(
            "--endorsements",
            type=Path,
            action="append",
            default=[],
            metavar="FILE",
            help="a bundle, a document or a folder of them: goes before the cache and the vendors; may be said again",
        )
        sub.add_argument("--anew", action="store_true", help="ask for what is at hand too")
        sub.add_argument(
            "--service",
            type=_service,
            action="append",
            default=[],
            metavar="NAME=URL",
            help=f"another address of a service ({', '.join(SERVICES)}); may be said again",
        )
        sub.add_argument(
            "--timeout", type=float, metavar="SECONDS", help=f"the most that one question may take ({TIMEOUT_S:g})"
        )
        sub.add_argument(
            "--tcb-update",
            default="",
            metavar="WHICH",
            help="Intel's TCB recovery: standard, early, or an evaluation data number",
        )
    listing = verbs.add_parser("list", help="say what documents are, from whom, and whether they are current")
    listing.add_argument("file", nargs="*", type=Path, help="bundles, documents or folders of them; none, for the cache")
    listing.add_argument("--shipped", action="store_true", help="also the certificates that come with Strongroom")
    for sub in (fetch, bundle, listing):
        sub.add_argument("--at", type=moment, metavar="TIME", help="judge dates at this time, else now")
        sub.add_argument("--cache", type=Path, metavar="DIR", help="folder of the cache, else the user's own")
        sub.add_argument("--home", default=SUPPRESS, help=f"folder whose {SERVICES_FILE} names other addresses")
        sub.add_argument("--json", action="store_true", default=SUPPRESS)
    parser.set_defaults(run=run)


def run(args: Namespace, screen: Screen) -> int:
    args.at = int(time.time()) if args.at is None else args.at
    args.cache = args.cache or default_folder()
    return {"fetch": fetch, "bundle": bundle, "list": listing}[args.what](args, screen)


def _service(text: str) -> tuple[str, str]:
    name, equals, url = text.partition("=")
    try:
        return name, checked_url(name, url if equals else "")
    except Usage as error:
        raise ArgumentTypeError(f"{error.message}. {error.hint}") from error


# --- fetch and bundle -------------------------------------------------------------------------------------------------


def _web(args: Namespace) -> Web:
    return configured(Path(args.home), dict(args.service), timeout=args.timeout)


def _gather(
    args: Namespace, web: Web | None, screen: Screen
) -> tuple[dict[Document, None], list[tuple[Path, Problem]], int]:
    """What each piece of evidence needs, what could not be had for which, and how many questions went out."""
    carried = [document for path in args.endorsements for document in open_bundle(path).documents]
    provider = EndorsementProvider(bundle=carried, cache=Cache(args.cache), web=web, tcb=intel.edition(args.tcb_update))
    documents: dict[Document, None] = {}
    problems: list[tuple[Path, Problem]] = []
    fetched = 0
    for path in args.evidence:
        found = found_in(path)
        members = found.devices or (found.require_evidence(),)
        screen.note(f"{path}: {found.kind}{'' if web is None else '; asking the vendors for what is missing …'}")
        for evidence in members:
            gathered: Gathered = provider.collect(evidence, args.at, beside=found.endorsements, anew=args.anew)
            documents.update(dict.fromkeys(_not_shipped(gathered.documents)))
            problems += [(path, problem) for problem in gathered.problems]
            fetched += gathered.fetched
    if not args.evidence:
        documents.update(dict.fromkeys(carried))
    return documents, problems, fetched


def _not_shipped(documents: Iterable[Document]) -> list[Document]:
    return [document for document in documents if document.endorsement not in _shipped()]


def _shipped() -> dict[Endorsement, Document]:
    return {
        endorsement: Document(endorsement, f"shipped:{vendor}")
        for vendor in shipped.VENDORS
        for certificate in shipped.certificates(vendor)
        for endorsement in (Endorsement(CERTIFICATE, certificate.der),)
    }


def fetch(args: Namespace, screen: Screen) -> int:
    documents, problems, fetched = _gather(args, _web(args), screen)
    rows = _table(documents, args.at, screen)
    screen.said("asked", f"{fetched} questions of vendors; what they answered is in {args.cache}")
    return _conclude(problems, screen, {"asked": fetched, "documents": rows})


def bundle(args: Namespace, screen: Screen) -> int:
    if not args.evidence and not args.endorsements:
        raise Usage("there is nothing to put into a bundle", hint="Name evidence, or documents with --endorsements.")
    documents, problems, _ = _gather(args, None if args.offline else _web(args), screen)
    found = Bundle(tuple(documents))
    rows = _table(found.documents, args.at, screen)
    value: dict[str, Any] = {"documents": rows, "out": None}
    if not problems or args.incomplete:
        if not found.documents:
            raise NotFound("no document was found: there is nothing to carry", hint="This evidence may need none.")
        write(args.out, found.encode())
        value["out"] = str(args.out)
        screen.said("bundle", f"{args.out}: {len(found.documents)} documents   elsewhere: --endorsements {args.out.name}")
    return _conclude(problems, screen, value, tolerated=args.incomplete)


def _conclude(
    problems: list[tuple[Path, Problem]], screen: Screen, value: Mapping[str, Any], *, tolerated: bool = False
) -> int:
    """One line for each thing that could not be had, and the first of them as the error; the exit status."""
    whole = {**value, "problems": [{"evidence": str(path), **problem.to_json()} for path, problem in problems]}
    for path, problem in problems if tolerated else problems[1:]:
        screen.note(f"{path}: {problem.about}: {problem.error.message}")
    if problems and not tolerated:
        path, first = problems[0]
        error = first.error
        error.message = f"{path}: {first.about}: {error.message}"
        screen.error(error, **whole)
        return 1
    screen.result(whole)
    return 0


# --- list -------------------------------------------------------------------------------------------------------------


def listing(args: Namespace, screen: Screen) -> int:
    documents: list[Document] = []
    for path in args.file:
        documents += open_bundle(path).documents
    if not args.file:
        documents += Cache(args.cache).all()
        screen.said("cache", str(args.cache))
    if args.shipped:
        documents += _shipped().values()
    rows = _table(documents, args.at, screen)
    if not documents:
        screen.line("  nothing yet: strongroom endorsements fetch EVIDENCE")
    screen.said("judged at", f"{when(args.at)}; nothing here is verified before it is used")
    screen.result({"documents": rows})
    return 0


def _table(documents: Iterable[Document], at: int, screen: Screen) -> list[dict[str, Any]]:
    """Show what documents are; the same for machines."""
    rows, found = [], []
    for document in documents:
        current: bool | None = None
        try:
            says = describe(document.endorsement)
            current = says.current(at)
        except BadEndorsement as error:
            says = Description(f"unreadable: {error.message}")
        mark = {True: "current", False: "NOT current", None: "unreadable"}[current]
        rows.append(
            [says.what[:64], says.issuer[:40], _day(says.not_before), _day(says.not_after), mark, document.digest[7:19]]
        )
        found.append(
            {
                "about": document.about,
                "bytes": len(document.endorsement.data),
                "current": current,
                "digest": document.digest,
                "fetched_at": document.fetched_at,
                "media_type": document.endorsement.media_type,
                **says.to_json(),
            }
        )
    if rows:
        screen.table(["document", "issuer", "from", "until", "at that time", "sha256"], rows)
    return found


def _day(at: int | None) -> str:
    return "-" if at is None else when(at)[:10]
