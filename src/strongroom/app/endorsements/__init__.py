"""Endorsements: the documents in which hardware vendors vouch for what their hardware signed, and where they come from.

``shipped`` are the vendors' root and intermediate certificates; ``bundle`` is a file that is carried to where there is no
network; ``cache`` keeps what was fetched; ``intel``, ``amd`` and ``nvidia`` say what some evidence needs and read what their
services answer; ``web`` asks them. ``provider`` joins these behind one method, ``gather``.

Nothing here is believed by anybody: every document is verified against a pinned root when it is used, by the platform's
module under ``attest``. Whoever alters or withholds one can make a verification fail, and whoever replays one can have it
used for as long as it counts; nothing else.

See ``docs/endorsements.md`` and ``spec/endorsements.md``.
"""
