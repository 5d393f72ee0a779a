"""Which platform this machine is, as an enclave sees it from inside: what is looked for, what was found, and the choice.

On hardware nobody stands beside the enclave and measures it, as the simulated platform does: the whole guest is measured,
and the enclave in it asks the processor itself. So the platform is chosen by what is there. It is never ``simulated``
because nothing was there: that platform protects nothing, and is used by name alone.

What is found decides nothing about trust. A guest that its host lies to about its platform gets evidence that no verifier
accepts.

See ``docs/producing.md``.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from strongroom.attest.evidence import Platform
from strongroom.errors import MissingExtra, NoPlatform, PlatformFailed

from . import nscq, nvidia, tsm
from .tpm import Run, Tpm, tools

NAMES = ("azure_snp", "azure_tdx", "dstack", "nitro", "sev_snp", "tdx")
# What stands in front of the processor answers for it: an agent or a paravisor that the processor's own evidence names.
_FRONTS = frozenset({"azure_snp", "azure_tdx", "dstack"})
_BEHIND = frozenset({"sev_snp", "tdx"})
_AZURE_TAG = "7783-7084-3265-9085-8269-3286-77"  # the chassis' asset tag of every machine of Azure's


@dataclass(frozen=True, slots=True)
class Machine:
    """Where to look. Everything is the machine's own by default; tests put theirs here.

    Attributes:
        root: what stands before every path.
        files: how configfs is reached.
        run: runs a tool of tpm2-tools.
        nvml: finds NVIDIA's library for GPUs.
        nscq: finds NVIDIA's library for switches.
    """

    root: Path = Path("/")
    files: tsm.Files = field(default_factory=tsm.Kernel)
    run: Run = field(default_factory=tools)
    nvml: Callable[[], Any] = nvidia.library
    nscq: Callable[[], Any] = nscq.library

    def path(self, path: str | Path) -> Path:
        """A path of this machine's."""
        return self.root / str(path).lstrip("/")


@dataclass(frozen=True, slots=True)
class Sight:
    """One place where a platform was looked for.

    Attributes:
        name: the platform; empty where it cannot be told which.
        seen: what was seen there, for people.
        found: whether the platform is there.
    """

    name: str
    seen: str
    found: bool = False


def look(machine: Machine) -> tuple[Sight, ...]:
    """Look in every place where a processor's platform can be. Raises nothing."""
    return (_dstack(machine), _azure(machine), _nitro(machine), *_kernel(machine))


def found(machine: Machine) -> tuple[Sight, ...]:
    """The platforms that are here, each with what was seen of it; what lies behind another is left out."""
    sights = [sight for sight in look(machine) if sight.found]
    if any(sight.name in _FRONTS for sight in sights):
        sights = [sight for sight in sights if sight.name not in _BEHIND]
    return tuple(sights)


def choose(machine: Machine, named: str | None = None) -> Sight:
    """The one platform that an enclave here can prove itself on.

    Args:
        machine: where to look.
        named: the platform that the operator named; it must be there.

    Raises:
        NoPlatform: none is there, or not the one that was named; more than one, and none was named.
    """
    sights = look(machine)
    if named is not None:
        for sight in sights:
            if sight.found and sight.name == named:
                return sight
        raise NoPlatform(f"{named} is not here. Looked for: {_listed(sights)}")
    here = found(machine)
    if not here:
        raise NoPlatform(f"no confidential hardware is here. Looked for: {_listed(sights)}")
    if len(here) > 1:
        raise NoPlatform(
            f"more than one platform is here: {_listed(here)}",
            hint=f"Say which: --platform {' or '.join(sight.name for sight in here)}",
        )
    return here[0]


def _listed(sights: tuple[Sight, ...]) -> str:
    return "; ".join(f"{sight.name}: {sight.seen}" if sight.name else sight.seen for sight in sights)


