"""Nothing of a prompt, an answer or a weight leaves a serving process but as its answer, whatever fails, at every level.

A process of its own serves, is asked with a marker in every place where a client can put one, and is made to fail in every
way that we know. Then everything that it left is searched: what it said, its metrics, every file in its home, its temporary
and its working folder, cores and crash reports, in each form that a marker might take on its way. At the level ``full`` the
texts must stand in the file that the operator named, and nowhere else.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import resource
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

for needed in ("prometheus_client", "httptools"):
    pytest.importorskip(needed, reason="a serving process needs strongroom[serve]")

HERE = Path(__file__).parents[1]
LEVELS = ("none", "aggregate", "failures", "full")
WAIT = 120.0  # seconds, for a machine that is busy


def marker(name: str) -> str:
    """A word that nobody says: in ASCII, so that it survives everything, beside letters that many forms escape."""
    return f"{name}{secrets.token_hex(8)}-k\u00fcmquat-\u96e8{secrets.token_hex(4)}"


def core(mark: str) -> str:
    """The part of a marker that looks the same in UTF-8, in JSON and in an address."""
    return mark.split("-", maxsplit=1)[0]


# --- the search -------------------------------------------------------------------------------------------------------


def forms(mark: str) -> dict[str, bytes]:
    """What a marker may look like: by name of the form, the bytes to look for, without what depends on its neighbours."""
    whole, word = mark.encode(), core(mark).encode()
    found = {"plain": word, "reversed": word[::-1], "upper": word.upper(), "hex": word.hex().encode()}
    found["HEX"] = word.hex().upper().encode()
    for name in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
        found[name] = core(mark).encode(name)
    escaped = json.dumps(mark)[1:-1]
    found["json"] = escaped[escaped.index("-") :].encode()
    found["address"] = urllib.parse.quote(mark)[len(core(mark)) :].encode()
    found["repr"] = repr(whole)[2 + len(word) : -1].encode()
    for name, encode in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode)):
        for shift in range(3):
            data = encode(bytes(shift) + word)
            # the first letters hold what stands before it, the last ones what comes after
            found[f"{name}+{shift}"] = data[(0, 2, 3)[shift] : len(data.rstrip(b"=")) - 2]
    return found


def search(marks: dict[str, str], places: dict[str, bytes]) -> set[tuple[str, str, str]]:
    """Where each mark stands, in which form: (mark, place, form). A short form that fits anything is not looked for."""
    found = set()
    for name, mark in marks.items():
        for form, data in forms(mark).items():
            assert len(data) >= 8, (form, data)
            found |= {(name, place, form) for place, what in places.items() if data in what}
    return found


# --- a serving process ------------------------------------------------------------------------------------------------


@dataclass
class Host:
    """A process that serves, and everything that somebody else can see of it."""

    process: subprocess.Popen[bytes]
    folder: Path
    told: dict[str, str]
    metrics: bytes = b""

    @property
    def url(self) -> str:
        return self.told["url"]

    def places(self) -> dict[str, bytes]:
        """Every byte that is left of it, by where."""
        found = {"metrics": self.metrics}
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                found[str(path.relative_to(self.folder))] = path.read_bytes()
        return found

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=WAIT, headers={"authorization": "Bearer anon-" + "0" * 32})

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        with contextlib.suppress(httpx.HTTPError), self.client() as client:
            self.metrics = client.get("/metrics").content
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.process.wait(WAIT)


@contextlib.contextmanager
def host(folder: Path, level: str, weights: bytes, *more: str) -> Iterator[Host]:
    """Start a host; all that it can write to is in the folder."""
    for name in ("home", "tmp", "cwd"):
        (folder / name).mkdir(parents=True)
    (folder / "home" / "weights").write_bytes(weights)
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "LC_ALL", "VIRTUAL_ENV", "LD_LIBRARY_PATH")}
    env = {**kept, "HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "PYTHONPATH": str(HERE)}
    env |= {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONFAULTHANDLER": "1", "PYTHONWARNINGS": "always"}
    command = [sys.executable, str(HERE / "leak_host.py"), "--level", level, "--home", str(folder / "home")]
    command += ["--weights", str(folder / "home" / "weights"), *more]
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(command, cwd=folder / "cwd", env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
    told = folder / "home" / "told.json"
    try:
        until = time.monotonic() + WAIT
        while not told.exists() or not told.read_bytes().endswith(b"}"):
            assert process.poll() is None, (folder / "stderr").read_text()
            assert time.monotonic() < until, "it does not start"
            time.sleep(0.02)
        yield Host(process, folder, json.loads(told.read_bytes()))
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def chat(text: str, **more: object) -> dict[str, object]:
    return {"model": "example/small", "messages": [{"role": "user", "content": text}], **more}


def ask_everything(serving: Host, mark: str) -> dict[str, int]:
    """A marker wherever a client can put one; the status of each answer by what was asked."""
    said: dict[str, int] = {}
    with serving.client() as client:

        def post(name: str, path: str = "/v1/chat/completions", **kwargs: object) -> httpx.Response:
            answer = client.post(path, **kwargs)  # type: ignore[arg-type]
            said[name] = answer.status_code
            return answer

        whole = post("whole", json=chat(mark))
        assert mark in whole.json()["choices"][0]["message"]["content"]
        assert core(mark) in post("stream", json=chat(mark, stream=True)).text
        post("completions", "/v1/completions", json={"model": "example/small", "prompt": mark})
        post("embeddings", "/v1/embeddings", json={"model": "example/small", "input": mark})
        receipt = client.get(f"/v1/aci/receipts/{whole.headers['x-receipt-id']}")
        said["receipt"] = receipt.status_code
        said["signature"] = client.get(f"/v1/signature/{whole.json()['id']}").status_code
        # refused, with the marker in what is refused
        post("json", content=f'{{"model": "{mark}'.encode())
        post("type", content=mark.encode(), headers={"content-type": core(mark)})
        post("model", json={**chat(mark), "model": mark})
        post("member", json={**chat(mark), mark: 1})
        post("value", json={**chat(mark), "temperature": mark})
        post("role", json={"model": "example/small", "messages": [{"role": mark, "content": mark}]})
        post("deep", content=b'{"model":"example/small","messages":' + b"[" * 5000 + mark.encode())
        post("utf8", content=mark.encode("utf-16"))
        post("path", f"/v1/{urllib.parse.quote(mark)}?q={urllib.parse.quote(mark)}", json=chat(mark))
        post("key", json=chat(mark), headers={"authorization": f"Bearer sr-{core(mark)}"})
        post("scheme", json=chat(mark), headers={"authorization": core(mark), "user-agent": core(mark)})
        post("ehbp", content=mark.encode(), headers={"ehbp-encapsulated-key": core(mark)})
        post("sealed", content=mark.encode(), headers={"ehbp-encapsulated-key": "ab" * 32})
        for path in ("/v1/aci/receipts/", "/v1/signature/", "/v1/models/", "/v1/aci/attestation?nonce="):
            said[path] = client.get(path + urllib.parse.quote(mark)).status_code
        said["rooms"] = client.post("/v1/rooms", content=mark.encode()).status_code
        # what fails inside
        for how in ("crash", "bug", "group", "unicode", "midway", "task", "thread", "library"):
            post(how, json=chat(f"{how} {mark}"))
            with contextlib.suppress(httpx.HTTPError):
                post(f"{how} streaming", json=chat(f"{how} {mark}", stream=True))
    _rough(serving, mark)
    return said


def _rough(serving: Host, mark: str) -> None:
    """Clients that send half a body, go while they are answered, or speak no HTTP."""
    host_, port = serving.url.removeprefix("http://").split(":")
    body = json.dumps(chat(f"slow {mark}", stream=True)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host_}\r\ncontent-type: application/json\r\ncontent-length: "
    head += f"{len(body)}\r\nauthorization: Bearer anon-{'0' * 32}\r\n\r\n"
    for sent in (head.encode() + body[:-5], mark.encode() + b"\r\n\r\n", f"GET /{core(mark)} HTTP/9.9\r\n\r\n".encode()):
        with socket.create_connection((host_, int(port)), timeout=WAIT) as line:
            line.sendall(sent)
            with contextlib.suppress(OSError):
                while line.recv(65536):
                    pass
    with socket.create_connection((host_, int(port)), timeout=WAIT) as line:
        line.sendall(head.encode() + body)
        line.shutdown(socket.SHUT_WR)
    with serving.client() as client:
        assert client.get("/healthz").status_code == 200


WEIGHTS = "GGUF: these weights hold {} and more "
FAILS = {"crash", "bug", "group", "unicode"}


@pytest.mark.parametrize("level", LEVELS)
def test_nothing_is_let_out_whatever_fails(level: str, tmp_path: Path) -> None:
    marks = {"a prompt": marker("PROMPT"), "a weight": marker("WEIGHT")}
    weights = (WEIGHTS.format(marks["a weight"]) * 500).encode()
    with host(tmp_path / "host", level, weights) as serving:
        said = ask_everything(serving, marks["a prompt"])
        serving.end()
    assert [said[name] for name in ("whole", "stream", "completions", "embeddings", "receipt")] == [200] * 5
    assert all(said[how] >= 500 for how in FAILS)
    assert min(said[name] for name in ("json", "model", "member", "value", "deep", "utf8", "key", "ehbp", "sealed")) >= 400
    assert serving.process.returncode == 0
    places = serving.places()
    found = search(marks, places)
    named = "home/named.jsonl"
    if level == "full":
        assert {(mark, place) for mark, place, _ in found} == {("a prompt", named)}
        kept = [json.loads(line) for line in places[named].decode().splitlines()]
        both = [
            line for line in kept if marks["a prompt"] in line["request"] and core(marks["a prompt"]) in line["response"]
        ]
        assert len(both) > 3
    else:
        assert found == set()
        assert named not in places
    _as_much_as_the_level_allows(level, serving, places)


def _as_much_as_the_level_allows(level: str, serving: Host, places: dict[str, bytes]) -> None:
    """The search was not of nothing: what may be seen is there."""
    assert (b"strongroom_requests_total" in serving.metrics) == (level != "none")
    shown = places["stderr"].decode()
    assert ("failure: builtins.RuntimeError at " in shown) == (level in ("failures", "full"))
    assert ("KeyError" in shown) == (level in ("failures", "full"))
    assert len(places["home/serve/receipts.db"]) > 4096
    assert not any("core" in Path(place).name for place in places)


def test_a_process_that_aborts_leaves_no_core_and_no_report(tmp_path: Path) -> None:
    marks = {"a prompt": marker("PROMPT"), "a weight": marker("WEIGHT")}
    with host(tmp_path / "host", "failures", (WEIGHTS.format(marks["a weight"]) * 500).encode()) as serving:
        with serving.client() as client:
            assert client.post("/v1/chat/completions", json=chat(marks["a prompt"])).status_code == 200
        serving.end(signal.SIGABRT)
    assert serving.process.returncode == -signal.SIGABRT
    places = serving.places()
    assert search(marks, places) == set()
    assert not any("core" in Path(place).name for place in places)
    assert b"Fatal Python error" not in places["stderr"]  # not even the stack, which is the operator's from `failures` on


def test_without_discretion_an_abort_leaves_a_report_and_a_core(tmp_path: Path) -> None:
    """The double of the test above."""
    mark = marker("PROMPT")
    with host(tmp_path / "host", "none", b"GGUF: weights", "--leaky") as serving:
        with serving.client() as client:
            client.post("/v1/chat/completions", json=chat(mark))
        serving.end(signal.SIGABRT)
    assert b"Fatal Python error: Aborted" in (tmp_path / "host" / "stderr").read_bytes()
    pattern = Path("/proc/sys/kernel/core_pattern")
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0 or not pattern.exists() or "/" in pattern.read_text():
        pytest.skip("this machine leaves no cores where a test finds them")
    (left,) = (tmp_path / "host" / "cwd").glob("core*")
    assert core(mark).encode() in left.read_bytes()


def test_a_sealed_question_is_in_no_place_either(tmp_path: Path) -> None:
    import strongroom

    marks = {"a prompt": marker("PROMPT"), "a weight": marker("WEIGHT")}
    with host(tmp_path / "host", "failures", (WEIGHTS.format(marks["a weight"]) * 500).encode()) as serving:
        verified = strongroom.verified_client(
            serving.url,
            trust=serving.folder / "home" / "trust.json",
            contract=serving.told["contract"],
            api_key=serving.told["key"],
        )
        with verified as client:
            for how in ("", "bug ", "crash "):
                with contextlib.suppress(httpx.HTTPError):
                    answer = client.post(f"{serving.url}/v1/chat/completions", json=chat(how + marks["a prompt"]))
                    assert (answer.status_code == 200) == (how == "")
        serving.end()
    places = serving.places()
    assert search(marks, places) == set()
    key = serving.told["key"].encode()
    assert [place for place, data in places.items() if key in data] == ["home/told.json"]  # where the test was told


# --- the engine's own process -----------------------------------------------------------------------------------------


def forced(prompt: str, answer: str) -> dict[str, object]:
    """A question whose answer the grammar forces to be this."""
    schema = {"type": "string", "const": answer}
    form = {"type": "json_schema", "json_schema": {"name": "forced", "schema": schema, "strict": True}}
    return chat(prompt, response_format=form, max_tokens=200)


@pytest.mark.parametrize("level", ["none", "full"])
def test_the_engines_own_process_lets_out_nothing(level: str, tmp_path: Path) -> None:
    for needed in ("xllamacpp", "gguf"):
        pytest.importorskip(needed, reason="llama.cpp needs strongroom[chat], and its test files gguf")
    from llama_files import TEMPLATE, write

    marks = {name: marker(word) for name, word in (("a prompt", "PROMPT"), ("an answer", "ANSWER"), ("a weight", "WEIGHT"))}
    template = "{#- " + marks["a weight"] + " -#}" + TEMPLATE
    weights = write(tmp_path / "model.gguf", template=template).read_bytes()
    (tmp_path / "model.gguf").unlink()
    assert core(marks["a weight"]).encode() in weights
    with host(tmp_path / "host", level, weights, "--engine", "real") as serving:
        with serving.client() as client:
            answer = client.post("/v1/chat/completions", json=forced(marks["a prompt"], core(marks["an answer"])))
            assert answer.status_code == 200, answer.text
            assert core(marks["an answer"]) in answer.text
            for broken in (
                {"const": object},
                {"$ref": f"#/{core(marks['a prompt'])}"},
                {"pattern": marks["a prompt"] + "(("},
            ):
                schema = {"type": "string", **{k: v for k, v in broken.items() if v is not object}}
                form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
                client.post("/v1/chat/completions", json=chat(marks["a prompt"], response_format=form, max_tokens=8))
            client.post("/v1/chat/completions", json=chat(marks["a prompt"] * 2000))  # longer than its context
            _kill_child(serving, client, marks["a prompt"])
        serving.end()
    found = search(marks, serving.places())
    if level == "full":
        assert {place for _, place, _ in found} == {"home/named.jsonl"}
        assert {mark for mark, _, _ in found} == {"a prompt", "an answer"}
    else:
        assert found == set()


def _kill_child(serving: Host, client: httpx.Client, mark: str) -> None:
    """The engine's process is killed while it answers."""
    asked = chat(mark, stream=True, max_tokens=500)
    with contextlib.suppress(httpx.HTTPError), client.stream("POST", "/v1/chat/completions", json=asked) as answer:
        pieces = answer.iter_bytes()
        next(pieces)
        for pid in _children(serving.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSEGV)
        for _ in pieces:
            pass


