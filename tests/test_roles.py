"""`strongroom up` and the roles as processes: they say where they are, end together, and never outlive who started them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stage import Watched, spawn, until
from strongroom.app.cli.fleet import Fleet
from strongroom.app.cli.parties import make
from strongroom.app.client.home import Home
from strongroom.app.http import Client
from strongroom.errors import EnclaveError, StrongroomError, Unreachable


def children(process: int) -> dict[int, str]:
    """A process's children, and what each was started with."""
    found = {}
    for task in Path(f"/proc/{process}/task").iterdir():
        for child in (task / "children").read_text().split():
            found[int(child)] = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def answers(url: str) -> bool:
    client = Client(url, timeout=5)
    try:
        return b"role" in client.get("/v1/health")
    except StrongroomError:
        return False
    finally:
        client.close()


# --- up ---------------------------------------------------------------------------------------------------------------


def test_a_party_made_while_it_is_up_gets_a_broker_at_once(stranger):
    made = stranger.shell("strongroom party new bank --json")
    url = json.loads(made.stdout)["broker"]
    until(lambda: answers(url))


def test_a_second_one_on_the_same_folder_says_why_it_cannot(stranger):
    again = stranger.shell("strongroom up")
    assert again.returncode == 1
    assert "is taken" in again.stderr
    assert "did not start" in again.stderr
    assert "Traceback" not in again.stderr
    assert stranger.process.poll() is None
    assert all(answers(url) for url in json.loads((stranger.cwd / "room/config.json").read_text()).values())


def test_when_one_role_ends_all_do_and_it_is_said(tmp_path):
    command = [sys.executable, "-m", "strongroom", "up", "--party", "lab", "--json"]
    up = subprocess.Popen(
        command, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    text = ""
    while not text.rstrip().endswith("}\n}"):
        line = up.stdout.readline()
        assert line, up.stderr.read()
        text += line
    said = json.loads(text)
    assert set(said["roles"]) == {"enclave", "exchange", "broker of lab"}
    roles = children(up.pid)
    assert len(roles) == 3
    inner = [child for role in roles for child in children(role)]
    (exchange,) = (pid for pid, command in roles.items() if " exchange " in command)
    os.kill(exchange, signal.SIGKILL)
    out, err = up.communicate(timeout=30)
    assert up.returncode == 1
    assert json.loads(out)["error"]["message"] == "the exchange ended with status -9"
    assert "Traceback" not in err
    until(lambda: all(gone(pid) for pid in [*roles, *inner]))


def test_roles_end_when_whoever_started_them_is_killed(tmp_path):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom strongroom.app.cli.fleet import Fleet\n"
        "from strongroom.app.client.home import Home\nfleet = Fleet(Home(Path(sys.argv[1])))\n"
        "fleet.start(enclave=False)\nprint('up', flush=True)\ntime.sleep(60)"
    )
    make(Home(tmp_path), "lab")
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "up\n"
    roles = children(parent.pid)
    assert len(roles) == 2
    parent.kill()
    parent.communicate()
    until(lambda: all(gone(pid) for pid in roles))


# --- one role ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["exchange", "broker"])
def test_a_role_alone_ends_when_it_is_asked_to(tmp_path, verb):
    home = Home(tmp_path / "room")
    make(home, "lab")
    words = [verb, "--home", str(home.folder), "--exchange-url", "http://127.0.0.1:1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "strongroom", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    line = process.stdout.readline()
    url = line.split()[-1]
    assert answers(url)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert "Traceback" not in err
    assert process.returncode in (0, 130, -2)


def test_an_address_that_is_taken_is_said(tmp_path):
    from strongroom.app.http import listen

    make(Home(tmp_path / "room"), "lab")
    with listen("127.0.0.1", 0) as sock:
        sock.listen()
        port = sock.getsockname()[1]
        for words in (("exchange",), ("broker", "--exchange-url", "http://127.0.0.1:1")):
            said = spawn(*words, "--port", port, "--home", tmp_path / "room", cwd=tmp_path)
            assert (said.status, said.code) == (1, "app.conflict")


def test_a_broker_of_nobody_and_an_exchange_in_no_folder_are_said(tmp_path):
    said = spawn("broker", "--as", "lab", "--exchange-url", "http://127.0.0.1:1", cwd=tmp_path)
    assert (said.status, said.code) == (1, "party.no_keys")
    (tmp_path / "file").write_text("x")
    said = spawn("exchange", "--home", tmp_path / "file", cwd=tmp_path)
    assert (said.status, said.code) == (1, "app.not_found")


def test_a_database_that_is_none_is_said(tmp_path):
    folder = tmp_path / "room" / "exchange"
    folder.mkdir(parents=True)
    (folder / "exchange.db").write_bytes(b"not a database at all, but long enough to be looked at" * 100)
    said = spawn("exchange", "--home", tmp_path / "room", cwd=tmp_path)
    assert said.status == 1
    assert "cannot be opened as a database" in said.err
    assert (folder / "exchange.db").read_bytes().startswith(b"not a database")


# --- a fleet ----------------------------------------------------------------------------------------------------------


def test_a_role_that_does_not_start_is_said_and_the_rest_ends(tmp_path):
    place = Home(tmp_path / "room")
    make(place, "lab")
    (place.folder / "parties" / "lab" / "broker" / "key.json").write_text("{")
    with Watched(place, tmp_path / "logs") as fleet:
        with pytest.raises(Unreachable, match="the broker of lab did not start"):
            fleet.start(enclave=False)
        others = [r.process for r in fleet.roles.values()]
    assert all(p.poll() is not None for p in others)
    assert b"wire.not_json" in (tmp_path / "logs" / "broker-of-lab.err").read_bytes()


def test_a_role_that_ended_is_noticed(tmp_path):
    with Watched(Home(tmp_path / "room"), tmp_path / "logs") as fleet:
        fleet.start(enclave=False)
        fleet.check()
        fleet.roles["exchange"].process.kill()
        fleet.roles["exchange"].process.wait()
        with pytest.raises(EnclaveError, match="the exchange ended"):
            fleet.check()


def test_addresses_stay_from_one_start_to_the_next(tmp_path):
    first = Fleet(Home(tmp_path / "room")).config
    assert Fleet(Home(tmp_path / "room")).config == first
