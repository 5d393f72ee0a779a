"""Checkpoints: the signed head of a log, as C2SP tlog-checkpoint in a C2SP signed-note.

A checkpoint is three lines of text (the log's name, the number of entries, the root over them), a blank line, and a line for
each signature. Lines of keys that the verifier does not know (witnesses) are kept and ignored; the log's own must be there
once and be valid.

See ``spec/ledger.md``; https://c2sp.org/signed-note and https://c2sp.org/tlog-checkpoint.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import InitVar, dataclass

from . import wire
from .errors import BadCheckpoint, BadField, BadKey
from .merkle import HASH_BYTES
from .party import SigningKey, VerifyKey

MAX_NOTE_BYTES = 256 << 10  # a verifier takes at least 16 signatures, and those of post-quantum witnesses are large
MAX_SIGNATURES = 64

_SIZE = re.compile(r"(?:0|[1-9][0-9]{0,15})\Z")
_ED25519 = b"\x01"  # the signature type of signed-note
_KEY_ID_BYTES, _SIGNATURE_BYTES = 4, 64
_MAKER = object()


def _is_key_name(text: str) -> bool:
    return text != "" and "+" not in text and not any(c.isspace() or c < " " for c in text)


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line of a note.

    Attributes:
        name: the key's name.
        key_id: the key's 4-byte id, a hint and no identity.
        sig: the signature, 64 bytes for Ed25519; other lengths by other algorithms.
    """

    name: str
    key_id: bytes
    sig: bytes

    def encode(self) -> str:
        return f"— {self.name} {wire.b64(self.key_id + self.sig)}\n"

    @classmethod
    def parse(cls, line: str) -> NoteSignature:
        """Read one line without its newline. Raises BadCheckpoint."""
        match line.split(" "):
            case ["—", name, signature] if _is_key_name(name):
                try:
                    raw = wire.unb64(signature)
                except BadField as error:
                    raise BadCheckpoint("a signature line is not canonical base64") from error
                if len(raw) <= _KEY_ID_BYTES:
                    raise BadCheckpoint("a signature line holds no signature")
                return cls(name, raw[:_KEY_ID_BYTES], raw[_KEY_ID_BYTES:])
        raise BadCheckpoint("a signature line is malformed")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log's head as received. **Untrusted** until a :class:`LogVerifier` has seen it.

    Attributes:
        origin: the log's name.
        size: the number of entries.
        root: the RFC 6962 tree hash over them, 32 bytes.
        signatures: in the order found.
    """

    origin: str
    size: int
    root: bytes
    signatures: tuple[NoteSignature, ...]

    @property
    def text(self) -> bytes:
        """The bytes that are signed: the three lines, with the last newline."""
        return f"{self.origin}\n{self.size}\n{wire.b64(self.root)}\n".encode()

    def encode(self) -> bytes:
        return self.text + b"\n" + "".join(s.encode() for s in self.signatures).encode()

    @classmethod
    def parse(cls, data: bytes) -> Checkpoint:
        """Read a note: ``parse(data).encode() == data``.

        Raises:
            BadCheckpoint: not a signed note; not three lines (extension lines are not taken: nobody could audit them); a
                size or a root in another than its one spelling.
        """
        if len(data) > MAX_NOTE_BYTES:
            raise BadCheckpoint(f"a checkpoint is longer than {MAX_NOTE_BYTES} bytes")
        try:
            note = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadCheckpoint("a checkpoint is not UTF-8") from error
        if any(c < " " and c != "\n" for c in note):
            raise BadCheckpoint("a checkpoint holds a control character")
        text, blank, lines = note.rpartition("\n\n")
        if not blank or not lines.endswith("\n"):
            raise BadCheckpoint("a checkpoint is not a text, a blank line and signature lines")
        signatures = lines.removesuffix("\n").split("\n")
        if len(signatures) > MAX_SIGNATURES:
            raise BadCheckpoint(f"a checkpoint has more than {MAX_SIGNATURES} signatures")
        return cls(*_parse_text(text), tuple(NoteSignature.parse(line) for line in signatures))


def _parse_text(text: str) -> tuple[str, int, bytes]:
    match text.split("\n"):
        case [origin, size, root] if origin and _SIZE.match(size) and int(size) <= wire.MAX_INT:
            try:
                raw = wire.unb64(root)
            except BadField as error:
                raise BadCheckpoint("a checkpoint's root is not canonical base64") from error
            if len(raw) != HASH_BYTES:
                raise BadCheckpoint(f"a checkpoint's root is not {HASH_BYTES} bytes long")
            return origin, int(size), raw
    raise BadCheckpoint("a checkpoint's text is not a name, a decimal size and a root")


@dataclass(frozen=True, slots=True)
class VerifiedCheckpoint:
    """A head that the log signed. Only :meth:`LogVerifier.verify` makes one.

    Attributes:
        checkpoint: the head, with every signature line that came with it.
    """

    checkpoint: Checkpoint
    maker: InitVar[object]

    def __post_init__(self, maker: object) -> None:
        if maker is not _MAKER:
            raise TypeError("only LogVerifier.verify() makes a VerifiedCheckpoint")

    @property
    def origin(self) -> str:
        return self.checkpoint.origin

    @property
    def size(self) -> int:
        return self.checkpoint.size

    @property
    def root(self) -> bytes:
        return self.checkpoint.root


@dataclass(frozen=True, slots=True)
class LogVerifier:
    """A log's public key, under the log's name.

    Args:
        name: the log's name, which is its checkpoints' origin too: no white space, no ``+``.
        key: signs checkpoints and nothing else.

    Raises:
        BadKey: the name cannot name a key.
    """

    name: str
    key: VerifyKey

    def __post_init__(self) -> None:
        if not _is_key_name(self.name):
            raise BadKey("a log's name is empty, or holds white space or '+'")

    @property
    def key_id(self) -> bytes:
        """4 bytes of SHA-256 over name, newline, type and key (signed-note, "Signatures")."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.key.raw).digest()[:_KEY_ID_BYTES]

    @property
    def vkey(self) -> str:
        """The verifier key, ``name+id+key``: what a trust file holds."""
        return f"{self.name}+{self.key_id.hex()}+{wire.b64(_ED25519 + self.key.raw)}"

    @classmethod
    def from_vkey(cls, text: str) -> LogVerifier:
        """Read a verifier key: ``from_vkey(text).vkey == text``. Raises BadKey."""
        match text.split("+", 2):
            case [name, _, encoded]:
                try:
                    raw = wire.unb64(encoded)
                except BadField as error:
                    raise BadKey("a log's verifier key is not canonical base64") from error
                if raw[:1] != _ED25519:
                    raise BadKey("a log's verifier key is not an Ed25519 key")
                found = cls(name, VerifyKey(raw[1:]))
                if found.vkey == text:
                    return found
        raise BadKey("a log's verifier key is not name+id+key, or its id is not that of the key")

    def signatures_of(self, checkpoint: Checkpoint) -> tuple[NoteSignature, ...]:
        """The checkpoint's signature lines that claim to be by this key; nothing about them is checked."""
        return tuple(s for s in checkpoint.signatures if (s.name, s.key_id) == (self.name, self.key_id))

    def verify(self, checkpoint: Checkpoint) -> VerifiedCheckpoint:
        """The checkpoint, if this log signed it.

        Raises:
            BadCheckpoint: of another log, or not exactly one signature line by this key.
            BadSignature: the line is there and the signature is not of this text.
        """
        if checkpoint.origin != self.name:
            raise BadCheckpoint(f"the checkpoint is of the log {checkpoint.origin[:80]!r}, not of {self.name!r}")
        signatures = self.signatures_of(checkpoint)
        if len(signatures) != 1:
            raise BadCheckpoint(f"the checkpoint has {len(signatures)} signatures by the log's key, not one")
        self.key.verify_bytes(signatures[0].sig, checkpoint.text)
        return VerifiedCheckpoint(checkpoint, _MAKER)


@dataclass(frozen=True, slots=True)
class LogKey:
    """A log's private key. Whoever holds it must never sign two heads of which neither extends the other.

    Args:
        name: the log's name.
        key: signs checkpoints and nothing else.
    """

    name: str
    key: SigningKey

    @property
    def verifier(self) -> LogVerifier:
        return LogVerifier(self.name, self.key.public)

    def sign(self, size: int, root: bytes) -> Checkpoint:
        """The signed head of a log.

        Args:
            size: the number of entries.
            root: the tree hash over them, 32 bytes.
        """
        verifier = self.verifier
        unsigned = Checkpoint(verifier.name, size, root, ())
        signature = NoteSignature(verifier.name, verifier.key_id, self.key.sign_bytes(unsigned.text))
        return Checkpoint(verifier.name, size, root, (signature,))
