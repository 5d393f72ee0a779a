"""Hostile programs for the sandbox, and the same probes without one, so that no check is of an attack that never works."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from strongroom.enclave import sandbox, sandbox_child
from strongroom.enclave.sandbox import Limits, Sandbox
from strongroom.programs import OutputSpec

LIMITS = Limits(seconds=120, memory_bytes=256 << 20, output_bytes=1 << 20)
OUTPUTS = {"report": OutputSpec("report", 1 << 20, 1, 4)}
FRAME = ("errors.py", *(f"programs/{name}.py" for name in ("__init__", "boot", "frames", "runner", "window")))
_IMPORTS = "import ctypes, errno, json, mmap, os, resource, signal, socket, struct, sys, time"
_TOOLS = """
libc = ctypes.CDLL(None, use_errno=True)

def tried(action):
    try:
        action()
    except ValueError:
        return "EPERM"  # of the module resource
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"

def called(name, *words):
    ctypes.set_errno(0)
    result = getattr(libc, name)(*words)
    return "done" if result >= 0 else errno.errorcode[ctypes.get_errno()]
"""
_PROGRAM = """
class Kind:
    kind, media_type = "report", "application/json"

NAME, ROLES, OUTPUTS, LIBRARIES = "hostile", frozenset({"data"}), {"report": Kind, "second": Kind}, ()

def check(parameters):
    pass

def load(outputs):
    pass

def run(inputs, parameters, outputs, write, step):
    found = None
BODY
    if found is not None:
        write("report", json.dumps(found).encode())
"""


@dataclass
class Opened:
    """An input of four bytes. Who reads it has been heard in all that it said before."""

    media_type: str = "application/octet-stream"
    size: int = 4
    file: BinaryIO = field(default_factory=lambda: io.BytesIO(b"data"))


def given() -> dict[str, Opened]:
    return {"data": Opened()}


def start(body: str, kind: str) -> Sandbox:
    """A child that runs this code. What it puts into ``found`` is its report."""
    text = _IMPORTS + _TOOLS + _PROGRAM.replace("BODY", textwrap.indent(textwrap.dedent(body), "    "))
    files = {file: sandbox_child.source(file) for file in FRAME} | {"programs/hostile.py": text}
    return sandbox._start("hostile", files, kind, ())


def inside(body: str, kind: str, limits: Limits = LIMITS) -> Any:
    """What the code finds in a sandbox. Raises as ``Sandbox.run``."""
    with start(body, kind) as room:
        return json.loads(room.run({}, given(), OUTPUTS, limits)["report"])


def outside(body: str) -> Any:
    """What the same code finds as an ordinary process of this user."""
    text = f"{_IMPORTS}\n{_TOOLS}\nfound = None\n{textwrap.dedent(body)}\nprint(json.dumps(found))\n"
    ran = subprocess.run([sys.executable, "-I", "-c", text], stdout=subprocess.PIPE, check=True)
    return json.loads(ran.stdout)
