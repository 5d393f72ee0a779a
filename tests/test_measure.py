"""What is measured, and that an enclave starts with that and nothing else."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from strongroom.app.enclave import launch, measure
from strongroom.app.enclave.launch import Image
from strongroom.app.enclave.measure import Distribution, FileDigests, Installation, closure
from strongroom.errors import NotMeasurable

LATER = 2**62  # nanoseconds: every file has settled


def settled() -> FileDigests:
    return FileDigests(lambda: LATER, threads=2)


@pytest.fixture
def place(tmp_path) -> Installation:
    """A small installation: a package, one distribution, an interpreter."""
    return _install(tmp_path / "one")


def _install(base: Path) -> Installation:
    files = {
        "src/strongroom/__init__.py": b"",
        "src/strongroom/programs/evaluate.py": b"print('fair')\n",
        "site/dep/__init__.py": b"x = 1\n",
        "site/dep/big.bin": bytes(200_000),
        "site/single.py": b"",
        "site/dep-1.0.dist-info/METADATA": b"Name: dep\n",
        "site/dep-1.0.dist-info/RECORD": f"{base}".encode(),
        "site/dep-1.0.dist-info/INSTALLER": f"{base.name}\n".encode(),
        "python/bin/python3.11": b"\x7fELF",
        "python/lib/libpython3.11.so": b"\x7fELF so",
        "python/lib/python3.11/os.py": b"# os\n",
        "python/lib/python3.11/lib-dynload/m.so": b"m",
        "python/lib/python3.11/site-packages/pip.py": f"{base}".encode(),
        "python/lib/python3.11/test/test_os.py": f"{base}".encode(),
        "python/lib/python3.11/config-3.11-x/Makefile": f"{base}".encode(),
    }
    for name, data in files.items():
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_bytes(data)
    return Installation(
        package=base / "src/strongroom",
        distributions=(Distribution("dep", "1.0", base / "site", ("dep", "dep-1.0.dist-info", "single.py")),),
        interpreter=base / "python/bin/python3.11",
        library=base / "python/lib/python3.11",
        shared_library=base / "python/lib/libpython3.11.so",
        version="cpython-3.11.7",
    )


def registers(place: Installation) -> dict[str, str]:
    return dict(place.measure(settled()).registers)


def test_two_installations_of_the_same_bytes_measure_the_same(tmp_path):
    one, two = _install(tmp_path / "one"), _install(tmp_path / "elsewhere/two")
    (two.package / "__pycache__").mkdir()
    (two.package / "__pycache__/evil.cpython-311.pyc").write_bytes(b"planted")
    (two.distributions[0].site / "dep-1.0.dist-info/direct_url.json").write_text("{}")
    assert one.measure(settled()) == two.measure(settled())


def test_a_register_can_be_made_again_with_sha256sum(place):
    lines = b""
    for name in ("strongroom/__init__.py", "strongroom/programs/evaluate.py"):
        lines += (
            hashlib.sha256((place.package.parent / name).read_bytes()).hexdigest().encode() + b"  " + name.encode() + b"\n"
        )
    assert registers(place)["package"] == "sha256:" + hashlib.sha256(lines).hexdigest()


@pytest.mark.parametrize(
    ("register", "name"),
    [
        ("package", "src/strongroom/programs/evaluate.py"),
        ("dependencies", "site/dep/__init__.py"),
        ("dependencies", "site/dep/big.bin"),
        ("dependencies", "site/single.py"),
        ("dependencies", "site/dep-1.0.dist-info/METADATA"),
        ("interpreter", "python/bin/python3.11"),
        ("interpreter", "python/lib/libpython3.11.so"),
        ("interpreter", "python/lib/python3.11/os.py"),
        ("interpreter", "python/lib/python3.11/lib-dynload/m.so"),
    ],
)
def test_an_edited_file_changes_its_register_and_no_other(place, tmp_path, register, name):
    before = registers(place)
    path = tmp_path / "one" / name
    path.write_bytes(path.read_bytes() + b"#")
    after = registers(place)
    assert {n for n in before if before[n] != after[n]} == {register}


@pytest.mark.parametrize(
    ("register", "name"),
    [
        ("package", "src/strongroom/programs/added.py"),
        ("package", "src/strongroom/programs/json.so"),
        ("package", "src/strongroom/programs/sourceless.pyc"),
        ("dependencies", "site/dep/RECORD"),
        ("interpreter", "python/lib/python3.11/sitecustomize.py"),
    ],
)
def test_an_added_file_changes_its_register(place, tmp_path, register, name):
    before = registers(place)
    (tmp_path / "one" / name).write_bytes(b"")
    assert registers(place)[register] != before[register]


def test_a_removed_or_renamed_file_changes_its_register(place):
    seen = {registers(place)["package"]}
    program = place.package / "programs/evaluate.py"
    program.rename(place.package / "programs/other.py")
    seen.add(registers(place)["package"])
    (place.package / "programs/other.py").unlink()
    seen.add(registers(place)["package"])
    assert len(seen) == 3


def test_names_and_versions_are_measured(place):
    dep = place.distributions[0]
    changed = [replace(place, distributions=(replace(dep, version="1.1"),)), replace(place, version="cpython-3.11.8")]
    changed += [replace(place, module="strongroom.app.enclave.other"), replace(place, shared_library=None)]
    found = {place.measure(settled()), *(c.measure(settled()) for c in changed)}
    assert len(found) == 5


def test_a_link_to_a_file_counts_as_the_file(place, tmp_path):
    before = registers(place)
    program = place.package / "programs/evaluate.py"
    target = tmp_path / "elsewhere.py"
    program.rename(target)
    program.symlink_to(target)
    assert registers(place) == before
    target.write_bytes(b"print('unfair')\n")
    assert registers(place) != before


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _deep(path: Path) -> None:
    for _ in range(66):
        path /= "d"
    path.mkdir(parents=True)


@pytest.mark.parametrize(
    "plant",
    [
        lambda path: path.symlink_to(path.parent),
        lambda path: path.symlink_to("/nowhere"),
        lambda path: path.with_name("a\nb").write_bytes(b""),
        _fifo,
        _deep,
    ],
    ids=["link-to-folder", "dangling-link", "line-break", "fifo", "too-deep"],
)
def test_what_cannot_be_measured_for_sure_is_refused(place, plant):
    plant(place.package / "planted")
    with pytest.raises(NotMeasurable):
        place.measure(settled())


@pytest.mark.parametrize("missing", ["site/dep", "site/single.py", "python/bin/python3.11", "src/strongroom"])
def test_what_is_missing_is_refused(place, tmp_path, missing):
    path = tmp_path / "one" / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(NotMeasurable, match="cannot be read"):
        place.measure(settled())


def test_an_interpreter_that_is_no_file_is_refused(place):
    with pytest.raises(NotMeasurable, match="no regular file"):
        replace(place, interpreter=place.library).measure(settled())


@pytest.mark.parametrize(
    "name",
    [
        "bin/pyvenv.cfg",
        "pyvenv.cfg",
        "bin/pybuilddir.txt",
        "bin/python3.11._pth",
        "lib/libpython3.11.so._pth",
        "lib/python{}{}.zip",
        "bin/lib/python3.11/os.py",
        "bin/lib/python3.11/lib-dynload",
    ],
)
def test_a_file_that_steers_the_interpreter_elsewhere_is_refused(place, tmp_path, name):
    path = tmp_path / "one/python" / name.format(*sys.version_info[:2])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    with pytest.raises(NotMeasurable, match="steers"):
        place.measure(settled())


def test_two_distributions_in_different_folders_cannot_share_a_name(place, tmp_path):
    other = Distribution("other", "1", tmp_path / "other", ("dep",))
    with pytest.raises(NotMeasurable, match="installed twice"):
        _ = replace(place, distributions=(*place.distributions, other)).links
    same = Distribution("other", "1", tmp_path / "one/site", ("dep",))
    assert replace(place, distributions=(*place.distributions, same)).links == place.links


def test_the_same_label_twice_is_refused(place):
    path = place.package / "__init__.py"
    found = ("a", str(path), path.stat())
    with pytest.raises(NotMeasurable, match="twice"):
        settled().lines([found, found])


# --- remembering ------------------------------------------------------------------------------------------------------


@pytest.fixture
def hashed(monkeypatch) -> list[str]:
    paths: list[str] = []
    original = measure._hash

    def counted(path: str):
        paths.append(Path(path).name)
        return original(path)

    monkeypatch.setattr(measure, "_hash", counted)
    return paths


def test_a_second_measurement_reads_only_what_changed(place, hashed):
    digests = settled()
    before = place.measure(digests)
    assert len(hashed) > 8
    hashed.clear()
    assert place.measure(digests) == before
    assert hashed == []
    (place.package / "programs/evaluate.py").write_bytes(b"print('unfair!')\n")
    assert place.measure(digests) != before
    assert hashed == ["evaluate.py"]


def test_an_edit_that_puts_size_and_time_back_is_noticed(place):
    digests = settled()
    before = place.measure(digests)
    program = place.package / "programs/evaluate.py"
    status = program.stat()
    while program.stat().st_ctime_ns == status.st_ctime_ns:  # until the file system's clock has moved on
        program.write_bytes(b"print('foul')\n")
        os.utime(program, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (program.stat().st_size, program.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert place.measure(digests) != before


def test_a_file_that_changed_just_now_is_read_again(place, hashed):
    path = place.package / "programs/evaluate.py"
    digests = FileDigests(lambda: path.stat().st_ctime_ns + 1_000_000_000, threads=1)
    place.measure(digests)
    hashed.clear()
    place.measure(digests)
    assert "evaluate.py" in hashed


def test_a_file_that_changes_while_it_is_read_is_refused(place, monkeypatch):
    numbers = iter(range(1000))
    monkeypatch.setattr(measure, "_key", lambda _: (0, next(numbers), 0, 0, 0))
    with pytest.raises(NotMeasurable, match="while it is measured"):
        place.measure(settled())


def test_a_file_that_vanishes_before_it_is_read_is_refused():
    with pytest.raises(NotMeasurable, match="cannot be read"):
        measure._hash("/nowhere/at/all")


# --- what is installed here ---------------------------------------------------------------------------------------------


def test_this_installation_measures_the_same_twice():
    place = Installation.here()
    digests = FileDigests()
    found = place.measure(digests)
    assert found == place.measure(digests)
    assert set(found.registers) == {"package", "dependencies", "interpreter", "launch"}
    names = {d.name for d in place.distributions}
    assert {"cryptography", "onnxruntime", "scikit-learn", "pyarrow"} <= names
    assert not {"strongroom", "pytest", "hypothesis", "ruff"} & names
    assert "strongroom" in place.links
    assert not any(".." in name or name == "__pycache__" for name in place.links)


def test_a_distribution_that_is_not_there_is_refused(monkeypatch):
    with pytest.raises(NotMeasurable, match="not installed"):
        Distribution.find("strongroom-no-such-thing")
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: ["strongroom-no-such-thing"])
    with pytest.raises(NotMeasurable, match="not installed"):
        closure("strongroom", "room")


def test_a_distribution_without_a_listing_is_refused(monkeypatch):
    class Unlisted:
        version = "1"

        @staticmethod
        def read_text(_name):
            return None

    monkeypatch.setattr(importlib.metadata, "distribution", lambda _: Unlisted())
    with pytest.raises(NotMeasurable, match="listing"):
        Distribution.find("unlisted")


def test_without_packaging_nothing_is_measured(monkeypatch):
    monkeypatch.setitem(sys.modules, "packaging.requirements", None)
    with pytest.raises(NotMeasurable, match="packaging"):
        closure("strongroom", "room")


def test_the_shared_library_is_the_one_that_is_loaded(tmp_path, monkeypatch):
    library = tmp_path / "libpython3.11.so.1.0"
    library.write_bytes(b"")
    maps = tmp_path / "maps"
    maps.write_text(f"7f00-7f01 r-xp 0000 00:00 12   {library}\n7f02-7f03 r--p 0000 00:00 12   {library}\n")
    assert measure._shared_library(maps) == library
    maps.write_text("7f00-7f01 r-xp 0000 00:00 12   /usr/bin/python3.11\n")
    assert measure._shared_library(maps) is None
    named = {"LIBDIR": str(tmp_path), "LDLIBRARY": library.name, "Py_ENABLE_SHARED": 1}
    monkeypatch.setattr(measure.sysconfig, "get_config_var", named.get)
    assert measure._shared_library(tmp_path / "none") == library
    named["Py_ENABLE_SHARED"] = 0
    assert measure._shared_library(tmp_path / "none") is None


# --- images -------------------------------------------------------------------------------------------------------------


def build(place: Installation, state: Path) -> Image:
    return launch.build(state, place.measure(settled()).digest, place.links, place.interpreter, place.library)


def test_an_image_holds_links_to_what_was_measured_and_nothing_else(place, tmp_path):
    image = build(place, tmp_path / "state")
    assert {path.name: path.readlink() for path in image.packages.iterdir()} == place.links
    assert list(image.pycache.iterdir()) == []
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0
    assert build(place, tmp_path / "state") == image


def test_two_installations_of_the_same_bytes_do_not_share_an_image(tmp_path):
    one, two = (build(_install(tmp_path / name), tmp_path / "state") for name in ("one", "two"))
    assert one.packages != two.packages
    assert one.pycache != two.pycache


def test_an_edited_program_does_not_find_the_bytecode_of_the_old_one(place, tmp_path):
    before = build(place, tmp_path / "state")
    (place.package / "programs/evaluate.py").write_bytes(b"print('unfair')\n")
    assert build(place, tmp_path / "state").pycache != before.pycache


def test_an_altered_image_is_refused(place, tmp_path):
    packages = build(place, tmp_path / "state").packages
    (packages / "planted.py").write_bytes(b"")
    with pytest.raises(NotMeasurable, match="altered"):
        build(place, tmp_path / "state")
    (packages / "planted.py").unlink()
    (packages / "single.py").unlink()
    (packages / "single.py").symlink_to("/elsewhere.py")
    with pytest.raises(NotMeasurable, match="altered"):
        build(place, tmp_path / "state")


def test_two_platforms_may_make_the_same_image_at_once(place, tmp_path, monkeypatch):
    rename = Path.rename

    def beaten(self, target):
        shutil.copytree(self, target, symlinks=True)
        raise OSError("Directory not empty")

    monkeypatch.setattr(Path, "rename", beaten)
    image = build(place, tmp_path / "state")
    monkeypatch.setattr(Path, "rename", rename)
    assert build(place, tmp_path / "state") == image

    def broken(self, target):
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(OSError, match="space"):
        build(place, tmp_path / "another state")


def test_the_command_isolates_the_interpreter(place, tmp_path):
    image = build(place, tmp_path / "state")
    command = image.command("a.module", "--x", parent=7)
    assert command[:5] == [str(place.interpreter), "-I", "-S", "-X", "utf8"]
    assert f"pycache_prefix={image.pycache}" in command
    assert command[-3:] == ["7", "a.module", "--x"]
    assert image.command("a.module")[-2:] == [launch.UNTIED, "a.module"]
    assert launch.register("a") != launch.register("b")


def test_images_where_others_may_write_are_refused(place, tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    with pytest.raises(NotMeasurable):
        build(place, tmp_path / "state")


def test_old_images_that_nobody_uses_are_removed(tmp_path):
    images = tmp_path / "state"
    used = build(_install(tmp_path / "used"), images)
    with launch.held(used):
        made = [build(_install(tmp_path / f"n{n}"), images) for n in range(launch.KEPT_IMAGES + 2)]
        for age, image in enumerate([used, *made]):
            os.utime(image.packages.parent, (age, age))
        with launch.held(made[-1]):
            assert used.packages.is_dir()  # the oldest, and in use
        assert not made[0].packages.exists()
        assert made[-1].packages.is_dir()
        assert (tmp_path / "n0").is_dir()  # what its links led to is still there


def test_an_enclave_is_measured_with_the_extras_that_it_is_started_with_and_no_others():
    pytest.importorskip("inspect_ai", reason="strongroom[evals] is not installed")
    plain, more = Installation.here(), Installation.here(["evals"])
    assert "inspect-ai" in {d.name.replace("_", "-") for d in more.distributions}
    assert "inspect_ai" not in plain.links
    assert set(plain.links) < set(more.links)
    with pytest.raises(NotMeasurable, match="no other extras"):
        Installation.here(["everything"])
