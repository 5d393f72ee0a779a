"""Small wheels, made here: what tests of environments and of code with packages stand on."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path


def wheel(folder: Path, name: str, files: Mapping[str, str], version: str = "1.0", tag: str = "py3-none-any") -> str:
    """Write a wheel; its line of a lock.

    Args:
        folder: where to.
        name: of the package.
        files: text by path in the archive. Of a name that ends with ``->TARGET``, a link.
        version, tag: as in the wheel's own name.
    """
    folder.mkdir(exist_ok=True)
    path = folder / f"{name.replace('-', '_')}-{version}-{tag}.whl"
    about = f"{name.replace('-', '_')}-{version}.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, text in files.items():
            link, arrow, target = file.partition("->")
            entry = zipfile.ZipInfo(link, (2026, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o120777 if arrow else 0o100644) << 16
            archive.writestr(entry, target if arrow else text)
        archive.writestr(zipfile.ZipInfo(f"{about}/METADATA"), f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(zipfile.ZipInfo(f"{about}/WHEEL"), f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(zipfile.ZipInfo(f"{about}/RECORD"), "")
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"
