"""The child that makes one report: a bundle's digest and bytes on standard input, the report on standard output."""

from __future__ import annotations

import gc
import sys

MEMORY = 3 << 30  # bytes of address space
SECONDS = 60  # of the processor


def main() -> None:
    """Read, look, write; any failure ends the child, and whoever started it says so in a report."""
    try:
        import resource
    except ImportError:  # no such limits on this system; the time is still watched from outside
        pass
    else:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from strongroom.app.client.code import read_code
    from strongroom.code import MAX_BUNDLE_BYTES

    from .reading import report_on

    gc.disable()  # a tree of many nodes is looked through for cycles again and again, and this process ends soon
    data = sys.stdin.buffer.read(MAX_BUNDLE_BYTES + 100)
    digest, _, bundle = data.partition(b"\n")
    sys.stdout.buffer.write(report_on(read_code(bundle, digest.decode("ascii"))).encode())


if __name__ == "__main__":
    main()
