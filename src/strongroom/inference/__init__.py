"""Receipts of single requests to a model, as formats and verification: nothing here opens a socket or reads a clock.

``events`` and ``guard`` are what can stand in a receipt, ``receipt`` is the document, ``recorder`` makes one inside an
enclave, ``expected``, ``reading`` and ``verification`` are what a reader makes of it, and ``near`` says the same in the form
that NEAR AI's clients ask for.
"""
