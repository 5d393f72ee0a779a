"""Strongroom: compute together on things that none may hand over, and prove what happened.

The short Python API; everything else is in the modules named for their nouns.

    room = strongroom.connect("room", party="lab")
    proposal = room.propose(strongroom.Draft(...))
    bundle = room.run(proposal.digest)
    strongroom.verify(bundle, trust=room.trust)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .app.client.draft import Change, Draft, Wanted
    from .app.client.room import Room, connect
    from .app.client.verified import verified_async_client, verified_client
    from .policy import ANY_PARTY, OutputRule, Policy
    from .receipt import Bundle, Receipt, verify
    from .trust import Trust

_PLACES = {
    "ANY_PARTY": "policy",
    "Bundle": "receipt",
    "Change": "app.client.draft",
    "Draft": "app.client.draft",
    "OutputRule": "policy",
    "Policy": "policy",
    "Receipt": "receipt",
    "Room": "app.client.room",
    "Trust": "trust",
    "Wanted": "app.client.draft",
    "connect": "app.client.room",
    "verified_async_client": "app.client.verified",
    "verified_client": "app.client.verified",
    "verify": "receipt",
}

__all__ = [
    "ANY_PARTY",
    "Bundle",
    "Change",
    "Draft",
    "OutputRule",
    "Policy",
    "Receipt",
    "Room",
    "Trust",
    "Wanted",
    "__version__",
    "connect",
    "verified_async_client",
    "verified_client",
    "verify",
]


def __getattr__(name: str) -> Any:
    # loaded when used, so that `import strongroom.wire` stays a matter of milliseconds
    if name not in _PLACES:
        raise AttributeError(name)
    return getattr(import_module(f".{_PLACES[name]}", __name__), name)
