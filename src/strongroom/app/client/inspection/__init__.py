"""The static report on a code bundle: what a reviewer should look at first, and what to ask.

Bandit's tests and rules of our own over the text and the syntax tree. The code is never imported or executed, and it is read
in a child process with bounds of memory and time. One bundle gives one report, byte for byte, with one version of the rules
and one bandit. It is an aid, proves nothing, and says so (``findings.AID``).

See ``docs/reviewing.md``.
"""

from __future__ import annotations

import os
import subprocess
import sys

from strongroom.app.client.code import Code
from strongroom.errors import StrongroomError

from .child import SECONDS
from .findings import AID, RULES, Finding, Report, Rule, Severity
from .with_bandit import version

__all__ = ["AID", "RULES", "Finding", "Report", "Rule", "Severity", "inspect"]


def inspect(data: bytes, code: Code) -> Report:
    """The report on a bundle.

    Args:
        data: the bundle's bytes, which were read as ``code``.
        code: what it holds.

    Raises:
        MissingExtra: bandit is not installed.
    """
    bandit = version()
    # -P: the folder that somebody works in is no place to import from
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "PYTHONHOME", "PYTHONPATH") if name in os.environ}
    try:
        ran = subprocess.run(
            [sys.executable, "-P", "-m", "strongroom.app.client.inspection.child"],
            input=code.digest.encode() + b"\n" + data,
            capture_output=True,
            check=False,
            env={**kept, "PYTHONHASHSEED": "0"},
            timeout=4 * SECONDS,
        )
        if ran.returncode == 0:
            found = Report.parse(ran.stdout)
            if found.bundle == code.digest:
                return found
    except (subprocess.TimeoutExpired, StrongroomError):
        pass
    refused = Finding.of("unread", "", 0, "looking through it took more time or memory than it may")
    return Report.make(code.digest, bandit, len(code.files), [refused])
