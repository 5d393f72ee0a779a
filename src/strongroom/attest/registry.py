"""Which platforms this version can verify. A platform's module is loaded when it is first asked for: some bring XML or CBOR
readers with them, which who meets none of their evidence need not load.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import cast

from strongroom.errors import DevicesNotAccepted

from .evidence import Verified, Verifier

# A name, and the module and attribute ("" for the module itself) that verifies it.
_WHERE: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "azure_snp": ("azure", "AZURE_SNP"),
        "azure_tdx": ("azure", "AZURE_TDX"),
        "dstack": ("dstack", ""),
        "nitro": ("nitro", ""),
        "nras": ("nras", ""),
        "nvidia_cc": ("nvidia", ""),
        "nvidia_switch": ("nvidia_switch", ""),
        "sev_snp": ("snp", ""),
        "sgx": ("sgx", ""),
        "simulated": ("simulated", ""),
        "tdx": ("tdx", ""),
        "tpm": ("tpm", ""),
    }
)
DEVICES = frozenset({"nras", "nvidia_cc", "nvidia_switch"})  # beside a processor, and never alone
PLATFORMS = frozenset(_WHERE) - DEVICES


@cache
def verifier(name: str) -> Verifier | None:
    """What verifies evidence of the platform or device of this name; ``None`` where this version cannot."""
    if name not in _WHERE:
        return None
    module, attribute = _WHERE[name]
    found = import_module(f"{__package__}.{module}")
    return cast("Verifier", getattr(found, attribute) if attribute else found)


def require_together(verified: Iterable[tuple[str, Verified]]) -> None:
    """What holds of all devices beside one processor, and not of one alone.

    A kind of device whose links to others matter has a ``require_together`` of its own, which is asked about all of them.

    Args:
        verified: of every device its kind and what was verified of it.

    Raises:
        DevicesNotAccepted: a kind's own check says so, or fails.
    """
    found = tuple(verified)
    hooks = dict.fromkeys(getattr(verifier(name), "require_together", None) for name, _ in found)
    for hook in filter(None, hooks):
        try:
            hook([one for _, one in found])
        except DevicesNotAccepted:
            raise
        except Exception as error:  # a check that was not made to the end did not pass
            raise DevicesNotAccepted(f"the devices could not be held against each other: {type(error).__name__}") from error