def open_platform(machine: Machine, name: str, *, privlevel: int | None = None) -> Platform:
    """The way to a platform that :func:`choose` found.

    Args:
        machine: where it is.
        name: the platform.
        privlevel: on ``sev_snp``, the VMPL that a report is asked for; the lowest number that the kernel has by default.

    Raises:
        PlatformFailed: no such platform.
    """
    if name == "dstack":
        from .dstack import PATH, Dstack

        return Dstack(machine.path(PATH))
    if name.startswith("azure_"):
        from .azure import Azure

        return Azure(name, tpm=Tpm(machine.run))
    if name == "nitro":
        from .nitro import PATH as NSM
        from .nitro import Nsm

        return Nsm(machine.path(NSM))
    if name == "sev_snp" and not machine.path(tsm.ROOT).is_dir():
        from .sev_guest import PATH as SEV_GUEST
        from .sev_guest import SevGuest

        return SevGuest(machine.path(SEV_GUEST), privlevel=privlevel or 0)
    if name in ("sev_snp", "tdx"):
        return tsm.Tsm(name, root=machine.path(tsm.ROOT), files=machine.files, privlevel=privlevel)
    raise PlatformFailed(f"{name[:32]!r} is no platform: {', '.join(NAMES)}")


def devices(machine: Machine) -> tuple[nvidia.Gpus | None, str]:
    """The GPUs that can prove themselves, with their switches where they are needed, or ``None``; and what was seen, for
    people. Raises nothing."""
    if not any(machine.path(path).exists() for path in ("/dev/nvidiactl", "/proc/driver/nvidia")):
        return None, "no NVIDIA GPU is here"
    try:
        gpus = nvidia.Gpus(machine.nvml, machine.nscq)
        seen = gpus.seen
    except MissingExtra as error:
        return None, f"NVIDIA GPUs are here, but {error.message}. {error.hint}"
    except PlatformFailed as error:
        return None, f"NVIDIA GPUs are here, but {error.message}"
    if not gpus.confidential:
        return None, "NVIDIA GPUs are here, but not in confidential mode: they cannot prove themselves"
    return gpus, seen


# --- where to look ----------------------------------------------------------------------------------------------------


def _is(path: Path, kind: Callable[[int], bool]) -> bool:
    try:
        return kind(path.stat().st_mode)
    except OSError:
        return False


def _dstack(machine: Machine) -> Sight:
    from .dstack import PATH

    path = machine.path(PATH)
    here = _is(path, stat.S_ISSOCK)
    return Sight("dstack", f"{path} is {'' if here else 'not '}there", found=here)


def _nitro(machine: Machine) -> Sight:
    from .nitro import PATH

    path = machine.path(PATH)
    here = _is(path, stat.S_ISCHR)
    return Sight("nitro", f"{path} is {'' if here else 'not '}there", found=here)


def _azure(machine: Machine) -> Sight:
    from .azure import REPORT_INDEX, platform_of

    dmi = machine.path("/sys/class/dmi/id/chassis_asset_tag")
    try:
        tag = dmi.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        tag = ""
    if tag != _AZURE_TAG:
        return Sight("azure_snp, azure_tdx", "this is no machine of Azure's (chassis_asset_tag)")
    try:
        name = platform_of(Tpm(machine.run))
    except PlatformFailed as error:
        return Sight("azure_snp, azure_tdx", f"a machine of Azure's, but {error.message}")
    if name is None:
        return Sight("azure_snp, azure_tdx", f"a machine of Azure's without a paravisor's report at {REPORT_INDEX:#010x}")
    return Sight(name, f"a paravisor's report is at {REPORT_INDEX:#010x} of the virtual TPM", found=True)


def _kernel(machine: Machine) -> Iterator[Sight]:
    """What Linux itself can ask: configfs-tsm, or AMD's device where that is absent."""
    from .sev_guest import PATH as SEV_GUEST

    root = machine.path(tsm.ROOT)
    if root.is_dir():
        yield _provider(machine, root)
        return
    device = machine.path(SEV_GUEST)
    here = _is(device, stat.S_ISCHR)
    yield Sight("sev_snp", f"{root} is not there, and {device} is{'' if here else ' not either'}", found=here)
    guest = machine.path("/dev/tdx_guest")
    if _is(guest, stat.S_ISCHR):
        yield Sight("tdx", f"{guest} is there, but {root} is not: mount configfs, or take a kernel of 6.7 or newer")
    else:
        yield Sight("tdx", f"{root} is not there")


def _provider(machine: Machine, root: Path) -> Sight:
    try:
        provider = tsm.provider_of(root, machine.files)
    except OSError as error:
        return Sight("", f"{root} is there, but names no provider: {error.strerror}")
    except PlatformFailed as error:
        return Sight("", f"{root} is there, but {error.message}")
    kind = tsm.PROVIDERS.get(provider)
    if kind is None:
        return Sight("", f"{root} is there, with a provider that is not known here: {provider!r}")
    return Sight(kind.platform, f"{root} is there, with the provider {provider}", found=True)
