"""What evidence of an Azure machine says, before anybody has checked it: hardware report, runtime data, quote.

See ``spec/evidence-azure-vtpm.md``, "Layout".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field
from typing import Any, Self

from strongroom import wire
from strongroom.errors import BadEvidence, BadField, WireError
from strongroom.wire import Fields

from .evidence import REPORT_DATA_BYTES, Evidence
from .tpm2 import PublicKey, rsa_key
from .tpm_quote import Quote

FORMAT = "strongroom.azure-vtpm.v1"
MAX_AZURE_BYTES = 64 << 10
MAX_HARDWARE_BYTES = 40 << 10
MAX_RUNTIME_BYTES = 4 << 10
HASHES = ("sha256", "sha384", "sha512")
_KEY_ID = "HCLAkPub"
_MACHINE_ID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\Z")


@dataclass(frozen=True, slots=True)
class RuntimeData:
    """What the paravisor says of the machine that it started. **Untrusted** until the hardware's report holds its digest.

    Attributes:
        key: the virtual TPM's attestation key.
        secure_boot: whether the machine starts only what is signed.
        console: whether its owner, or Azure, can have a console.
        machine_id: Azure's name of the machine, for people.
    """

    key: PublicKey
    secure_boot: bool
    console: bool
    machine_id: str

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read Azure's JSON; members that nothing here is decided by may be there. Raises BadEvidence."""
        try:
            value = wire.loads(data, max_bytes=MAX_RUNTIME_BYTES)
            f = Fields(value, "runtime data")
            keys = f.items("keys", _members, high=16)
            mine = [key for key in keys if key.get("kid") == _KEY_ID]
            if len(mine) != 1:
                raise BadEvidence(f"the runtime data name {len(mine)} attestation keys")
            g = Fields(f.any("vm-configuration"), "runtime data.vm-configuration")
            found = cls(_jwk(mine[0]), g.boolean("secure-boot"), g.boolean("console-enabled"), g.text("vmUniqueId"))
        except WireError as error:
            raise BadEvidence(f"not a paravisor's runtime data: {error}") from error
        if not _MACHINE_ID.match(found.machine_id):
            raise BadEvidence("the runtime data do not name the machine by a UUID")
        return found


def _members(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadField("a key of the runtime data is not an object")
    return value


def _jwk(value: dict[str, Any]) -> PublicKey:
    """An RSA key that signs, as a JWK (RFC 7517, RFC 7518 section 6.3). Raises BadField, BadEvidence."""
    f = Fields(value, "attestation key")
    f.literal("kid", _KEY_ID)
    f.literal("kty", "RSA")
    if f.any("key_ops") != ["sign"]:
        raise BadEvidence("the attestation key is for more than signing")
    exponent, modulus = (int.from_bytes(unb64url(f.text(name)), "big") for name in ("e", "n"))
    f.end()
    return rsa_key(modulus, exponent, modulus.bit_length())


def unb64url(text: str) -> bytes:
    """Decode base64url without padding (RFC 7515 section 2), in its canonical spelling alone. Raises BadField."""
    try:
        data = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except (binascii.Error, UnicodeEncodeError) as error:
        raise BadField("not base64url") from error
    if base64.urlsafe_b64encode(data).decode("ascii").rstrip("=") != text:
        raise BadField("not canonical base64url")
    return data


@dataclass(frozen=True, slots=True)
class Claims:
    """A quote, and what leads from its key to the hardware. **Untrusted**: ``azure.py`` says if it does.

    Args:
        quote: the virtual TPM's, with its registers.
        hardware: the processor's report (SEV-SNP) or quote (TDX), in its own format.
        runtime_data: the paravisor's, byte for byte.
        digest: the algorithm of the runtime data's digest in ``hardware``: ``sha256``, ``sha384`` or ``sha512``.

    Attributes:
        runtime: ``runtime_data``, read.

    Raises:
        BadEvidence: it cannot be read.
    """

    quote: Quote
    hardware: bytes
    runtime_data: bytes
    digest: str = "sha256"
    runtime: RuntimeData = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.digest not in HASHES or len(self.hardware) > MAX_HARDWARE_BYTES:
            raise BadEvidence("a digest that is not accepted, or a hardware report that is too long")
        object.__setattr__(self, "runtime", RuntimeData.parse(self.runtime_data))

    @property
    def slot(self) -> bytes:
        """What the hardware's report must hold: the runtime data's digest, zero-padded to 64 bytes."""
        return hashlib.new(self.digest, self.runtime_data).digest().ljust(REPORT_DATA_BYTES, b"\0")

    def encode(self) -> bytes:
        """The canonical form."""
        return wire.encode(
            {
                "digest": self.digest,
                "format": FORMAT,
                "hardware": wire.b64(self.hardware),
                "runtime_data": wire.b64(self.runtime_data),
                **self.quote.members(),
            }
        )

    def evidence(self, platform: str) -> Evidence:
        return Evidence(platform, self.encode())


def parse(data: bytes) -> Claims:
    """What Azure's evidence says, believed by nobody yet. Raises BadEvidence."""
    try:
        f = Fields(wire.decode(data, max_bytes=MAX_AZURE_BYTES), "evidence")
        f.literal("format", FORMAT)
        digest = f.text("digest", choices=HASHES)
        hardware = f.base64("hardware", max_bytes=MAX_HARDWARE_BYTES)
        runtime_data = f.base64("runtime_data", max_bytes=MAX_RUNTIME_BYTES)
        found = Claims(Quote.from_fields(f), hardware, runtime_data, digest)
        f.end()
    except WireError as error:
        raise BadEvidence(f"not evidence of an Azure machine: {error}") from error
    return found
