"""Sources in a room: opened by their owners' leave, drawn from as agreed, metered in receipts, taken away and given back."""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("numpy", reason="rooms need strongroom[room]")

from inference_world import MODEL, PROGRAM, SERVE, WEIGHTS, FakeAnswers, FakeEngine, InferenceWorld, Reply
from strongroom import wire
from strongroom.app.inference.answers import BrokenAnswer
from strongroom.app.inference.sources import MOST, Draws, Revisions
from strongroom.asset import About, AssetKey, Manifest, seal, sign_manifest
from strongroom.contract import AssetRef, ProgramRef
from strongroom.drawing import GRAIN, Agreed, Drawing, Price, Revision
from strongroom.errors import (
    BadField,
    BadRelease,
    BadSignature,
    BookRestored,
    EngineFailed,
    NotFound,
    NotPermitted,
    ReleaseRefused,
    StaleRevision,
    StrongroomError,
    TooFewShares,
    Unreachable,
    Usage,
    WeightsMismatch,
    WrongEpoch,
    WrongKey,
)
from strongroom.inference.events import ModelWeights, RequestRefused, SourceUsed, UsageMetered
from strongroom.inference.events import Usage as Tokens
from strongroom.inference.expected import Agreed as Known
from strongroom.inference.expected import Expected
from strongroom.inference.reading import Reading
from strongroom.inference.receipt import InferenceReceipt
from strongroom.inference.verification import VerifiedReceipt
from strongroom.lm import influence
from strongroom.lm.engine import About as Engine
from strongroom.programs.serve_llm import Source
from strongroom.usage import drawn
from strongroom.wire import Envelope
from test_inference_server import CHAT, HELLO, running
from test_served import Tales, counted
from world import DAY, NOW, keys_of, seed

DIGEST = wire.digest(WEIGHTS)
TERMS = Drawing(frozenset({DIGEST}), Price(25_000_000, "EUR-nano"), GRAIN, 64 * GRAIN)
NAMES = ("encyclopedia", "law")


def agreed(name: str, **changes: Any) -> Agreed:
    return replace(Agreed(name, name, DIGEST, TERMS.price, GRAIN, 64 * GRAIN), **changes)


ABOUT = Engine(4096, 8, frozenset({"chat", "completions"}), 0, "fake 1")


class DrawingAnswers(FakeAnswers):
    """An answer of which each word draws from every source that is open: half of it from law."""

    draws: Draws | None = None


