"""Carrying between sites that share no network: what goes out, what comes in, and what this site lets cross.

Beside the folder of a machine's parties lie the site's policy (``carry.json``), its record (``carry.db``) and, for people to
look at, what came in that no exchange takes (``carried/SITE/NUMBER/``).

See ``spec/carry.md`` and ``docs/air-gap.md``.
"""

from .coming import Arrived, carry_in
from .desk import Desk
from .going import Wish, Written, carry_out

__all__ = ["Arrived", "Desk", "Wish", "Written", "carry_in", "carry_out"]
