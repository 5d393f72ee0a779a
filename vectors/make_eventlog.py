"""Writes ``vectors/eventlog``. Deterministic: fixed events.

    python vectors/make_eventlog.py

One file a case: the platform, its log, the measurement that hardware signed, and ``expect``: ``ok`` or the stable code.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

import pki_dstack as pki  # noqa: E402 - from the tests
from strongroom import wire  # noqa: E402
from strongroom.attest import dstack_log, tcg_log  # noqa: E402
from strongroom.attest.dstack_log import Entry  # noqa: E402
from strongroom.attest.evidence import Measurement  # noqa: E402
from strongroom.attest.tcg_log import Event, Log  # noqa: E402

REFUSED = "attest.bad_event_log"


def measurement(platform: str, log: Log, bank: str = "sha384") -> Measurement:
    """What hardware would sign for whom this log is true."""
    guest = log.register == 1
    registers = tcg_log.replay(log.events, bank, guest=guest)
    names = {register: f"rtmr{register - 1}" if guest else f"pcr{register}" for register in registers}
    return Measurement(platform, {names[r]: f"{bank}:{value.hex()}" for r, value in registers.items()})


def dstack_measurement(entries: Sequence[Entry]) -> Measurement:
    registers = {f"rtmr{r}": f"sha384:{value.hex()}" for r, value in dstack_log.replay(entries).items() if r != 3}
    return Measurement("dstack", {**registers, **dstack_log.app(entries).registers})


GUEST, TPM, DSTACK = pki.guest_log(), pki.tpm_log(), (*pki.BOOT, *pki.APP)
LOCALITY = Event(0, tcg_log.NO_ACTION, tuple((n, bytes(s)) for n, s in pki.EVERY_BANK), b"StartupLocality\0\x03")


def with_event(log: Log, place: int, event: Event) -> Log:
    events = list(log.events)
    events[place] = event
    return replace(log, events=tuple(events))


def found(log: Log, kind: int) -> int:
    """The place of the first event of a type."""
    return next(place for place, event in enumerate(log.events) if event.type == kind)


def lying(log: Log, kind: int, data: bytes) -> Log:
    """The log with other text beside a digest: the registers are the same."""
    place = found(log, kind)
    return with_event(log, place, replace(log.events[place], data=data))


Case = tuple[str, str, str, str, bytes, Measurement]  # name, description, expectation, platform, log, measurement


def cases() -> Iterator[Case]:
    """Every case."""
    yield from good()
    yield from bad()
    yield from bad_dstack()


def good() -> Iterator[Case]:
    """Logs that lead to what was signed."""
    guest, tpm, dstack = measurement("tdx", GUEST), measurement("tpm", TPM), dstack_measurement(DSTACK)
    ok = "ok"
    yield "ccel", "a confidential guest's log with the padding of its area", ok, "tdx", GUEST.encode(), guest
    zeros = replace(GUEST, padding=(0, 64)).encode()
    yield "ccel-zero-padding", "the same, padded with zeros", ok, "tdx", zeros, guest
    sha256 = measurement("tpm", TPM, "sha256")
    yield "tpm", "a TPM's log, compared in the SHA-256 bank", ok, "tpm", TPM.encode(), sha256
    yield "tpm-sha384", "the same log, compared in the SHA-384 bank", ok, "tpm", TPM.encode(), tpm
    yield "azure-tdx-guest", "on Azure's TDX the guest's own log", ok, "azure_tdx", GUEST.encode(), guest
    yield "azure-tdx-tpm", "on Azure's TDX the virtual TPM's log", ok, "azure_tdx", TPM.encode(), sha256
    yield "azure-snp", "on Azure's SEV-SNP the virtual TPM's log", ok, "azure_snp", TPM.encode(), sha256
    locality = replace(TPM, events=(LOCALITY, *TPM.events))
    yield (
        "tpm-locality",
        "PCR 0 begins with the locality that started the TPM",
        ok,
        "tpm",
        locality.encode(),
        measurement("tpm", locality),
    )
    yield "dstack", "dstack's log", ok, "dstack", dstack_log.encode(DSTACK), dstack
    two = tuple(pki.runtime(e.name, e.payload, 2) if e.rtmr == 3 else e for e in DSTACK)
    yield (
        "dstack-version-2",
        "runtime events hashed as canonical JSON",
        ok,
        "dstack",
        dstack_log.encode(two),
        dstack_measurement(two),
    )
    bare = tuple(replace(e, digest=b"") if e.rtmr == 3 else replace(e, payload=b"") for e in DSTACK)
    yield (
        "dstack-left-out",
        "a log that leaves out what it can: opaque, and not contradicted",
        ok,
        "dstack",
        dstack_log.encode(bare),
        dstack,
    )


def bad() -> Iterator[Case]:
    """Logs of firmware that are not logs, or not of these registers, or lie."""
    guest, tpm, no = measurement("tdx", GUEST), measurement("tpm", TPM), REFUSED
    yield "other-platform", "there is no log for this platform", no, "nitro", GUEST.encode(), guest
    yield "tpm-for-a-guest", "a TPM's log in place of a guest's", no, "tdx", TPM.encode(), guest
    yield "not-a-log", "text", no, "tdx", b"no log", guest
    yield "empty", "no bytes", no, "tpm", b"", tpm
    yield "truncated", "the log ends in the middle of an event", no, "tpm", TPM.encode()[:-3], tpm
    yield "padding-mixed", "something hides in the padding", no, "tdx", GUEST.encode()[:-1] + b"\0", guest
    yield "padding-in-a-tpms", "a TPM's log has no padding", no, "tpm", TPM.encode() + b"\xff" * 64, tpm
    swapped = replace(GUEST, events=(GUEST.events[1], GUEST.events[0], *GUEST.events[2:]))
    yield "reordered", "two events in the other order", no, "tdx", swapped.encode(), guest
    yield "event-dropped", "one event is missing", no, "tdx", replace(GUEST, events=GUEST.events[1:]).encode(), guest
    yield (
        "event-added",
        "one event too many",
        no,
        "tdx",
        replace(GUEST, events=(*GUEST.events, GUEST.events[0])).encode(),
        guest,
    )
    place = found(GUEST, 0x80000003)
    other = replace(GUEST.events[place], digests=((0x0C, hashlib.sha384(b"another program").digest()),))
    yield "digest-changed", "the digest of another program image", no, "tdx", with_event(GUEST, place, other).encode(), guest
    lies = {
        "separator": (0x04, b"\1\0\0\0"),
        "secure-boot": (0x80000001, pki.uefi_variable("SecureBoot", b"\0")),
        "boot-order": (0x80000002, pki.uefi_variable("BootOrder", b"\1\0")),
        "boot-order-malformed": (0x80000002, b"no variable"),
        "action": (0x80000007, b"Exit Boot Services Returned with Failure"),
        "partitions": (0x80000006, b"EFI PART, and something else"),
        "firmware-version": (0x08, "firmware v2".encode("utf-16-le")),
        "command": (0x0D, b"grub_cmd: linux /vmlinuz root=/dev/vda init=/bin/sh\0"),
    }
    for name, (kind, data) in lies.items():
        log = lying(GUEST, kind, data)
        yield f"lie-{name}", "the text beside a digest is not what was hashed", no, "tdx", log.encode(), guest
    mrtd = replace(GUEST, events=(replace(GUEST.events[0], register=0), *GUEST.events[1:]))
    yield "mrtd", "an event for MRTD, which nothing extends", no, "tdx", mrtd.encode(), guest
    high = replace(TPM, events=(replace(TPM.events[0], register=24), *TPM.events[1:]))
    yield "register-too-high", "an event for PCR 24", no, "tpm", high.encode(), tpm
    banks = replace(TPM, events=(replace(TPM.events[0], digests=TPM.events[0].digests[:2]), *TPM.events[1:]))
    yield "bank-missing", "an event without a digest in one bank", no, "tpm", banks.encode(), tpm
    sha256_only = tuple((n, s) for n, s in pki.EVERY_BANK if n == 0x0B)
    poor = Log(0, (0, 0, 2, 0, 2), sha256_only, b"", pki.boot_events((0, 4, 8), sha256_only))
    yield "other-bank", "the log has no digest in the bank that was signed", no, "tpm", poor.encode(), tpm
    nothing = Measurement("tpm", {"pcr23": f"sha384:{'00' * 48}"})
    yield "no-register", "the log says nothing of any register that was signed", no, "tpm", TPM.encode(), nothing
    from_1 = replace(TPM, events=(replace(LOCALITY, data=b"StartupLocality\0\x01"), *TPM.events))
    yield "tpm-locality-impossible", "a locality that cannot start a TPM", no, "tpm", from_1.encode(), tpm


def bad_dstack() -> Iterator[Case]:
    """The same of dstack's."""
    dstack, no = dstack_measurement(DSTACK), REFUSED

    def log(entries: Sequence[Entry]) -> bytes:
        return dstack_log.encode(entries)

    renamed = pki.changed(DSTACK, "compose-hash", payload=hashlib.sha256(b"another app").digest())
    yield "dstack-other-app", "another app than the measured one", no, "dstack", log(renamed), dstack
    digest = pki.changed(DSTACK, "compose-hash", digest=bytes(48))
    yield "dstack-digest-not-of-payload", "a digest that is not of name and payload", no, "dstack", log(digest), dstack
    again = (*DSTACK, pki.runtime("compose-hash", hashlib.sha256(b"another app").digest()))
    yield "dstack-redefined", "the app names itself another app, once it runs", no, "dstack", log(again), dstack
    twice = (*pki.BOOT, *pki.APP[:3], pki.APP[2], *pki.APP[3:])
    yield "dstack-twice", "the app is named twice", no, "dstack", log(twice), dstack
    yield "dstack-not-ready", "the system was never ready", no, "dstack", log(pki.without(DSTACK, "system-ready")), dstack
    yield "dstack-no-app", "no app is named", no, "dstack", log(pki.without(DSTACK, "compose-hash")), dstack
    split = tuple(
        replace(e, name='key-provider:{"name"', payload=e.payload[8:]) if e.name == "key-provider" else e for e in DSTACK
    )
    yield "dstack-name-split", "a name with a colon: the same digest, another name", no, "dstack", log(split), dstack
    unknown = json.dumps([{**json.loads(log(DSTACK))[0], "more": 1}]).encode()
    yield "dstack-unknown-member", "a member that nobody knows", no, "dstack", unknown, dstack
    doubled = log(DSTACK).replace(b'"imr":0,', b'"imr":0,"imr":0,', 1)
    yield "dstack-member-twice", "a member that stands twice", no, "dstack", doubled, dstack
    boot = pki.changed(DSTACK, "", payload=b"x")
    yield "dstack-boot-lie", "text of the firmware's that is not what was hashed", no, "dstack", log(boot), dstack


def main() -> None:
    folder = HERE / "eventlog"
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.json"):
        path.unlink()
    for name, description, expect, platform, log, signed in cases():
        case = {
            "description": description,
            "expect": expect,
            "log": wire.b64(log),
            "measurement": signed.to_json(),
            "platform": platform,
        }
        (folder / f"{name}.json").write_bytes(json.dumps(case, indent=1, sort_keys=True).encode() + b"\n")


if __name__ == "__main__":
    main()