@dataclass
class DrawingEngine(FakeEngine):
    """As an engine that draws.

    Attributes:
        sources: as the contract has them.
        open, gone: as it was told last, and ever.
    """

    about: Engine = ABOUT
    sources: tuple[Source, ...] = ()
    open: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()
    told: list[frozenset[str]] = field(default_factory=list)

    def draw(self, names: Collection[str], gone: Collection[str] = ()) -> None:
        self.open, self.gone = frozenset(names), self.gone | frozenset(gone)
        self.told.append(self.open)

    def ask(self, route: Any, body: bytes, *, scope: bytes | None = None) -> DrawingAnswers:
        self.asked.append((route, body, scope))
        found = DrawingAnswers(self, route, body)
        found.draws = Draws(self.sources, self.open)
        return found

    async def answer(self, route: Any, body: bytes, answers: Any) -> Any:
        async for item in super().answer(route, body, answers):
            words = sum(isinstance(v, str) for v in getattr(item, "delta", {}).values())
            for _ in range(words):
                row = [GRAIN // 2 if s.name == "law" else GRAIN // 8 for s in self.sources]
                answers.draws.add([g if s.name in self.open else 0 for s, g in zip(self.sources, row, strict=True)], 1024)
            yield item


class SourcesWorld(InferenceWorld):
    """A room whose model draws from two sources of the hospital's.

    Args:
        said: what is agreed, by name; else the terms.
        terms: of each source.
    """

    def __init__(self, said: dict[str, Agreed] | None = None, terms: Drawing = TERMS) -> None:
        self.said = said or {name: agreed(name) for name in NAMES}
        models = [{"engine": "retrieval", "name": MODEL, "role": "weights"}]
        given = {"max_tokens": 64, "models": models, "sources": [one.to_json() for one in self.said.values()]}
        self.sealed_sources: dict[str, Any] = {}
        self._terms = terms
        serve = replace(SERVE, routes=frozenset({"chat", "completions"}), plain_bodies=True)
        super().__init__(serve=serve, parameters=given)
        self.engine = DrawingEngine(sources=tuple(Source(**source) for source in given["sources"]))

    def agree(self, **changes: Any) -> Any:
        for name in self.said:
            if name not in self.sealed_sources:
                self.sealed_sources[name] = self._sealed(name)
        refs = [AssetRef("weights", "lab", self.asset[0].digest)]
        refs += [AssetRef(name, "hospital", self.sealed_sources[name].digest) for name in self.said]
        return super().agree(**{"assets": tuple(sorted(refs, key=lambda ref: ref.role)), **changes})

    def _sealed(self, name: str) -> Any:
        key, sink = AssetKey(seed(f"key of {name}")), io.BytesIO()
        about = About(
            name=name,
            kind="datastore",
            media_type="application/vnd.strongroom.source.v1",
            owner="hospital",
            created_at=NOW - DAY,
            terms=self.policy,
            drawing=self._terms,
        )
        text = name.encode() * 100
        manifest = seal(io.BytesIO(text), sink, key=key, salt=seed(f"salt of {name}"), about=about, chunk_bytes=1024)
        envelope = sign_manifest(manifest, keys_of("hospital").signing)
        self.world.brokers["hospital"].book.hold(envelope, key)
        self.world.exchange.put(envelope, sink.getvalue())
        return manifest

    async def ask_it(self) -> tuple[Reply, InferenceReceipt]:
        reply = await self.ask(CHAT, HELLO)
        assert reply.status == 200, reply.body
        return reply, self.receipts.last

    def revision(self, number: int, terms: Drawing | None, name: str = "law", by: str = "hospital") -> bytes:
        found = Revision(self.sealed_sources[name].digest, number, NOW, terms)
        return found.sign(keys_of(by).signing).encode()

    def known(self) -> Known:
        """What a reader knows of the contract."""
        model = self.rooms.require().models[MODEL].weights
        sources = {self.sealed_sources[name].digest: one for name, one in self.said.items()}
        policy = wire.digest(wire.encode(self.policy.to_json()))
        sees = self.rooms.require().observability
        return Known(
            contract=self.contract.digest,
            model=MODEL,
            weights=model.weights,
            asset=model.asset,
            policy=policy,
            guards=(),
            padding=(),
            observability=sees,
            sources=sources,
        )


@pytest.fixture
def world() -> Iterator[SourcesWorld]:
    with SourcesWorld() as found:
        yield found


# --- rooms ----------------------------------------------------------------------------------------------------------


@running
async def test_an_answer_says_what_it_drew_and_what_that_costs(world):
    await world.open()
    _, receipt = await world.ask_it()
    used = {world_name(world, one): one for one in receipt.every(SourceUsed)}
    assert set(used) == set(NAMES)
    law, tokens = used["law"], receipt.one(UsageMetered).usage.completion
    assert law.gates == (GRAIN // 2,) * tokens
    assert law.weight == tokens * GRAIN // 2
    assert law.amount == law.weight * 25_000_000 // (1000 * GRAIN)
    assert Reading(b"", None, Expected(agreed=world.known()), NOW, None, (), read=receipt).usage().endswith("from 2 sources")


@running
async def test_a_stream_and_an_answer_that_breaks_off_are_metered_as_far_as_they_came(world):
    await world.open()
    reply = await world.ask(CHAT, {**HELLO, "stream": True})
    assert reply.events[-1] == "[DONE]"
    (law,) = (one for one in world.receipts.last.every(SourceUsed) if world_name(world, one) == "law")
    assert law.tokens == world.receipts.last.one(UsageMetered).usage.completion
    world.engine.fails, world.engine.after = EngineFailed("it broke"), 1
    await world.ask(CHAT, {**HELLO, "stream": True})
    broken = world.receipts.last
    assert broken.refused is not None
    assert [one.tokens for one in broken.every(SourceUsed)] == [1, 1]


def world_name(world: SourcesWorld, used: SourceUsed) -> str:
    return next(name for name, manifest in world.sealed_sources.items() if manifest.digest == used.source)


@running
async def test_the_next_answer_draws_nothing_from_a_source_that_was_taken_out_and_again_once_it_is_back(world):
    await world.open()
    for number, terms, names in ((1, None, {"encyclopedia"}), (2, TERMS, set(NAMES)), (3, None, {"encyclopedia"})):
        reply = await world.send("POST", "/v1/sources", world.revision(number, terms))
        assert reply.json == {"number": number, "source": world.sealed_sources["law"].digest}
        _, receipt = await world.ask_it()
        assert {world_name(world, one) for one in receipt.every(SourceUsed)} == names


@running
async def test_terms_that_the_contract_does_not_meet_any_more_end_the_drawing(world):
    await world.open()
    dearer = replace(TERMS, price=Price(25_000_001, "EUR-nano"))
    less = replace(TERMS, total=64 * GRAIN - 1)
    for number, terms in enumerate((dearer, less, replace(TERMS, models=frozenset({wire.digest(b"another")}))), start=1):
        await world.send("POST", "/v1/sources", world.revision(number, terms))
        assert world.engine.open == {"encyclopedia"}
    cheaper = replace(TERMS, price=Price(1, "EUR-nano"))
    await world.send("POST", "/v1/sources", world.revision(9, cheaper))
    _, receipt = await world.ask_it()
    (law,) = (one for one in receipt.every(SourceUsed) if world_name(world, one) == "law")
    assert law.amount == Price(25_000_000, "EUR-nano").of(law.weight)  # what was agreed is what is paid


@running
async def test_an_older_word_of_the_owner_played_again_is_refused(world):
    await world.open()
    back = world.revision(1, TERMS)
    await world.send("POST", "/v1/sources", back)
    await world.send("POST", "/v1/sources", world.revision(2, None))
    reply = await world.send("POST", "/v1/sources", back)
    assert reply.code == "policy.stale_revision"
    assert world.engine.open == {"encyclopedia"}


@running
async def test_nobody_else_speaks_for_the_owner(world):
    await world.open()
    before = world.engine.open
    assert (await world.send("POST", "/v1/sources", world.revision(1, None, by="lab"))).code == "wire.bad_signature"
    stranger = Revision(wire.digest(b"another source"), 1, NOW, None).sign(keys_of("hospital").signing).encode()
    assert (await world.send("POST", "/v1/sources", stranger)).code == "app.not_found"
    assert (await world.send("POST", "/v1/sources", b"{}")).status == 400
    assert world.engine.open == before


@running
async def test_a_word_that_was_said_holds_in_the_next_room_too(world):
    await world.open()
    await world.send("POST", "/v1/sources", world.revision(1, None))
    await world.open()
    assert world.engine.open == {"encyclopedia"}


@running
async def test_a_source_whose_owner_gives_no_key_is_left_out_and_the_room_goes_on(world):
    hospital, law = world.world.brokers["hospital"], world.sealed_sources["law"].digest
    held = hospital.book.held

    def refuses(manifest: str) -> Any:
        return None if manifest == law else held(manifest)

    await world.open()
    assert world.engine.open == set(NAMES)
    hospital.book.held = refuses
    keeper = world.rooms.require()
    keeper.room.renew()
    world.rooms.draw(keeper)
    assert world.engine.open == {"encyclopedia"}
    assert world.engine.gone == {"law"}
    _, receipt = await world.ask_it()
    assert [world_name(world, one) for one in receipt.every(SourceUsed)] == ["encyclopedia"]


@running
async def test_a_broker_that_does_not_answer_loses_its_source_when_the_lease_ends_and_ends_no_room(world):
    await world.open()
    keeper, hospital = world.rooms.require(), world.world.brokers["hospital"]

    def away() -> bytes:
        raise Unreachable("it is off")

    world.clock.wait(SERVE.lease_s - 600)
    hospital.nonce = away
    await world.lifecycle.step()
    assert world.engine.open == set(NAMES)  # what is held is held until its lease ends
    world.clock.wait(700)
    await world.lifecycle.step()
    assert world.rooms.require() is keeper
    assert set(keeper.room.released()) == {"weights"}
    assert world.engine.open == frozenset()
    assert world.engine.gone == set(NAMES)
    _, receipt = await world.ask_it()
    assert receipt.every(SourceUsed) == ()


@running
async def test_another_contracts_room_opens_the_weights_for_itself_and_draws_from_none_of_the_firsts(world):
    first = await world.open()
    again = await world.open()
    assert again.engines == first.engines  # another room of the same contract
    other = await world.open(world.agree(title="with others of the operator's"))
    assert len(world.engines) == 2
    assert other.engines[0] is not first.engines[0]


@running
async def test_a_key_that_is_none_of_the_assets_opens_no_room_onto_what_another_opened(world):
    first = await world.open()
    for broker in world.world.brokers.values():
        book, held = broker.book, broker.book.held

        def false(manifest: str, held: Any = held) -> Any:
            return held(manifest) and replace(held(manifest), key=AssetKey(seed("any bytes")))

        book.held = false
    for contract in (world.contract, world.agree(title="with others of the operator's")):
        with pytest.raises(WrongKey):
            await world.open(contract)
    assert world.rooms.require() is first


@running
async def test_a_source_that_was_taken_back_stops_no_opening_no_log_and_nobodys_count(tmp_path):
    """Through what serves really: keys, receipts on the disk, the log, and what an owner counts."""
    with closing(Tales(tmp_path, SourcesWorld())) as tales:
        world, metering = tales.world, tales.metering
        book = world.world.brokers["hospital"].book

        def says(number: int, name: str) -> None:
            envelope = Envelope.parse(world.revision(number, None, name))
            book.revise(Revision.peek(envelope), envelope)

        def bring() -> int:
            metering.receipts.flush()
            return metering._logger.step()

        await tales.answer("one")
        assert bring() == 2
        says(1, "law")
        await tales.answer("one two")  # a room is opened without it
        assert bring() == 2
        assert sorted(world.rooms.require().room.released()) == ["encyclopedia", "weights"]
        says(1, "encyclopedia")
        world.clock.wait(SERVE.lease_s - 600)
        await world.lifecycle.step()  # and renewed with no source at all
        assert sorted(world.rooms.require().room.released()) == ["weights"]
        assert (await world.ask(CHAT, HELLO)).status == 200
        assert bring() == 1
        found = counted(tales, tales.written(await tales.fetched(), tmp_path / "receipts.jsonl"), at=world.clock())
        assert found.refused == ()
        assert found.counted == 5
        assert sorted((due.agreed.name, due.drawn.requests) for due in found.drawn) == [("encyclopedia", 2), ("law", 1)]


@running
async def test_no_room_is_opened_while_an_owners_broker_is_away(world):
    hospital = world.world.brokers["hospital"]

    def away() -> bytes:
        raise Unreachable("it is off")

    hospital.nonce = away
    with pytest.raises(Unreachable):
        await world.open()


@running
async def test_a_broker_that_was_told_renews_no_lease_and_no_new_room_gets_the_key(world):
    book = world.world.brokers["hospital"].book

    def said(number: int, terms: Drawing | None) -> None:
        envelope = Envelope.parse(world.revision(number, terms))
        book.revise(Revision.peek(envelope), envelope)

    await world.open()
    said(1, None)
    keeper = world.rooms.require()
    keeper.room.renew()
    assert set(keeper.room.released()) == {"weights", "encyclopedia"}
    await world.open()  # as an enclave that is started anew, and was never told
    assert world.rooms.require().models[MODEL].engine.open == {"encyclopedia"}
    said(2, replace(TERMS, price=Price(10**9, "EUR-nano")))
    await world.open()
    assert world.rooms.require().models[MODEL].engine.open == {"encyclopedia"}
    said(3, TERMS)
    await world.open()
    assert world.rooms.require().models[MODEL].engine.open == set(NAMES)


@running
async def test_a_revision_that_another_put_into_a_brokers_book_opens_nothing(world):
    book = world.world.brokers["hospital"].book
    envelope = Envelope.parse(world.revision(1, TERMS, by="lab"))
    book.revise(Revision.peek(envelope), envelope)
    await world.open()
    assert world.rooms.require().models[MODEL].engine.open == {"encyclopedia"}


def test_a_brokers_book_keeps_the_newest_word(tmp_path, world):
    from strongroom.app.stores.book import SqliteBook

    law = world.sealed_sources["law"].digest
    words = [Envelope.parse(world.revision(number, terms)) for number, terms in ((2, None), (1, TERMS), (3, TERMS))]
    with closing(SqliteBook(tmp_path / "book.db")) as book:
        assert book.revision(law) is None
        book.revise(Revision.peek(words[0]), words[0])
        with pytest.raises(StaleRevision):
            book.revise(Revision.peek(words[1]), words[1])
        assert book.revision(law) == words[0]
        book.revise(Revision.peek(words[2]), words[2])
    with closing(SqliteBook(tmp_path / "book.db")) as book:
        assert book.revision(law) == words[2]


@running
async def test_a_model_whose_owner_gives_no_key_still_ends_the_room(world):
    lab = world.world.brokers["lab"]
    await world.open()
    lab.book.held = lambda _manifest: None
    with pytest.raises(StrongroomError):
        world.rooms.require().room.renew()
    with pytest.raises(StrongroomError):
        world.rooms.require()


@pytest.mark.parametrize("code", [WrongEpoch.code, BookRestored.code])
def test_a_source_owners_broker_that_says_it_cannot_answer_now_ends_no_room(code):
    @running
    async def kept() -> None:
        with SourcesWorld() as world:
            await world.open()
            keeper = world.rooms.require()

            def refuses(_request: bytes) -> bytes:
                raise ReleaseRefused("not now", reason=code)

            world.world.brokers["hospital"].release = refuses
            await _over_two_leases(world, keeper)

    kept()


@pytest.mark.parametrize("error", [BadRelease("x"), BadSignature("x"), BadField("x"), BookRestored("x"), TooFewShares("x")])
def test_a_source_owners_broker_that_answers_nonsense_ends_no_room(error):
    @running
    async def kept() -> None:
        with SourcesWorld() as world:
            await world.open()
            keeper = world.rooms.require()
            obtain = keeper.room._keyring.obtain

            def nonsense(ref: AssetRef, *about: Any) -> Any:
                if ref.owner == "hospital":
                    raise error
                return obtain(ref, *about)

            keeper.room._keyring.obtain = nonsense
            await _over_two_leases(world, keeper)

    kept()


async def _over_two_leases(world: SourcesWorld, keeper: Any) -> None:
    """The sources are held until their leases end, and no longer; the model's own is renewed."""
    world.clock.wait(SERVE.lease_s - 600)
    await world.lifecycle.step()
    assert keeper.room.until == world.clock() + SERVE.lease_s
    assert set(keeper.room.released()) == {"weights", *NAMES}
    world.clock.wait(SERVE.lease_s - 600)
    await world.lifecycle.step()
    assert world.rooms.require() is keeper
    assert set(keeper.room.released()) == {"weights"}
    assert world.engine.gone == set(NAMES)


@running
async def test_a_broker_that_missed_one_renewal_is_asked_again_and_keeps_its_source(world):
    await world.open()
    keeper, hospital, asked = world.rooms.require(), world.world.brokers["hospital"], []
    nonce = hospital.nonce

    def away() -> bytes:
        asked.append(world.clock())
        raise Unreachable("it is restarted")

    hospital.nonce = away
    world.clock.wait(SERVE.lease_s - 600)
    await world.lifecycle.step()
    first = len(asked)
    await world.lifecycle.step()
    assert len(asked) == first  # not in every look
    world.clock.wait(2)
    await world.lifecycle.step()
    assert len(asked) == 2 * first
    hospital.nonce = nonce
    world.clock.wait(60)
    lab = world.world.brokers["lab"]
    lab.nonce = away  # nobody asks it: its lease was renewed
    await world.lifecycle.step()
    assert {keeper.room.released()[name].until for name in NAMES} == {world.clock() + SERVE.lease_s}
    assert len(asked) == 2 * first
    world.clock.wait(SERVE.lease_s - 600)
    await world.lifecycle.step()
    assert set(keeper.room.released()) == {"weights", *NAMES}
    assert world.engine.gone == set()


@running
async def test_a_source_that_was_refused_is_not_asked_for_again_in_every_look(world):
    await world.open()
    keeper, hospital, asked = world.rooms.require(), world.world.brokers["hospital"], []

    def refuses(_manifest: str) -> None:
        asked.append(1)

    hospital.book.held = refuses
    world.clock.wait(SERVE.lease_s - 600)
    for _ in range(3):
        await world.lifecycle.step()
        world.clock.wait(61)
    assert asked == [1, 1]
    assert set(keeper.room.released()) == {"weights"}


@running
async def test_what_other_owners_renewed_counts_where_one_does_not_answer(world):
    await world.open()
    keeper, before = world.rooms.require(), world.rooms.require().room.until

    def away() -> bytes:
        raise Unreachable("it is off")

    world.clock.wait(100)
    world.world.brokers["lab"].nonce = away
    with pytest.raises(Unreachable):
        keeper.room.renew()
    assert keeper.room.until == before
    assert {keeper.room.released()[name].until for name in NAMES} == {world.clock() + SERVE.lease_s}


def _away(_manifest: str) -> None:
    """A broker's book that has no key any more."""


@running
async def test_a_room_that_drains_takes_no_source_from_the_one_in_its_place(world):
    await world.open()
    first, hospital = world.rooms.require(), world.world.brokers["hospital"]
    held = hospital.book.held
    await world.open()
    assert [keeper.models[MODEL].engine for keeper in (first, world.rooms.require())] == [world.engine] * 2
    hospital.book.held = _away
    first.room.renew()
    world.rooms.draw(first)
    assert world.engine.open == set(NAMES)
    assert world.engine.gone == set()
    hospital.book.held = held
    _, receipt = await world.ask_it()
    assert len(receipt.every(SourceUsed)) == 2
    hospital.book.held = _away
    world.rooms.require().room.renew()  # now nobody holds them
    await world.lifecycle.step()
    assert world.engine.gone == set(NAMES)


@running
async def test_a_source_that_the_newest_room_was_refused_is_not_drawn_from_while_another_still_holds_it(world):
    await world.open()
    first = world.rooms.require()
    await world.open()
    world.world.brokers["hospital"].book.held = _away
    world.rooms.require().room.renew()
    for keeper in (world.rooms.require(), first):
        world.rooms.draw(keeper)
        assert (world.engine.open, world.engine.gone) == (frozenset(), frozenset())
    await world.rooms.close_room(first)
    await world.lifecycle.step()
    assert world.engine.gone == set(NAMES)


@running
async def test_a_room_that_has_the_key_again_gets_no_engine_that_let_go_of_the_source(world):
    await world.open()
    hospital = world.world.brokers["hospital"]
    held, hospital.book.held = hospital.book.held, _away
    world.rooms.require().room.renew()
    await world.lifecycle.step()
    assert world.engine.gone == set(NAMES)
    hospital.book.held = held
    await world.open()
    assert len(world.engines) == 2
    assert world.rooms.require().models[MODEL].engine is world.engines[1]
    for keeper in [*world.rooms.draining, world.rooms.require()]:
        await world.rooms.close_room(keeper)
    assert [engine.closed for engine in world.engines] == [True, True]


@running
async def test_a_key_that_lapsed_while_somebody_else_looked_is_let_go_of_by_the_engine_too(world):
    await world.open()
    keeper = world.rooms.require()

    def away() -> bytes:
        raise Unreachable("it is off")

    world.clock.wait(SERVE.lease_s - 600)
    world.world.brokers["hospital"].nonce = away
    await world.lifecycle.step()
    world.clock.wait(700)
    assert set(keeper.room.released()) == {"weights"}  # whoever it was
    await world.lifecycle.step()
    assert world.engine.gone == set(NAMES)


@running
async def test_a_word_that_comes_while_a_room_is_opened_is_not_lost(world):
    start, said = world.rooms.engines._start, []

    async def meanwhile(wanted: Any) -> Any:  # the keys are there, the weights are being read
        said.append(await world.send("POST", "/v1/sources", world.revision(1, None)))
        return await start(wanted)

    world.rooms.engines._start = meanwhile
    await world.open()
    assert [reply.status for reply in said] == [200]
    assert world.engine.open == {"encyclopedia"}
    assert world.rooms._coming == []


@running
async def test_a_word_of_a_source_that_no_room_has_is_not_found_and_an_opening_that_failed_leaves_nothing(world):
    assert (await world.send("POST", "/v1/sources", world.revision(1, None))).code == "app.not_found"
    world.rooms.engines._start = None
    with pytest.raises(TypeError):
        await world.open()
    assert world.rooms._coming == []
    assert (await world.send("POST", "/v1/sources", world.revision(1, None))).code == "app.not_found"


# --- the owner's side -----------------------------------------------------------------------------------------------


class Owner:
    """The hospital's command line: its book, and what answers at an address."""

    def __init__(self, world: SourcesWorld, folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        from types import SimpleNamespace

        from strongroom.app.cli import sources as cli
        from strongroom.app.client import sources as client
        from strongroom.app.stores.book import SqliteBook

        digest = world.sealed_sources["law"].digest
        signed = world.world.exchange.manifest(digest, keys_of("hospital").signing.public.keyid)
        self.book, self.now, self.answer = SqliteBook(folder / "book.db"), 1_800_000_000.0, Unreachable("it is off")
        self.book.hold(signed, AssetKey(seed("key of law")))
        home = SimpleNamespace(book=self.book, keys=keys_of("hospital"), config=SimpleNamespace(enclave="http://there"))
        manifest = Manifest.parse(signed.payload)
        here = SimpleNamespace(name="hospital", home=home, asset=lambda _said: manifest)
        self.digest, self.lines, self.posted = digest, list[str](), list[bytes]()
        monkeypatch.setattr(cli, "room", lambda _args: here)
        monkeypatch.setattr(cli, "home", lambda _args: home)
        monkeypatch.setattr(client, "Client", lambda *_, **__: self)
        monkeypatch.setattr(client.time, "time", lambda: self.now)

    def post(self, _path: str, body: bytes) -> bytes:
        self.posted.append(body)
        if self.answer is not None:
            raise self.answer
        return b"{}"

    def close(self) -> None:
        return

    def said(self, _what: str, line: str) -> None:
        self.lines.append(line)

    def result(self, found: dict[str, Any]) -> None:
        self.last = found

    def __call__(self, *flags: str) -> Revision:
        """lm revise. What is in the book then."""
        from argparse import ArgumentParser

        from strongroom.app.cli import sources as cli

        parser = ArgumentParser()
        cli.declare("lm revise", parser)
        parser.set_defaults(enclave_url=None)
        cli.revise(parser.parse_args(["hospital/law", *flags]), cast("Any", self))
        return self.newest

    @property
    def newest(self) -> Revision:
        envelope = self.book.revision(self.digest)
        assert envelope is not None
        return Revision.verify(envelope, keys_of("hospital").signing.public)


@pytest.fixture
def owner(world: SourcesWorld, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Owner]:
    found = Owner(world, tmp_path, monkeypatch)
    found.answer = None
    yield found
    found.book.close()


def test_a_second_word_undoes_nothing_of_the_first(owner: Owner) -> None:
    assert owner("--price", "30000000").terms == replace(TERMS, price=Price(30_000_000, "EUR-nano"))
    assert owner("--answer-tokens", "8").terms == replace(TERMS, price=Price(30_000_000, "EUR-nano"), total=8 * GRAIN)
    owner("--answer-tokens", "8")  # said again, where an enclave did not answer


def test_a_source_that_is_out_comes_in_again_only_where_its_owner_says_so(owner: Owner) -> None:
    assert owner("--out-now").terms is None
    with pytest.raises(Usage, match="nobody draws from it now"):
        owner("--price", "30000000")
    assert owner.newest.terms is None
    assert owner("--in-again", "--price", "30000000").terms == replace(TERMS, price=Price(30_000_000, "EUR-nano"))
    assert owner("--in-again").terms == replace(TERMS, price=Price(30_000_000, "EUR-nano"))  # said again


@pytest.mark.parametrize("flags", [(), ("--out-now", "--price", "1")])
def test_what_says_nothing_or_two_things_is_not_said(owner: Owner, flags: tuple[str, ...]) -> None:
    with pytest.raises(Usage):
        owner(*flags)
    assert owner.book.revision(owner.digest) is None


def test_a_clock_that_was_set_back_keeps_no_owner_from_taking_a_source_out(owner: Owner) -> None:
    first = owner("--price", "30000000")
    owner.now -= 86_400
    found = owner("--out-now")
    assert (found.number, found.terms) == (first.number + 1, None)


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (None, "what is at http://there says that it keeps to it from now on"),
        (NotFound("no"), "what is at http://there says that it does not draw from it"),
    ],
)
def test_what_an_address_answers_is_told_as_its_word(owner: Owner, answer: Exception | None, line: str) -> None:
    owner.answer = answer
    owner("--out-now")
    assert owner.lines[-1] == line


def test_another_partys_word_in_the_book_is_no_base_and_keeps_nobody_from_taking_a_source_out(
    owner: Owner, world: SourcesWorld
) -> None:
    envelope = Envelope.parse(world.revision(1, TERMS, by="lab"))
    owner.book.revise(Revision.peek(envelope), envelope)
    with pytest.raises(BadSignature):
        owner("--price", "30000000")
    assert owner("--out-now").terms is None


# --- what is refused before anything is drawn -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": wire.digest(b"another model")},
        {"price": Price(24_999_999, "EUR-nano")},
        {"price": Price(25_000_000, "credit")},
        {"total": 64 * GRAIN + 1},
    ],
)
def test_a_contract_beyond_an_owners_terms_gets_no_key_and_the_source_is_named(changes):
    @running
    async def refused() -> None:
        with SourcesWorld({"law": agreed("law", **changes)}) as world, pytest.raises(NotPermitted, match="law: "):
            await world.open()

    refused()


