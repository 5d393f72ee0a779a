"""The exchange over HTTP: it stores and serves, and is trusted by nobody.

It checks what it is given as far as it can without a key, so that nonsense is refused at the door, but nothing that a party
relies on depends on it: whoever fetches a document checks it again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

from starlette.responses import FileResponse, Response
from starlette.routing import Route

from strongroom import wire
from strongroom.airlock import Box, Verdict
from strongroom.app.http import application, blocking, body, json_answer
from strongroom.asset import FileSource, Manifest, check_sealed, verify_manifest
from strongroom.batch import MAX_BATCH_BYTES, Submission
from strongroom.batch import admissible as admissible_batch
from strongroom.code import MAX_BUNDLE_BYTES as MAX_BUNDLE
from strongroom.code import CodeBundle
from strongroom.contract import PROPOSAL_TYPE, Contract, Proposal, Withdrawal, counters
from strongroom.delivery import Delivery
from strongroom.errors import BadBundle, BadField, Conflict, ManifestMismatch, NotFound, TooLarge, Truncated
from strongroom.ledger import Entry
from strongroom.mark import Mark
from strongroom.party import VerifyKey
from strongroom.receipt import MAX_BUNDLE_BYTES, Bundle, admissible
from strongroom.review import Note
from strongroom.threshold import Enrolment
from strongroom.trial import MAX_TRIAL_BYTES, Trial
from strongroom.wire import Envelope, Fields, Signature

from .entry import ENTRY_TYPE, KEY_HEADER, MAX_KEYS, PAGE_ITEMS

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request

    from strongroom.app.stores.exchange import ExchangeStore

_T = TypeVar("_T")

DOCUMENT = 1 << 20
MAX_MOCK = 64 << 20
MAX_SEALED = 1 << 40
MAX_OUTPUT = 256 << 20
PAGE_BYTES = 4 << 20  # an item is added to a page only while it is smaller than this
STRIDE = 8 << 20  # bytes of an upload after which the disk is looked at again


def _digest(request: Request, name: str = "digest") -> str:
    return Fields({name: request.path_params[name]}, "path").digest(name)


def _number(request: Request, name: str) -> int:
    value = request.query_params.get(name, "")
    if not (value.isascii() and value.isdigit() and len(value) < 16):
        raise BadField(f"query.{name} is not a number")
    return int(value)


def _keyids(request: Request, name: str, high: int = MAX_KEYS) -> list[str]:
    """Key ids in the query, with commas between them; at least one."""
    found = request.query_params.get(name, "").split(",")
    if len(found) > high:
        raise BadField(f"query.{name} holds more than {high} key ids")
    return sorted({Fields({name: item}, "query").digest(name) for item in found})


def _page(name: str, places: list[tuple[int, _T]], limit: int, show: Callable[[_T], object]) -> dict[str, object]:
    """As much of a list as fits into one answer, and the place after which to go on."""
    items: list[object] = []
    size, following = 0, None
    for place, what in places:
        if size >= PAGE_BYTES:
            break
        items.append(show(what))
        size += len(wire.encode(items[-1]))
        following = place
    return {name: items, "next": following if len(items) == limit or len(items) < len(places) else None}


def _window(request: Request) -> tuple[int, int]:
    """The place after which a page begins, and how many items it may hold."""
    after = _number(request, "after") if "after" in request.query_params else 0
    limit = _number(request, "limit") if "limit" in request.query_params else PAGE_ITEMS
    if not 1 <= limit <= PAGE_ITEMS:
        raise BadField(f"query.limit is not a number from 1 to {PAGE_ITEMS}")
    return after, limit


async def _receive(stream: AsyncIterator[bytes], sink: IO[bytes], *, limit: int, store: ExchangeStore) -> tuple[str, int]:
    """Write a body piece by piece; its digest and size. Raises TooLarge, NoSpace."""
    running, size, looked_at = hashlib.sha256(), 0, 0
    async for piece in stream:
        size += len(piece)
        if size > limit:
            raise TooLarge(f"more than {limit} bytes")
        if size - looked_at >= STRIDE:  # others upload at the same time
            await blocking(store.require_space)(len(piece))
            looked_at = size
        running.update(piece)
        await blocking(sink.write)(piece)
    return "sha256:" + running.hexdigest(), size


def _manifest_of(envelope: Envelope) -> Manifest:
    return Manifest.parse(envelope.expect(wire.media_type("manifest")))


def exchange(store: ExchangeStore) -> Starlette:  # noqa: C901, PLR0915 - the table of routes reads whole
    """The application.

    Args:
        store: where everything lies.
    """

    # --- assets ---

    async def put_manifest(request: Request) -> Response:
        envelope = Envelope.parse(await body(request, DOCUMENT))
        if _manifest_of(envelope).digest != envelope.digest or envelope.digest != _digest(request):
            raise ManifestMismatch("the manifest is not the one that the address names")
        key = VerifyKey(wire.unb64(request.headers.get(KEY_HEADER, "")))
        verify_manifest(envelope, key)
        store.require_space(DOCUMENT)
        await blocking(store.put_manifest)(envelope, key.keyid)
        return json_answer({})

    async def get_manifest(request: Request) -> Response:
        digest, (by,) = _digest(request), _keyids(request, "by", 1)
        return json_answer((await blocking(store.manifest)(digest, by)).to_json())

    async def put_enrolment(request: Request) -> Response:
        envelope = Envelope.parse(await body(request, DOCUMENT))
        key = VerifyKey(wire.unb64(request.headers.get(KEY_HEADER, "")))
        manifest = verify_manifest(await blocking(store.manifest)(_digest(request), key.keyid), key).manifest
        enrolment = Enrolment.verify(envelope, manifest=manifest.digest, owner=manifest.owner, key=key)
        store.require_space(DOCUMENT)
        await blocking(store.put_enrolment)(enrolment, envelope, key.keyid)
        return json_answer({})

    async def get_enrolment(request: Request) -> Response:
        digest, (by,) = _digest(request), _keyids(request, "by", 1)
        return json_answer((await blocking(store.enrolment)(digest, by)).to_json())

    async def put_mark(request: Request) -> Response:
        envelope = Envelope.parse(await body(request, 4096))
        mark = Mark.verify(envelope)
        if mark.broker.keyid != _digest(request):
            raise BadField("the mark is of another broker than the address names")
        if await blocking(store.mark)(mark.broker.keyid) is None:  # one in the place of another takes no room
            store.require_space(DOCUMENT)
        await blocking(store.put_mark)(mark, envelope)
        return json_answer({})

    async def get_mark(request: Request) -> Response:
        found = await blocking(store.mark)(_digest(request))
        return json_answer({"mark": found.to_json() if found else None})

    async def list_manifests(request: Request) -> Response:
        by, (after, limit) = _keyids(request, "by"), _window(request)

        def page() -> object:
            found = store.manifests_by(by, after, limit)
            return _page("manifests", found, limit, lambda named: store.manifest(*named).to_json())

        return json_answer(await blocking(page)())

    async def put_sealed(request: Request) -> Response:
        digest = _digest(request)
        manifest = _manifest_of(await blocking(store.manifest)(digest))  # whoever signed it, it says the same
        with store.incoming("sealed", digest) as (sink, partial):
            store.require_space(manifest.sealed.size)
            limit = min(manifest.sealed.size, MAX_SEALED)
            _, size = await _receive(request.stream(), sink, limit=limit, store=store)
            if size != manifest.sealed.size:
                raise Truncated(f"{size} bytes came where the manifest says {manifest.sealed.size}")
            sink.flush()

            def check(path: Path) -> None:  # else anybody could take the place of the owner's file
                with FileSource(path) as source:
                    check_sealed(source, manifest)

            await blocking(check)(partial)
        return json_answer({})

    async def put_mock(request: Request) -> Response:
        return await put_plain(request, "mock", MAX_MOCK)

    async def put_output(request: Request) -> Response:
        return await put_plain(request, "output", MAX_OUTPUT)

    async def put_plain(request: Request, kind: str, limit: int) -> Response:
        digest = _digest(request)
        with store.incoming(kind, digest) as (sink, _):
            store.require_space(limit)
            found, _ = await _receive(request.stream(), sink, limit=limit, store=store)
            if found != digest:
                raise ManifestMismatch("the bytes are not those that the address names")
        return json_answer({})

    async def put_code(request: Request) -> Response:
        digest, data = _digest(request), await body(request, MAX_BUNDLE)
        if wire.digest(data) != digest:
            raise BadBundle("the bundle is not the one that the address names")
        await blocking(CodeBundle.parse)(data)
        await blocking(store.require_space)(len(data))
        await blocking(store.put_code)(digest, data)
        return json_answer({})

    async def put_trial(request: Request) -> Response:
        digest, data = _digest(request), await body(request, MAX_TRIAL_BYTES)
        if wire.digest(data) != digest:
            raise BadField("the trial is not the one that the address names")
        await blocking(Trial.parse)(data)
        await blocking(store.require_space)(len(data))
        await blocking(store.put_trial)(digest, data)
        return json_answer({})

    def get_file(kind: str) -> object:
        async def get(request: Request) -> Response:
            path = await blocking(store.file)(kind, _digest(request))
            return FileResponse(path, media_type="application/octet-stream")

        return get

    # --- contracts ---

    async def post_proposal(request: Request) -> Response:
        envelope = Envelope.parse(await body(request, DOCUMENT))
        if len(envelope.signatures) > 1:  # before any work is done on them
            raise BadField("a proposal comes with its proposer's signature and no other")
        proposal, signed = Proposal.open(envelope)
        if signed != {proposal.proposer}:
            raise BadField("a proposal comes with its proposer's signature and no other")
        if proposal.supersedes:  # else strangers could heap counter-proposals on what is not theirs
            old = await blocking(store.proposal)(proposal.supersedes)
            counters(proposal, Proposal.parse(old.payload))
        store.require_space(DOCUMENT)
        await blocking(store.put_proposal)(proposal, envelope.signatures[0], int(time.time()))
        return json_answer({"digest": proposal.digest})

    def seen(digest: str) -> object:
        return {
            "countered_by": store.counters(digest),
            "envelope": store.proposal(digest).to_json(),
            "receipts": [{"receipt": r, "run_id": i} for r, i in store.receipts(digest)],
            "withdrawals": [e.to_json() for e in store.withdrawals(digest)],
        }

    async def get_proposal(request: Request) -> Response:
        return json_answer(await blocking(seen)(_digest(request)))

    async def list_proposals(request: Request) -> Response:
        among, (after, limit) = _keyids(request, "among"), _window(request)

        def page() -> object:
            return _page("proposals", store.proposals_among(among, after, limit), limit, seen)

        return json_answer(await blocking(page)())

    async def post_approval(request: Request) -> Response:
        envelope = Envelope.parse(await body(request, DOCUMENT))
        proposal, _ = Proposal.open(envelope)
        known = await blocking(store.proposal)(_digest(request))
        if known.payload != envelope.payload or not envelope.signatures:
            raise BadField("the approval is of another proposal")

        def keep(signatures: tuple[Signature, ...]) -> None:
            for signature in signatures:
                store.put_approval(proposal.digest, signature)

        await blocking(keep)(envelope.signatures)
        return json_answer({})

    async def post_withdrawal(request: Request) -> Response:
        envelope = Envelope.parse(await body(request, DOCUMENT))
        digest = _digest(request)
        known = await blocking(store.proposal)(digest)
        withdrawal = Withdrawal.verify(envelope, Proposal.parse(known.expect(PROPOSAL_TYPE)))
        await blocking(store.put_withdrawal)(digest, withdrawal.party, envelope)
        return json_answer({})

    # --- notes of a review ---

    async def post_note(request: Request) -> Response:
        envelope = Envelope.parse(await body(request, DOCUMENT))
        known = await blocking(store.proposal)(_digest(request))
        note = Note.verify(envelope, Proposal.parse(known.expect(PROPOSAL_TYPE)))
        store.require_space(DOCUMENT)
        await blocking(store.put_note)(note, envelope)
        return json_answer({})

    async def list_notes(request: Request) -> Response:
        digest, (after, limit) = _digest(request), _window(request)

        def page() -> object:
            return _page("notes", store.notes(digest, after, limit), limit, lambda envelope: envelope.to_json())

        return json_answer(await blocking(page)())

    async def list_changes(request: Request) -> Response:
        among, (after, limit) = _keyids(request, "among"), _window(request)

        def changed(what: tuple[int, str]) -> object:
            place, digest = what
            return {"notes": store.count_notes(digest), "place": place, "seen": seen(digest)}

        def page() -> object:
            return _page("changes", store.changes_among(among, after, limit), limit, changed)

        return json_answer(await blocking(page)())

    # --- outputs, receipts, the log ---

    async def post_delivery(request: Request) -> Response:
        delivery = Delivery.parse(await body(request, DOCUMENT))
        await blocking(store.file)("output", delivery.sealed)
        proposal = Proposal.parse((await blocking(store.proposal)(delivery.contract)).payload)
        free = [o for o in proposal.outputs if o.rule.release is None]  # others come in a box
        if (delivery.output, sorted(delivery.keys)) not in [(o.name, sorted(o.recipients)) for o in free]:
            raise BadField("the delivery is of no output of that contract")
        await blocking(store.put_delivery)(delivery)
        return json_answer({})

    async def list_deliveries(request: Request) -> Response:
        found = await blocking(store.deliveries)(_digest(request))
        return json_answer([wire.decode(d.encode()) for d in found])

    async def post_box(request: Request) -> Response:
        box = Box.parse(await body(request, DOCUMENT))
        await blocking(store.file)("output", box.sealed)
        await blocking(store.put_box)(box)
        return json_answer({})

    def boxes(contract: str) -> object:
        found = store.boxes(contract)
        return [{"box": wire.decode(b.encode()), "verdicts": [v.to_json() for v in verdicts]} for b, verdicts in found]

    async def list_boxes(request: Request) -> Response:
        return json_answer(await blocking(boxes)(_digest(request)))

    def judged(data: bytes) -> None:
        envelope = Envelope.parse(data)
        said = Verdict.peek(envelope)
        proposal = Proposal.parse(store.proposal(said.contract).payload)
        store.put_verdict(Verdict.verify(envelope, proposal, store.box(said.box)), envelope)

    async def post_verdict(request: Request) -> Response:
        await blocking(judged)(await body(request, DOCUMENT))
        return json_answer({})

    def logged(data: bytes) -> Bundle:
        bundle = Bundle.parse(data)
        store.proposal(bundle.contract.digest)
        return store.put_receipt(bundle, admissible(bundle))

    async def post_receipt(request: Request) -> Response:
        bundle = await blocking(logged)(await body(request, MAX_BUNDLE_BYTES))
        return json_answer(bundle.to_json())

    async def get_receipt(request: Request) -> Response:
        return Response(await blocking(store.receipt)(_digest(request)), media_type="application/json")

    def log_entry(data: bytes) -> int:
        envelope = Envelope.parse(data)
        entry = Entry.parse(envelope.expect(ENTRY_TYPE))
        if entry.kind not in ("release", "refusal"):
            raise BadField("only a broker's releases and refusals are logged by entry")
        proposal = Proposal.parse(store.proposal(entry.contract).payload)
        for party in proposal.parties:
            if envelope.signatures and party.broker_key.keyid == envelope.signatures[0].keyid:
                party.broker_key.verify(envelope, ENTRY_TYPE)
                return store.log(entry)
        raise NotFound("the entry is signed by no broker of that contract")

    async def post_entry(request: Request) -> Response:
        return json_answer({"index": await blocking(log_entry)(await body(request, DOCUMENT))})

    def log_receipts(data: bytes) -> int:
        submission = Submission.parse(data)
        store.require_space(MAX_BATCH_BYTES)
        contract = Contract.verify(store.proposal(submission.contract))
        at = int(time.time())
        return store.log_batch(contract.digest, admissible_batch(submission, contract, at).entries, at)

    async def post_log_receipts(request: Request) -> Response:
        return json_answer({"added": await blocking(log_receipts)(await body(request, MAX_BATCH_BYTES))})

    async def get_proof(request: Request) -> Response:
        members = {name: request.query_params.get(name, "") for name in ("contract", "digest", "kind")}
        return json_answer((await blocking(store.prove)(Entry.from_json(members))).to_json())

    async def get_checkpoint(_request: Request) -> Response:
        return Response((await blocking(store.checkpoint)()).encode(), media_type="text/plain; charset=utf-8")

    async def get_consistency(request: Request) -> Response:
        old, new = _number(request, "old"), _number(request, "new")
        return json_answer((await blocking(store.consistency)(old, new)).to_json())

    async def get_entries(request: Request) -> Response:
        start, end = _number(request, "start"), _number(request, "end")
        if end - start > 1000:
            raise Conflict("at most 1,000 entries at a time", hint="Ask in parts.")
        found = await blocking(store.entries)(start, end)
        return json_answer([wire.decode(e) for e in found])

    async def health(_request: Request) -> Response:
        return json_answer({"log": store.key.verifier.vkey, "role": "exchange"})

    return application(
        [
            Route("/v1/health", health),
            Route("/v1/enrolments/{digest}", get_enrolment),
            Route("/v1/enrolments/{digest}", put_enrolment, methods=["PUT"]),
            Route("/v1/marks/{digest}", get_mark),
            Route("/v1/marks/{digest}", put_mark, methods=["PUT"]),
            Route("/v1/manifests", list_manifests),
            Route("/v1/manifests/{digest}", get_manifest),
            Route("/v1/manifests/{digest}", put_manifest, methods=["PUT"]),
            Route("/v1/sealed/{digest}", get_file("sealed")),  # type: ignore[arg-type]
            Route("/v1/sealed/{digest}", put_sealed, methods=["PUT"]),
            Route("/v1/mocks/{digest}", get_file("mock")),  # type: ignore[arg-type]
            Route("/v1/mocks/{digest}", put_mock, methods=["PUT"]),
            Route("/v1/outputs/{digest}", get_file("output")),  # type: ignore[arg-type]
            Route("/v1/outputs/{digest}", put_output, methods=["PUT"]),
            Route("/v1/code/{digest}", get_file("code")),  # type: ignore[arg-type]
            Route("/v1/code/{digest}", put_code, methods=["PUT"]),
            Route("/v1/trials/{digest}", get_file("trial")),  # type: ignore[arg-type]
            Route("/v1/trials/{digest}", put_trial, methods=["PUT"]),
            Route("/v1/proposals", list_proposals),
            Route("/v1/proposals", post_proposal, methods=["POST"]),
            Route("/v1/proposals/{digest}", get_proposal),
            Route("/v1/proposals/{digest}/approvals", post_approval, methods=["POST"]),
            Route("/v1/proposals/{digest}/withdrawals", post_withdrawal, methods=["POST"]),
            Route("/v1/proposals/{digest}/deliveries", list_deliveries),
            Route("/v1/proposals/{digest}/notes", list_notes),
            Route("/v1/proposals/{digest}/notes", post_note, methods=["POST"]),
            Route("/v1/changes", list_changes),
            Route("/v1/deliveries", post_delivery, methods=["POST"]),
            Route("/v1/proposals/{digest}/boxes", list_boxes),
            Route("/v1/boxes", post_box, methods=["POST"]),
            Route("/v1/verdicts", post_verdict, methods=["POST"]),
            Route("/v1/receipts", post_receipt, methods=["POST"]),
            Route("/v1/receipts/{digest}", get_receipt),
            Route("/v1/log/entries", get_entries),
            Route("/v1/log/entries", post_entry, methods=["POST"]),
            Route("/v1/log/receipts", post_log_receipts, methods=["POST"]),
            Route("/v1/log/proof", get_proof),
            Route("/v1/log/checkpoint", get_checkpoint),
            Route("/v1/log/consistency", get_consistency),
        ]
    )
