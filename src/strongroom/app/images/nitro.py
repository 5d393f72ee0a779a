"""The registers of a Nitro enclave, from its image file (EIF).

The format and the rule are AWS's, public in ``aws-nitro-enclaves-image-format``: a header of 548 bytes, then sections, all
numbers big-endian. A register is SHA-384(48 zero bytes || SHA-384(sections, one after the other)); of PCR0 the kernel, the
command line and every disk, of PCR1 these but with the first disk alone, of PCR2 the other disks, of PCR8 the signing
certificate in DER. Metadata and signature are in no register. Whether the signature holds, the hypervisor says at the start.

Checked on images made in the tests and on published registers of enclaves without a second disk; not on AWS's hardware.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import cbor2
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate

from .expected import CHUNK_BYTES, Expected, opened, unfit

MAX_SIGNATURE_BYTES = 64 << 10
MAX_SECTIONS = 32

_HEADER = struct.Struct(">4sHHQQHH32Q32QII")
_SECTION = struct.Struct(">HHQ")
_MAGIC = b".eif"
_VERSIONS = (2, 3, 4)
_KINDS = {1: "k", 2: "c", 3: "r", 4: "s", 5: "m"}  # kernel, command line, ramdisk, signature, metadata


def expected(path: Path) -> Expected:
    """The four registers of ``nitro``.

    Args:
        path: an image as ``nitro-cli build-enclave`` writes it, at most 16 GiB; read once, as a stream.

    Raises:
        NotMeasurable: it cannot be read, is no such image, has another length or sum than its header says, sections in an
            order that no builder writes, or no readable certificate beside its signature.
    """
    with opened(path) as (file, size):
        image, kernel, programs = (hashlib.sha384() for _ in range(3))
        header = _read(file, _HEADER.size, path)
        magic, version, _flags, _memory, _cpus, _reserved, count, *numbers, _unused, check = _HEADER.unpack(header)
        if magic != _MAGIC or version not in _VERSIONS or not 1 <= count <= MAX_SECTIONS:
            raise unfit(f"{path} is no image of a Nitro enclave in versions 2 to 4")
        offsets, sizes = numbers[:32][:count], numbers[32:][:count]
        at, crc, order, signature = _HEADER.size, zlib.crc32(header[:-4]), "", b""
        for offset, length in zip(offsets, sizes, strict=True):
            head = _read(file, _SECTION.size, path)
            kind, _flags, said = _SECTION.unpack(head)
            at += _SECTION.size
            if kind not in _KINDS or said != length or offset != at - _SECTION.size or at + length > size:
                raise unfit(f"{path}: a section is not what the header says of it")
            crc = zlib.crc32(head, crc)
            into: list[Any] = {"k": [image, kernel], "c": [image, kernel], "r": [image]}.get(_KINDS[kind], [])
            if _KINDS[kind] == "r":
                into.append(programs if "r" in order else kernel)
            if _KINDS[kind] == "s":
                if length > MAX_SIGNATURE_BYTES:
                    raise unfit(f"{path}: its signature has more than {MAX_SIGNATURE_BYTES} bytes")
                signature = _read(file, length, path)
                crc = zlib.crc32(signature, crc)
            else:
                crc = _hash(file, length, into, crc, path)
            order += _KINDS[kind]
            at += length
        if not _builders(order):
            raise unfit(f"{path}: its sections are not kernel, command line and disks, as a builder writes them")
        if at != size or crc != check:
            raise unfit(f"{path} has another length or sum than its header says: it is damaged")
    signer = _register(hashlib.sha384(_certificate(signature, path))) if "s" in order else bytes(48)
    registers = {"pcr0": _register(image), "pcr1": _register(kernel), "pcr2": _register(programs), "pcr8": signer}
    return Expected(
        platform="nitro",
        registers={name: f"sha384:{value.hex()}" for name, value in registers.items()},
        build=f"image of {size} bytes, CRC-32 {check:08x}, {'signed' if 's' in order else 'not signed'}",
    )


def _builders(order: str) -> bool:
    """Whether sections stand as a builder writes them: kernel, command line, then disks; one of the others at most."""
    once = all(order.count(kind) == 1 for kind in "kc") and all(order.count(kind) <= 1 for kind in "ms")
    return order.startswith("kc") and once and "r" in order


def _register(content: Any) -> bytes:
    return hashlib.sha384(bytes(48) + content.digest()).digest()


def _read(file: BinaryIO, length: int, path: Path) -> bytes:
    found = file.read(length)
    if len(found) != length:
        raise unfit(f"{path} ends too early")
    return found


def _hash(file: BinaryIO, length: int, into: list[Any], crc: int, path: Path) -> int:
    """Read a section into some hashes; the sum with it. Raises NotMeasurable."""
    while length:
        chunk = _read(file, min(length, CHUNK_BYTES), path)
        for content in into:
            content.update(chunk)
        crc = zlib.crc32(chunk, crc)
        length -= len(chunk)
    return crc


def _certificate(signature: bytes, path: Path) -> bytes:
    """The signing certificate's DER, of the CBOR list of one map that is beside the signature. Raises NotMeasurable."""
    try:
        found = cbor2.loads(signature)[0]["signing_certificate"]
        if isinstance(found, list):  # so its writer spells bytes
            found = bytes(found)
        return load_pem_x509_certificate(found).public_bytes(Encoding.DER)
    except (cbor2.CBORDecodeError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise unfit(f"{path}: its signature comes without a readable certificate") from error
