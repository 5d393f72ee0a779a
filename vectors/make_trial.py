"""Writes ``vectors/trial``: what a proposer may say that code did on mocks, and what is none.

It is the same each time: ``python vectors/make_trial.py``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from strongroom import wire
from strongroom.trial import MAX_CONTENT_BYTES, MAX_LOG, MAX_WHY, Trial, fitting

HERE = Path(__file__).parent
BUNDLE, PARAMETERS, MOCK = (wire.digest(what) for what in (b"the code", b"the parameters", b"the mock"))
MEAN = b'{"mean":41.25}'
OK = Trial(
    bundle=BUNDLE,
    parameters=PARAMETERS,
    inputs={"census": MOCK},
    outputs=fitting({"summary": ("values", MEAN)}),
    refused={"plot": "the picture has more than 4,096 pixels on a side"},
    failure=None,
    log="reading\n",
)
FAILED = Trial(BUNDLE, PARAMETERS, {"census": MOCK}, {}, {}, "program.crashed", "Traceback …\n")
LARGE = Trial(
    BUNDLE,
    PARAMETERS,
    {"census": MOCK},
    fitting({"weights": ("tensors", bytes(MAX_CONTENT_BYTES + 1)), "mean": ("values", MEAN)}),
    {},
    None,
    "",
)

Cases = dict[str, dict[str, Any]]


def put(value: Any, path: str, member: Any) -> Any:
    """The same, but for one member."""
    found = json.loads(json.dumps(value))
    inner = found
    *way, last = path.split("/")
    for name in way:
        inner = inner[name]
    inner[last] = member
    return found


def cases() -> Cases:
    ok, bad, found = OK.to_json(), "wire.bad_field", Cases()

    def say(name: str, what: str, expect: str, payload: bytes) -> None:
        assert name not in found
        found[name] = {"description": what, "expect": expect, "trial": wire.b64(payload)}

    def wrong(name: str, what: str, path: str, member: Any) -> None:
        say(name, what, bad, wire.encode(put(ok, path, member)))

    say("ok", "an output that would have left, and one that would not", "ok", OK.encode())
    say("ok-failed", "it ended with an error", "ok", FAILED.encode())
    say("ok-large", "an output that is too large to travel is named by its digest", "ok", LARGE.encode())
    wrong("content-other", "other bytes than those of the digest", "outputs/summary/content", wire.b64(b'{"mean":41.26}'))
    wrong("content-longer", "another length than the bytes have", "outputs/summary/bytes", len(MEAN) + 1)
    wrong("content-text", "bytes that are no base64", "outputs/summary/content", "{}")
    wrong("left-and-refused", "an output that left and was refused", "refused/summary", "it is too large")
    wrong("failed-and-left", "it failed, and something left", "failure", "program.crashed")
    wrong("failure-text", "a failure that is no code", "failure", "it crashed: see the log")
    wrong("output-name", "an output whose name is none", "outputs/<b>", ok["outputs"]["summary"])  # type: ignore[index,call-overload]
    wrong("input-name", "a role whose name is none", "inputs/ ", MOCK)
    wrong("input-no-digest", "an input without a digest", "inputs/census", "mock.csv")
    wrong("long-log", "more of a log than travels", "log", "x" * (MAX_LOG + 1))
    wrong("long-why", "a longer reason than travels", "refused/plot", "x" * (MAX_WHY + 1))
    wrong("outputs-list", "outputs as a list", "outputs", [])
    wrong("many-inputs", "more roles than there may be", "inputs", {f"r{n}": MOCK for n in range(65)})
    wrong("another-format", "another format", "format", "strongroom.trial.v2")
    wrong("unknown-member", "a member of another version", "seconds", 1)
    wrong("unknown-member-of-output", "an output with a further member", "outputs/summary/name", "summary")
    say("missing-member", "no log", bad, wire.encode({k: v for k, v in ok.items() if k != "log"}))
    say("spaced", "a space after a colon", "wire.not_canonical", OK.encode().replace(b":", b": ", 1))
    say("cut", "the end is missing", "wire.not_json", OK.encode()[:-1])
    return found


def main() -> None:
    place = HERE / "trial"
    place.mkdir(exist_ok=True)
    for old in place.glob("*.json"):
        old.unlink()
    for name, case in cases().items():
        (place / f"{name}.json").write_text(json.dumps(case, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
