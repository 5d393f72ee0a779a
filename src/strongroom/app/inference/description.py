"""The OpenAPI 3.1 document of what a room answers, made from the code: the bounds in it are those that are kept.

Bodies of the routes that ask a model are described as they are in the open; sealed, the same stands inside
(``spec/ehbp.md``). See ``spec/inference.md``.
"""

from __future__ import annotations

import functools
import json
from typing import Any, Final

import strongroom
from strongroom.ehbp import KEYS_MEDIA_TYPE, MEDIA_TYPE, PROBLEM_MEDIA_TYPE
from strongroom.lm import request as lm
from strongroom.serving import GUARDS, OBSERVABILITY, ROUTES

Schema = dict[str, Any]

_DIGEST: Final = r"^sha256:[0-9a-f]{64}$"
_NAME: Final = r"^[A-Za-z0-9_.-]{1,64}$"
_ID: Final = r"^[!-~]{1,128}$"


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _maybe(schema: Schema) -> Schema:
    """``null`` is as good as absent."""
    return {"anyOf": [schema, {"type": "null"}]}


def _text(low: int = 0, high: int | None = None, pattern: str | None = None) -> Schema:
    found: Schema = {"type": "string"}
    if low:
        found["minLength"] = low
    if high is not None:
        found["maxLength"] = high
    if pattern is not None:
        found["pattern"] = pattern
    return found


def _whole(low: int, high: int) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high}


def _number(low: float, high: float) -> Schema:
    return {"type": "number", "minimum": low, "maximum": high}


def _list(items: Schema, low: int, high: int) -> Schema:
    return {"type": "array", "items": items, "minItems": low, "maxItems": high}


def _object(members: dict[str, Schema], *required: str, closed: bool = True) -> Schema:
    found: Schema = {"type": "object", "properties": members}
    if required:
        found["required"] = list(required)
    if closed:
        found["additionalProperties"] = False
    return found


