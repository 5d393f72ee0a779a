"""Evidence over HTTP: ACI's report, and the two routes that NEAR AI's clients ask.

Evidence costs the platform something, and anybody may ask: so many at once, and no more.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qsl

from strongroom.attest.keyset import parse_nonce
from strongroom.errors import BadMember, BadNonce, ModelNotServed, NotFound
from strongroom.inference import near
from strongroom.inference.receipt import InferenceReceipt

from .few import Few
from .rooms import Keeper, Rooms

AT_ONCE: Final = 2
MAX_QUERY: Final = 8192


def query(raw: bytes, known: frozenset[str]) -> dict[str, str]:
    """A query's members, each once.

    Args:
        raw: as it stood in the request line.
        known: the members that are read; others are passed over.

    Raises:
        BadMember: one of the known stands twice, or the query is too long.
    """
    found: dict[str, str] = {}
    if len(raw) > MAX_QUERY:
        raise BadMember("the query is too long")
    for name, value in parse_qsl(raw.decode("latin-1"), keep_blank_values=True):
        if name in found:
            raise BadMember(f"{name} stands twice", param=name)
        if name in known:
            found[name] = value
    return found


class Attesting:
    """Asks the platform, a few at a time.

    Args:
        rooms: whose keysets are attested.
    """

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self.few = Few(AT_ONCE)

    async def report(self, raw: bytes) -> tuple[Keeper, dict[str, Any]]:
        """``GET /v1/aci/attestation``, with a nonce or without.

        Raises:
            RoomClosed: there is nothing to attest.
            BadNonce: not 64 lowercase hex digits.
        """
        keeper = self._rooms.require()
        asked = query(raw, frozenset({"nonce"}))
        nonce = parse_nonce(asked["nonce"]) if "nonce" in asked else None
        return keeper, (await self.few.run(lambda: keeper.report(nonce))).to_json()

    async def near_report(self, raw: bytes) -> tuple[Keeper, dict[str, Any]]:
        """``GET /v1/attestation/report``.

        Raises:
            RoomClosed, BadNonce, SigningAlgorithm, NoIntelQuote, NotBound: see ``inference.near``.
            ModelNotServed: another model than is served.
        """
        keeper = self._rooms.require()
        asked = query(raw, frozenset({"include_tls_fingerprint", "model", "nonce", "signing_algo"}))
        near.require_algorithm(asked.get("signing_algo"))
        if "nonce" not in asked:
            raise BadNonce("there is no report without a nonce")
        nonce = parse_nonce(asked["nonce"])
        if "model" in asked and asked["model"] not in keeper.models:
            raise ModelNotServed("the contract serves no model of this name", param="model")
        tls = self._tls(keeper) if asked.get("include_tls_fingerprint") == "true" else None
        bound = near.report_data(keeper.keyset.chat_signature_key, nonce, tls)
        around = keeper.room.around
        evidence = await self.few.run(lambda: around.platform.produce(bound))
        devices = () if around.devices is None else await self.few.run(lambda: around.devices(nonce))  # type: ignore[misc]
        quoted = near.Quoted(evidence=evidence, devices=devices)
        return keeper, near.attestation_report(quoted, keyset=keeper.keyset, nonce=nonce, tls_key=tls)

    @staticmethod
    def _tls(keeper: Keeper) -> bytes:
        if not keeper.keyset.tls_public_keys:
            raise NotFound("TLS does not end inside this enclave")
        return keeper.keyset.tls_public_keys[0].spki_sha256

    def signature(self, receipt: InferenceReceipt, raw: bytes) -> tuple[Keeper, dict[str, Any]]:
        """``GET /v1/signature/{chat_id}``.

        Args:
            receipt: the chat's, handed out to who asks.
            raw: the query.

        Raises:
            SigningAlgorithm: another than ``ed25519``.
            NotFound: the room that answered is closed, and its key gone; or the chat was with another model.
            BadInferenceReceipt: there is nothing to sign of it.
        """
        asked = query(raw, frozenset({"model", "signing_algo"}))
        near.require_algorithm(asked.get("signing_algo"))
        keeper = self._rooms.find(receipt.workload_keyset_digest)
        if keeper is None or asked.get("model", receipt.model) != receipt.model:
            raise NotFound("there is no signature of such a chat", hint="Fetch its receipt: GET /v1/aci/receipts/{id}")
        return keeper, near.chat_signature(receipt, keyset=keeper.keyset, key=keeper.room.serving.chat)
