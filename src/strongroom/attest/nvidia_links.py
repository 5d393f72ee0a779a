"""Whether GPUs that leave the links between devices in the clear stand together with the switches at the other end.

In protected PCIe mode what GPUs send each other is not encrypted: whoever is on those links can read it. So each device
there must be one that was verified. A GPU names the switches that its links lead to, and a switch the GPUs; no GPU says what
switches call it, so that of GPUs only the number can be compared.

NVIDIA's own verifier of that mode compares the same for 8 GPUs and 4 switches (nvtrust, ``ppcie-verifier``); here it is for
any number of each. See ``spec/evidence-nvidia.md``.
"""

from __future__ import annotations

from collections.abc import Iterable

from strongroom.errors import DevicesNotAccepted

from .nvidia_device import Claims


def require_together(verified: Iterable[object]) -> None:
    """Whether the devices beside one processor are linked to each other alone, where their links are in the clear.

    Args:
        verified: what was verified of every device, of whatever kind; those that are not NVIDIA's own are left alone.

    Raises:
        DevicesNotAccepted: they are not, or do not say.
    """
    claims = [found for device in verified if isinstance(found := getattr(device, "claims", None), Claims)]
    gpus = [c for c in claims if not c.architecture.is_switch]
    switches = [c for c in claims if c.architecture.is_switch]
    if not any(gpu.protected_pcie for gpu in gpus):
        return
    if not all(gpu.protected_pcie for gpu in gpus):
        raise DevicesNotAccepted("GPUs in protected PCIe mode stand beside one that is not")
    here = {switch.pdi for switch in switches}
    if not here or None in here or len(here) != len(switches):
        raise DevicesNotAccepted("a GPU in protected PCIe mode stands without its switches, each once and with its name")
    for gpu in gpus:
        if gpu.linked != here:
            raise DevicesNotAccepted(
                f"a GPU in protected PCIe mode is linked to {_listed(gpu.linked)}, and there is {_listed(here)}"
            )
    for switch in switches:
        if switch.linked != switches[0].linked or len(switch.linked) != len(gpus):
            raise DevicesNotAccepted(f"a switch is linked to {len(switch.linked)} GPUs or others, and there are {len(gpus)}")


def _listed(names: Iterable[str | None]) -> str:
    return ", ".join(sorted(name or "?" for name in names)) or "nothing"
