"""seal, open, inspect: sealed files and what documents hold."""

from __future__ import annotations

import secrets
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path

from strongroom import wire
from strongroom.app.client import approvers
from strongroom.app.client.draft import MAX_BYTES
from strongroom.app.client.home import loads, private, read, reading
from strongroom.app.client.prose import clauses, drawn
from strongroom.app.client.room import Room, manifest_path, sealed_path
from strongroom.asset import MANIFEST_TYPE, FileSource, Manifest, check_sealed
from strongroom.contract import PROPOSAL_TYPE, Proposal
from strongroom.errors import BadField, NotFound, Unreachable, Usage
from strongroom.observation import WITHHELD, Observed
from strongroom.party import Party
from strongroom.policy import ANY_PARTY, GUEST, MAX_DECIMALS, OUTPUT_KINDS, Airlock, OutputRule, Policy
from strongroom.receipt import MAX_BUNDLE_BYTES, Bundle, Statement
from strongroom.schema import ANY_SCHEMA, KINDS
from strongroom.trust import Trust
from strongroom.wire import Envelope

from . import shares, standing
from .place import example, room
from .screen import Screen

PIECE = 1 << 20


def size(text: str) -> int:
    """``10``, ``64K``, ``2M``, ``1G`` in bytes."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    number, unit = (text[:-1], units[text[-1]]) if text and text[-1] in units else (text, 1)
    if not (number.isascii() and number.isdigit()):
        raise ArgumentTypeError(f"{text!r} is not a size such as 64K, 2M or 1G")
    return int(number) * unit


def declare(verb: str, parser: ArgumentParser) -> None:
    {"seal": _declare_seal, "open": _declare_open, "inspect": _declare_inspect}[verb](parser)


def _declare_seal(parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom seal records.csv --as hospital --use evaluate --allow report --allow picture --min-group 10 --decimals 4
strongroom seal model.onnx --as lab --use evaluate --allow report --allow picture --reveal-digest
strongroom seal model.gguf --as lab --serve chat,completions,embeddings --reveal-digest
strongroom seal model.onnx.sealed --as lab --only-upload       # what was sealed when the exchange was away
strongroom seal data.csv --as hospital --use analyse --allow report --brokers 2-of-3 clinic.holder notary.holder union.holder
""",
    )
    parser.add_argument("file", type=Path)
    declare_terms(parser)
    parser.add_argument("--name", help="the asset's name (the file's)")
    parser.add_argument("--kind", help="model, dataset, questions, ... (by the file's suffix)")
    parser.add_argument("--media-type", help="(by the file's suffix)")
    parser.add_argument("--mock", type=Path, metavar="FILE", help="a public stand-in of the same shape")
    parser.add_argument(
        "--reveal-digest", action="store_true", help="show the plain SHA-256, so that the file can be recognised"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write the sealed file (FILE.sealed)")
    parser.add_argument("--threads", type=int, choices=(1, 2), default=1)
    parser.add_argument(
        "--brokers",
        nargs="+",
        metavar=("T-of-N", "CARD"),
        help="share the key over brokers of other people, any T of which open it, and keep none; say it after FILE",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--no-upload", action="store_true", help="do not put it on the exchange")
    where.add_argument("--only-upload", action="store_true", help="FILE is sealed already: put it on the exchange")
    parser.set_defaults(run=seal)


def declare_terms(parser: ArgumentParser) -> None:
    """The flags of which :func:`terms` makes an owner's terms."""
    parser.add_argument(
        "--use", action="append", default=[], metavar="USE", help="a use that you permit (evaluate); at least one"
    )
    parser.add_argument("--allow", action="append", default=[], choices=OUTPUT_KINDS, help="an output kind that may leave")
    parser.add_argument("--min-group", type=int, default=1, metavar="N", help="groups under N are suppressed")
    parser.add_argument(
        "--decimals", type=int, default=MAX_DECIMALS, metavar="N", help="numbers keep at most N decimal places"
    )
    parser.add_argument(
        "--to",
        action="append",
        default=[],
        metavar="PARTY",
        help="who may get outputs; any party of the contract where not given",
    )
    parser.add_argument("--max-bytes", type=size, metavar="SIZE", help="largest size of an output")
    parser.add_argument(
        "--review", action="append", default=[], metavar="PARTY", help="who must read and pass every output before it leaves"
    )
    parser.add_argument("--reasons", action="store_true", help="recipients are told why a reviewer refused")
    parser.add_argument(
        "--must-approve",
        action="append",
        default=[],
        metavar="[N:]PARTY,PARTY",
        help="who must approve every use beside you: all of them, or N; said again for a further group",
    )
    parser.add_argument("--observed", metavar="SECONDS", help="the time of a run is told in multiples, or withheld")
    parser.add_argument("--terms", type=Path, metavar="FILE", help="terms as JSON, instead of the flags above")
    standing.declare(parser)


def observed(said: str | None) -> Observed | None:
    """What ``--observed`` says: with it how a run failed is withheld too. Raises Usage."""
    if said is None:
        return None
    if said != WITHHELD and not (said.isascii() and said.isdigit() and len(said) < 6):
        raise Usage(f"--observed is a number of seconds, or {WITHHELD}")
    return Observed(None if said == WITHHELD else int(said), WITHHELD)


def terms(args: Namespace) -> Policy:
    """The terms that the flags mean. Raises Usage, PolicyError leaves."""
    if args.terms:
        with reading(args.terms):
            value = loads(args.terms)
            if not isinstance(value, dict):
                raise BadField("this is no policy")
            return Policy.draft(value).require()
    serve = standing.said(args)
    uses = frozenset([*args.use, *([standing.USE] if serve else [])])
    if not uses or not (args.allow or serve or GUEST in uses):
        raise Usage(
            "say at least one --use and one --allow: what you do not say, nobody may do",
            hint="For an evaluation: --use evaluate --allow report --allow picture",
        )
    rules = {
        kind: OutputRule(
            recipients=frozenset(args.to) if args.to else ANY_PARTY,
            max_bytes=MAX_BYTES[kind] if args.max_bytes is None else args.max_bytes,
            min_group=args.min_group,
            decimals=args.decimals,
            schema=ANY_SCHEMA if kind in KINDS else None,  # the contract names it, and you approve the contract
            release=Airlock(frozenset(args.review), args.reasons) if args.review else None,
        )
        for kind in args.allow
    }
    return Policy(uses=uses, outputs=rules, serve=serve, observed=observed(args.observed)).require()


def seal(args: Namespace, screen: Screen) -> int:
    wanted = None if args.only_upload else terms(args)
    over = None if args.brokers is None else shares.said(args)
    here = room(args, offline=args.no_upload)
    out = args.out or sealed_path(args.file)
    if wanted is None:
        out = args.file
    else:
        keep = None if over is None else shares.ready(here, over, screen)
        total = args.file.stat().st_size if args.file.is_file() else None
        with screen.progress(f"sealing {args.file.name}", total) as progress:
            here.seal(
                args.file,
                terms=wanted,
                name=args.name,
                kind=args.kind,
                media_type=args.media_type,
                mock=args.mock,
                reveal_digest=args.reveal_digest,
                approvers=approvers.read(here, args.must_approve),
                out=out,
                threads=args.threads,
                progress=progress,
                upload=False,
                keep=keep,
            )
    envelope = manifest_in(manifest_path(out))
    manifest = Manifest.parse(envelope.expect(MANIFEST_TYPE))
    if not args.no_upload:
        upload(here, out, envelope, args.mock, screen)
    screen.said("sealed", f"{out} ({manifest.sealed.size:,} bytes)")
    screen.said("manifest", f"{manifest_path(out)}   {manifest.digest}")
    screen.said("asset", f"{manifest.owner}/{manifest.name}")
    if over is None:
        screen.said("key", "with your broker, and nowhere else")
    screen.said("exchange", "not uploaded" if args.no_upload else "holds the sealed file and the manifest")
    value = {"asset": f"{manifest.owner}/{manifest.name}", "manifest": manifest.digest, "sealed": str(out)}
    screen.result(value if over is None else {**value, **shares.bring(here, manifest, screen)})
    return 0


def manifest_in(path: Path) -> Envelope:
    """A manifest's envelope from its file; its payload is a manifest. Raises NotFound, EmptyFile, WireError leaves."""
    with reading(path):
        envelope = Envelope.parse(read(path))
        Manifest.parse(envelope.expect(MANIFEST_TYPE))
    return envelope


def upload(here: Room, sealed: Path, envelope: Envelope, mock: Path | None, screen: Screen) -> None:
    with screen.progress(f"uploading {sealed.name}", sealed.stat().st_size if sealed.is_file() else None) as progress:
        try:
            here.publish(sealed, envelope, mock=mock, progress=progress)
        except Unreachable as error:
            how = f"It is sealed; when the exchange is back: strongroom seal {sealed} --only-upload --as {here.name}"
            raise Unreachable(error.message, hint=how) from error


def _declare_open(parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom open records.csv.sealed --as hospital --out records.csv
strongroom open model.onnx.sealed --as lab --offset 0 --length 64 --out -
""",
    )
    parser.add_argument("file", type=Path, help="your own sealed file")
    parser.add_argument("--manifest", type=Path, help="(beside the sealed file)")
    parser.add_argument("--out", required=True, help="where to write; - is standard output")
    parser.add_argument("--offset", type=int, default=0)
    parser.add_argument("--length", type=int)
    parser.set_defaults(run=open_)


def open_(args: Namespace, screen: Screen) -> int:
    import sys

    if args.out == "-" and args.json:
        raise Usage("--json and --out - both want standard output", hint="Write to a file: --out FILE")
    if not args.file.is_file() or not args.file.stat().st_size:
        read(args.file)  # says what is wrong with it
    manifest = manifest_in(args.manifest or manifest_path(args.file))
    here = room(args, offline=True)
    with reading(args.file), here.open(args.file, manifest) as reader:
        length = reader.size
        end = length if args.length is None else min(length, args.offset + args.length)
        if not 0 <= args.offset <= end:
            raise Usage(f"the asset has {length} bytes")
        reader.seek(args.offset)
        target = None if args.out == "-" else Path(args.out)
        if target and not target.parent.is_dir():
            raise NotFound(f"there is no folder {target.parent}")
        partial = target and target.with_name(f".{target.name}.{secrets.token_hex(6)}")
        sink = sys.stdout.buffer if partial is None else private(partial)
        try:
            with screen.progress(f"opening {args.file.name}", end - args.offset) as progress:
                left = end - args.offset
                while left:
                    piece = reader.read(min(left, PIECE))
                    sink.write(piece)
                    left -= len(piece)
                    progress(end - args.offset - left)
            sink.flush()
            if partial and target:
                partial.replace(target)
        finally:
            if partial:
                sink.close()
                partial.unlink(missing_ok=True)
    if target:
        screen.said("opened", f"{target} ({end - args.offset:,} bytes)")
        screen.result({"bytes": end - args.offset, "out": str(target)})
    return 0


def _declare_inspect(parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom inspect room/parties/lab/party.json
strongroom inspect model.onnx.manifest.json --json
strongroom inspect room/reference.json      # before you trust it
strongroom inspect room/exchange            # what its operator can see
""",
    )
    parser.add_argument("file", type=Path)
    parser.set_defaults(run=inspect)


def inspect(args: Namespace, screen: Screen) -> int:
    """Say what a document holds. Nothing is verified but its form, and the screen says so."""
    from strongroom.asset.format import MAGIC

    if args.file.is_dir():
        from .operator import look

        screen.result(look(args.file, screen))
        return 0
    if args.file.is_file():
        with args.file.open("rb") as file:
            if file.read(len(MAGIC)) == MAGIC:
                return _inspect_sealed(args.file, screen)
    data = read(args.file, max_bytes=MAX_BUNDLE_BYTES)
    with reading(args.file):
        value = _document(data, screen)
    screen.said("", "Only the form was checked. A receipt is verified with: strongroom verify")
    screen.result(value)
    return 0


def _document(data: bytes, screen: Screen) -> object:
    """Say what a document of ours holds, whichever it is by its members. Raises WireError and whatever its parser raises."""
    loose = wire.loads(data, max_bytes=MAX_BUNDLE_BYTES)
    members = set(loose) if isinstance(loose, dict) else set()
    if "measurements" in members:
        return _trust(loose, screen)
    describe = _bundle if "format" in members else _envelope if "payload" in members else _card
    return describe(data, screen)


def _trust(value: object, screen: Screen) -> object:
    found = Trust.from_json(value)
    screen.said("a trust file", "what its holder accepts; `strongroom party trust` adds reference values to yours")
    for party in found.parties:
        screen.said("pins", f"{party.name} {party.fingerprint}")
    for root in found.roots:
        screen.said("root", f"{root.platform} {wire.b64(root.key.raw)}")
    for measurement in found.measurements:
        screen.said("measurement", f"{measurement.platform} {measurement.digest}")
    for vkey in found.logs:
        screen.said("log", vkey)
    return {"kind": "trust", **found.to_json()}


def _inspect_sealed(path: Path, screen: Screen) -> int:
    beside = manifest_path(path)
    if not beside.is_file():
        raise NotFound(f"{path} is a sealed file; its manifest is not beside it", hint="Fetch the manifest from its owner.")
    envelope, size = manifest_in(beside), path.stat().st_size
    with reading(path), FileSource(path) as source, screen.progress(f"checking {path.name}", size) as progress:
        check_sealed(source, Manifest.parse(envelope.payload), progress=progress)
    screen.said("sealed file", f"{path}, {size:,} bytes: to the last byte the one that this manifest names")
    value = _envelope(envelope.encode(), screen)
    screen.said("", "Whose it is, the manifest's signature shows: strongroom status lists those of pinned parties.")
    screen.result(value)
    return 0


def _card(data: bytes, screen: Screen) -> object:
    card = Party.parse(data)
    screen.said("card of", card.name)
    screen.said("fingerprint", card.fingerprint)
    screen.said("broker", card.broker_url or "no address")
    return {"fingerprint": card.fingerprint, "kind": "card", **card.to_json()}


def _envelope(data: bytes, screen: Screen) -> object:
    envelope = Envelope.parse(data)
    if envelope.payload_type == MANIFEST_TYPE:
        manifest = Manifest.parse(envelope.payload)
        scheme = "plain SHA-256" if manifest.content.scheme == "sha256" else "salted commitment"
        screen.said("manifest of", f"{manifest.owner}/{manifest.name}, a {manifest.kind} ({manifest.media_type})")
        screen.said("identity", manifest.digest)
        screen.said("plaintext", f"{manifest.plaintext_bytes:,} bytes, {scheme} {manifest.content.value.hex()}")
        screen.said("permits uses", ", ".join(sorted(manifest.terms.uses)))
        for kind, rule in manifest.terms.outputs.items():
            who = "any party of the contract" if rule.recipients is ANY_PARTY else ", ".join(sorted(rule.recipients))
            screen.said(
                f"permits {kind}",
                f"to {who}, groups from {rule.min_group}, {rule.decimals} decimal places, at most {rule.max_bytes:,} bytes",
            )
        if (terms := manifest.drawing) is not None:
            screen.said("may be drawn from", f"by {', '.join(sorted(terms.models))}")
            screen.said("", drawn(terms.price, terms.token, terms.total))
        for quorum in manifest.approvers:
            screen.said("must approve", str(quorum))
        screen.said("mock", manifest.mock.digest if manifest.mock else "none")
        return {"kind": "manifest", **manifest.to_json()}
    if envelope.payload_type == PROPOSAL_TYPE:
        proposal, signed = Proposal.open(envelope)
        for clause in clauses(proposal):
            screen.said(clause.about, clause.text)
        screen.said("signed by", ", ".join(sorted(signed)) or "nobody")
        return {"kind": "proposal", "signed_by": sorted(signed), **proposal.to_json()}
    decoded = wire.decode(envelope.payload)
    screen.said("envelope", envelope.payload_type)
    screen.line(wire.encode(decoded).decode())
    return {"kind": envelope.payload_type, "payload": decoded}


def _bundle(data: bytes, screen: Screen) -> object:
    bundle = Bundle.parse(data)
    statement = Statement.parse(bundle.receipt.payload)
    screen.said("receipt of run", statement.run_id)
    screen.said("contract", statement.contract)
    screen.said(
        "outcome", f"failed at {statement.failure.step}: {statement.failure.code}" if statement.failure else "completed"
    )
    for delivered in statement.outputs:
        screen.said(
            f"output {delivered.output.name}", f"to {', '.join(delivered.output.recipients)}, sealed {delivered.sealed}"
        )
    return {"kind": "receipt", **statement.to_json()}
