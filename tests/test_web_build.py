"""The chat page's built form is what its source builds, to the byte, in whichever folder it is built."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from strongroom.app.web import STATIC

HOME = Path(__file__).parents[1]
WEB = HOME / "web"
NPM = shutil.which("npm")


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source in another folder, with what its lock names."""
    if NPM is None:
        pytest.skip("npm is not installed: the page cannot be built here")
    if not WEB.is_dir():
        pytest.skip("the page's source is not here: this is no checkout")
    folder = tmp_path_factory.mktemp("elsewhere") / "web"
    shutil.copytree(WEB, folder, ignore=shutil.ignore_patterns("node_modules", "test"))
    lock = WEB / "node_modules" / ".package-lock.json"
    if lock.is_file() and lock.stat().st_mtime >= (WEB / "package-lock.json").stat().st_mtime:
        (folder / "node_modules").symlink_to(WEB / "node_modules")
    else:
        ran = npm(folder, "ci", "--no-audit", "--no-fund")
        if ran.returncode:
            pytest.skip(f"npm could not install what the lock names: {ran.stderr.strip().splitlines()[-1:]}")
    return folder


def npm(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    assert NPM is not None
    return subprocess.run(
        [NPM, *words],
        cwd=folder,
        env={**os.environ, "npm_config_update_notifier": "false"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_the_built_form_is_what_the_source_builds(copied: Path, tmp_path: Path) -> None:
    built = tmp_path / "static"
    ran = npm(copied, "run", "build", "--", "--outDir", str(built))
    assert ran.returncode == 0, ran.stderr
    found, kept = files(built), files(STATIC)
    assert found
    assert found.keys() == kept.keys(), "the source has changed since it was built: make web"
    assert [name for name in found if found[name] != kept[name]] == []


def test_the_lock_names_no_host_to_install_from() -> None:
    if not WEB.is_dir():
        pytest.skip("the page's source is not here: this is no checkout")
    packages = json.loads((WEB / "package-lock.json").read_text())["packages"]
    assert len(packages) > 5
    assert [name for name, package in packages.items() if "resolved" in package] == []
    assert [
        name for name, package in packages.items() if name and not package.get("integrity", "").startswith("sha512-")
    ] == []
