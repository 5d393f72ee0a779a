"""The key broker protocol of confidential containers, seen from a broker: its messages, the evidence in them, the encrypted
answer and the signed attestation result. What is released is decided elsewhere (``strongroom.guest``).

See ``spec/rcar.md``.
"""
