"""Who may ask, and how much: API keys, their limits, and the gate that counts against them. Blind to what is asked.

A key is 256 random bits, shown once. What is kept is its SHA-256: nobody can try out 2^256 keys, so that a slow hash, which
is for passwords, would make every request slower and no key safer. Whoever reads the file has hashes and names, and no key.

See ``docs/operators.md``.
"""

from __future__ import annotations

import hashlib
import math
import re
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from strongroom import wire
from strongroom.app.stores.sqlite import Database, blob, integer, text
from strongroom.errors import AlreadyExists, BadField, LimitReached, NoCredential, NoSpace, NotFound, Unauthorised
from strongroom.wire import JSON, Fields

from .behind import Behind

PLACE: Final = Path("serve") / "keys.db"
"""Where the keys lie in a home."""

PREFIX: Final = "sr-"
ANONYMOUS: Final = "anon-"
DAY: Final = 86_400
MINUTE: Final = 60
KEPT_DAYS: Final = 400  # of counts

_BEARER = re.compile(r"bearer +([!-~]{1,256})\Z", re.IGNORECASE)
_KEY = re.compile(r"sr-[A-Za-z0-9_-]{43}\Z")
_LIMITS: Final = ("requests_per_minute", "tokens_per_minute", "tokens_per_day")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS keys (seq INTEGER PRIMARY KEY, hash TEXT NOT NULL UNIQUE, name TEXT NOT NULL,
    limits BLOB NOT NULL, made_at INTEGER NOT NULL, revoked_at INTEGER) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS names ON keys (name) WHERE revoked_at IS NULL;
CREATE TABLE IF NOT EXISTS used (hash TEXT, day INTEGER, requests INTEGER NOT NULL, tokens INTEGER NOT NULL,
    PRIMARY KEY (hash, day)) STRICT;
"""


def hash_of(token: str) -> str:
    """What is kept of a token: the hex SHA-256 of its bytes."""
    return hashlib.sha256(token.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Limits:
    """What a key may use; ``None`` is no limit.

    Args:
        requests_per_minute: from 1. As many may come at once.
        tokens_per_minute: from 1, of prompts, answers and embeddings together.
        tokens_per_day: from 1, in a day of UTC.
        models: names of the models that it may ask; ``None`` for every one.

    Raises:
        BadField: a limit below 1, or an empty set of models.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    models: frozenset[str] | None = None

    def __post_init__(self) -> None:
        f = Fields(self.to_json(), "limits")
        for name in _LIMITS:
            if getattr(self, name) is not None:
                f.integer(name, low=1)
        if self.models is not None and not self.models:
            raise BadField("limits.models is empty: a key that may ask nothing is none")

    def to_json(self) -> dict[str, JSON]:
        found: dict[str, JSON] = {name: getattr(self, name) for name in _LIMITS}
        return {**found, "models": None if self.models is None else [*sorted(self.models)]}

    @classmethod
    def from_json(cls, value: object) -> Limits:
        """Raises BadField."""
        f = Fields(value, "limits")

        def number(name: str) -> int | None:
            found: int | None = f.optional(name, lambda item: Fields({name: item}, "limits").integer(name, low=1))
            return found

        def models(value: object) -> frozenset[str]:
            g = Fields({"models": value}, "limits")
            return frozenset(g.items("models", lambda item: Fields({"model": item}, "limits").text("model"), high=256))

        found = cls(**{name: number(name) for name in _LIMITS}, models=f.optional("models", models))
        f.end()
        return found


NO_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class Credential:
    """Who asked, as far as anybody here needs to know.

    Attributes:
        hash: of the bearer token, 64 hex digits; ``None`` where there was none.
        name: what the operator calls the key; ``None`` of one that the client made itself.
        limits: what it may use.
    """

    hash: str | None
    name: str | None
    limits: Limits

    @property
    def account(self) -> str:
        """Whose use it counts as: the key's hash, and empty for all together who have none, as anybody can make one up."""
        return self.hash if self.name is not None and self.hash is not None else ""


