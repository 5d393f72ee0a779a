"""Assets: sealed files, their keys and their manifests.

- :func:`seal` encrypts a stream into a sealed file and gives its :class:`Manifest`;
- :func:`sign_manifest` and :func:`verify_manifest` put the owner's signature under it and check it;
- :func:`unseal`, :func:`open_whole`, :func:`check_content` and :class:`SealedReader` open a sealed file with an
  :class:`AssetKey`;
- :func:`check_sealed` checks one without.

See ``spec/sealed-file.md`` and ``spec/manifest.md``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .format import (
    DEFAULT_CHUNK_BYTES,
    HEADER_BYTES,
    MAX_CHUNK_BYTES,
    MAX_CHUNKS,
    MIN_CHUNK_BYTES,
    SALT_BYTES,
    TAG_BYTES,
    AssetKey,
    Header,
    Layout,
)
from .manifest import (
    MANIFEST_TYPE,
    About,
    Content,
    Manifest,
    Mock,
    Scheme,
    Sealed,
    SignedManifest,
    sign_manifest,
    verify_manifest,
)

if TYPE_CHECKING:
    from .opening import SealedReader, check_content, check_sealed, unseal
    from .sealing import seal
    from .stream import BytesSource, FileSource, RangeSource
    from .whole import open_whole

_PLACES = {
    "BytesSource": "stream",
    "FileSource": "stream",
    "RangeSource": "stream",
    "SealedReader": "opening",
    "check_content": "opening",
    "check_sealed": "opening",
    "open_whole": "whole",
    "seal": "sealing",
    "unseal": "opening",
}

__all__ = [
    "DEFAULT_CHUNK_BYTES",
    "HEADER_BYTES",
    "MANIFEST_TYPE",
    "MAX_CHUNKS",
    "MAX_CHUNK_BYTES",
    "MIN_CHUNK_BYTES",
    "SALT_BYTES",
    "TAG_BYTES",
    "About",
    "AssetKey",
    "BytesSource",
    "Content",
    "FileSource",
    "Header",
    "Layout",
    "Manifest",
    "Mock",
    "RangeSource",
    "Scheme",
    "Sealed",
    "SealedReader",
    "SignedManifest",
    "check_content",
    "check_sealed",
    "open_whole",
    "seal",
    "sign_manifest",
    "unseal",
    "verify_manifest",
]


def __getattr__(name: str) -> Any:
    # who reads a manifest opens nothing: what opens and seals is loaded when it is used
    if name not in _PLACES:
        raise AttributeError(name)
    return getattr(import_module(f".{_PLACES[name]}", __name__), name)
