"""What takes minutes: races and crashes again and again, large files, nonsense by the thousand. ``make soak`` runs it."""

from __future__ import annotations

import contextlib
import json
import random
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stage import Asker, Stage, spawn, terms, until
from strongroom.contract import State
from strongroom.errors import ReleaseRefused, StrongroomError, leaves

pytestmark = pytest.mark.slow
ROUNDS = 15


@pytest.fixture(scope="module")
def second(rough_stage: Stage) -> Iterator[str]:
    yield rough_stage.fleet.another_enclave("second enclave")
    rough_stage.fleet.end("second enclave")


def at_once(*work) -> list[object]:
    """Do several things at once; what each returned or raised."""
    start, ended = threading.Barrier(len(work)), [None] * len(work)

    def go(number: int) -> None:
        start.wait()
        try:
            ended[number] = work[number]()
        except StrongroomError as error:
            ended[number] = error

    threads = [threading.Thread(target=go, args=(n,)) for n in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ended


def test_the_last_run_goes_to_exactly_one_of_two_enclaves_every_time(rough_stage: Stage, second):
    rooms = rough_stage.room("lab"), rough_stage.room("hospital", enclave=second)
    for _ in range(ROUNDS):
        digest = rough_stage.agree()
        ended = at_once(*(lambda room=room, digest=digest: room.run(digest) for room in rooms))
        refused = [e for e in ended if isinstance(e, ReleaseRefused)]
        assert [e.reason for e in refused] == ["broker.no_run_left"], ended
        assert len(rough_stage.lab.receipts(digest)) == 1
        assert rough_stage.hospital.view(digest).state is State.SPENT


def test_brokers_that_are_killed_at_any_moment_never_give_a_run_twice(rough_stage: Stage):
    """Six enclaves ask for two runs while the hospital's broker is killed and started again, over and over."""
    chance = random.Random(7)
    for _ in range(ROUNDS):
        digest = rough_stage.agree(runs=2)
        askers = [Asker(rough_stage, digest) for _ in range(6)]
        stop = threading.Event()

        def keep_killing(stop: threading.Event = stop) -> None:
            while not stop.is_set():
                time.sleep(chance.uniform(0.0, 0.2))
                rough_stage.fleet.end("broker of hospital")
                rough_stage.fleet.start_broker("hospital").wait()

        killer = threading.Thread(target=keep_killing)
        killer.start()

        def insist(asker: Asker) -> bool:
            for _ in range(60):
                with contextlib.suppress(StrongroomError):
                    return "release" in asker.ask()
                time.sleep(0.05)
            return False

        given_to = at_once(*(lambda asker=asker: insist(asker) for asker in askers))
        stop.set()
        killer.join()
        standing = rough_stage.hospital.home.book.standing(digest)
        assert len(standing.runs) == 2
        got = {a.run_id for a, ok in zip(askers, given_to, strict=True) if ok is True}
        assert got <= set(standing.runs)
        logged = {d.run_id for d in rough_stage.hospital.decisions() if d.contract == digest and d.verdict == "release"}
        assert logged == set(standing.runs)


def test_runs_go_on_while_the_exchange_comes_and_goes(rough_stage: Stage):
    """Every contract ends with a receipt, or with a release that its owner sees to have none."""
    stop, chance = threading.Event(), random.Random(11)
    contracts = [rough_stage.agree() for _ in range(ROUNDS)]

    def come_and_go() -> None:
        while not stop.is_set():
            time.sleep(chance.uniform(0.2, 1.5))
            rough_stage.fleet.end("exchange")
            rough_stage.fleet.start_exchange().wait()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    for digest in contracts:
        with contextlib.suppress(StrongroomError):
            rough_stage.lab.run(digest)
    stop.set()
    thread.join()
    missing = {contract for contract, _, _ in rough_stage.hospital.unreceipted()}
    for digest in contracts:
        runs = rough_stage.hospital.home.book.standing(digest).runs
        receipts = rough_stage.lab.receipts(digest)
        assert len(receipts) == len(runs) or digest in missing
        if digest in missing:
            rough_stage.hospital.grant(digest, 1)
            rough_stage.lab.grant(digest, 1)
        elif not receipts:
            rough_stage.lab.run(digest)
        for room in (rough_stage.lab, rough_stage.hospital):
            if receipts and digest not in missing:
                assert room.view(digest).state is State.SPENT


def test_the_demo_for_machines_is_one_object(tmp_path):
    said = spawn("demo", "--json", cwd=tmp_path)
    assert (said.status, said.err) == (0, "")
    assert said.json["platform"] == "platform: simulated (no hardware protection)"


def test_a_large_file_goes_all_the_way_in_little_memory(rough_stage: Stage, tmp_path):
    size = 400 << 20
    path = tmp_path / "large.bin"
    with path.open("wb") as file:
        for _ in range(size >> 20):
            file.write(secrets.token_bytes(1 << 20))
    exchange = rough_stage.fleet.roles["exchange"].process.pid
    before = _peak(exchange)
    manifest = rough_stage.lab.seal(path, terms=terms())
    assert _peak(exchange) - before < 64 << 20
    source = rough_stage.hospital.exchange.sealed(manifest.digest)
    assert source.size == manifest.sealed.size
    said = rough_stage.cli("open", tmp_path / "large.bin.sealed", "--out", tmp_path / "again.bin")
    assert said.status == 0
    with path.open("rb") as one, (tmp_path / "again.bin").open("rb") as other:
        while piece := one.read(1 << 20):
            assert other.read(1 << 20) == piece


def _peak(process: int) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) << 10


