"""The Encrypted HTTP Body Protocol (EHBP), and sealed requests and responses inside it.

Three layers: ``exchange`` speaks EHBP as others do; ``records`` says where a body ends and hides its size; ``sealed`` binds
a request to its address, keyset and contract, a response to its request, and lets none count twice. Nothing here opens a
socket, looks at a clock or draws a random number.

See ``spec/ehbp.md``.
"""

from .exchange import FrameReader, Recipient, Sender, frames
from .keys import (
    ENCAPSULATED_KEY_HEADER,
    KEYS_MEDIA_TYPE,
    KEYS_PATH,
    KEYSET_ALGO,
    PROBLEM_MEDIA_TYPE,
    PROBLEM_STATUS,
    PROBLEM_TYPE,
    RESPONSE_NONCE_HEADER,
    PrivateKey,
    PublicKey,
    encapsulated_key,
    is_problem,
    problem,
    response_nonce,
)
from .records import Padding, Writer
from .sealed import (
    MEDIA_TYPE,
    ClientExchange,
    EnclaveExchange,
    RequestHead,
    ResponseHead,
    SealedResponse,
    SeenKeys,
)

__all__ = [
    "ENCAPSULATED_KEY_HEADER",
    "KEYSET_ALGO",
    "KEYS_MEDIA_TYPE",
    "KEYS_PATH",
    "MEDIA_TYPE",
    "PROBLEM_MEDIA_TYPE",
    "PROBLEM_STATUS",
    "PROBLEM_TYPE",
    "RESPONSE_NONCE_HEADER",
    "ClientExchange",
    "EnclaveExchange",
    "FrameReader",
    "Padding",
    "PrivateKey",
    "PublicKey",
    "Recipient",
    "RequestHead",
    "ResponseHead",
    "SealedResponse",
    "SeenKeys",
    "Sender",
    "Writer",
    "encapsulated_key",
    "frames",
    "is_problem",
    "problem",
    "response_nonce",
]
