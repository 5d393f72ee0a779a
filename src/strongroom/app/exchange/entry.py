"""What an exchange and those who ask it agree on beside the documents."""

from strongroom import wire

ENTRY_TYPE = wire.media_type("entry")
"""The payload type under which a broker sends a log entry to an exchange."""

KEY_HEADER = "Strongroom-Signing-Key"
"""The header that names the public key that signed a manifest, in base64."""

MAX_KEYS = 500
"""How many key ids may stand in a query."""

PAGE_ITEMS = 100
"""How many items one page of a list holds at most."""
