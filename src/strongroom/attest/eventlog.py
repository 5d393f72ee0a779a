"""Event logs: whether one leads to the registers that hardware signed, and what it says.

A measurement is compared by its registers, with or without a log. A log adds what they are made of: :func:`check` replays it
to the registers, and computes again every digest that can be computed from the text beside it.

See ``spec/event-log.md``; ``tcg_log.py`` and ``dstack_log.py`` read the formats.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from strongroom.errors import BadEventLog

from . import dstack_log, tcg_log
from .evidence import Measurement
from .tcg_log import Found

_RTMRS = {register: f"rtmr{register - 1}" for register in range(1, 5)}
_PCRS = {register: f"pcr{register}" for register in range(tcg_log.MAX_PCR + 1)}


def check(platform: str, log: bytes, measurement: Measurement) -> str:
    """Replay a log to the registers of a measurement that hardware signed.

    Args:
        platform: the platform's name, which says of which format the log is.
        log: untrusted.
        measurement: what the platform signed.

    Returns:
        one line of what was seen.

    Raises:
        BadEventLog: the platform has no log; the log is malformed, leads elsewhere, or says nothing of any register that
            was signed; or a digest is not of the text beside it.
    """
    if platform == "dstack":
        return _check_dstack(log, measurement)
    if platform == "tdx" or (platform == "azure_tdx" and _is_guests(log)):
        return _check_tcg(log, measurement, guest=True)
    if platform in {"tpm", "azure_snp", "azure_tdx"}:
        return _check_tcg(log, measurement, guest=False)
    raise BadEventLog(f"there is no event log for evidence of {platform[:64]!r}")


def _is_guests(log: bytes) -> bool:
    """Whether the header names measurement register 1, as a confidential guest's does; a TPM's names PCR 0."""
    return log[:4] == b"\x01\0\0\0"


def _check_tcg(data: bytes, measurement: Measurement, *, guest: bool) -> str:
    log = tcg_log.parse(data, guest=guest)
    names = _RTMRS if guest else _PCRS
    signed = {r: measurement.registers[name].split(":") for r, name in names.items() if name in measurement.registers}
    banks = {bank for bank, _ in signed.values()}
    if len(banks) != 1:
        raise BadEventLog("the hardware signed no register that an event log could lead to")
    (bank,) = banks
    replayed = tcg_log.replay(log.events, bank, guest=guest)
    expected = {register: bytes.fromhex(value) for register, (_, value) in signed.items()}
    events = [event for event in log.events if event.type != tcg_log.NO_ACTION]
    found = (tcg_log.judge(event, bank) for event in events if event.register in expected)
    strangers = [event for event in events if event.register not in expected]
    for event in strangers:  # of registers that were not signed nothing is known, but their entries may not lie either
        _refuse(tcg_log.judge(event, bank))
    line = _compare(replayed, expected, found, "RTMR" if guest else "PCR ", offset=1 if guest else 0)
    unsigned = _ranges({event.register for event in strangers}, 1 if guest else 0)
    return line + (f"; registers that were not signed: {unsigned}" if strangers else "")


def _check_dstack(data: bytes, measurement: Measurement) -> str:
    if "rtmr0" not in measurement.registers:
        said = dstack_log.configuration(data)
        _same_app(said, measurement)
        return f"the configuration names app {said.app_id}"
    entries = dstack_log.parse(data)
    replayed = dstack_log.replay(entries)
    replayed.pop(dstack_log.RTMR3, None)  # the platform's own check compared it; what it says is compared below
    signed = {r: measurement.registers.get(f"rtmr{r}") for r in range(dstack_log.RTMR3)}
    expected = {register: bytes.fromhex(value.split(":")[1]) for register, value in signed.items() if value}
    said = dstack_log.app(entries)
    _same_app(said, measurement)
    line = _compare(replayed, expected, map(dstack_log.judge, entries), "RTMR", must=False)
    return f"{line}; app {said.app_id}"


def _same_app(said: dstack_log.App, measurement: Measurement) -> None:
    for register, value in said.registers.items():
        if measurement.registers.get(register) != value:
            raise BadEventLog(f"the log says {value} of {register}, and the measurement does not")


def _refuse(found: tuple[Found, str]) -> Found:
    if found[0] is Found.CONTRADICTED:
        raise BadEventLog(found[1])
    return found[0]


def _compare(
    replayed: Mapping[int, bytes],
    expected: Mapping[int, bytes],
    found: Iterable[tuple[Found, str]],
    prefix: str,
    *,
    offset: int = 0,
    must: bool = True,
) -> str:
    both = sorted(set(replayed) & set(expected))
    for register in both:
        if replayed[register] != expected[register]:
            name = f"{prefix}{register - offset}"
            raise BadEventLog(
                f"{name} does not replay: the log leads to {replayed[register].hex()[:16]}…, not to what was signed"
            )
    if must and not both:
        raise BadEventLog("the log has no event for any register that was signed")
    seen = Counter(map(_refuse, found))
    events = f"{seen.total()} events, {seen[Found.RECOMPUTED]} recomputed, {seen[Found.OPAQUE]} opaque"
    line = f"{prefix}{_ranges(both, offset)} replay from {events}" if both else f"{events}"
    silent = [register for register in expected if register not in replayed and any(expected[register])]
    return line + (f"; not in the log: {prefix}{_ranges(silent, offset)}" if silent else "")


def _ranges(registers: Iterable[int], offset: int) -> str:
    """``0-2, 7`` for 0, 1, 2 and 7."""
    found: list[list[int]] = []
    for register in sorted(r - offset for r in registers):
        if found and found[-1][-1] == register - 1:
            found[-1].append(register)
        else:
            found.append([register])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in found)


@dataclass(frozen=True, slots=True)
class Shown:
    """One event, for people.

    Attributes:
        register: ``RTMR0``, ``PCR 7``.
        type: the type's name.
        found: what computing its digest again came to.
        of: what the digest is of, in a few words.
        digest: hex, of the strongest bank.
        text: what of the event's data can be read, at most 1024 characters.
        digests: hex, by the names of all banks that this version knows.
        data: the event's data, whole.
    """

    register: str
    type: str
    found: Found
    of: str
    digest: str
    text: str
    digests: Mapping[str, str] = field(default_factory=dict)
    data: bytes = b""


def events(log: bytes) -> tuple[Shown, ...]:
    """Every event of a log in any of the formats, for people to see. Untrusted: :func:`check` says whether it holds.

    Raises:
        BadEventLog: it is of none of them.
    """
    if log[:1] == b"{":
        said, digest = dstack_log.configuration(log), dstack_log.host_data(log).hex()
        return (
            Shown(
                "HOST_DATA",
                "dstack configuration",
                Found.RECOMPUTED,
                "of the document",
                digest,
                f"app {said.app_id}",
                {"sha256": digest},
                log,
            ),
        )
    if log.lstrip(b" \t\r\n")[:1] == b"[":
        return tuple(
            Shown(
                f"RTMR{e.rtmr}",
                e.type_name,
                *dstack_log.judge(e),
                e.measured.hex(),
                _readable(*_named(e.payload)) if not e.name else _readable(e.payload, e.name),
                {"sha384": e.measured.hex()},
                e.payload,
            )
            for e in dstack_log.parse(log)
        )
    guest = _is_guests(log)
    parsed = tcg_log.parse(log, guest=guest)
    bank = _strongest(parsed.algorithms)
    return tuple(
        Shown(
            f"RTMR{event.register - 1}" if guest and event.register else "MRTD" if guest else f"PCR {event.register}",
            event.name,
            *tcg_log.judge(event, bank),
            event.digest(bank).hex(),
            _readable(*_named(event.data)),
            {tcg_log.ALGORITHMS[n][0]: digest.hex() for n, digest in event.digests if n in tcg_log.ALGORITHMS},
            event.data,
        )
        for event in parsed.events
    )


def _strongest(algorithms: Sequence[tuple[int, int]]) -> str:
    usable = [name for name in ("sha512", "sha384", "sha256", "sha1") if tcg_log.BY_NAME[name] in dict(algorithms)]
    if not usable:
        raise BadEventLog("the event log has no bank of a hash algorithm that this version computes")
    return usable[0]


def _named(data: bytes) -> tuple[bytes, str]:
    """The value and the name of a UEFI variable, or all of the data and no name."""
    found = tcg_log.variable(data)
    if found is None or not found[0].isprintable():
        return data, ""
    return found[1], found[0]


def _readable(data: bytes, label: str = "") -> str:
    """What reads as text, in ASCII or little-endian UTF-16: runs of four characters or more; else hex."""
    plain = data.replace(b"\0", b"")
    runs = re.findall(rb"[ -~]{4,}", plain)
    text = b" ".join(runs).decode("ascii") if 2 * sum(map(len, runs)) >= len(plain) else data[:64].hex()
    return f"{label} {text}".strip()[:1024]
