"""The sandbox by bubblewrap: one command line, where every option is a line of the policy."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .sandbox_view import DEVICES, HOSTNAME, NOBODY, SCRATCH_BYTES, View

_PLACES = ("/usr/bin/bwrap", "/usr/local/bin/bwrap", "/bin/bwrap")


def find() -> str:
    """Where bubblewrap is installed, or ``""``. Only the system's own folders count: a search path could be anybody's."""
    return next((place for place in _PLACES if Path(place).is_file()), "")


def command(view: View, info: int, calls: int, inner: list[str], hidden: Iterable[str] = ()) -> list[str]:
    """The whole command.

    Args:
        view: what the child sees.
        info: descriptor on which bubblewrap tells the child's process id.
        calls: descriptor from which bubblewrap reads the filter of system calls; -1 for none.
        inner: the command that runs inside.
        hidden: places of /proc where nothing is to be read.
    """
    return [
        find(),
        *("--unshare-all", "--unshare-user", "--disable-userns"),  # no network but a loopback that is down
        *("--uid", str(NOBODY), "--gid", str(NOBODY), "--hostname", HOSTNAME),
        *("--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL", "--clearenv"),
        *("--info-fd", str(info), *(("--seccomp", str(calls)) if calls >= 0 else ())),
        *("--size", str(SCRATCH_BYTES), "--tmpfs", "/tmp"),  # noqa: S108 - the child's own, before anything shown below it
        *(word for path in view.read_only for word in ("--ro-bind", path, path)),
        *(word for target, place in view.links for word in ("--symlink", target, place)),
        # Who is root outside could write the whole machine's settings here, without any capability.
        *("--proc", "/proc", "--remount-ro", "/proc"),
        *(word for place in hidden for word in _hide(place)),
        *(word for device in DEVICES for word in ("--dev-bind", device, device)),
        *("--remount-ro", "/", "--chdir", "/", "--"),
        *inner,
    ]


def _hide(place: str) -> tuple[str, ...]:
    return ("--tmpfs", place, "--remount-ro", place) if Path(place).is_dir() else ("--ro-bind", "/dev/null", place)
