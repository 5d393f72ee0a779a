"""The payload type under which a broker sends a log entry to an exchange."""

from strongroom import wire

ENTRY_TYPE = wire.media_type("entry")
