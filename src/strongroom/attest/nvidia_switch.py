"""NVIDIA's switches, which carry what GPUs send each other: verified as GPUs are, and a kind of device of their own, so that
a policy can say how many of each there must be.

See ``spec/evidence-nvidia.md``; the checks G1 to G11 and GT1 to GT7 are those of ``nvidia.py``.
"""

from __future__ import annotations

from .nvidia import STEPS, TERMS_STEPS, judge, parse, require_together, tolerated_until, verify
from .nvidia_device import SWITCH_PLATFORM as PLATFORM
from .nvidia_terms import SwitchTerms as Terms

__all__ = [
    "LABEL",
    "PLATFORM",
    "STEPS",
    "TERMS_STEPS",
    "Terms",
    "judge",
    "parse",
    "require_together",
    "tolerated_until",
    "verify",
]

LABEL = "device: nvidia_switch (NVIDIA switch)"
