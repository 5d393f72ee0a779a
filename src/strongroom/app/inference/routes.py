"""The routes beside the questions themselves: evidence, receipts, what is served, how it is.

See ``spec/inference.md``.
"""

from __future__ import annotations

from typing import Any

from strongroom import wire
from strongroom.app.inference.credentials import Credential
from strongroom.ehbp import KEYS_MEDIA_TYPE
from strongroom.errors import NoCredential, NotFound
from strongroom.inference.receipt import InferenceReceipt
from strongroom.lm.request import MAX_BODY

from .asking import Around
from .attestation import Attesting
from .rooms import Keeper


def models(keeper: Keeper) -> dict[str, Any]:
    """``GET /v1/models``: OpenAI's list, with what is known of the weights."""
    return {"object": "list", "data": [model(keeper, name) for name in sorted(keeper.models)]}


def model(keeper: Keeper, name: str) -> dict[str, Any]:
    """``GET /v1/models/{name}``. Raises NotFound."""
    served = keeper.models.get(name)
    if served is None:
        raise NotFound("no model of this name is served", hint="GET /v1/models lists what is.")
    about = served.engine.about
    return {
        "id": name,
        "object": "model",
        "created": served.created,
        "owned_by": next(ref.owner for ref in keeper.contract.proposal.assets if ref.role == served.model.role),
        "strongroom": {
            "asset": served.weights.asset,
            "context_tokens": about.context_tokens,
            "contract": served.weights.contract,
            "embedding_size": about.embedding_size,
            "engine": about.engine,
            "routes": sorted(about.routes & keeper.serve.routes),
            "weights": served.weights.weights,
        },
    }


def room(keeper: Keeper, *, anonymous: bool) -> dict[str, Any]:
    """``GET /v1/room``: everything that a user should know before the first message. A hint: what counts is in the contract.

    Args:
        keeper: the current room.
        anonymous: whether somebody without a key of the operator's is let in.
    """
    serve, guards = keeper.serve, [named for _, named in (*keeper.named_input, *keeper.named_output)]
    return {
        "contract": keeper.contract.envelope.to_json(),
        "contract_digest": keeper.contract.digest,
        "credential": "any" if anonymous else "key",
        "guards": [guard.to_json() for guard in guards],
        "keyset_digest": keeper.digest,
        "limits": {
            "body_bytes": MAX_BODY,
            "context_tokens": keeper.parameters.context_tokens,
            "max_tokens": keeper.parameters.max_tokens,
            "requests": keeper.capacity,
        },
        "manifests": [manifest.to_json() for manifest in keeper.room.manifests],
        "models": models(keeper)["data"],
        "observability": serve.observability,
        "padding": list(keeper.sizes),
        "plain_bodies": serve.plain_bodies,
        "policy": keeper.policy,
        "retention_s": serve.retention_s,
        "routes": sorted(serve.routes),
        "until": keeper.room.until,
    }


def keys(keeper: Keeper) -> tuple[bytes, str]:
    """``GET /.well-known/hpke-keys``."""
    return keeper.room.serving.requests.public.config(), KEYS_MEDIA_TYPE


class Fetching:
    """Hands receipts to who asked the requests.

    Args:
        around: what every request is given.
        attesting: signs chats.
    """

    def __init__(self, around: Around, attesting: Attesting) -> None:
        self._around, self._attesting = around, attesting

    def receipt(self, receipt_id: str, authorization: str | None) -> InferenceReceipt:
        """``GET /v1/aci/receipts/{id}``. Raises NotFound, for whatever reason."""
        stranger = self._around.strangers.get(receipt_id)
        if stranger is not None:
            return stranger
        return self._around.receipts.get(receipt_id, self._who(authorization))

    def signature(self, chat_id: str, authorization: str | None, raw: bytes) -> tuple[Keeper, dict[str, Any]]:
        """``GET /v1/signature/{chat_id}``. Raises NotFound, SigningAlgorithm, BadInferenceReceipt."""
        receipt = self._around.receipts.by_chat(chat_id, self._who(authorization))
        return self._attesting.signature(receipt, raw)

    def _who(self, authorization: str | None) -> Credential:
        try:
            return self._around.gate.known(authorization)
        except NoCredential:
            raise NotFound("there is no such receipt", hint="Ask with the credential of its request.") from None


def encode(value: object) -> bytes:
    """An answer of these routes: canonical JSON."""
    return wire.encode(value)
