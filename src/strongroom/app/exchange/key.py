"""An exchange's log key: made once, kept in the exchange's folder, never replaced."""

from __future__ import annotations

import secrets
from pathlib import Path

from strongroom import wire
from strongroom.app.client.home import pretty, read, write
from strongroom.ledger import LogKey
from strongroom.party import SigningKey
from strongroom.wire import Fields

LOG_NAME = "strongroom.example/ledger"


def log_key(folder: Path, name: str = LOG_NAME) -> LogKey:
    """The log's key; a fresh one under ``name`` when the folder has none.

    Raises:
        BadField, BadKey: the file was edited.
    """
    path = folder / "log.key.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unique = f"{name}-{secrets.token_hex(4)}"
        write(path, pretty({"name": unique, "seed": wire.b64(secrets.token_bytes(32))}), secret=True)
    f = Fields(wire.loads(read(path)), "log key")
    found = LogKey(f.text("name", max_chars=200), SigningKey.from_seed(f.base64("seed")))
    f.end()
    return found