ROUTES = [
    ("exchange", method, path)
    for method, path in [
        ("PUT", "/v1/manifests/{}"),
        ("PUT", "/v1/sealed/{}"),
        ("PUT", "/v1/mocks/{}"),
        ("PUT", "/v1/outputs/{}"),
        ("POST", "/v1/proposals"),
        ("POST", "/v1/proposals/{}/approvals"),
        ("POST", "/v1/proposals/{}/withdrawals"),
        ("POST", "/v1/deliveries"),
        ("POST", "/v1/receipts"),
        ("POST", "/v1/log/entries"),
        ("GET", "/v1/manifests/{}"),
        ("GET", "/v1/sealed/{}"),
        ("GET", "/v1/proposals/{}"),
        ("GET", "/v1/receipts/{}"),
    ]
] + [
    ("broker of hospital", "POST", "/v1/release"),
    ("broker of hospital", "POST", "/v1/withdrawals"),
    ("broker of hospital", "POST", "/v1/receipts"),
    ("enclave", "POST", "/v1/runs"),
]

json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    route=st.sampled_from(ROUTES),
    name=st.sampled_from(["sha256:" + "0" * 64, "..", "%2e%2e%2f", "x", "sha256:"]) | st.text(max_size=30),
    content=st.binary(max_size=200) | json_like.map(lambda value: json.dumps(value).encode()),
)
def test_nonsense_gets_an_error_of_ours_and_ends_nobody(rough_stage: Stage, route, name, content):
    role, method, path = route
    url = rough_stage.fleet.roles[role].url + path.format("".join(c for c in name if c.isprintable() and c not in "?#\\ "))
    try:
        answer = httpx.request(method, url, content=content, timeout=20)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        return
    assert answer.status_code < 500, answer.text
    if not answer.is_success and method != "HEAD":
        assert answer.json()["error"]["code"] in leaves()
    assert rough_stage.fleet.roles[role].process.poll() is None


def test_an_enclave_that_is_killed_over_and_over_leaves_a_trace_each_time(rough_stage: Stage):
    chance = random.Random(13)
    for _ in range(5):
        digest = rough_stage.agree()
        stopped = threading.Timer(chance.uniform(0.0, 1.0), rough_stage.fleet.roles["enclave"].process.kill)
        stopped.start()
        with contextlib.suppress(StrongroomError):
            rough_stage.lab.run(digest)
        stopped.join()
        until(lambda: rough_stage.fleet.roles["enclave"].process.poll() is not None)
        rough_stage.fleet.end("enclave")
        rough_stage.fleet.start_enclave().wait()
        runs = set(rough_stage.hospital.home.book.standing(digest).runs)
        missing = {run for contract, run, _ in rough_stage.hospital.unreceipted() if contract == digest}
        receipts = {run for _, run in rough_stage.hospital.exchange.proposal(digest).receipts}
        assert runs == missing | receipts
