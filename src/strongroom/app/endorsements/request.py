"""What is asked of a vendor's service, and what came back: the vocabulary of this folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from strongroom import wire
from strongroom.attest.endorsements import PEM_CHAIN
from strongroom.attest.evidence import MAX_ENDORSEMENT_BYTES, Endorsement, Evidence
from strongroom.attest.x509 import from_pem
from strongroom.errors import BadAnswer, BadCertificate, BadField, StrongroomError
from strongroom.wire import JSON, Fields

# Where the vendors' services are, as their documentation says. Others can be named in their place (a PCCS, a proxy).
SERVICES: Mapping[str, str] = MappingProxyType(
    {
        "amd-kds": "https://kdsintf.amd.com",
        "intel-pcs": "https://api.trustedservices.intel.com",
        "intel-root-crl": "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der",
        "nvidia-nras": "https://nras.attestation.nvidia.com",
        "nvidia-ocsp": "https://ocsp.ndis.nvidia.com",
        "nvidia-rim": "https://rim.attestation.nvidia.com",
    }
)
HOUR, DAY = 3600, 86_400
MAX_ABOUT_CHARS = 512
_ABOUT = re.compile(r"(?:[a-z0-9-]{1,32}:[!-~]{0,479})?\Z")
_WHICH_EDITION = {"update", "tcbEvaluationDataNumber"}  # of the same thing: which of Intel's TCB recoveries is wanted


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service answered with success. **Untrusted.**

    Args:
        body: its bytes.
        headers: names in lower case and values, in order.
    """

    body: bytes
    headers: tuple[tuple[str, str], ...] = ()

    def header(self, *names: str) -> str:
        """The one value that stands under any of these names, in lower case. Raises BadAnswer."""
        found = {value for name, value in self.headers if name in names}
        if len(found) != 1:
            raise BadAnswer(f"the answer has {len(found)} headers {names[0]}, where there must be one")
        return found.pop()

    def chain(self, *names: str) -> Endorsement:
        """The certificates in a header: PEM, URL-encoded (Intel's PCS and PCCS). Raises BadAnswer."""
        text = unquote(self.header(*names)).encode("ascii", "replace")
        try:
            from_pem(text)
        except BadCertificate as error:
            raise BadAnswer(f"the header {names[0]} holds no certificates: {error.message}") from error
        return Endorsement(PEM_CHAIN, text)


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a service.

    Args:
        service: one of ``SERVICES``.
        media_type: of the document that answers it; others (the certificates of its signer) may come along.
        path: what is appended to the service's address; empty, or beginning with ``/``.
        read: what reads the answer, and raises BadAnswer where it is something else than was asked for.
        keep_s: for how long a current answer is not asked for again, seconds; ``None`` for what never changes.
        most: the most bytes that an answer may have.
        body: what is posted; nothing, where it is only got.
        content_type: of the body.
        name: what the question is called in place of its path, where the path does not say it all.
    """

    service: str
    media_type: str
    path: str
    read: Callable[[Answer], tuple[Endorsement, ...]] = field(compare=False, repr=False)
    keep_s: int | None = DAY
    most: int = MAX_ENDORSEMENT_BYTES
    body: bytes = b""
    content_type: str = ""
    name: str = ""

    @property
    def about(self) -> str:
        """How cache and bundle know the question: the same at whichever address it is asked."""
        return f"{self.service}:{self.name or self.path}"


def topic(about: str) -> str:
    """What a question is about, whichever edition of it was asked for: what a bundle's documents are found by."""
    service, colon, rest = about.partition(":")
    split = urlsplit(rest)
    if not split.query:
        return about
    kept = sorted((k, v.lower()) for k, v in parse_qsl(split.query, keep_blank_values=True) if k not in _WHICH_EDITION)
    return f"{service}{colon}{split.path}" + (f"?{urlencode(kept)}" if kept else "")


@dataclass(frozen=True, slots=True)
class Document:
    """An endorsement, and what is known of where it came from. **Untrusted.**

    Args:
        endorsement: the document.
        about: the question that it answers (``Request.about``); empty where nobody knows.
        fetched_at: when, unix seconds; 0 where nobody knows.

    Raises:
        BadField: ``about`` is no question's name.
    """

    endorsement: Endorsement
    about: str = ""
    fetched_at: int = 0

    def __post_init__(self) -> None:
        if not _ABOUT.match(self.about):
            raise BadField("a document does not say in printable characters which question it answers")

    @property
    def digest(self) -> str:
        """``sha256:`` of the document's bytes."""
        return wire.digest(self.endorsement.data)

    @property
    def order(self) -> tuple[str, str, str]:
        """By what documents are sorted and told apart."""
        return self.about, self.endorsement.media_type, self.digest

    def to_json(self) -> dict[str, JSON]:
        return {"about": self.about, "fetched_at": self.fetched_at, **self.endorsement.to_json()}

    @classmethod
    def from_json(cls, value: object) -> Document:
        """Raises BadField."""
        f = Fields(value, "document")
        found = cls(
            Endorsement(f.media_type("media_type"), f.base64("data", max_bytes=MAX_ENDORSEMENT_BYTES)),
            f.text("about", max_chars=MAX_ABOUT_CHARS),
            f.integer("fetched_at"),
        )
        f.end()
        return found


@dataclass(frozen=True, slots=True)
class Problem:
    """What could not be had, and why.

    Args:
        about: the question, or the platform whose evidence does not say what it needs.
        error: why.
    """

    about: str
    error: StrongroomError

    def to_json(self) -> dict[str, JSON]:
        return {"about": self.about, "error": dict(self.error.to_json())}


class Ask(Protocol):
    """Where a vendor's module gets answers from."""

    def __call__(self, *alternatives: Request) -> tuple[Endorsement, ...]:
        """The answer to the first of some questions that has one; nothing where none has (that is then a problem)."""
        ...


Plan = Callable[[Evidence, Ask], None]  # asks for everything that some evidence needs


def parsed(answer: Answer, *, most: int = MAX_ENDORSEMENT_BYTES) -> Mapping[str, object]:
    """The JSON object that a service answered with. Raises BadAnswer."""
    try:
        found = wire.loads(answer.body, max_bytes=most)
    except StrongroomError as error:
        raise BadAnswer("the answer is not JSON") from error
    if not isinstance(found, dict):
        raise BadAnswer("the answer is not a JSON object")
    return found
