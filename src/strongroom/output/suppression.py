"""Which groups are hidden where small ones must be, so that no total gives them away.

See ``spec/output.md``.
"""

from __future__ import annotations

from collections.abc import Sequence


def suppressed(sizes: Sequence[int], records: int, smallest: int) -> frozenset[int]:
    """The groups smaller than ``smallest``, and then the smallest of the others, until nothing can be had by subtraction:
    what is hidden is at least two groups, of at least ``smallest`` records together; or it is all groups.

    Args:
        sizes: records of each group of one division; every record is in exactly one. -1 for a group that is hidden already,
            -2 for several of them. In an order that is not the program's: of equals the first is hidden.
        records: how many there are in all.
        smallest: the fewest records of a group that is shown; 1 hides none.

    Returns:
        places in ``sizes``.
    """
    found = {n for n, size in enumerate(sizes) if size < (smallest if smallest > 1 else 0)}
    while found and smallest > 1:
        left = [n for n in range(len(sizes)) if n not in found]
        hidden = records - sum(sizes[n] for n in left)
        several = sum(2 if sizes[n] == -2 else 1 for n in found) > 1
        if not left or (several and hidden >= smallest):
            break
        found.add(min(left, key=lambda n: (sizes[n], n)))
    return frozenset(found)
