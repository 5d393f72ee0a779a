"""How much memory sealing and opening take over the interpreter's start, from 100 MB to 10 GB.

Each measurement is a process of its own: the peak of its resident memory at the end, less that at its first line, so that
what is imported counts too. Nothing lies on a disk: the source makes bytes up, the sink keeps the sealed file's header and
trailer and drops the rest, and what is opened is encrypted again, chunk by chunk, when it is asked for.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SIZES = {"100 MB": 10**8, "1 GB": 10**9, "10 GB": 10**10}


def peak_bytes() -> int:
    """The most resident memory that this process ever had."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the parent's memory at the fork too
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) << 10
    import resource  # noqa: PLC0415 - Windows has none

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def child(size: int, threads: int) -> dict[str, int]:
    """Seal and open ``size`` bytes; peak bytes over the start after each."""
    start = peak_bytes()
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - what is imported counts

    from strongroom.asset import HEADER_BYTES, TAG_BYTES, About, AssetKey, Layout, seal, unseal  # noqa: PLC0415
    from strongroom.policy import Policy  # noqa: PLC0415

    key, salt, chunk = AssetKey(bytes(range(32))), bytes(32), 1 << 20
    layout = Layout(size, chunk)

    class Zeros:
        left = size

        def readinto(self, buffer: memoryview) -> int:
            got = min(self.left, len(buffer))
            self.left -= got
            return got

    class Ends:
        """Keeps the header and the trailer."""

        at, header, trailer = 0, b"", b""

        def write(self, data: memoryview) -> int:
            if self.at < HEADER_BYTES:
                self.header += bytes(data)
            elif self.at >= layout.trailer_at:
                self.trailer += bytes(data)
            self.at += len(data)
            return len(data)

    class Remade:
        """The sealed file, made again as it is read."""

        def __init__(self, ends: Ends, file_key: bytes) -> None:
            self.size, self.ends, self.cipher, self.zeros = ends.at, ends, AESGCM(file_key), memoryview(bytes(chunk))

        def read_at(self, offset: int, length: int) -> bytes:
            if offset == 0:
                return self.ends.header
            if offset == layout.trailer_at:
                return self.ends.trailer
            index = (offset - HEADER_BYTES) // (chunk + TAG_BYTES)
            return self.cipher.encrypt(layout.nonce(index), self.zeros[: length - TAG_BYTES], None)

    class Nowhere:
        def write(self, data: memoryview) -> int:
            return len(data)

    ends = Ends()
    about = About("zeros", "dataset", "application/octet-stream", "lab", 0, Policy())
    manifest = seal(Zeros(), ends, key=key, salt=salt, about=about, chunk_bytes=chunk, threads=threads)
    sealed = peak_bytes() - start
    unseal(Remade(ends, key.file_key(manifest.header)), manifest, key, Nowhere(), threads=threads)
    return {"seal": sealed, "open": peak_bytes() - start}


def measure(size: int, threads: int) -> dict[str, int]:
    command = [sys.executable, __file__, str(size), str(threads)]
    found: dict[str, int] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


def figures() -> list[dict[str, Any]]:
    found = {name: measure(size, 2) for name, size in SIZES.items()}
    rows = []
    for verb, what in (("seal", "sealing"), ("open", "sealing, then opening,")):
        for name in SIZES:
            mib = round(found[name][verb] / 2**20, 1)
            rows.append(row(f"{what} {name}: peak memory over the interpreter's start", mib, 64))
        growth = round((found["10 GB"][verb] - found["100 MB"][verb]) / 2**20, 1)
        rows.append(row(f"{what} 10 GB rather than 100 MB: more memory", growth, 4))
    return rows


def row(name: str, value: float, goal: float) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": "MiB", "goal": goal, "better": "lower", "compared_with": "2 threads"}


def main() -> None:
    if len(sys.argv) == 3:
        print(json.dumps(child(int(sys.argv[1]), int(sys.argv[2]))))
        return
    for found in figures():
        print(f"{found['name']:<70}{found['value']:>7} {found['unit']}  goal {found['goal']}")


if __name__ == "__main__":
    main()