def _children(pid: int) -> list[int]:
    """Every process below one, the deepest first."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found = [*_children(int(child)), int(child), *found]
    return found


# --- the search finds what there is -----------------------------------------------------------------------------------


def test_a_process_that_lets_it_out_is_noticed(tmp_path: Path) -> None:
    """The double: the same process without discretion, whose engine puts the prompt where nothing may stand."""
    mark, weight = marker("PROMPT"), marker("WEIGHT")
    with host(tmp_path / "host", "none", WEIGHTS.format(weight).encode(), "--leaky") as serving:
        with serving.client() as client:
            for how in ("", "thread ", "task ", "library "):
                client.post("/v1/chat/completions", json=chat(how + mark))
        serving.end()
    found = search({"a prompt": mark}, serving.places())
    places = {(place if not place.startswith("tmp/") else "tmp", form.partition("+")[0]) for _, place, form in found}
    wanted = {
        ("stdout", "plain"),
        ("stderr", "base64"),
        ("stderr", "plain"),  # a thread's traceback, a task's, a library's log
        ("home/disk.bin", "HEX"),
        ("cwd/cwd.bin", "utf-16-be"),
        ("tmp", "json"),
        ("home/core", "utf-32-le"),
        ("home/url.txt", "base64url"),
    }
    assert wanted <= places
    shown = serving.places()["stderr"].decode()
    assert "Exception in thread" in shown
    assert "Task exception was never retrieved" in shown
    assert "asked: library" in shown


@pytest.mark.parametrize("around", [b"", b"a", b"ab", b"abc"])
def test_each_form_is_found_wherever_it_stands(around: bytes) -> None:
    mark = marker("PROMPT")
    data = around + mark.encode() + around
    text = data.decode()
    written = {
        "plain": data,
        "hex": data.hex().encode(),
        "HEX": data.hex().upper().encode(),
        "json": json.dumps(text).encode(),
        "address": urllib.parse.quote(text).encode(),
        "repr": repr(data).encode(),
        "upper": data.upper(),
        "reversed": data[::-1],
        "base64": base64.b64encode(data),
        "base64url": base64.urlsafe_b64encode(data),
        **{name: text.encode(name) for name in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")},
    }
    for form, what in written.items():
        found = search({"mark": mark}, {"here": b"..." + what + b"..."})
        assert form in {name.partition("+")[0] for _, _, name in found}, form
    assert search({"mark": marker("PROMPT")}, {"here": b"".join(written.values())}) == set()
