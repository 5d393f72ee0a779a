"""What an attestation document of AWS Nitro says, before anybody has checked it (COSE_Sign1, RFC 9052).

See ``spec/evidence-nitro.md``, "Layout".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NoReturn

import cbor2

from strongroom.errors import BadEvidence

from .x509 import MAX_PATH

MAX_NITRO_BYTES = 16 << 10
PCR_BYTES = 48
MEASURED = (0, 1, 2, 8)  # the image, its kernel, its programs, and who signed the image
_PROTECTED = bytes.fromhex("a1013822")  # {1: -35}: the algorithm is ES384 (RFC 9053 section 2.1), and nothing else is said
_TAG = b"\xd2"  # COSE_Sign1 (RFC 9052 section 4.2); the hypervisor leaves it out


class _NoTags(Mapping[int, Callable[..., Any]]):
    """Stands in for every decoder of a tagged value and refuses it: some of the library's compile or convert values."""

    def __getitem__(self, tag: int) -> Callable[..., NoReturn]:
        return _refuse_tag

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __contains__(self, tag: object) -> bool:
        return True


def _refuse_tag(*_: object) -> NoReturn:
    raise BadEvidence("a tagged value where none may be")


def _cbor(data: bytes, what: str) -> Any:
    """Decode CBOR in its one shortest spelling, without tags, members twice, or bytes after it. Raises BadEvidence."""
    try:
        value = cbor2.loads(
            data,
            semantic_decoders=_NoTags(),
            tag_hook=_refuse_tag,
            max_depth=4,
            allow_indefinite=False,
            allow_duplicate_keys=False,
        )
        again = cbor2.dumps(value)
    except (cbor2.CBORError, TypeError, ValueError, RecursionError) as error:
        raise BadEvidence(f"{what} is not CBOR as the hypervisor writes it") from error
    if again != data:
        raise BadEvidence(f"{what} is CBOR, but not in its shortest form, or has bytes after it")
    return value


class _Members:
    """Reads the members of a map, each of one type and within its bounds, and refuses what is left over."""

    def __init__(self, value: object) -> None:
        if not isinstance(value, dict):
            raise BadEvidence("an attestation document is not a map")
        self._left = dict(value)

    def take(self, name: str, kind: type) -> Any:
        value = self._left.pop(name, None)
        if type(value) is not kind:  # a boolean is no integer here
            raise BadEvidence(f"{name} of an attestation document is missing or of another type")
        return value

    def sized(self, name: str, low: int, high: int) -> bytes:
        value: bytes = self.take(name, bytes)
        if not low <= len(value) <= high:
            raise BadEvidence(f"{name} of an attestation document is not {low} to {high} bytes long")
        return value

    def optional(self, name: str, low: int, high: int) -> bytes | None:
        if self._left.get(name) is None:
            self._left.pop(name, None)
            return None
        return self.sized(name, low, high)

    def end(self) -> None:
        if self._left:
            raise BadEvidence("an attestation document has a member that is not known here")


@dataclass(frozen=True, slots=True)
class Claims:
    """What an attestation document says. **Untrusted**: ``nitro.py`` says whether a hypervisor signed it.

    Attributes:
        module_id: the enclave's name: its parent instance's, and a number.
        timestamp_ms: when it was made, unix milliseconds by the hypervisor's clock.
        pcrs: index, 0 to 31, to 48 bytes (SHA-384).
        certificate: of the key that signed it, DER.
        cabundle: DER certificates of its issuers, the root first.
        public_key, user_data, nonce: what the enclave chose, or ``None``. Ours puts ``report_data`` in ``user_data``.
        payload: the bytes of the document.
        signature: r and s, 48 bytes each.
        tagged: whether the COSE tag was there.
    """

    module_id: str
    timestamp_ms: int
    pcrs: Mapping[int, bytes]
    certificate: bytes
    cabundle: tuple[bytes, ...]
    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None
    payload: bytes
    signature: bytes
    tagged: bool

    @property
    def debug(self) -> bool:
        """Whether the enclave was started for debugging: its registers are then zero."""
        return any(not any(self.pcrs[n]) for n in (0, 1, 2))

    @property
    def signed(self) -> bytes:
        """The bytes that the signature is over (Sig_structure, RFC 9052 section 4.4)."""
        return cbor2.dumps(["Signature1", _PROTECTED, b"", self.payload])

    def encode(self) -> bytes:
        """The same bytes again."""
        return (_TAG if self.tagged else b"") + cbor2.dumps([_PROTECTED, {}, self.payload, self.signature])


def parse(data: bytes) -> Claims:
    """What an attestation document says, believed by nobody yet. Raises BadEvidence."""
    if len(data) > MAX_NITRO_BYTES:
        raise BadEvidence(f"an attestation document is longer than {MAX_NITRO_BYTES} bytes")
    tagged = data.startswith(_TAG)
    outer = _cbor(data.removeprefix(_TAG), "the signed message")
    if not isinstance(outer, list) or len(outer) != 4:
        raise BadEvidence("not a COSE_Sign1 message")
    protected, unprotected, payload, signature = outer
    if protected != _PROTECTED or type(protected) is not bytes:
        raise BadEvidence("the protected header does not say ES384, and only that")
    if unprotected != {}:
        raise BadEvidence("there is an unprotected header, which nobody signed")
    if type(payload) is not bytes or type(signature) is not bytes or len(signature) != 96:
        raise BadEvidence("not a payload and a signature of 96 bytes")
    m = _Members(_cbor(payload, "the attestation document"))
    module_id = m.take("module_id", str)
    if not 1 <= len(module_id) <= 128 or not module_id.isascii() or not module_id.isprintable():
        raise BadEvidence("module_id of an attestation document is not 1 to 128 printable characters")
    if m.take("digest", str) != "SHA384":
        raise BadEvidence("the registers of an attestation document are not SHA-384")
    timestamp_ms = m.take("timestamp", int)
    if not 0 < timestamp_ms < 2**53:
        raise BadEvidence("timestamp of an attestation document is out of bounds")
    pcrs = _registers(m.take("pcrs", dict))
    found = Claims(
        module_id=module_id,
        timestamp_ms=timestamp_ms,
        pcrs=pcrs,
        certificate=m.sized("certificate", 1, 1024),
        cabundle=_bundle(m.take("cabundle", list)),
        public_key=m.optional("public_key", 1, 1024),
        user_data=m.optional("user_data", 0, 512),
        nonce=m.optional("nonce", 0, 512),
        payload=payload,
        signature=signature,
        tagged=tagged,
    )
    m.end()
    return found


def _registers(value: dict[Any, Any]) -> Mapping[int, bytes]:
    for index, register in value.items():
        if type(index) is not int or not 0 <= index < 32 or type(register) is not bytes or len(register) != PCR_BYTES:
            raise BadEvidence(f"a register of an attestation document is not 0 to 31, or not {PCR_BYTES} bytes long")
    if not {*MEASURED, 3, 4} <= set(value):
        raise BadEvidence("an attestation document lacks one of registers 0 to 4 and 8")
    return MappingProxyType(dict(sorted(value.items())))


def _bundle(value: list[Any]) -> tuple[bytes, ...]:
    if not 1 <= len(value) < MAX_PATH:
        raise BadEvidence(f"cabundle of an attestation document does not hold 1 to {MAX_PATH - 1} certificates")
    if not all(type(der) is bytes and 1 <= len(der) <= 1024 for der in value):
        raise BadEvidence("cabundle of an attestation document holds what is not 1 to 1024 bytes")
    return tuple(value)
