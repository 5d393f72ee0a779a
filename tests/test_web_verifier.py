"""The browser's verifier says what the Python one says: its types, its lint, and its tests over the same vectors."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from strongroom import wire

HOME = Path(__file__).parents[1]
WEB = HOME / "web"
NPM = shutil.which("npm")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_web", HOME / "vectors" / "make_web.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_transcripts_are_those_that_their_script_writes() -> None:
    if not WEB.is_dir():
        pytest.skip("the page's source is not here: this is no checkout")
    made = maker()
    assert made.WRITTEN.read_text(encoding="utf-8") == made.written(), "python vectors/make_web.py"
    assert made.EXCHANGES.read_text(encoding="utf-8") == made.exchanges(), "python vectors/make_web.py"


@pytest.fixture(scope="module")
def installed() -> Path:
    """The page's source, with what its lock names."""
    if NPM is None:
        pytest.skip("npm is not installed: the page's verifier is not tested here")
    if not WEB.is_dir():
        pytest.skip("the page's source is not here: this is no checkout")
    lock = WEB / "node_modules" / ".package-lock.json"
    if not lock.is_file() or lock.stat().st_mtime < (WEB / "package-lock.json").stat().st_mtime:
        ran = npm("ci", "--no-audit", "--no-fund")
        if ran.returncode:
            pytest.skip(f"npm could not install what the lock names: {ran.stderr.strip().splitlines()[-1:]}")
    return WEB


def npm(*words: str) -> subprocess.CompletedProcess[str]:
    assert NPM is not None
    return subprocess.run(
        [NPM, *words],
        cwd=WEB,
        env={**os.environ, "npm_config_update_notifier": "false", "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("script", ["types", "check", "test"])
def test_the_page_passes_its_own(script: str) -> None:
    ran = npm("run", "--silent", script)
    assert ran.returncode == 0, f"npm run {script}\n{ran.stdout[-4000:]}{ran.stderr[-4000:]}"


# --- in a real browser ------------------------------------------------------------------------------------------------


def cases(folder: str) -> dict[str, Any]:
    found = {path.stem: json.loads(path.read_bytes()) for path in sorted((HOME / "vectors" / folder).glob("*.json"))}
    assert found, folder
    return found


@pytest.fixture(scope="module")
def page(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A page of Chromium's that has the verifier and nothing else; no host is asked for anything."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: it drives the browser")
    if CHROMIUM is None:
        pytest.skip("no Chromium: install Debian's package chromium")
    built = tmp_path_factory.mktemp("browser")
    config = str(installed / "test" / "browser" / "vite.config.ts")
    ran = npm("exec", "--", "vite", "build", "--config", config, "--outDir", str(built), "--logLevel", "warn")
    assert ran.returncode == 0, ran.stderr
    (script,) = built.glob("*.js")
    with driver.sync_playwright() as playing:
        browser = playing.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        found = browser.new_page()
        found.route("**/*", lambda route: route.fulfill(content_type="text/html", body="<!doctype html><title>v</title>"))
        found.goto("https://page.test/")  # a secure context, without which there is no WebCrypto
        found.add_script_tag(content=script.read_text(encoding="utf-8"))
        yield found
        browser.close()


def unspelled(checks: list[list[str]]) -> list[list[str]]:
    """How a document is not in its one spelling, the two parsers say in their own words."""
    return [[number, status, code, "" if code == "wire.not_canonical" else said] for number, status, code, said in checks]


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["appraisal", "sev_snp", "tdx"])
def test_a_real_browser_says_what_python_says(page: Any, folder: str) -> None:
    expected = json.loads(maker().WRITTEN.read_bytes())[folder]
    work = "one => vectors.appraisal(one)" if folder == "appraisal" else f"one => vectors.hardware({folder!r}, one)"
    found = page.evaluate(f"async all => Promise.all(all.map({work}))", list(cases(folder).values()))
    assert len(found) == len(expected) > 50
    for name, checks in zip(cases(folder), found, strict=True):
        assert unspelled(checks) == unspelled(expected[name]), name


def altered(data: bytes, dice: random.Random) -> bytes:
    """The bytes with one of them changed, left out or put in, or cut."""
    at = dice.randrange(len(data))
    changes = (
        data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :],
        data[:at] + dice.choice((b"\0", b"\x30", b"\x7f", b"\x80", b"\xff")) + data[at + 1 :],
        data[:at] + data[at + 1 :],
        data[:at] + bytes([dice.randrange(256)]) + data[at:],
        data[:at],
    )
    return dice.choices(changes, (6, 1, 1, 1, 1))[0]


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["sev_snp", "tdx"])
def test_a_real_browser_refuses_what_python_refuses(page: Any, folder: str) -> None:
    """Evidence and endorsements with a byte changed: both accept them, or neither does."""
    dice = random.Random(5)
    made = maker()
    by, more = (made.snp, {}) if folder == "sev_snp" else (made.tdx, {"ask_second": False})
    good = [case for case in cases(folder).values() if case["expect"] == "ok"]
    chosen = []
    for _ in range(250):
        case = json.loads(json.dumps(dice.choice(good)))
        if dice.random() < 0.25:
            case["evidence"] = wire.b64(altered(wire.unb64(case["evidence"]), dice))
        else:
            document = dice.choice(case["endorsements"])
            document["data"] = wire.b64(altered(wire.unb64(document["data"]), dice))
        chosen.append(case)
    expected = [made.hardware(by, case, **more) for case in chosen]
    found = page.evaluate(f"async all => Promise.all(all.map(one => vectors.hardware({folder!r}, one)))", chosen)

    def accepted(checks: list[list[str]]) -> bool:
        return all(status == "passed" for _, status, *_ in checks)

    assert [accepted(checks) for checks in found] == [accepted(checks) for checks in expected]
    assert 0 < sum(map(accepted, expected)) < len(chosen)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "operation", "work"),
    [("ehbp", "sealed response", "response"), ("party", "signature", "signature")],
    ids=["encryption", "signatures"],
)
def test_a_real_browsers_cryptography_is_the_vectors(page: Any, folder: str, operation: str, work: str) -> None:
    chosen = {name: case for name, case in cases(folder).items() if case["operation"] == operation}
    found = page.evaluate(f"async all => Promise.all(all.map(one => vectors.{work}(one)))", list(chosen.values()))
    assert dict(zip(chosen, found, strict=True)) == {name: case["expect"] for name, case in chosen.items()}
    assert len(chosen) > 10
