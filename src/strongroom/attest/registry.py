"""Which platforms this version can verify. A platform's module is loaded when it is first asked for: some bring XML or CBOR
readers with them, which who meets none of their evidence need not load.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import cast

from .evidence import Verifier

# A name, and the module and attribute ("" for the module itself) that verifies it.
_WHERE: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "azure_snp": ("azure", "AZURE_SNP"),
        "azure_tdx": ("azure", "AZURE_TDX"),
        "dstack": ("dstack", ""),
        "nitro": ("nitro", ""),
        "nras": ("nras", ""),
        "nvidia_cc": ("nvidia", ""),
        "sev_snp": ("snp", ""),
        "sgx": ("sgx", ""),
        "simulated": ("simulated", ""),
        "tdx": ("tdx", ""),
        "tpm": ("tpm", ""),
    }
)
DEVICES = frozenset({"nvidia_cc", "nras"})  # beside a processor, and never alone
PLATFORMS = frozenset(_WHERE) - DEVICES


@cache
def verifier(name: str) -> Verifier | None:
    """What verifies evidence of the platform or device of this name; ``None`` where this version cannot."""
    if name not in _WHERE:
        return None
    module, attribute = _WHERE[name]
    found = import_module(f"{__package__}.{module}")
    return cast("Verifier", getattr(found, attribute) if attribute else found)
