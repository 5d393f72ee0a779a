"""Carried bundles: one signed, encrypted file between sites that share no network.

- :class:`Carriage` is what a file says of itself, in the clear, under its sender's signature; a security officer reads it;
- :func:`read` finds it in a file, :func:`verify` checks the signature, :func:`accept` holds it against the site's
  :class:`Site` policy, and :func:`open_body` opens and checks what lies in it;
- :func:`write` makes such a file.

What lies in a bundle are documents and sealed files that an exchange would take from anybody: there are no names, no paths
and no instructions in it, and what comes in is handed to an exchange that nobody trusts.

See ``spec/carry.md``.
"""

from .accept import Accepted, Signed, accept, verify
from .body import Contents, open_body
from .carriage import CARRIAGE_TYPE, MAX_ITEMS, Body, Carriage, Item, Kind, Place
from .file import Carried, read, write
from .item import Heads, Said, limit_of, said
from .site import MAX_FILE_BYTES, Lets, Peer, Site

__all__ = [
    "CARRIAGE_TYPE",
    "MAX_FILE_BYTES",
    "MAX_ITEMS",
    "Accepted",
    "Body",
    "Carriage",
    "Carried",
    "Contents",
    "Heads",
    "Item",
    "Kind",
    "Lets",
    "Peer",
    "Place",
    "Said",
    "Signed",
    "Site",
    "accept",
    "limit_of",
    "open_body",
    "read",
    "said",
    "verify",
    "write",
]
