"""Where a machine keeps its parties: whole or not at all, secret where secret, and clear about what is wrong where."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from strongroom import wire
from strongroom.app.client import home as module
from strongroom.app.client.home import (
    BrokerPlace,
    Config,
    Home,
    PartyHome,
    private,
    read,
    reading,
    reference,
    trust_file,
    write,
)
from strongroom.app.exchange.key import log_key
from strongroom.errors import (
    AlreadyExists,
    BadField,
    BadKey,
    BadSignature,
    EmptyFile,
    NoKeys,
    NotCanonical,
    NotFound,
    NotJson,
    TooLarge,
    Usage,
)
from strongroom.ledger import MemoryNodes, Tree
from strongroom.party import SigningKey
from strongroom.trust import Trust


@pytest.fixture
def place(tmp_path: Path) -> Home:
    return Home(tmp_path / "room")


@pytest.fixture
def lab(place: Home) -> PartyHome:
    return place.create("lab", host="127.0.0.1", port=4711)


# --- files ----------------------------------------------------------------------------------------------------------


def test_reading_says_what_is_wrong_with_the_path(tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "large").write_bytes(b"x" * 11)
    with pytest.raises(NotFound, match="nowhere: No such file"):
        read(tmp_path / "nowhere")
    with pytest.raises(NotFound, match="is a folder"):
        read(tmp_path)
    with pytest.raises(EmptyFile, match="empty is empty"):
        read(tmp_path / "empty")
    with pytest.raises(TooLarge, match="more than 10 bytes"):
        read(tmp_path / "large", max_bytes=10)
    assert read(tmp_path / "large", max_bytes=None) == b"x" * 11


def test_a_file_without_an_end_is_not_read_to_it():
    with pytest.raises(TooLarge):
        read(Path("/dev/zero"), max_bytes=1000)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write(path, b"old")

    def fail(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", fail)
    with pytest.raises(NotFound, match="No space left"):
        write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_file_in_no_folder_cannot_be_written(tmp_path):
    with pytest.raises(NotFound, match="cannot write"):
        write(tmp_path / "no" / "file", b"x")


def test_a_private_file_is_new_and_its_owners_alone(tmp_path):
    before = os.umask(0)
    try:
        with private(tmp_path / "secret") as sink:
            sink.write(b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        private(tmp_path / "secret")


def test_what_is_wrong_in_a_file_names_the_file_once(tmp_path):
    with (
        pytest.raises(BadField, match=rf"^{tmp_path}/f: it is bad$") as raised,
        reading(tmp_path / "f"),
        reading(tmp_path / "f"),
    ):
        raise BadField("it is bad")
    assert raised.value.to_json()["message"].endswith("it is bad")


# --- parties --------------------------------------------------------------------------------------------------------


def test_secrets_are_their_owners_alone_whatever_the_umask(place):
    before = os.umask(0)
    try:
        lab = place.create("lab", host="127.0.0.1", port=1)
        lab.book.nonce(1)
        lab.close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(lab.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((lab.folder / "broker").stat().st_mode) == 0o700
    secret = [lab.folder / "keys.json", *(lab.folder / "broker").iterdir()]
    assert len(secret) >= 3
    for path in secret:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_the_log_key_is_its_owners_alone_and_made_once(tmp_path):
    before = os.umask(0)
    try:
        first = log_key(tmp_path / "exchange")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "exchange" / "log.key.json").stat().st_mode) == 0o600
    assert log_key(tmp_path / "exchange") == first
    (tmp_path / "exchange" / "log.key.json").write_text('{"name":"x"}')
    with pytest.raises(BadField):
        log_key(tmp_path / "exchange")


def test_keys_are_never_overwritten(place, lab):
    before = (lab.folder / "keys.json").read_bytes()
    with pytest.raises(AlreadyExists):
        place.create("lab", host="127.0.0.1", port=4711)
    assert (lab.folder / "keys.json").read_bytes() == before


def test_a_party_made_by_many_at_once_is_made_once(place):
    ended: list[object] = []
    start = threading.Barrier(4)

    def make():
        start.wait()
        try:
            ended.append(place.create("lab", host="127.0.0.1", port=1).keys.signing.seed)
        except AlreadyExists as error:
            ended.append(error.code)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended.count("party.already_exists") == 3
    assert place.party("lab").keys.signing.seed in ended
    assert [p.name for p in (place.folder / "parties").iterdir()] == ["lab"]


def test_a_party_is_made_whole_or_not_at_all(place, monkeypatch):
    def fail(_self, _trust):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PartyHome, "save_trust", fail)
    with pytest.raises(NotFound, match="No space left"):
        place.create("lab", host="127.0.0.1", port=1)
    assert list((place.folder / "parties").iterdir()) == []
    monkeypatch.undo()
    place.create("lab", host="127.0.0.1", port=1)


def test_what_a_crash_left_is_no_party(place, lab):
    (place.folder / "parties" / ".bank.00ff").mkdir()
    (place.folder / "parties" / ".bank.00ff" / "party.json").write_bytes((lab.folder / "party.json").read_bytes())
    assert [p.name for p in place.parties()] == ["lab"]
    assert place.party(None).name == "lab"


@pytest.mark.parametrize("name", ["", ".", "..", "../evil", "a/b", "Lab", "-x", "x" * 65, "lab\n", "l\u0430b", "any-party"])
def test_a_name_that_is_no_name_makes_no_folder(place, name):
    with pytest.raises(BadField):
        place.create(name, host="127.0.0.1", port=1)
    with pytest.raises(BadField):
        place.party(name)
    assert not place.folder.exists()


def test_who_is_at_work_must_be_said_where_there_are_two(place, lab):
    assert place.party(None).name == "lab"
    place.create("hospital", host="127.0.0.1", port=2)
    with pytest.raises(Usage, match="hospital, lab"):
        place.party(None)
    with pytest.raises(NoKeys, match="'bank'"):
        place.party("bank")
    with pytest.raises(NoKeys):
        Home(place.folder / "elsewhere").party(None)


def test_a_card_says_where_its_broker_is_reached(place):
    six = place.create("six", host="::1", port=1)
    assert six.card.broker_url == "http://[::1]:1"
    behind = place.create("behind", host="127.0.0.1", port=1, url="https://broker.example")
    assert (behind.card.broker_url, behind.broker.url) == ("https://broker.example", "http://127.0.0.1:1")
    assert BrokerPlace(SigningKey(bytes(32)), "h", 2).url == "http://h:2"


def test_a_party_trusts_itself_and_nobody_else(lab):
    assert lab.trust == Trust().pin(lab.card)
    assert not lab.owner().policy.platforms


@pytest.mark.parametrize("name", ["keys.json", "broker/key.json", "trust.json", "party.json"])
@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", EmptyFile),
        (b"{", NotJson),
        (b"\xff\xfe", NotJson),
        (b"[]", BadField),
        (b"{}", BadField),
        (b'{"a":1,"a":2}', (NotJson, NotCanonical)),
        (b'{"name":NaN}', (NotJson, NotCanonical)),
    ],
)
def test_a_file_edited_badly_is_refused_by_name(lab, name, content, error):
    fresh = PartyHome(lab.folder)
    (lab.folder / name).write_bytes(content)
    with pytest.raises(error, match=rf"{name}"):
        {"keys.json": lambda: fresh.keys, "trust.json": lambda: fresh.trust, "party.json": lambda: fresh.card}.get(
            name, lambda: fresh.broker
        )()


def test_a_key_cut_short_is_refused(lab):
    path = lab.folder / "keys.json"
    found = wire.loads(path.read_bytes())
    path.write_bytes(wire.encode({**found, "signing": wire.b64(bytes(31))}))
    with pytest.raises(BadKey, match=r"keys\.json"):
        _ = PartyHome(lab.folder).keys
    path.unlink()
    with pytest.raises(NoKeys):
        _ = PartyHome(lab.folder).keys


def test_a_trust_file_with_a_member_that_nobody_knows_is_refused(lab):
    path = lab.folder / "trust.json"
    found = wire.loads(path.read_bytes())
    for edited in ({**found, "everything": True}, {**found, "parties": [*found["parties"], *found["parties"]]}):
        path.write_bytes(wire.encode(edited))
        with pytest.raises(BadField, match=r"trust\.json"):
            trust_file(path)


def test_a_trust_file_may_be_edited_by_hand_and_is_read_anew(lab):
    path = lab.folder / "trust.json"
    found = wire.loads(path.read_bytes())
    path.write_text(module.pretty({**found, "parties": []}).decode())
    assert lab.trust.parties == ()


# --- checkpoints and addresses ---------------------------------------------------------------------------------------


def test_the_last_head_seen_is_kept_and_verified_again(lab, tmp_path):
    key = log_key(tmp_path / "exchange")
    lab.save_trust(lab.trust.with_log(key.verifier.vkey))
    assert lab.last_seen(key.name) is None
    head = key.verifier.verify(Tree(MemoryNodes()).checkpoint(key))
    lab.save_seen(head)
    assert lab.last_seen(key.name) == head
    assert lab.last_seen("another") is None
    path = lab.folder / "seen.json"
    notes = wire.loads(path.read_bytes())
    path.write_bytes(wire.encode({key.name: notes[key.name].replace("\n0\n", "\n1\n")}))
    with pytest.raises(BadSignature, match=r"seen\.json"):
        lab.last_seen(key.name)
    path.write_bytes(b"[]")
    with pytest.raises(BadField, match=r"seen\.json"):
        lab.last_seen(key.name)


def test_a_log_that_is_trusted_no_more_was_not_seen(lab, tmp_path):
    key = log_key(tmp_path / "exchange")
    lab.save_trust(lab.trust.with_log(key.verifier.vkey))
    lab.save_seen(key.verifier.verify(Tree(MemoryNodes()).checkpoint(key)))
    lab.save_trust(Trust().pin(lab.card))
    assert lab.last_seen(key.name) is None


def test_addresses_are_kept(place):
    with pytest.raises(NotFound, match="knows no exchange"):
        _ = place.config
    place.save_config(Config("http://a", "http://b"))
    assert place.config == Config("http://a", "http://b")
    (place.folder / "config.json").write_text('{"exchange":1,"enclave":""}')
    with pytest.raises(BadField, match=r"config\.json"):
        _ = place.config


def test_reference_values_pin_nobody(lab):
    with pytest.raises(BadField, match="name parties"):
        reference((lab.folder / "trust.json").read_bytes())
    assert reference(wire.encode(Trust().to_json())) == Trust()
