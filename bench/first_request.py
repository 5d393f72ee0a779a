"""What verification costs a client: the first request of a cold one, and later ones, beside plain requests to the same room.

One server (``tests/inference_world.py``: the real one around an engine that answers at once) in a process of its own; each
client in a process of its own, so that none shares an interpreter with another, and their kinds by turns, so that a busy
machine is busy for all. Plain is httpx with the same body in the clear. A cold client's first request begins after its
imports, which are told apart, and ends with the last byte of the answer: of the verified one, with the receipt verified.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CLIENTS, REQUESTS = 7, 200
FIRST_MS, LATER_MS = 300.0, 3.0
BODY = {"max_tokens": 8, "messages": [{"content": "How do cells divide?", "role": "user"}]}
CHAT = "/v1/chat/completions"
KINDS = ("plain", "required", "background")


def client(kind: str, room: dict[str, str]) -> dict[str, Any]:
    """One client's life, in milliseconds: its imports, its first request, each later one, and where the time went."""
    began = time.perf_counter()
    import httpx  # noqa: PLC0415 - what is measured

    steps: dict[str, float] = {}
    if kind == "plain":
        imported = time.perf_counter()
        http = httpx.Client(base_url=room["url"], verify=False, headers={"authorization": "Bearer anon-" + "0" * 32})
    else:
        from strongroom.app.client import asking, session, verified  # noqa: PLC0415 - what is measured

        imported = time.perf_counter()
        timed(steps, session, "appraise", "appraise the evidence")
        timed(steps, verified.VerifiedTransport, "_reply", "ask for report, keys, room, receipt")
        timed(steps, asking.Exchange, "__init__", "seal the request")
        timed(steps, asking.Exchange, "feed", "open the answer")
        timed(steps, asking.Exchange, "judge", "examine the receipt")
        how: Any = kind
        http = verified.verified_client(room["url"], trust=room["trust"], contract=room["contract"], receipts=how)
    asked, each, first = {**BODY, "model": room["model"]}, [], {}
    with http:
        for n in range(REQUESTS):
            at = time.perf_counter()
            answer = http.post(CHAT, json=asked)
            each.append(1e3 * (time.perf_counter() - at))
            assert answer.status_code == 200, answer.text
            if n == 0:
                first = dict(steps)
                steps.update(dict.fromkeys(steps, 0.0))
    later = {name: value / (REQUESTS - 1) for name, value in steps.items()}
    return {"first": each[0], "imports": 1e3 * (imported - began), "later": each[1:], "steps": [first, later]}


def timed(steps: dict[str, float], where: Any, name: str, said: str) -> None:
    """Have a function add what it takes to ``steps``."""
    work = getattr(where, name)

    def run(*args: Any, **kwargs: Any) -> Any:
        at = time.perf_counter()
        try:
            return work(*args, **kwargs)
        finally:
            steps[said] = steps.get(said, 0.0) + 1e3 * (time.perf_counter() - at)

    setattr(where, name, run)


def lives() -> dict[str, list[dict[str, Any]]]:
    """Every client's life, by its kind."""
    env = {**os.environ, "PYTHONPATH": str(HERE.parent / "tests")}
    command = [sys.executable, "-m", "inference_world", "--plain", "--padding", "1024"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    assert server.stdout
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    try:
        room = server.stdout.readline()
        for _ in range(CLIENTS):
            for kind in KINDS:
                one = [sys.executable, __file__, kind, room]
                found[kind].append(json.loads(subprocess.run(one, capture_output=True, text=True, check=True).stdout))
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()
    return found


def figures() -> list[dict[str, Any]]:
    found = lives()
    first = {kind: statistics.median(life["first"] for life in found[kind]) for kind in KINDS}
    later = {kind: statistics.median(ms for life in found[kind] for ms in life["later"]) for kind in KINDS}
    imports = {kind: statistics.median(life["imports"] for life in found[kind]) for kind in KINDS}
    how = {"required": "receipt waited for", "background": "receipt in the background"}
    rows = [
        row("a plain client's first request", first["plain"], None, f"median of {CLIENTS} cold clients"),
        row("a plain client's later requests", later["plain"], None, f"median of {CLIENTS * (REQUESTS - 1)}"),
    ]
    for kind, said in how.items():
        rows += [
            row(f"first verified request, {said}: more", first[kind] - first["plain"], FIRST_MS, "than a plain one"),
            row(f"later verified requests, {said}: more", later[kind] - later["plain"], LATER_MS, "than a plain one"),
        ]
    rows.append(row("importing the verified client: more", imports["required"] - imports["plain"], None, "than httpx"))
    for n, when in enumerate(("first", "later")):
        for name in sorted(found["required"][0]["steps"][n]):
            ms = statistics.median(life["steps"][n][name] for life in found["required"])
            rows.append(row(f"{when} verified request: {name}", ms, None, "in the client, waiting included"))
    return rows


def row(name: str, value: float, goal: float | None, beside: str) -> dict[str, Any]:
    return {"name": name, "value": round(value, 2), "unit": "ms", "goal": goal, "better": "lower", "compared_with": beside}


def main() -> None:
    if len(sys.argv) == 3:  # one client, for the process that measures
        print(json.dumps(client(sys.argv[1], json.loads(sys.argv[2]))))
        return
    for found in figures():
        goal = "" if found["goal"] is None else f"goal {found['goal']:g}"
        print(f"{found['name']:<72}{found['value']:>9} {found['unit']:<4}{goal:<10}{found['compared_with']}")


if __name__ == "__main__":
    main()
