"""Deliveries: an output as it leaves the enclave, sealed, with its key encrypted to each recipient and to nobody else.

The sealed form is that of assets (``spec/sealed-file.md``) under a fresh key; a recipient gets that key by HPKE, bound to
the contract, the run, the output and the recipient. The manifest's commitment is salted from the key, so that nobody else
can guess ``0.93``.

See ``spec/delivery.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from . import wire
from .asset import AssetKey, Manifest
from .errors import BadReceipt, NotAParty
from .party import DecryptionKey, EncryptionKey
from .wire import JSON, Fields

PURPOSE = "strongroom.delivery.v1"


def binding(*, contract: str, run_id: str, output: str, manifest: str, recipient: str) -> bytes:
    """What an output's key is bound to: the HPKE ``info``, canonical JSON."""
    return wire.encode(
        {
            "contract": contract,
            "manifest": manifest,
            "output": output,
            "purpose": PURPOSE,
            "recipient": recipient,
            "run_id": run_id,
        }
    )


@dataclass(frozen=True, slots=True)
class Delivery:
    """What lies on the exchange beside a sealed output. **Untrusted** until it was compared with a receipt.

    Attributes:
        contract, run_id, output: which output of which run.
        sealed: SHA-256 of the sealed file.
        manifest: the sealed file's manifest.
        keys: recipient's name -> the file's key, encrypted to the recipient.
    """

    contract: str
    run_id: str
    output: str
    sealed: str
    manifest: Manifest
    keys: Mapping[str, bytes]

    @classmethod
    def make(
        cls,
        *,
        contract: str,
        run_id: str,
        output: str,
        sealed: str,
        manifest: Manifest,
        key: AssetKey,
        recipients: Mapping[str, EncryptionKey],
    ) -> Delivery:
        """Encrypt the key to each recipient. Raises NotAParty where there is none."""
        if not recipients:
            raise NotAParty(f"output {output!r} has no recipient")
        keys = {
            name: to.encrypt(
                key.raw,
                info=binding(contract=contract, run_id=run_id, output=output, manifest=manifest.digest, recipient=name),
            )
            for name, to in recipients.items()
        }
        return cls(contract, run_id, output, sealed, manifest, keys)

    def open(self, name: str, key: DecryptionKey) -> AssetKey:
        """The sealed file's key, for a recipient.

        Raises:
            NotAParty: not delivered to ``name``.
            BadKey: encrypted to another key, or for another run or output.
        """
        if name not in self.keys:
            raise NotAParty(f"output {self.output!r} was not delivered to {name!r}")
        info = binding(
            contract=self.contract,
            run_id=self.run_id,
            output=self.output,
            manifest=self.manifest.digest,
            recipient=name,
        )
        return AssetKey(key.decrypt(self.keys[name], info=info))

    def encode(self) -> bytes:
        keys: dict[str, JSON] = {name: wire.b64(key) for name, key in self.keys.items()}
        return wire.encode(
            {
                "contract": self.contract,
                "keys": keys,
                "manifest": self.manifest.to_json(),
                "output": self.output,
                "purpose": PURPOSE,
                "run_id": self.run_id,
                "sealed": self.sealed,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Delivery:
        """Raises WireError and its leaves, BadReceipt (no recipient)."""
        f = Fields(wire.decode(data, max_bytes=256 << 10), "delivery")
        f.literal("purpose", PURPOSE)
        members = f.any("keys")
        keys = Fields(members, "delivery.keys")
        found = cls(
            contract=f.digest("contract"),
            run_id=f.hex("run_id", size=16).hex(),
            output=f.name("output"),
            sealed=f.digest("sealed"),
            manifest=Manifest.from_json(f.any("manifest")),
            keys={
                Fields({"name": name}, "delivery.keys").name("name"): keys.base64(name, max_bytes=8192) for name in members
            },
        )
        f.end()
        if not found.keys:
            raise BadReceipt("a delivery names no recipient")
        return found
