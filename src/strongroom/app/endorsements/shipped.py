"""The vendors' root and intermediate certificates, as they publish them: one PEM file a vendor, in ``certificates/``.

They spare a fetch and pin nothing: a root counts only where an appraisal policy names its key (``attest/roots.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from strongroom.attest.endorsements import CERTIFICATE
from strongroom.attest.evidence import Endorsement
from strongroom.attest.x509 import Certificate, from_pem

_MOST = 16  # in one file
_VENDORS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "azure_snp": ("amd", "microsoft"),
        "azure_tdx": ("intel", "microsoft"),
        "dstack": ("intel", "amd"),
        "nitro": ("amazon",),
        "nras": ("nvidia",),
        "nvidia_cc": ("nvidia",),
        "nvidia_switch": ("nvidia",),
        "sev_snp": ("amd",),
        "sgx": ("intel",),
        "tdx": ("intel",),
        "tpm": ("google", "microsoft"),
    }
)
VENDORS = tuple(sorted({vendor for vendors in _VENDORS.values() for vendor in vendors}))


@cache
def certificates(vendor: str) -> tuple[Certificate, ...]:
    """One vendor's certificates, in the order of its file."""
    data = files(__package__).joinpath("certificates", f"{vendor}.pem").read_bytes()
    return from_pem(data, most=_MOST)


def endorsements(platform: str) -> tuple[Endorsement, ...]:
    """The certificates that evidence of a platform may need; none for a platform that is not known here."""
    return tuple(
        Endorsement(CERTIFICATE, certificate.der)
        for vendor in _VENDORS.get(platform, ())
        for certificate in certificates(vendor)
    )