def test_a_broker_refuses_what_goes_beyond_its_owners_terms_whatever_the_enclave_checked(monkeypatch):
    monkeypatch.setattr("strongroom.enclave.obtain.lacking", lambda *_: ())

    @running
    async def refused() -> None:
        with SourcesWorld({"law": agreed("law", weights=wire.digest(b"another model"))}) as world:
            await world.open()
            assert world.engine.open == set()

    refused()


def test_what_an_owner_took_back_is_not_released_beside_the_sources_either(world, monkeypatch):
    monkeypatch.setattr("strongroom.enclave.obtain.lacking", lambda *_: ())  # whatever the enclave checked
    plain = {**world.parameters, "models": [{"engine": "llama.cpp", "name": MODEL, "role": "weights"}], "sources": []}
    contract = world.agree(program=ProgramRef("serve-llm", PROGRAM, "serve-llm", plain))
    book = world.world.brokers["hospital"].book
    for name in NAMES:
        envelope = Envelope.parse(world.revision(1, None, name))
        book.revise(Revision.peek(envelope), envelope)

    @running
    async def refused() -> None:
        with pytest.raises(ReleaseRefused) as caught:
            await world.open(contract)
        assert caught.value.reason == "policy.not_permitted"

    refused()


def test_a_source_that_is_agreed_for_other_weights_than_were_opened_is_not_drawn_from():
    from types import SimpleNamespace

    from strongroom.app.inference import starting

    said = Source("law", "law", DIGEST, 1, "credit", GRAIN, GRAIN)
    wanted: Any = SimpleNamespace(sources=(SimpleNamespace(said=said),))
    with pytest.raises(WeightsMismatch, match="'law'"):
        starting._require_agreed(wanted, bytes(32))
    starting._require_agreed(wanted, bytes.fromhex(DIGEST.removeprefix("sha256:")))


