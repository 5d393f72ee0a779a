"""dstack's event log: a JSON list of what was measured into RTMR0 to RTMR3, and what it says of the app.

The entries of RTMR0 to RTMR2 are the firmware's, taken over from the CCEL. Those of RTMR3 are dstack's own *runtime
events*: a name and a payload, whose digest is computed here from the two and never read from the log. What dstack's system
measured before ``system-ready`` says which app runs; what comes after is the app's own word.

On AMD SEV-SNP there are no run-time registers. There HOST_DATA commits to a *configuration* (MrConfigV3) that names the app,
and dstack's system, which MEASUREMENT names, refuses to run another.

See ``spec/event-log.md``.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from strongroom import wire
from strongroom.errors import BadEventLog, BadField, WireError
from strongroom.wire import Fields

from . import tcg_log
from .evidence import MAX_EVENT_LOG_BYTES
from .tcg_log import Event, Found

RUNTIME = 0x08000001  # dstack's event type
MAX_EVENTS = 1024
MAX_CONFIGURATION_BYTES = 16 << 10
RTMR3 = 3

_LABEL = re.compile(r"[ -~]{0,128}\Z")
_NAME = re.compile(r"[!-9;-~]{1,128}\Z")  # no colon: it ends the name in what is hashed
_HEX = re.compile(r"[0-9a-f]*\Z")  # digits one by one: pairs of them would take sixty times the text's room
_REGISTER = re.compile(r"[a-z0-9][a-z0-9_]{0,31}\Z")
_DIGEST_NAME = re.compile(r"(?:mr-.*|.*-hash)\Z")
_MARKS = frozenset({"system-preparing", "boot-mr-done", "system-ready"})  # they say when, and hold nothing
_OWN_TO_THE_MACHINE = frozenset({"app-id", "instance-id", "gpu-attestation"})  # shown, and in no measurement
_MANY = "init-script-hash"  # the one name that may stand more than once
_SYSTEMS = (
    _MARKS | _OWN_TO_THE_MACHINE | {_MANY, "key-provider", "storage-fs"}
)  # no app may measure these, nor any digest's name
_TAKEN = frozenset({"mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "mrconfigid", "measurement"})
_CONFIGURATION = b"dstack-mr-config-v3:\0"
_PROVIDERS: Mapping[str, str] = MappingProxyType({"none": "none", "local": "local-sgx", "kms": "kms", "tpm": "tpm"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the log. **Untrusted.**

    Attributes:
        rtmr: 0 to 3.
        type: the event type.
        digest: SHA-384, or empty where the log leaves it out (a runtime event's only).
        name: a runtime event's name; a label for people otherwise.
        payload: what stands beside it; may be left out for the firmware's.
        version: 1, or 2: how a runtime event is hashed.
    """

    rtmr: int
    type: int
    digest: bytes
    name: str
    payload: bytes
    version: int = 1

    @property
    def measured(self) -> bytes:
        """What extended the register: computed for a runtime event, the log's word for the firmware's."""
        return runtime_digest(self.name, self.payload, self.version) if self.type == RUNTIME else self.digest

    @property
    def type_name(self) -> str:
        return "dstack runtime event" if self.type == RUNTIME else Event(0, self.type, (), b"").name


def runtime_digest(name: str, payload: bytes, version: int = 1) -> bytes:
    """SHA-384 of a runtime event: of type, name and payload with colons between (version 1), or of canonical JSON (2)."""
    if version == 1:
        return hashlib.sha384(struct.pack("<I", RUNTIME) + b":" + name.encode() + b":" + payload).digest()
    return hashlib.sha384(wire.encode({"name": name, "payload": payload.hex(), "type": RUNTIME})).digest()


def _hex(f: Fields, name: str) -> bytes:
    text = f.text(name, max_chars=2 * MAX_EVENT_LOG_BYTES)
    if len(text) % 2 or not _HEX.match(text):
        raise BadField(f"event.{name} is not lowercase hex")
    return bytes.fromhex(text)


