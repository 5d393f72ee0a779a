"""Sample guests, for trying things out: their evidence is signed by nobody, so that a broker whose owner wants it signs,
with a simulated platform's key, that somebody showed it. It protects nothing, and is called simulated wherever it is shown.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.app.enclave.keys import PlatformKeys, root_public_key
from strongroom.app.enclave.platform import SimulatedPlatform
from strongroom.rcar.evidence import sample_measurement
from strongroom.trust import Root, Trust

if TYPE_CHECKING:
    from strongroom.attest.evidence import Endorsements, Evidence, Measurement
    from strongroom.rcar.evidence import Vouch

SVN = "1"  # of the guest components' own sample attester


def voucher(folder: Path) -> Vouch:
    """What signs for sample guests. ``folder``: of its keys, made where there are none; no other platform's."""
    keys = PlatformKeys.open(folder)

    def vouch(report_data: bytes, measurement: Measurement) -> tuple[Evidence, Endorsements]:
        platform = SimulatedPlatform(keys, lambda: measurement)
        return platform.produce(report_data), platform.endorsements()

    return vouch


def reference(folder: Path) -> Trust:
    """What the broker's owner trusts to have such guests: this one key, and what sample guests say of themselves."""
    PlatformKeys.open(folder)
    return Trust(roots=(Root("simulated", root_public_key(folder)),), measurements=(sample_measurement(SVN),))
