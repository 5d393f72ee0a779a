"""Imports modules once, so that their bytecode stands in the platform's folder before the first run.

A sandboxed child only reads bytecode; without this, each would compile its libraries anew, seconds every time. The platform
starts it with ``launch.Image.command``; nothing of anybody's is in this process.
"""

from __future__ import annotations

import importlib
import sys

if __name__ == "__main__":
    for name in sys.argv[1:]:
        importlib.import_module(name)
