"""What may be learned or spent of an asset: events, charges, composition, and the budget that an owner signs.

Events describe what differentially private mechanisms did; ``composition.spent()`` says what they come to. A proposal
states a ``charge.Charge`` for an asset's role; the owner's broker composes it with everything that was charged before, and
charges it before a key is released. A crash can over-charge, and never under-charge.

Nothing is imported here: who only verifies receipts reads charges, and composes nothing.

See ``spec/budget.md``.
"""