def _entry(value: object) -> Entry:
    f = Fields(value, "event")
    found = Entry(
        rtmr=f.integer("imr", high=RTMR3),
        type=f.integer("event_type", high=0xFFFFFFFF),
        digest=_hex(f, "digest"),
        name=f.text("event", max_chars=128),
        payload=_hex(f, "event_payload"),
        version=f.integer("version", low=1, high=2) if f.has("version") else 1,
    )
    f.end()
    runtime = found.type == RUNTIME
    if runtime is not (found.rtmr == RTMR3):
        raise BadField("event.imr is not 3 for dstack's own events, and for no others")
    if not (_NAME if runtime else _LABEL).match(found.name):
        raise BadField("event.event is not 1 to 128 printable ASCII characters without a colon")
    if len(found.digest) not in ({0, 48} if runtime else {48}):
        raise BadField("event.digest is not 48 bytes long")
    if found.version != 1 and not runtime:
        raise BadField("event.version is for dstack's own events")
    if found.type == tcg_log.NO_ACTION:
        raise BadField("event.event_type is of an event that measures nothing")
    return found


def parse(data: bytes) -> tuple[Entry, ...]:
    """Read a log, believed by nobody yet.

    Args:
        data: a JSON list of 1 to 1024 objects, at most 1 MiB.

    Raises:
        BadEventLog: anything else, an unknown member among it.
    """
    try:
        found: tuple[Entry, ...] = Fields({"log": wire.loads(data, max_bytes=MAX_EVENT_LOG_BYTES)}, "event log").items(
            "log", _entry, low=1, high=MAX_EVENTS
        )
    except WireError as error:
        raise BadEventLog(f"not an event log of dstack's: {error.message}") from error
    return found


def encode(entries: Iterable[Entry]) -> bytes:
    """A log that says the same, as dstack's guest agent spells it."""
    found: list[dict[str, Any]] = []
    for e in entries:
        one = {
            "imr": e.rtmr,
            "event_type": e.type,
            "digest": e.digest.hex(),
            "event": e.name,
            "event_payload": e.payload.hex(),
        }
        found.append(one if e.version == 1 else {**one, "version": e.version})
    return json.dumps(found, separators=(",", ":")).encode()


def replay(entries: Iterable[Entry]) -> dict[int, bytes]:
    """The RTMRs that a log leads to, for those that an entry extends: number to 48 bytes."""
    found: dict[int, bytes] = {}
    for entry in entries:
        found[entry.rtmr] = tcg_log.extend(found.get(entry.rtmr, bytes(48)), entry.measured, "sha384")
    return found


def judge(entry: Entry) -> tuple[Found, str]:
    """What computing an entry's digest again comes to, and one line on it; as :func:`tcg_log.judge`."""
    if entry.type != RUNTIME:
        event = Event(entry.rtmr + 1, entry.type, ((tcg_log.BY_NAME["sha384"], entry.digest),), entry.payload)
        return tcg_log.judge(event, "sha384", stripped=True)
    if not entry.digest:
        return Found.RECOMPUTED, "of name and payload; the log leaves the digest out"
    if entry.digest == entry.measured:
        return Found.RECOMPUTED, "of name and payload"
    return Found.CONTRADICTED, f"the digest of {entry.name!r} is not of its name and payload"


@dataclass(frozen=True, slots=True)
class App:
    """What a log, or a configuration, says of the app. As good as the register or HOST_DATA that it leads to.

    Attributes:
        app_id: dstack's name for it, in hex.
        compose_hash: SHA-256 of its app-compose.json.
        instance_id: this machine's, in hex; empty where there is none.
        registers: what belongs in a measurement, as register to digest.
        after: names of events that the app itself had measured, once it ran.
        whole: whether no digest and no payload was left out.
    """

    app_id: str
    compose_hash: bytes
    instance_id: str
    registers: Mapping[str, str]
    after: tuple[str, ...] = ()
    whole: bool = True