@dataclass(frozen=True, slots=True)
class Key:
    """An API key as its operator sees it. The key itself is nowhere.

    Attributes:
        hash: the hex SHA-256 of the key.
        name: the operator's own word for it.
        made_at, revoked_at: Unix seconds; ``None`` while it is in force.
    """

    hash: str
    name: str
    limits: Limits
    made_at: int
    revoked_at: int | None

    @property
    def id(self) -> str:
        """Enough of the hash to tell it from the others."""
        return self.hash[:12]


@dataclass(frozen=True, slots=True)
class Used:
    """What a key used in one day: that many requests, and tokens of all kinds."""

    requests: int = 0
    tokens: int = 0

    def __add__(self, other: Used) -> Used:
        return Used(self.requests + other.requests, self.tokens + other.tokens)


class Keys:
    """The operator's API keys and their counts, in one SQLite file. Losing it costs every user a new key, nobody a secret.

    Args:
        path: the file; its folder is made when it is not there.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = Database(path, _SCHEMA)

    def close(self) -> None:
        self._db.close()

    def add(self, name: str, limits: Limits = NO_LIMITS, *, at: int) -> str:
        """Make a key. It is returned this once, and cannot be found again.

        Raises:
            BadField: not a name.
            AlreadyExists: a key in force has it.
        """
        Fields({"name": name}, "key").name("name")
        token = PREFIX + secrets.token_urlsafe(32)
        with self._db.write() as c:
            if c.execute("SELECT 1 FROM keys WHERE name = ? AND revoked_at IS NULL", (name,)).fetchone() is not None:
                raise AlreadyExists(f"a key {name!r} is in force", hint="Choose another name, or revoke that one first.")
            row = (hash_of(token), name, wire.encode(limits.to_json()), at)
            c.execute("INSERT INTO keys (hash, name, limits, made_at) VALUES (?, ?, ?, ?)", row)
        return token

    def revoke(self, name: str, *, at: int) -> Key:
        """End a key, at once and for good. ``name``: its name, or its id. Raises NotFound."""
        with self._db.write() as c:
            row = c.execute(
                "SELECT hash, name, limits, made_at, revoked_at FROM keys WHERE revoked_at IS NULL"
                " AND (name = ? OR substr(hash, 1, 12) = ?)",
                (name, name),
            ).fetchone()
            if row is None:
                raise NotFound(f"no key {name!r} is in force", hint="See: strongroom keys list")
            c.execute("UPDATE keys SET revoked_at = ? WHERE hash = ?", (at, text(row[0])))
        return _key((*row[:4], at))

    def list(self) -> list[Key]:
        """Every key, oldest first, the revoked ones too."""
        rows = self._db.rows("SELECT hash, name, limits, made_at, revoked_at FROM keys ORDER BY seq")
        return [_key(row) for row in rows]

    def in_force(self, hash_: str) -> Key | None:
        """The key with this hash, if it was not revoked. Read for each request, so that a revoked one is refused at once."""
        row = self._db.row(
            "SELECT hash, name, limits, made_at, revoked_at FROM keys WHERE hash = ? AND revoked_at IS NULL", hash_
        )
        return None if row is None else _key(row)

    def used(self, hash_: str, day: int) -> Used:
        """What a key used in a day. ``day``: days since 1970."""
        row = self._db.row("SELECT requests, tokens FROM used WHERE hash = ? AND day = ?", hash_, day)
        return Used() if row is None else Used(integer(row[0]), integer(row[1]))

    def count(self, counts: dict[tuple[str, int], Used]) -> None:
        """Add to the counts, all in one transaction; those of long ago are forgotten. ``counts``: by hash and day."""
        with self._db.write(with_the_next=True) as c:
            c.executemany(
                "INSERT INTO used VALUES (?, ?, ?, ?) ON CONFLICT (hash, day)"
                " DO UPDATE SET requests = requests + excluded.requests, tokens = tokens + excluded.tokens",
                [(hash_, day, used.requests, used.tokens) for (hash_, day), used in counts.items()],
            )
            c.execute("DELETE FROM used WHERE day < ?", (max((day for _, day in counts), default=0) - KEPT_DAYS,))


def _key(row: tuple[object, ...]) -> Key:
    hash_, name, limits, made_at, revoked_at = row
    return Key(
        text(hash_),
        text(name),
        Limits.from_json(wire.decode(blob(limits))),
        integer(made_at),
        None if revoked_at is None else integer(revoked_at),
    )


class _Bucket:
    """So much a minute, at most a minute's worth at once. It may be overdrawn, and then fills up from below.

    Args:
        capacity: a minute's worth.
        at: seconds.
    """

    def __init__(self, capacity: int, at: float) -> None:
        self.capacity, self.level, self._at = capacity, float(capacity), at

    def fill(self, at: float) -> None:
        """What has come since; a clock that goes back adds nothing."""
        self.level = min(self.capacity, self.level + max(0.0, at - self._at) * self.capacity / MINUTE)
        self._at = at

    def wait(self, need: float) -> int:
        """Seconds until it holds ``need``; 0 where it does."""
        return max(0, math.ceil((need - self.level) * MINUTE / self.capacity))


class _Account:
    """What one key has left. Counted in memory; what counts for a day comes from the file, and goes there."""

    def __init__(self, limits: Limits, at: float) -> None:
        self.limits = limits
        self.requests = _Bucket(limits.requests_per_minute, at) if limits.requests_per_minute else None
        self.tokens = _Bucket(limits.tokens_per_minute, at) if limits.tokens_per_minute else None
        self.day = -1
        self.today = 0  # tokens, those that are held for requests under way too

    def fill(self, at: float) -> None:
        for bucket in (self.requests, self.tokens):
            if bucket is not None:
                bucket.fill(at)

    def require(self, tokens: int, at: float) -> None:
        """Require that so many tokens are left, and at least one. More than a whole limit are, where nothing of it is used.

        Raises:
            LimitReached.
        """
        tokens = max(1, tokens)
        if self.tokens is not None:
            wait = self.tokens.wait(min(tokens, self.tokens.capacity))
            if wait:
                raise LimitReached("the key's tokens of this minute are used up", retry_after=wait)
        most = self.limits.tokens_per_day
        if most is not None and self.today + min(tokens, most) > most:
            raise LimitReached("the key's tokens of this day are used up", retry_after=_until_midnight(at))

    def take(self, tokens: int, day: int) -> None:
        """Count tokens; a negative number gives back what was held on that day."""
        if self.tokens is not None:
            self.tokens.level -= tokens
        if day == self.day:
            self.today += tokens


def _until_midnight(at: float) -> int:
    return max(1, math.ceil(DAY - at % DAY))


class Admission:
    """One request that was let in. Made by :meth:`Gate.admit`; ``with`` gives back what it holds, whatever happens.

    Attributes:
        credential: who asked.
    """

    def __init__(
        self,
        credential: Credential,
        account: _Account,
        at: float,
        *,
        lock: threading.Lock,
        count: Callable[[Credential, int, int], None],
    ) -> None:
        self.credential = credential
        self._account, self._at, self._lock, self._count = account, at, lock, count
        self._held = 0
        self._open = True

    def hold(self, tokens: int) -> None:
        """Set tokens aside for the answer, so that many requests at once do not use together what each may use alone.

        Args:
            tokens: the most that it can come to; what is not used is given back by :meth:`settle`.

        Raises:
            LimitReached: the key has not so many left.
        """
        with self._lock:
            self._account.require(tokens, self._at)
            self._account.take(tokens, self._day)
            self._held += tokens

    def settle(self, prompt_tokens: int = 0, completion_tokens: int = 0, embedding_tokens: int = 0) -> None:
        """Count what it used, in the place of what was held. Only the first call counts."""
        tokens = prompt_tokens + completion_tokens + embedding_tokens
        with self._lock:
            if not self._open:
                return
            self._open = False
            self._account.take(tokens - self._held, self._day)
        self._count(self.credential, self._day, tokens)

    @property
    def _day(self) -> int:
        return int(self._at) // DAY

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.settle()


class Gate:
    """Lets requests in by their credential and its limits.

    Args:
        keys: the operator's.
        anonymous: what all who bring no key of the operator's may use **together**; ``None`` where a key is required.
        outside: whether they are let in also where another machine passed their request on.
        bare: whether a request without any credential is let in too. Nobody but who knows its random id gets its receipt.
        on_disk: whether counts of days are written down. Where the operator may see nothing they are not, and begin anew
            with the process. It may be changed while requests come.
    """

    def __init__(
        self,
        keys: Keys,
        *,
        anonymous: Limits | None = None,
        outside: bool = True,
        bare: bool = False,
        on_disk: bool = True,
    ) -> None:
        self._keys, self._anonymous, self._outside = keys, anonymous, outside
        self._bare, self.on_disk = bare, on_disk
        self._accounts: dict[str, _Account] = {}
        self._lock = threading.Lock()
        self._counts: Behind[tuple[str, int, Used]] = Behind(self._write, pause=0.2)

    def close(self) -> None:
        """Write the counts that wait. The keys are the caller's to close."""
        self._counts.close()

    def flush(self) -> None:
        """Wait until the counts are written."""
        self._counts.flush()

    def lets_in(self, *, passed_on: bool = False) -> bool:
        """Whether somebody without a key of the operator's is let in."""
        return self._anonymous is not None and (self._outside or not passed_on)

    def known(self, authorization: str | None, *, passed_on: bool = False) -> Credential:
        """Who asks, without counting it: for what is not limited, such as fetching one's own receipt.

        Args:
            authorization: the header ``Authorization``, untrusted.
            passed_on: whether another machine passed the request on (``sealed_http.passed_on``).

        Raises:
            NoCredential: none, another scheme, an unknown or revoked key, or one that the client made where keys are needed.
        """
        anonymous = self._anonymous if self.lets_in(passed_on=passed_on) else None
        if authorization is None:
            if anonymous is None or not self._bare:
                raise NoCredential("the request has no credential")
            return Credential(None, None, anonymous)
        found = _BEARER.match(authorization.strip())
        if found is None:
            raise NoCredential("the credential is not a bearer token")
        token = found[1]
        key = self._keys.in_force(hash_of(token)) if _KEY.match(token) else None
        if key is not None:
            return Credential(key.hash, key.name, key.limits)
        if anonymous is None or token.startswith(PREFIX):  # a revoked key is not let in as somebody without one
            raise NoCredential("the key is unknown or revoked")
        return Credential(hash_of(token), None, anonymous)

    def admit(self, authorization: str | None, model: str | None, at: float, *, passed_on: bool = False) -> Admission:
        """Let one request in, and count it.

        Args:
            authorization: the header ``Authorization``, untrusted.
            model: what it asks for, where that is known already.
            at: Unix seconds.
            passed_on: as of :meth:`known`.

        Raises:
            NoCredential: as :meth:`known`.
            Unauthorised: the key may not ask this model.
            LimitReached: a limit is used up; ``retry_after`` says for how long.
        """
        credential = self.known(authorization, passed_on=passed_on)
        limits = credential.limits
        if model is not None and limits.models is not None and model not in limits.models:
            raise Unauthorised("the key is not for this model", hint="Ask the operator which models the key is for.")
        with self._lock:
            account = self._account(credential, at)
            account.require(0, at)
            if account.requests is not None:
                wait = account.requests.wait(1)
                if wait:
                    raise LimitReached("the key's requests of this minute are used up", retry_after=wait)
                account.requests.level -= 1
        return Admission(credential, account, at, lock=self._lock, count=self._count)

    def _count(self, credential: Credential, day: int, tokens: int) -> None:
        if credential.name is not None and credential.hash is not None and self.on_disk:
            with suppress(NoSpace):  # the answer is out; what is left of the day is still counted in memory
                self._counts.put((credential.hash, day, Used(1, tokens)))

    def _account(self, credential: Credential, at: float) -> _Account:
        """One for each key of the operator's, and one for all others together: anybody can make up credentials."""
        who = credential.account
        found = self._accounts.get(who)
        if found is None:
            found = self._accounts[who] = _Account(credential.limits, at)
        found.fill(at)
        day = int(at) // DAY
        if day != found.day:
            found.day = day
            found.today = self._keys.used(who, day).tokens if who else 0
        return found

    def _write(self, batch: list[tuple[str, int, Used]]) -> None:
        counts: dict[tuple[str, int], Used] = {}
        for hash_, day, used in batch:
            counts[hash_, day] = counts.get((hash_, day), Used()) + used
        self._keys.count(counts)
