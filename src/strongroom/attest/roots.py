"""The vendors' root certificates, by the SHA-256 of their SubjectPublicKeyInfo: what an appraisal policy pins of each.

These are facts that anybody can compare with what the vendor publishes; the policy that an owner signs names them, and this
list is only where ``strongroom attest`` takes them from when it writes a policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["ROOTS"]

_INTEL = {"Intel SGX Root CA": "sha256:a0af031289f5d5d4132f9186068a7fc13628633ba235777472e29b6b6c67a49e"}
_AMD = {
    "ARK-Genoa": "sha256:429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831",
    "ARK-Milan": "sha256:9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9",
    "ARK-Turin": "sha256:4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08",
}
_NVIDIA = {
    "NVIDIA CoRIM signing Root CA": "sha256:dec1dc316477aa851eebdf51327ae9f864bc8d89254657ed1e7eb9168af1e1a3",
    "NVIDIA Device Identity CA": "sha256:a90c4eb5acfd3e3d03a25db6a26b84f720ad0503196c627c21ddd48dd85b06a4",
}
# The service's own root is published nowhere; what is pinned is the authority under it that issues its keys, until 2029.
_NRAS = {
    "NVIDIA Attestation Service GPU Intermediate 004": (
        "sha256:fd32837f954e2c45db073105166dfe6985ae0480bb113fba63b091a75affe896"
    ),
}
_AMAZON = {"aws.nitro-enclaves": "sha256:f2caf5ecc6190b4a8399b78bc58a2bbcd0382375db8a1bfd78a82743874fd225"}
_AZURE = {
    "Azure Virtual TPM Root Certificate Authority 2023": (
        "sha256:5cbc52672ae101263c2976736044a964c1182ce9412c39937183baddcccb8cdf"
    ),
}
_GOOGLE = {
    "EK/AK CA Root": "sha256:56a613f57126a385dd6949294e93b0b566f96ab0573be0c2368e6f5ca779831f",
    "tpm_ek_v1_cloud_host_root-signer-0-2018-04-06T10:58:26-07:00 K:1, 1:Pw003HsFYO4:0:18": (
        "sha256:f23057f4f97d1d90e4cae0ce91d5a0fc99069f0a1bc147021dca33b1e9c4d0d9"
    ),
}

# Platform to a root certificate's common name to the digest of its key. On Azure the hardware's report binds the virtual
# TPM's key, so that the hardware's root is what is pinned there.
ROOTS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "azure_snp": MappingProxyType(_AMD),
        "azure_tdx": MappingProxyType(_INTEL),
        "dstack": MappingProxyType({**_INTEL, **_AMD}),
        "nitro": MappingProxyType(_AMAZON),
        "nras": MappingProxyType(_NRAS),
        "nvidia_cc": MappingProxyType(_NVIDIA),
        "nvidia_switch": MappingProxyType(_NVIDIA),
        "sev_snp": MappingProxyType(_AMD),
        "sgx": MappingProxyType(_INTEL),
        "tdx": MappingProxyType(_INTEL),
        "tpm": MappingProxyType({**_AZURE, **_GOOGLE}),
    }
)