def app(entries: Iterable[Entry]) -> App:
    """What a log says of the app.

    Raises:
        BadEventLog: not exactly one each of ``app-id``, ``compose-hash`` and ``system-ready``; a name that stands twice, or
            again after ``system-ready``; a payload that is not what its name promises.
    """
    entries = tuple(entries)
    events = [entry for entry in entries if entry.type == RUNTIME]
    ready = [place for place, event in enumerate(events) if event.name == "system-ready"]
    if len(ready) != 1:
        raise BadEventLog(f"the log says {len(ready)} times that the system was ready, not once")
    before, after = events[: ready[0] + 1], events[ready[0] + 1 :]
    found: dict[str, bytes] = {}
    scripts: list[bytes] = []
    for event in before:
        if event.name == _MANY:
            scripts.append(_payload_digest(event))
        elif event.name in found:
            raise BadEventLog(f"the log has {event.name!r} twice")
        else:
            found[event.name] = event.payload
    if again := next((e.name for e in after if e.name in found or e.name in _SYSTEMS or _DIGEST_NAME.match(e.name)), None):
        raise BadEventLog(f"the log has {again!r} after the system was ready, when only the app can have measured it")
    if not found.get("app-id") or not found.get("compose-hash"):
        raise BadEventLog("the log does not name an app: it has no app-id or no compose-hash")
    registers = _registers(before, found)
    if scripts:
        registers["init_script_hash"] = wire.digest(b"".join(scripts))
    if len(registers) > 24:  # a measurement has 32 at most, and the hardware's come first
        raise BadEventLog("the log has more names than a measurement can hold")
    return App(
        app_id=found["app-id"].hex(),
        compose_hash=found["compose-hash"],
        instance_id=found.get("instance-id", b"").hex(),
        registers=MappingProxyType(dict(sorted(registers.items()))),
        after=tuple(event.name for event in after),
        whole=all(entry.digest and (entry.type == RUNTIME or entry.payload) for entry in entries),
    )


def _payload_digest(event: Entry) -> bytes:
    if len(event.payload) != 32:
        raise BadEventLog(f"the payload of {event.name!r} is not a SHA-256 digest")
    return event.payload


def _registers(before: Iterable[Entry], found: Mapping[str, bytes]) -> dict[str, str]:
    """One register for each name. A name that this version does not know gets one too: nothing measured is passed over."""
    registers: dict[str, str] = {}
    for event in before:
        if event.name in _MARKS:
            if found[event.name]:
                raise BadEventLog(f"{event.name!r} has a payload")
        elif event.name not in _OWN_TO_THE_MACHINE and event.name != _MANY:
            register = event.name.replace("-", "_")
            if not _REGISTER.match(register) or register in _TAKEN or register in registers:
                raise BadEventLog(f"{event.name!r} cannot be the name of a register")
            digest = (
                _payload_digest(event).hex() if _DIGEST_NAME.match(event.name) else hashlib.sha256(event.payload).hexdigest()
            )
            registers[register] = f"sha256:{digest}"
    return registers


def configuration(document: bytes) -> App:
    """What a configuration (MrConfigV3) says of the app, in registers as a log's.

    Args:
        document: its JSON, at most 16 KiB, byte for byte as it was hashed.

    Raises:
        BadEventLog: anything else, an unknown member among it.
    """
    try:
        f = Fields(wire.loads(document, max_bytes=MAX_CONFIGURATION_BYTES), "configuration")
        f.integer("version", low=3, high=3)
        app_id, instance_id, provider_id = _hex(f, "app_id"), _hex(f, "instance_id"), _hex(f, "key_provider_id")
        compose_hash = f.hex("compose_hash", size=32)
        provider = f.text("key_provider", choices=_PROVIDERS)
        registers = {"compose_hash": f"sha256:{compose_hash.hex()}"}
        if f.has("gpu_policy_hash"):
            registers["gpu_policy_hash"] = f"sha256:{f.hex('gpu_policy_hash', size=32).hex()}"
        f.end()
    except WireError as error:
        raise BadEventLog(f"not a configuration of dstack's: {error.message}") from error
    if not app_id:
        raise BadEventLog("the configuration does not name an app")
    said = json.dumps({"name": _PROVIDERS[provider], "id": provider_id.hex()}, separators=(",", ":"))
    registers["key_provider"] = wire.digest(said.encode())  # spelled as the event is, so that both measure alike
    return App(app_id.hex(), compose_hash, instance_id.hex(), MappingProxyType(dict(sorted(registers.items()))))


def host_data(document: bytes) -> bytes:
    """The 32 bytes of HOST_DATA that commit to a configuration."""
    return hashlib.sha256(_CONFIGURATION + document).digest()