# --- what a child says ----------------------------------------------------------------------------------------------

LAW = Source("law", "law", DIGEST, 25, "credit", GRAIN // 2, GRAIN)
OTHER = Source("other", "other", DIGEST, 25, "credit", GRAIN, 8 * GRAIN)


def draws(*names: str) -> Draws:
    return Draws((LAW, OTHER), frozenset(names or ("law", "other")))


def test_as_much_as_all_sources_get_is_one_number_in_both_halves() -> None:
    assert MOST == influence.MOST


@pytest.mark.parametrize(
    "row",
    [None, "ab", [1], [1, 2, 3], [1.0, 2], [True, 2], [-1, 2], [GRAIN // 2 + 1, 0], [GRAIN // 2, GRAIN // 2], [0, 2**70]],
)
def test_a_row_that_is_none_or_draws_too_much_ends_the_child(row: Any) -> None:
    with pytest.raises(BrokenAnswer):
        draws().add(row, 8)


def test_a_row_that_is_refused_leaves_nothing_behind() -> None:
    one = draws()
    one.add([1, 1], 8)
    with pytest.raises(BrokenAnswer):
        one.add([1, GRAIN + 1], 8)
    assert one.rows == [[1], [1]]
    one.add([GRAIN // 2, 0], 8)
    one.add([GRAIN // 2 - 1, 0], 8)  # up to the total: what was refused does not count
    assert one.tokens == 3


def test_a_source_that_is_closed_is_not_drawn_from_whatever_the_child_says() -> None:
    one = draws("other")
    one.add([0, 5], 8)
    with pytest.raises(BrokenAnswer):
        one.add([1, 5], 8)


def test_a_budget_in_sum_and_the_length_of_an_answer_are_kept() -> None:
    one = draws()
    one.add([GRAIN // 2, 0], 3)
    one.add([GRAIN // 2, 0], 3)
    with pytest.raises(BrokenAnswer):
        one.add([1, 0], 3)
    two = draws()
    for _ in range(3):
        two.add([1, 1], 3)
    with pytest.raises(BrokenAnswer):
        two.add([1, 1], 3)


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), max_size=30))
def test_a_receipts_events_are_sums_of_what_was_said(rows: list[tuple[int, int]]) -> None:
    one = draws()
    for row in rows:
        one.add(list(row), 1024)
    events = {event.source: event for event in one.events({"law": wire.digest(b"law"), "other": wire.digest(b"other")})}
    for place, name in enumerate(("law", "other")):
        grains = sum(row[place] for row in rows)
        event = events.get(wire.digest(name.encode()))
        assert (event.weight if event else 0) == grains
        assert event is None or (event.tokens, event.amount) == (len(rows), Price(25, "credit").of(grains))


# --- receipts -------------------------------------------------------------------------------------------------------

SOURCE, ANOTHER = wire.digest(b"a source"), wire.digest(b"another source")
USED = SourceUsed.of(SOURCE, (5, 0, GRAIN), TERMS.price)


def receipt(*used: SourceUsed, completion: int | None = 3, refused: bool = False, weights: str = DIGEST) -> InferenceReceipt:
    metered = () if completion is None else (UsageMetered(Tokens(prompt=1, completion=completion)),)
    named = ModelWeights(MODEL, weights, wire.digest(b"asset"), wire.digest(b"contract"))
    ended = (RequestRefused("engine.failed", "answer"),) if refused else ()
    return InferenceReceipt(
        receipt_id="rcpt-1",
        chat_id=None,
        model=MODEL,
        workload_keyset_digest=wire.digest(b"keyset"),
        endpoint="/v1/chat/completions",
        method="POST",
        served_at=NOW,
        event_log=(named, *used, *metered, *ended),
        key_id="inference",
        signature=bytes(64),
    )


def drew(of: InferenceReceipt, **changes: Any) -> str:
    known: Any = type("Known", (), {"sources": {SOURCE: agreed("law", **changes)}})()
    return Reading(b"", None, Expected(agreed=known), NOW, None, (), read=of).drawn()


def test_a_receipt_that_says_what_was_agreed_passes() -> None:
    assert drew(receipt(USED)) == "; drawn from 1 sources"
    assert drew(receipt()) == ""
    assert drew(receipt(USED, completion=2, refused=True))  # what was cut off was drawn all the same


@pytest.mark.parametrize(
    ("of", "changes"),
    [
        (receipt(USED, USED), {}),
        (receipt(replace(USED, source=ANOTHER)), {}),
        (receipt(replace(USED, amount=USED.amount + 1)), {}),
        (receipt(replace(USED, unit="credit")), {}),
        (receipt(USED, completion=4), {}),
        (receipt(USED, completion=None), {}),
        (receipt(USED, weights=ANOTHER), {}),
        (receipt(USED), {"price": Price(24_000_000, "EUR-nano")}),
        (receipt(USED), {"token": GRAIN - 1}),
        (receipt(USED), {"total": GRAIN}),
    ],
)
def test_a_receipt_that_says_something_else_than_was_agreed_fails(of: InferenceReceipt, changes: dict[str, Any]) -> None:
    with pytest.raises(StrongroomError) as caught:
        drew(of, **changes)
    assert caught.value.code == "inference.bad_usage"


def test_sums_are_of_each_receipt_once_and_rounded_once() -> None:
    one, two = receipt(USED), replace(receipt(SourceUsed.of(SOURCE, (7, 7, 7), TERMS.price)), receipt_id="rcpt-2")

    def held(of: InferenceReceipt) -> VerifiedReceipt:
        found = object.__new__(VerifiedReceipt)
        object.__setattr__(found, "receipt", of)
        return found

    (sums,) = drawn([held(one), held(two), held(one)])
    assert (sums.requests, sums.tokens, sums.weight) == (2, 6, USED.weight + 21)
    assert json.loads(wire.encode(sums.to_json()))["source"] == SOURCE


# --- revisions ------------------------------------------------------------------------------------------------------


def test_a_revision_is_held_against_the_key_of_its_owner_in_the_contract(world: SourcesWorld) -> None:
    proposals = [world.contract.proposal]
    found = Revisions()
    with pytest.raises(BadSignature):
        found.take(world.revision(1, None, by="lab"), proposals)
    assert found.permits(proposals[0], "law")
    found.take(world.revision(2, None), proposals)
    assert not found.permits(proposals[0], "law")
    assert found.permits(proposals[0], "encyclopedia")
    with pytest.raises(StaleRevision):
        found.take(world.revision(1, TERMS), proposals)
    with pytest.raises(NotFound):
        found.take(world.revision(3, TERMS), [])


def test_an_owner_is_heard_beside_a_contract_that_says_its_source_is_anothers(world: SourcesWorld) -> None:
    proposal = world.contract.proposal
    claimed = replace(proposal, assets=tuple(replace(ref, owner="lab") for ref in proposal.assets))
    found = Revisions()
    for number, proposals in enumerate(([claimed, proposal], [proposal, claimed]), start=1):
        assert found.take(world.revision(number, None), proposals).number == number
    assert not found.permits(proposal, "law")
    assert found.permits(claimed, "law")  # of whom the owner says nothing
    with pytest.raises(BadSignature):
        found.take(world.revision(3, None, by="stranger"), [claimed, proposal])


def test_a_word_counts_also_where_another_contract_says_that_somebody_else_owns_the_source(world: SourcesWorld) -> None:
    mine = world.contract.proposal
    refs = tuple(replace(ref, owner="lab") if ref.role == "law" else ref for ref in mine.assets)
    found = Revisions()
    found.take(world.revision(1, None), [replace(mine, assets=refs), mine])
    assert not found.permits(mine, "law")
    assert found.permits(replace(mine, assets=refs), "law")


def test_the_program_is_the_one_that_the_world_names(world: SourcesWorld) -> None:
    program = world.contract.proposal.program
    assert isinstance(program, ProgramRef)
    assert program.digest == PROGRAM