def _enum(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


# --- what is asked ----------------------------------------------------------------------------------------------------

_BOOLEAN: Final[Schema] = {"type": "boolean"}
_ANY: Final[Schema] = {}
_FREE: Final[Schema] = {"type": "object"}


def _harmless() -> dict[str, Schema]:
    return {name: {"description": "Read and forgotten."} for name in lm.HARMLESS}


def _sampling() -> dict[str, Schema]:
    stop = _text(1, lm.MAX_STOP_CHARS)
    return {
        "frequency_penalty": _maybe(_number(-2, 2)),
        "logit_bias": _maybe(
            {
                "type": "object",
                "patternProperties": {r"^(0|[1-9][0-9]{0,9})$": _number(-100, 100)},
                "additionalProperties": False,
                "maxProperties": lm.MAX_BIASES,
            }
        ),
        "min_p": _maybe(_number(0, 1)),
        "n": _maybe(_whole(1, lm.MAX_CHOICES)),
        "presence_penalty": _maybe(_number(-2, 2)),
        "seed": _maybe(_whole(-(2**63), 2**63 - 1)),
        "stop": {"anyOf": [stop, _list(stop, 0, lm.MAX_STOPS), {"type": "null"}]},
        "stream": _maybe(_BOOLEAN),
        "stream_options": _maybe(
            _object({"include_usage": _maybe(_BOOLEAN), "include_obfuscation": {"description": "Read and forgotten."}})
        ),
        "temperature": _maybe(_number(0, 2)),
        "top_k": _maybe(_whole(0, 1 << 20)),
        "top_p": _maybe(_number(0, 1)),
    }


def _message() -> Schema:
    part = _object({"type": _enum("text"), "text": _text()}, "type", "text")
    content = {"anyOf": [_text(), _list(part, 1, lm.MAX_PARTS)]}
    name = _maybe(_text(pattern=_NAME))
    said = {"content": content, "name": name}
    calls = _list(_ref("ToolCall"), 1, lm.MAX_CALLS)
    return {
        "oneOf": [
            _object({"role": _enum("developer", "system", "user"), **said}, "role", "content"),
            _object({"role": _enum("tool"), "tool_call_id": _text(pattern=_ID), **said}, "role", "content", "tool_call_id"),
            {
                **_object(
                    {
                        "role": _enum("assistant"),
                        "content": content,
                        "reasoning_content": _maybe(_text()),
                        "tool_calls": calls,
                        "name": name,
                    },
                    "role",
                ),
                "anyOf": [{"required": ["content"]}, {"required": ["tool_calls"]}],
            },
        ]
    }


def _requests() -> dict[str, Schema]:
    model = _text(1, lm.MAX_MODEL)
    most = _maybe(_whole(1, lm.MAX_TOKENS))
    function = _object(
        {
            "description": _maybe(_text(high=1 << 14)),
            "name": _text(pattern=_NAME),
            "parameters": _maybe(_FREE),
            "strict": _maybe(_BOOLEAN),
        },
        "name",
    )
    schema = _object(
        {
            "description": _maybe(_text(high=1 << 14)),
            "name": _text(pattern=_NAME),
            "schema": _FREE,
            "strict": _maybe(_BOOLEAN),
        },
        "name",
        "schema",
    )
    chosen = _object(
        {"type": _enum("function"), "function": _object({"name": _text(pattern=_NAME)}, "name")}, "type", "function"
    )
    return {
        "ChatRequest": _object(
            {
                **_harmless(),
                **_sampling(),
                "logprobs": _maybe(_BOOLEAN),
                "max_completion_tokens": most,
                "max_tokens": most,
                "messages": _list(_ref("Message"), 1, lm.MAX_MESSAGES),
                "modalities": {"anyOf": [{"const": ["text"]}, {"type": "null"}]},
                "model": model,
                "parallel_tool_calls": _maybe(_BOOLEAN),
                "response_format": _maybe(
                    {
                        "oneOf": [
                            _object({"type": _enum("text", "json_object")}, "type"),
                            _object({"type": _enum("json_schema"), "json_schema": schema}, "type", "json_schema"),
                        ]
                    }
                ),
                "tool_choice": {"anyOf": [_enum("auto", "none", "required"), chosen, {"type": "null"}]},
                "tools": _maybe(
                    _list(_object({"type": _enum("function"), "function": function}, "type", "function"), 0, lm.MAX_TOOLS)
                ),
                "top_logprobs": _maybe(_whole(0, 20)),
            },
            "model",
            "messages",
        ),
        "CompletionRequest": _object(
            {
                **_harmless(),
                **_sampling(),
                "best_of": {"enum": [1, None]},
                "echo": {"enum": [False, None]},
                "logprobs": _maybe(_whole(0, 20)),
                "max_tokens": most,
                "model": model,
                "prompt": {"anyOf": [_text(), _list(_text(), 1, 1)]},
                "suffix": {"enum": ["", None]},
            },
            "model",
            "prompt",
        ),
        "EmbeddingRequest": _object(
            {
                **_harmless(),
                "dimensions": {"type": "null"},
                "encoding_format": {"enum": ["base64", "float", None]},
                "input": {"anyOf": [_text(1), _list(_text(1), 1, lm.MAX_TEXTS)]},
                "model": model,
            },
            "model",
            "input",
        ),
        "Message": _message(),
        "ToolCall": _object(
            {
                "function": _object({"arguments": _text(), "name": _text(pattern=_NAME)}, "name", "arguments"),
                "id": _text(pattern=_ID),
                "type": _enum("function"),
            },
            "id",
            "type",
            "function",
        ),
    }


# --- what is answered -------------------------------------------------------------------------------------------------


def _answers() -> dict[str, Schema]:
    digest, seconds = _text(pattern=_DIGEST), {"type": "integer", "minimum": 0}
    usage = _object({"prompt_tokens": seconds, "total_tokens": seconds}, "prompt_tokens", "total_tokens", closed=False)
    head = {"created": seconds, "id": _text(), "model": _text(), "object": _text()}
    choice = {"finish_reason": _text(), "index": seconds, "logprobs": _ANY}
    message = _object({"content": _maybe(_text()), "role": _enum("assistant")}, "role", "content", closed=False)
    about = {
        "asset": digest,
        "context_tokens": seconds,
        "contract": digest,
        "embedding_size": seconds,
        "engine": _text(),
        "routes": _list(_enum(*ROUTES), 0, len(ROUTES)),
        "weights": digest,
    }
    model = _object(
        {
            "created": seconds,
            "id": _text(),
            "object": _enum("model"),
            "owned_by": _text(),
            "strongroom": _object(about, *about),
        },
        "id",
        "object",
        "created",
        "owned_by",
        "strongroom",
    )
    envelope = _object(
        {"payload": _text(), "payloadType": _text(), "signatures": {"type": "array", "items": _FREE}},
        "payload",
        "payloadType",
        "signatures",
    )
    guard = {"name": _enum(*GUARDS), "program": digest, "stage": _enum("input", "output")}
    limits = dict.fromkeys(("body_bytes", "context_tokens", "max_tokens", "requests"), seconds)
    room = {
        "contract": envelope,
        "contract_digest": digest,
        "credential": _enum("any", "key"),
        "guards": {"type": "array", "items": _object(guard, *guard)},
        "keyset_digest": digest,
        "limits": _object(limits, *limits),
        "manifests": {"type": "array", "items": envelope},
        "models": {"type": "array", "items": _ref("Model")},
        "observability": _enum(*OBSERVABILITY),
        "padding": {"type": "array", "items": seconds},
        "plain_bodies": _BOOLEAN,
        "policy": digest,
        "retention_s": seconds,
        "routes": _list(_enum(*ROUTES), 1, len(ROUTES)),
        "until": seconds,
    }
    attestation = {
        "evidence": _FREE,
        "report_data": _text(),
        "source_provenance": _FREE,
        "tee_type": _text(),
        "workload_keyset": _FREE,
    }
    report = {
        "api_version": _enum("aci/1"),
        "attestation": _object(attestation, *attestation),
        "service_capabilities": _FREE,
        "workload_keyset_digest": digest,
    }
    error = {
        "code": _text(),
        "hint": _text(),
        "message": _text(),
        "param": _maybe(_text()),
        "type": _enum(
            "authentication_error",
            "invalid_request_error",
            "not_found_error",
            "permission_error",
            "rate_limit_error",
            "server_error",
        ),
    }
    signature = dict.fromkeys(("signature", "signature_kind", "signing_address", "signing_algo", "text"), _text())
    return {
        "Chat": _object(
            {
                **head,
                "choices": {"type": "array", "items": _object({**choice, "message": message}, *choice, "message")},
                "usage": usage,
            },
            *head,
            "choices",
            "usage",
        ),
        "Completion": _object(
            {
                **head,
                "choices": {"type": "array", "items": _object({**choice, "text": _text()}, *choice, "text")},
                "usage": usage,
            },
            *head,
            "choices",
            "usage",
        ),
        "Embeddings": _object(
            {
                "data": {
                    "type": "array",
                    "items": _object(
                        {
                            "embedding": {"anyOf": [_text(), {"type": "array", "items": {"type": "number"}}]},
                            "index": seconds,
                            "object": _enum("embedding"),
                        },
                        "embedding",
                        "index",
                        "object",
                    ),
                },
                "model": _text(),
                "object": _enum("list"),
                "usage": usage,
            },
            "data",
            "model",
            "object",
            "usage",
        ),
        "Error": _object({"error": _object(error, *error)}, "error"),
        "Model": model,
        "Models": _object({"data": {"type": "array", "items": _ref("Model")}, "object": _enum("list")}, "data", "object"),
        "Problem": _object({"title": _text(), "type": _text()}, "title", "type"),
        "Ready": _object(
            {"spares": seconds, "status": _enum("ready"), "until": seconds},
            "spares",
            "status",
            "until",
        ),
        "Receipt": {"type": "object", "description": "spec/inference-receipt.md"},
        "Report": _object(report, *report),
        "Room": _object(room, *room),
        "Signature": _object(signature, *signature),
    }


# --- routes -----------------------------------------------------------------------------------------------------------


def _says(what: str, kind: str | None = None, schema: Schema | None = None) -> Schema:
    found: Schema = {"description": what}
    if kind is not None:
        found["content"] = {kind: {"schema": schema or {}}}
    return found


_JSON: Final = "application/json"
_WHY: Final = {
    400: "It is refused.",
    401: "Who asks is not known.",
    403: "Who asks may not do this.",
    404: "It is not here, or not for who asks.",
    405: "Nobody may do this here.",
    408: "The body did not come in time.",
    413: "It is too large.",
    415: "The body is of another kind.",
    429: "Ask again after the seconds in Retry-After.",
    500: "A fault.",
    503: "No room is open, or the engine does not answer.",
}


def _refusals(*statuses: int) -> dict[str, Schema]:
    return {str(status): _says(_WHY[status], _JSON, _ref("Error")) for status in (*statuses, 500)}


def _query(name: str, schema: Schema, *, required: bool = False) -> Schema:
    return {"name": name, "in": "query", "required": required, "schema": schema}


def _asks(what: str, request: str, answer: str, *, streams: bool) -> Schema:
    content = {_JSON: {"schema": _ref(answer)}, MEDIA_TYPE: {"schema": {}}}
    if streams:
        content["text/event-stream"] = {"schema": _object({"data": _text()}, "data", closed=False)}
    responses = {"200": {"description": "The answer; sealed as the request was.", "content": content}}
    refusals = _refusals(400, 401, 403, 404, 408, 413, 415, 429, 503)
    problem = {"422": _says("It was made for another key: attest again.", PROBLEM_MEDIA_TYPE, _ref("Problem"))}
    return {
        "summary": what,
        "security": [{"bearer": []}],
        "requestBody": {"required": True, "content": {_JSON: {"schema": _ref(request)}}},
        "responses": {**responses, **refusals, **problem},
    }


def _gives(what: str, answer: Schema, *refusals: int, parameters: tuple[Schema, ...] = (), **more: Any) -> Schema:
    return {
        "summary": what,
        "parameters": list(parameters),
        "responses": {"200": answer, **_refusals(*refusals)},
        **more,
    }


def _paths() -> dict[str, Schema]:
    nonce = _text(pattern="^[0-9a-f]{64}$")
    ed25519 = _query("signing_algo", _enum("ed25519"), required=True)
    model = _query("model", _text())
    mine: dict[str, Any] = {"security": [{"bearer": []}, {}]}

    def path(name: str) -> Schema:
        return {"name": name, "in": "path", "required": True, "schema": _text(1, 128)}

    def json_of(name: str) -> Schema:
        return _says("Here it is.", _JSON, _ref(name))

    return {
        "/v1/chat/completions": {"post": _asks("A turn of a conversation.", "ChatRequest", "Chat", streams=True)},
        "/v1/completions": {"post": _asks("More of a text.", "CompletionRequest", "Completion", streams=True)},
        "/v1/embeddings": {"post": _asks("Vectors of texts.", "EmbeddingRequest", "Embeddings", streams=False)},
        "/v1/models": {"get": _gives("What is served.", json_of("Models"), 503)},
        "/v1/models/{model}": {"get": _gives("One model.", json_of("Model"), 404, 503, parameters=(path("model"),))},
        "/v1/room": {"get": _gives("The contract, and what it means for who asks.", json_of("Room"), 503)},
        "/v1/aci/attestation": {
            "get": _gives("Evidence of the keyset.", json_of("Report"), 400, 429, 503, parameters=(_query("nonce", nonce),))
        },
        "/v1/aci/receipts/{receipt_id}": {
            "get": _gives("The receipt of a request.", json_of("Receipt"), 404, parameters=(path("receipt_id"),), **mine)
        },
        "/v1/attestation/report": {
            "get": _gives(
                "Evidence as NEAR AI's clients ask for it.",
                _says("Here it is.", _JSON, _FREE),
                400,
                404,
                429,
                503,
                parameters=(
                    ed25519,
                    _query("nonce", nonce, required=True),
                    model,
                    _query("include_tls_fingerprint", _enum("true", "false")),
                ),
            )
        },
        "/v1/signature/{chat_id}": {
            "get": _gives(
                "A chat's signature as NEAR AI's clients ask for it.",
                json_of("Signature"),
                400,
                404,
                parameters=(path("chat_id"), ed25519, model),
                **mine,
            )
        },
        "/v1/rooms": {
            "post": _gives(
                "Open a room, by a party's signed request.",
                {
                    "description": "Each step, and last the room.",
                    "content": {"application/x-ndjson": {"schema": {}}, _JSON: {"schema": _FREE}},
                },
                400,
                403,
                404,
                408,
                413,
                429,
                parameters=(_query("spare", _text()),),
                requestBody={"required": True, "content": {_JSON: {"schema": _FREE}}},
            )
        },
        "/v1/served": {
            "post": _gives(
                "The receipts under a contract, for a party that it names.",
                _says("Pages that the party alone opens.", "application/octet-stream"),
                400,
                403,
                404,
                408,
                413,
                429,
                requestBody={"required": True, "content": {_JSON: {"schema": _FREE}}},
            )
        },
        "/v1/sources": {
            "post": _gives(
                "What the owner of a source says of it now, under the owner's signature.",
                _says("It is kept to from the next question on.", _JSON, _FREE),
                400,
                404,
                408,
                413,
                503,
                requestBody={"required": True, "content": {_JSON: {"schema": _FREE}}},
            )
        },
        "/.well-known/hpke-keys": {
            "get": _gives("The key for requests; compare it.", _says("A key configuration.", KEYS_MEDIA_TYPE), 503)
        },
        "/healthz": {"get": _gives("Whether it runs.", _says("It does.", _JSON, _FREE))},
        "/readyz": {"get": _gives("Whether a request would be answered.", json_of("Ready"), 503)},
        "/metrics": {
            "get": _gives("Counts, where the policy lets them be seen.", _says("For Prometheus.", "text/plain"), 404)
        },
        "/openapi.json": {"get": _gives("This document.", _says("Here it is.", _JSON, _FREE))},
    }


@functools.cache
def document() -> bytes:
    """The document, in JSON whose members are in order."""
    found = {
        "openapi": "3.1.0",
        "info": {
            "title": "Strongroom: a room that answers",
            "version": strongroom.__version__,
            "description": "spec/inference.md",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": _paths(),
        "components": {
            "schemas": {**_requests(), **_answers()},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }
    return json.dumps(found, separators=(",", ":"), sort_keys=True).encode()
