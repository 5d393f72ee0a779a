"""The registers of a dstack app on TDX, as far as they follow from its ``app-compose.json``.

The composition is measured byte for byte: its SHA-256 is the event ``compose-hash``, its first 20 bytes the app's id unless
a contract gives another, and dstack's host puts it into MRCONFIGID: 01, the hash, 15 zero bytes. Where the composition names
its key provider's id, newer hosts commit to a whole configuration instead (03). That names the machine's own instance, and
is no part of a measurement. The system itself (MRTD, RTMR0 to RTMR2) is measured by the firmware, from dstack's image and
the machine's size: those come from its own build (``dstack-mr``) or from evidence of a first start.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType

from strongroom import wire
from strongroom.attest.evidence import Measurement
from strongroom.errors import BadField, WireError
from strongroom.wire import Fields

from .expected import Expected, unfit

MAX_COMPOSE_BYTES = 4 << 20
PROVIDERS: Mapping[str, str] = MappingProxyType({"kms": "kms", "local": "local-sgx", "none": "none", "tpm": "tpm"})
CONFIGURATIONS = ("none", "v1", "v3")
SYSTEM: Mapping[str, str] = MappingProxyType(
    {
        "mrtd": "the firmware: dstack-mr measure, of the system's image and the machine's size",
        "rtmr0": "the machine's layout: dstack-mr measure",
        "rtmr1": "the kernel: dstack-mr measure",
        "rtmr2": "the kernel's command line and initial disk: dstack-mr measure",
    }
)
_ZEROS = "sha384:" + "00" * 48
_HOSTS = ("mrconfigid", "mrowner", "mrownerconfig")  # set by a TDX host


def mr_config_v1(compose_hash: bytes) -> bytes:
    """The 48 bytes of MRCONFIGID for a composition's SHA-256."""
    return b"\x01" + compose_hash + bytes(15)


def app_id(compose_hash: bytes) -> str:
    """dstack's own name of an app to which no contract gave one, in hex."""
    return compose_hash[:20].hex()


def expected(
    compose: bytes,
    *,
    provider: str | None = None,
    provider_id: str | None = None,
    configuration: str | None = None,
    storage_fs: str | None = None,
    given: Mapping[str, str] = MappingProxyType({}),
    evidence: Measurement | None = None,
) -> Expected:
    """The registers of ``dstack`` on TDX.

    Args:
        compose: ``app-compose.json``, byte for byte.
        provider: who holds the app's keys: ``none``, ``local``, ``kms`` or ``tpm``; else as the composition says.
        provider_id: its id in hex (a KMS's root key), else as the composition says.
        configuration: what the host puts into MRCONFIGID: ``none`` (zeros), ``v1``, ``v3``; else as is implied.
        storage_fs: the file system's name, where the system measures it (``zfs``).
        given: further registers, from dstack's own tools.
        evidence: of a first start, verified: the rest is taken from it, and what was computed must be in it.

    Raises:
        NotMeasurable: no composition, a register that is computed and given otherwise, or evidence of another app.
    """
    said = _said(compose)
    compose_hash = hashlib.sha256(compose).digest()
    found = {"compose_hash": wire.digest(compose), "mrowner": _ZEROS, "mrownerconfig": _ZEROS}
    provider, provider_id = provider or said[0], said[1] if provider_id is None else provider_id
    configuration = configuration or ("v3" if said[1] else "v1")
    if configuration != "v3":
        found["mrconfigid"] = _ZEROS if configuration == "none" else f"sha384:{mr_config_v1(compose_hash).hex()}"
    missing = dict(SYSTEM)
    if provider_id or provider == "none":
        event = json.dumps({"name": PROVIDERS[provider], "id": provider_id}, separators=(",", ":"))
        found["key_provider"] = wire.digest(event.encode())
    else:
        missing["key_provider"] = f"the id of the key provider ({provider}): --key-provider-id HEX"
    if storage_fs is not None:
        found["storage_fs"] = wire.digest(storage_fs.encode())
    found = _joined(found, given, "is given")
    build = f"app-compose.json sha256:{compose_hash.hex()}"
    if evidence is not None:
        return Expected(
            platform="dstack", registers=_confirmed(found, evidence), build=f"{build}; the rest as of a first start"
        )
    missing = {name: where for name, where in missing.items() if name not in found}
    return Expected(platform="dstack", registers=found, missing=missing, build=build)


def _said(compose: bytes) -> tuple[str, str]:
    """Which key provider a composition names, and its id in hex or nothing. Raises NotMeasurable."""
    try:
        value = wire.loads(compose, max_bytes=MAX_COMPOSE_BYTES)
        f = Fields(value, "app-compose.json")
        name, key = f.any("key_provider") if f.has("key_provider") else None, ""
        if f.has("key_provider_id"):
            key = f.text("key_provider_id", max_chars=4096)
            bytes.fromhex(key)
        if name is None:
            kms, local = (f.has(flag) and f.boolean(flag) for flag in ("kms_enabled", "local_key_provider_enabled"))
            name = "kms" if kms else "local" if local else "none"
        if not f.has("manifest_version") or name not in PROVIDERS:
            raise BadField("it has no manifest_version, or an unknown key provider")
    except (WireError, ValueError, TypeError) as error:
        why = error.message if isinstance(error, WireError) else "its key provider is not readable"
        raise unfit(f"not an app-compose.json of dstack's: {why}") from error
    return name, key.lower()


def _joined(found: Mapping[str, str], more: Mapping[str, str], what: str) -> dict[str, str]:
    """Both, where none contradicts the other. Raises NotMeasurable."""
    for name in sorted(found.keys() & more.keys()):
        if found[name] != more[name]:
            raise unfit(
                f"register {name} {what} as {more[name][:30]}…, and computed as {found[name][:30]}…",
                "Say what differs: --mr-config, --key-provider and --key-provider-id, --storage-fs, or another composition.",
            )
    return {**found, **more}


def _confirmed(found: Mapping[str, str], evidence: Measurement) -> dict[str, str]:
    """The registers of a first start, where it was this app's. Raises NotMeasurable."""
    seen = evidence.registers
    if "measurement" in seen:  # on SEV-SNP, where a host sets other registers
        found = {name: value for name, value in found.items() if name not in _HOSTS}
    if strange := sorted(found.keys() - seen.keys()):
        raise unfit(
            f"the evidence has no register {strange[0]}",
            "Where MRCONFIGID commits to a whole configuration: --mr-config v3. Else it is of another platform.",
        )
    return _joined(found, seen, "was measured")
