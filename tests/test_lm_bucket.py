"""A store in an S3 bucket, by a server that speaks S3: fetched once, changed as a whole, believed in nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

pytest.importorskip("faiss", reason="faiss is not installed: pip install 'strongroom[lm]', or make lm")
pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install 'strongroom[lm]', or make lm")
pytest.importorskip("boto3", reason="boto3 is not installed: pip install 'strongroom[bucket]', or make lm")
pytest.importorskip("moto", reason="moto is not installed: make lm")

import lm_case
from strongroom.app.stores.bucket import Bucket
from strongroom.errors import BadAnswer, Conflict, DigestMismatch, NotAStore, StrongroomError, Unreachable, Usage
from strongroom.lm.datastore import Datastore, Head, drop


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    before = {name: os.environ.get(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")}
    os.environ.update({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"})
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.fixture
def bucket(endpoint: str, request: pytest.FixtureRequest) -> Bucket:
    found = Bucket.at(f"s3://stores/{abs(hash(request.node.name))}", endpoint=endpoint)
    found.client.create_bucket(Bucket="stores")
    return found


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = lm_case.store(tmp_path / "store")
    for name in ("law", "cells"):
        lm_case.source(place, name)
    return place


def names(bucket: Bucket) -> set[str]:
    found = bucket.client.list_objects_v2(Bucket=bucket.bucket, Prefix=bucket.prefix)
    return {one["Key"].removeprefix(bucket.prefix + "/") for one in found.get("Contents", ())}


def test_a_store_comes_back_as_it_went_and_is_not_fetched_twice(bucket: Bucket, place: Path, tmp_path: Path) -> None:
    version = bucket.push(place)
    told: list[int] = []
    assert bucket.fetch(tmp_path / "here", told.append) == version == Datastore.open(place).version
    assert lm_case.tree(tmp_path / "here") == lm_case.tree(place)
    assert told[-1] > 10_000
    told.clear()
    assert bucket.fetch(tmp_path / "here", told.append) == version
    assert told == []


def test_a_source_that_was_dropped_is_dropped_in_the_bucket_and_where_it_is_fetched(
    bucket: Bucket, place: Path, tmp_path: Path
) -> None:
    bucket.push(place)
    bucket.fetch(tmp_path / "here")
    drop(place, "law")
    told: list[int] = []
    bucket.push(place, told.append)
    assert told == []
    assert names(bucket) == set(lm_case.tree(place)) - {"lock"}
    bucket.fetch(tmp_path / "here")
    assert lm_case.tree(tmp_path / "here") == lm_case.tree(place)
    lm_case.source(place, "public")
    bucket.push(place)
    bucket.fetch(tmp_path / "here")
    assert Datastore.open(tmp_path / "here").names == ["cells", "public"]


def test_a_store_that_changes_while_it_is_fetched(
    bucket: Bucket, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.push(place)
    real, heads = Bucket.head, []

    def head(self: Bucket) -> tuple[Head, str]:
        found = real(self)
        if not heads and self is not bucket:
            heads.append(found)
            drop(place, "law")
            bucket.push(place)
        return found

    monkeypatch.setattr(Bucket, "head", head)
    other = Bucket(bucket.client, bucket.bucket, bucket.prefix)
    assert other.fetch(tmp_path / "here") == Datastore.open(place).version
    assert Datastore.open(tmp_path / "here").names == ["cells"]


def test_two_who_change_a_bucket_at_once(
    bucket: Bucket, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.push(place)
    bucket.fetch(tmp_path / "here")
    lm_case.source(tmp_path / "here", "public")
    real = Bucket._up

    def up(self: Bucket, *words: object) -> None:
        real(self, *words)  # type: ignore[arg-type]
        monkeypatch.setattr(Bucket, "_up", real)
        drop(place, "law")
        bucket.push(place)

    monkeypatch.setattr(Bucket, "_up", up)
    with pytest.raises(Conflict):
        bucket.push(tmp_path / "here")
    assert bucket.head()[0] == Head.read(place)


@pytest.mark.parametrize("what", ["tokens.u16", "index.faiss", "manifest.json"])
def test_a_bucket_that_holds_something_else_than_its_head_promises(
    bucket: Bucket, place: Path, tmp_path: Path, what: str
) -> None:
    bucket.push(place)
    (tmp_path / "nothing").mkdir()
    name = next(name for name in names(bucket) if name.endswith(what))
    data = (place / name).read_bytes()
    changed = data[:-1] + bytes([data[-1] ^ 1])
    if what == "manifest.json":
        changed = json.dumps({**json.loads(data), "owner": "me"}, separators=(",", ":"), sort_keys=True).encode()
    bucket.client.put_object(Bucket=bucket.bucket, Key=f"{bucket.prefix}/{name}", Body=changed)
    with pytest.raises(BadAnswer if what == "manifest.json" else DigestMismatch):
        bucket.fetch(tmp_path / "here")
    assert Datastore.open(tmp_path / "here").names == []


def test_a_bucket_without_what_its_head_names(bucket: Bucket, place: Path, tmp_path: Path) -> None:
    bucket.push(place)
    name = next(name for name in names(bucket) if name.endswith("tokens.u16"))
    bucket.client.delete_object(Bucket=bucket.bucket, Key=f"{bucket.prefix}/{name}")
    with pytest.raises(Conflict):
        bucket.fetch(tmp_path / "here")


def test_addresses_with_nothing_behind_them(bucket: Bucket, endpoint: str, place: Path, tmp_path: Path) -> None:
    with pytest.raises(NotAStore):
        bucket.fetch(tmp_path / "here")
    for address in ("stores/x", "s3://", "https://stores/x"):
        with pytest.raises(Usage):
            Bucket.at(address)
    gone = Bucket.at("s3://stores/x", endpoint="http://127.0.0.1:9")
    with pytest.raises(Unreachable):
        gone.fetch(tmp_path / "here")
    with pytest.raises(StrongroomError):
        Bucket.at("s3://no-such-bucket-here/x", endpoint=endpoint).push(place)


def test_what_a_killed_push_left_is_removed_and_what_is_half_there_is_brought_again(
    bucket: Bucket, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.push(place)
    law, cells = (Datastore.open(place).source(name).manifest.folder for name in ("law", "cells"))
    drop(place, "law")
    with monkeypatch.context() as patched:
        patched.setattr(Bucket, "_sweep" if hasattr(Bucket, "_sweep") else "_remove", lambda *_: None)  # it is killed here
        bucket.push(place)
    assert any(name.startswith(f"sources/{law}/") for name in names(bucket))
    bucket.client.delete_object(Bucket=bucket.bucket, Key=f"{bucket.prefix}/sources/{cells}/tokens.u16")
    bucket.push(place)  # what was put there of late can be of somebody who is about to name it
    assert f"sources/{cells}/tokens.u16" in names(bucket)
    monkeypatch.setattr("strongroom.app.stores.bucket._LATE", timedelta(-1))
    bucket.push(place)
    assert names(bucket) == set(lm_case.tree(place)) - {"lock"}
    assert bucket.fetch(tmp_path / "here") == Datastore.open(place).version
