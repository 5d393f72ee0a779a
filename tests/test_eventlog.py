"""Event logs: parsed strictly, replayed to what hardware signed, and not believed where they can be computed again."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib.util
import json
import random
import struct
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pki_dstack as pki
from real import read, real
from strongroom.attest import dstack_log, eventlog, tcg_log
from strongroom.attest.dstack_log import Entry
from strongroom.attest.evidence import MAX_EVENT_LOG_BYTES, Measurement
from strongroom.attest.tcg_log import Event, Found, Log
from strongroom.errors import BadEventLog

ROOT = Path(__file__).parents[1]


def _maker() -> ModuleType:
    """The script that writes the vectors, as a module."""
    spec = importlib.util.spec_from_file_location("make_eventlog", ROOT / "vectors" / "make_eventlog.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_eventlog = _maker()
VECTORS = sorted((ROOT / "vectors" / "eventlog").glob("*.json"))
GUEST, TPM = pki.guest_log(), pki.tpm_log()
GUEST_BYTES, TPM_BYTES = GUEST.encode(), TPM.encode()
HEADER = 32 + 33  # bytes of a guest's header event: the old layout, then Spec ID with one bank


def measured(log: Log, bank: str = "sha384") -> Measurement:
    return make_eventlog.measurement("tdx" if log.register else "tpm", log, bank)


def refused(data: bytes, *, guest: bool, match: str | None = None) -> None:
    with pytest.raises(BadEventLog, match=match):
        tcg_log.parse(data, guest=guest)


# --- the vectors --------------------------------------------------------------------------------------------------------


def test_there_are_vectors():
    assert len(VECTORS) > 40


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_vector(path: Path):
    case = json.loads(path.read_bytes())
    log, signed = base64.b64decode(case["log"]), Measurement.from_json(case["measurement"])
    if case["expect"] == "ok":
        assert eventlog.check(case["platform"], log, signed)
        assert eventlog.events(log)
        return
    with pytest.raises(BadEventLog) as caught:
        eventlog.check(case["platform"], log, signed)
    assert caught.value.code == case["expect"]


def test_the_vectors_are_those_that_their_script_writes():
    assert {path.stem for path in VECTORS} == {case[0] for case in make_eventlog.cases()}


# --- the format ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("log", "guest"), [(GUEST, True), (TPM, False)], ids=["guest", "tpm"])
def test_a_log_comes_back_byte_for_byte(log: Log, guest: bool):
    assert tcg_log.parse(log.encode(), guest=guest) == log
    with_vendor = replace(log, vendor=b"a vendor's own")
    assert tcg_log.parse(with_vendor.encode(), guest=guest) == with_vendor


def test_a_log_without_events_is_a_log():
    assert tcg_log.parse(replace(GUEST, events=(), padding=(0xFF, 0)).encode(), guest=True).events == ()


@given(st.data())
def test_a_changed_byte_is_refused_or_is_what_was_written(data: st.DataObject):
    original, guest = data.draw(st.sampled_from([(GUEST_BYTES, True), (TPM_BYTES, False)]))
    place = data.draw(st.integers(0, len(original) - 1))
    changed = original[:place] + bytes([data.draw(st.integers(0, 255))]) + original[place + 1 :]
    with contextlib.suppress(BadEventLog):
        assert tcg_log.parse(changed, guest=guest).encode() == changed


@given(st.binary(max_size=400), st.booleans(), st.integers(0, len(GUEST_BYTES)))
def test_any_bytes_are_refused_or_come_back(data: bytes, guest: bool, kept: int):
    for tried in (data, GUEST_BYTES[:kept] + data, GUEST_BYTES[:kept]):
        with contextlib.suppress(BadEventLog):
            assert tcg_log.parse(tried, guest=guest).encode() == tried
        with contextlib.suppress(BadEventLog):
            eventlog.events(tried)


def test_a_log_that_is_too_long():
    refused(bytes(MAX_EVENT_LOG_BYTES + 1), guest=True, match="longer than")


def test_too_many_events():
    one = pki.event(1, 0x04, b"")
    log = replace(GUEST, events=(one,) * (tcg_log.MAX_EVENTS + 1), padding=(0xFF, 0))
    refused(log.encode(), guest=True, match="more than 4096 events")


def test_the_longest_logs_are_answered():
    for data in (b"[" * MAX_EVENT_LOG_BYTES, b"[" + b"{}," * (MAX_EVENT_LOG_BYTES // 3 - 1) + b"{}]"):
        with pytest.raises(BadEventLog):
            dstack_log.parse(data)
    most = replace(GUEST, events=(pki.event(1, 0x04, b""),) * tcg_log.MAX_EVENTS, padding=(0xFF, 0))
    assert eventlog.check("tdx", most.encode(), measured(most))


@pytest.mark.parametrize(
    ("place", "value", "match"),
    [
        (0, b"\2\0\0\0", "does not begin"),  # another register
        (4, b"\4\0\0\0", "does not begin"),  # an event that measures something
        (8, b"\1", "does not begin"),  # a digest where there is none
        (28, b"\0\0\0\x10", "ends in the middle|crypto-agile"),  # longer than anything
        (28, struct.pack("<I", 2000), "ends in the middle|crypto-agile"),
        (32, b"Spec ID Event02\0", "crypto-agile"),
        (56, struct.pack("<I", 0), "1 to 5 hash"),
        (56, struct.pack("<I", 6), "1 to 5 hash"),
        (60, struct.pack("<HH", 0x0C, 32), "another size"),
        (60, struct.pack("<HH", 0x27, 32), "unknown"),
        (64, b"\1", "ends in the middle|longer than"),  # a vendor's byte that is not there
    ],
)
def test_a_header_that_is_not_one(place: int, value: bytes, match: str):
    refused(GUEST_BYTES[:place] + value + GUEST_BYTES[place + len(value) :], guest=True, match=match)


def test_a_header_that_names_a_bank_twice():
    refused(replace(TPM, algorithms=(TPM.algorithms[0],) * 2, events=()).encode(), guest=False, match="twice")


def test_a_header_with_bytes_after_its_last():
    body = GUEST_BYTES[32:HEADER] + b"\0"
    refused(GUEST_BYTES[:28] + struct.pack("<I", len(body)) + body, guest=True, match="longer than what it holds")


def test_an_events_digests_are_one_for_each_bank():
    event = TPM.events[0]
    for digests in (event.digests[:2], (event.digests[0],) * 3, (*event.digests[:2], (0x0D, bytes(64)))):
        log = replace(TPM, events=(replace(event, digests=digests),))
        refused(log.encode(), guest=False, match="one digest for each bank")
    turned = replace(TPM, events=(replace(event, digests=event.digests[::-1]),))  # their order is free
    assert tcg_log.parse(turned.encode(), guest=False) == turned


def test_an_event_that_measures_nothing_has_no_digest():
    loud = Event(0, tcg_log.NO_ACTION, tuple((n, b"\1" * size) for n, size in pki.EVERY_BANK), b"")
    refused(replace(TPM, events=(loud,)).encode(), guest=False, match="measures nothing")
    silent = replace(TPM, events=(replace(loud, digests=tuple((n, bytes(s)) for n, s in pki.EVERY_BANK)), *TPM.events))
    assert tcg_log.replay(silent.events, "sha256", guest=False) == tcg_log.replay(TPM.events, "sha256", guest=False)
    assert tcg_log.judge(silent.events[0], "sha256")[0] is Found.NOT_MEASURED
    assert eventlog.check("tpm", silent.encode(), measured(TPM, "sha256"))


@pytest.mark.parametrize("byte", [0xFF, 0x00])
@pytest.mark.parametrize("count", [1, 11, 12, 200_000])
def test_padding_of_a_guests_area_is_accepted_by_name(byte: int, count: int):
    log = replace(GUEST, padding=(byte, count))
    assert tcg_log.parse(log.encode(), guest=True) == log


def test_nothing_hides_in_the_padding():
    padded = replace(GUEST, padding=(0xFF, 100)).encode()
    for place in (-1, -40, -88):
        changed = bytearray(padded)
        changed[place] = 0
        refused(bytes(changed), guest=True, match="follow the last event")
    refused(padded + GUEST.events[0].encode(), guest=True, match="follow the last event")


def test_a_tpms_log_has_no_padding():
    for padding in (b"\xff" * 64, bytes(64), b"\xff"):
        refused(TPM_BYTES + padding, guest=False)


def test_registers_that_there_are_not():
    for log, guest, register in ((GUEST, True, 5), (TPM, False, 24)):
        refused(
            replace(log, events=(replace(log.events[0], register=register),)).encode(), guest=guest, match="there are 0 to"
        )


def test_nothing_extends_mrtd():
    refused(replace(GUEST, events=(replace(GUEST.events[0], register=0),)).encode(), guest=True, match="MRTD")
    silent = Event(0, tcg_log.NO_ACTION, ((0x0C, bytes(48)),), b"a note")
    log = replace(GUEST, events=(silent, *GUEST.events))
    assert eventlog.events(log.encode())[0].register == "MRTD"


# --- replay -------------------------------------------------------------------------------------------------------------


def test_replay_is_the_chain_of_hashes():
    value = bytes(48)
    for event in GUEST.events:
        if event.register == 2:
            value = hashlib.sha384(value + event.digests[0][1]).digest()
    assert tcg_log.replay(GUEST.events, "sha384", guest=True)[2] == value


def test_replay_needs_a_digest_in_the_bank():
    with pytest.raises(BadEventLog, match="no sha256 digest"):
        tcg_log.replay(GUEST.events, "sha256", guest=True)


@pytest.mark.parametrize("locality", [0, 3, 4])
def test_pcr_0_begins_with_the_locality(locality: int):
    digests = tuple((n, bytes(s)) for n, s in pki.EVERY_BANK)
    said = Event(0, tcg_log.NO_ACTION, digests, b"StartupLocality\0" + bytes([locality]))
    late = Event(0, tcg_log.NO_ACTION, digests, b"StartupLocality\0\x04")  # after the first event it says nothing
    other = Event(1, 0x04, tuple((n, bytes(s)) for n, s in pki.EVERY_BANK), b"")
    one = TPM.events[0]
    found = tcg_log.replay((other, said, one, late), "sha256", guest=False)
    start = bytes(31) + bytes([locality])
    assert found[0] == hashlib.sha256(start + one.digest("sha256")).digest()
    for bad in (b"StartupLocality\0\x01", b"StartupLocality\0", b"StartupLocality\0\x03\0"):
        with pytest.raises(BadEventLog, match="cannot start"):
            tcg_log.replay((replace(said, data=bad), one), "sha256", guest=False)


# --- digests, computed again --------------------------------------------------------------------------------------------

VARIABLE = pki.uefi_variable("BootOrder", b"\0\0")
TABLE = [  # type, data, what was hashed, what is found
    (0x04, bytes(4), None, Found.RECOMPUTED),
    (0x04, bytes(4), b"an error", Found.CONTRADICTED),
    (0x05, b"an action", None, Found.RECOMPUTED),
    (0x05, b"an action", b"another", Found.CONTRADICTED),
    (0x08, b"v1", None, Found.RECOMPUTED),
    (0x08, b"v1", b"v2", Found.CONTRADICTED),
    (0x12, b"a boot device", None, Found.RECOMPUTED),
    (0x12, b"a boot device", b"another", Found.CONTRADICTED),
    (0x80000001, VARIABLE, None, Found.RECOMPUTED),
    (0x80000001, VARIABLE, b"\0\0", Found.CONTRADICTED),  # the value alone would leave the name open
    (0x80000002, VARIABLE, None, Found.RECOMPUTED),
    (0x80000002, VARIABLE, b"\0\0", Found.RECOMPUTED),
    (0x80000002, VARIABLE, b"\0\1", Found.CONTRADICTED),
    (0x80000002, VARIABLE + b"\0", b"\0\0\0", Found.CONTRADICTED),
    (0x80000002, b"short", b"\0\0", Found.CONTRADICTED),
    (0x8000000C, VARIABLE, b"\0\0", Found.CONTRADICTED),
    (0x80000006, b"EFI PART", b"other partitions", Found.CONTRADICTED),
    (0x80000007, b"an action", b"another", Found.CONTRADICTED),
    (0x800000E0, VARIABLE, b"another authority", Found.CONTRADICTED),
    (0x0D, b"grub_cmd: ls\0", b"ls", Found.RECOMPUTED),
    (0x0D, b"grub_cmd: ls\0", b"ls\0", Found.RECOMPUTED),
    (0x0D, b"grub_cmd: ls", b"ls", Found.RECOMPUTED),
    (0x0D, b"grub_cmd ls\0\x66", b"ls\0", Found.RECOMPUTED),
    (0x0D, b"kernel_cmdline: /vmlinuz quiet\0", b"/vmlinuz quiet", Found.RECOMPUTED),
    (0x0D, b"grub_kernel_cmdline /vmlinuz\0\0", b"/vmlinuz\0", Found.RECOMPUTED),
    (0x0D, b"module_cmdline: m\0", b"m", Found.RECOMPUTED),
    (0x0D, b"grub_cmd: ls\0", b"rm", Found.CONTRADICTED),
    (0x0D, b"kernel_cmdline: quiet\0", b"init=/bin/sh", Found.CONTRADICTED),
    (0x0D, b"/grub/grub.cfg\0", b"a file", Found.OPAQUE),
    (0x0D, b"MokList\0", b"keys", Found.OPAQUE),
    (0x06, b"LEAA\x04\0\0\0text", None, Found.RECOMPUTED),
    (0x06, b"LEAA\x04\0\0\0text", b"other", Found.CONTRADICTED),
    (0x06, b"\xec\x22\x3b\x8f\x05\0\0\0Linux", b"a ramdisk", Found.OPAQUE),
    (0x01, b"ACPI DATA", b"code", Found.OPAQUE),
    (0x01, b"code", None, Found.RECOMPUTED),
    (0x07, b"", b"code", Found.OPAQUE),
    (0x0A, b"ACPI DATA", b"tables", Found.OPAQUE),
    (0x11, b"a part's", None, Found.RECOMPUTED),
    (0x80000003, bytes(32), b"an image", Found.OPAQUE),
    (0x80000009, b"", b"tables", Found.OPAQUE),
    (0x8000000A, b"volume", b"a volume", Found.OPAQUE),
    (0x8000000B, b"TdxTable", b"the hand-off block", Found.OPAQUE),
    (0x7FFFFFFF, b"of a type that nobody knows", b"something", Found.OPAQUE),
]


@pytest.mark.parametrize(("kind", "data", "of", "expected"), TABLE)
def test_a_digest_is_computed_again(kind: int, data: bytes, of: bytes | None, expected: Found):
    event = pki.event(1, kind, data, of=of)
    found, why = tcg_log.judge(event, "sha384")
    assert found is expected
    assert why
    log = replace(GUEST, events=(*GUEST.events, event))
    if expected is Found.CONTRADICTED:
        with pytest.raises(BadEventLog, match="is not of"):
            eventlog.check("tdx", log.encode(), measured(log))
    else:
        assert eventlog.check("tdx", log.encode(), measured(log))


def test_what_was_left_out_is_opaque_only_where_it_may_be():
    event = pki.event(1, 0x04, b"", of=bytes(4))
    assert tcg_log.judge(event, "sha384")[0] is Found.CONTRADICTED
    assert tcg_log.judge(event, "sha384", stripped=True)[0] is Found.OPAQUE
    lying = replace(event, data=b"\1\0\0\0")
    assert tcg_log.judge(lying, "sha384", stripped=True)[0] is Found.CONTRADICTED


def spec_table() -> list[tuple[str, str]]:
    text = (ROOT / "spec" / "event-log.md").read_text()
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| `EV_")]
    return [(name.strip(" `"), rule.strip()) for _, types, rule, *_ in rows for name in types.split(",")]


def test_the_specs_table_of_types_is_the_codes():
    found = dict(spec_table())
    assert set(found) <= set(tcg_log.TYPES.values())
    numbers = {name: number for number, name in tcg_log.TYPES.items()}
    for name, rule in found.items():
        must = rule.startswith("recomputed")
        if name in {"EV_IPL", "EV_EVENT_TAG"}:
            continue  # by what the data begin with; the table above has both
        lying = pki.event(1, numbers[name], b"text", of=b"another text")
        assert (tcg_log.judge(lying, "sha384")[0] is Found.CONTRADICTED) is must, name


# --- check --------------------------------------------------------------------------------------------------------------


def test_what_was_seen_is_one_line():
    assert eventlog.check("tdx", GUEST_BYTES, measured(GUEST)) == "RTMR0-2 replay from 17 events, 11 recomputed, 6 opaque"
    seen = eventlog.check("tpm", TPM_BYTES, measured(TPM, "sha256"))
    assert seen == "PCR 0, 4, 8 replay from 17 events, 11 recomputed, 6 opaque"


def test_a_register_that_the_log_does_not_explain_is_said():
    signed = Measurement("tdx", {**measured(GUEST).registers, "rtmr3": "sha384:" + "17" * 48})
    assert eventlog.check("tdx", GUEST_BYTES, signed).endswith("; not in the log: RTMR3")
    zero = Measurement("tdx", {**measured(GUEST).registers, "rtmr3": "sha384:" + "00" * 48})
    assert "not in the log" not in eventlog.check("tdx", GUEST_BYTES, zero)


def test_a_register_that_was_not_signed_is_said_and_may_not_lie():
    signed = Measurement("tpm", {"pcr0": measured(TPM, "sha256").registers["pcr0"]})
    assert eventlog.check("tpm", TPM_BYTES, signed).endswith("; registers that were not signed: 4, 8")
    lie = make_eventlog.lying(TPM, 0x0D, b"grub_cmd: another\0")
    with pytest.raises(BadEventLog, match="EV_IPL"):
        eventlog.check("tpm", lie.encode(), signed)


def test_two_banks_at_once_are_refused():
    both = {**measured(TPM, "sha256").registers, "pcr8": measured(TPM).registers["pcr8"]}
    with pytest.raises(BadEventLog, match="no register"):
        eventlog.check("tpm", TPM_BYTES, Measurement("tpm", both))


@pytest.mark.parametrize("platform", ["sev_snp", "nitro", "sgx", "simulated", "nvidia_cc", "x" * 90])
def test_platforms_without_a_log(platform: str):
    with pytest.raises(BadEventLog, match="no event log"):
        eventlog.check(platform, GUEST_BYTES, measured(GUEST))


def test_every_register_of_every_platform_is_compared():
    for log, platform in ((GUEST, "tdx"), (TPM, "tpm")):
        signed = measured(log)
        for name in signed.registers:
            wrong = Measurement(platform, {**signed.registers, name: "sha384:" + "ab" * 48})
            with pytest.raises(BadEventLog, match="does not replay"):
                eventlog.check(platform, log.encode(), wrong)


def test_events_are_shown_to_people():
    shown = eventlog.events(GUEST_BYTES)
    assert shown[3].text == "SecureBoot 01"
    assert shown[3].type == "EV_EFI_VARIABLE_DRIVER_CONFIG"
    assert {one.register for one in shown} == {"RTMR0", "RTMR1", "RTMR2"}
    assert shown[2].text == "firmware v1"
    assert "linux /vmlinuz" in shown[11].text
    assert eventlog.events(TPM_BYTES)[-1].register == "PCR 4"
    text = dstack_log.encode((*pki.BOOT, *pki.APP))
    assert [one.text for one in eventlog.events(text)][-1] == "system-ready"
    strange = pki.event(1, 0x12345, b"x")
    assert eventlog.events(replace(GUEST, events=(strange,)).encode())[0].type == "0x00012345"


def test_a_configuration_is_shown_to_people():
    (shown,) = eventlog.events(pki.CONFIGURATION)
    assert (shown.register, shown.text) == ("HOST_DATA", f"app {pki.APP_ID.hex()}")
    assert shown.digest == dstack_log.host_data(pki.CONFIGURATION).hex()


def test_a_log_in_a_bank_that_nobody_computes():
    sm3 = ((0x12, 32),)
    log = Log(0, (0, 0, 2, 0, 2), sm3, b"", (Event(0, 4, ((0x12, bytes(32)),), b""),))
    assert tcg_log.parse(log.encode(), guest=False) == log
    with pytest.raises(BadEventLog, match="no bank"):
        eventlog.events(log.encode())


# --- dstack's log -------------------------------------------------------------------------------------------------------

ENTRIES = (*pki.BOOT, *pki.APP)


def app_refused(*entries: Entry, match: str) -> None:
    with pytest.raises(BadEventLog, match=match):
        dstack_log.app(entries)


def test_a_runtime_events_digest():
    head = bytes.fromhex("01000008")
    assert dstack_log.runtime_digest("app-id", b"\xde\xad") == hashlib.sha384(head + b":app-id:\xde\xad").digest()
    canonical = b'{"name":"app-id","payload":"dead","type":134217729}'
    assert dstack_log.runtime_digest("app-id", b"\xde\xad", 2) == hashlib.sha384(canonical).digest()
    # A published log of a KMS app says this of these two; facts of dstack's, not of ours.
    app_id = bytes.fromhex("21dfb9d71c8d72522bb4372657b96308a190daaa")
    assert dstack_log.runtime_digest("app-id", app_id).hex().startswith("9ed62428c189f50e81d1ec97382a363f")


def test_a_log_of_dstacks_comes_back():
    assert dstack_log.parse(dstack_log.encode(ENTRIES)) == ENTRIES
    two = tuple(pki.runtime(e.name, e.payload, 2) for e in pki.APP)
    assert dstack_log.parse(dstack_log.encode(two)) == two
    assert dstack_log.app(two) == dstack_log.app(pki.APP)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=8), lambda s: st.lists(s) | st.dictionaries(st.text(max_size=8), s)
    )
)
def test_any_json_is_refused_or_is_a_log(value: object):
    for data in (json.dumps(value).encode(), json.dumps([value]).encode()):
        for parse in (dstack_log.parse, dstack_log.configuration):
            with contextlib.suppress(BadEventLog):
                parse(data)


GOOD = json.loads(dstack_log.encode(ENTRIES))


@pytest.mark.parametrize(
    ("place", "change"),
    [
        (0, {"imr": 4}),
        (0, {"imr": 3}),  # the firmware's, in dstack's register
        (0, {"imr": True}),
        (0, {"event_type": 0x08000001}),
        (0, {"event_type": 3}),
        (0, {"event_type": 2**32}),
        (0, {"digest": ""}),  # the firmware's digests cannot be computed
        (0, {"digest": "AB" * 48}),
        (0, {"digest": "ab" * 47}),
        (0, {"event": "\n"}),
        (0, {"event": "x" * 129}),
        (0, {"version": 2}),
        (-1, {"imr": 0}),
        (-1, {"event": ""}),
        (-1, {"event": "a:b"}),
        (-1, {"event": "a b"}),
        (-1, {"event": "ä"}),
        (-1, {"digest": "ab"}),
        (-1, {"version": 3}),
        (-1, {"version": 0}),
        (-1, {"event_payload": "a"}),
        (-1, {"event_payload": None}),
        (-1, {"more": 1}),
    ],
)
def test_an_entry_that_is_not_one(place: int, change: dict[str, object]):
    entries = [dict(entry) for entry in GOOD]
    entries[place] |= change
    with pytest.raises(BadEventLog, match="not an event log of dstack's"):
        dstack_log.parse(json.dumps(entries).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"[[]]", b"null", b"\xff", b"[1]", b'"x"', b"[" * 3000])
def test_what_is_no_log_of_dstacks(data: bytes):
    with pytest.raises(BadEventLog):
        dstack_log.parse(data)


def test_too_many_entries():
    with pytest.raises(BadEventLog):
        dstack_log.parse(json.dumps([GOOD[-1]] * 1025).encode())


def test_what_a_log_says_of_the_app():
    app = dstack_log.app(ENTRIES)
    assert (app.app_id, app.compose_hash, app.instance_id) == (pki.APP_ID.hex(), pki.COMPOSE_HASH, pki.INSTANCE_ID.hex())
    assert app.whole
    assert app.after == ()
    said = json.dumps(pki.PROVIDER, separators=(",", ":")).encode()
    assert dict(app.registers) == {
        "compose_hash": "sha256:" + pki.COMPOSE_HASH.hex(),
        "key_provider": "sha256:" + hashlib.sha256(said).hexdigest(),
        "mr_kms": "sha256:" + hashlib.sha256(b"a KMS").hexdigest(),
        "os_image_hash": "sha256:" + pki.OS_IMAGE.hex(),
        "storage_fs": "sha256:" + hashlib.sha256(b"zfs").hexdigest(),
    }


def test_an_event_that_this_version_does_not_know_is_in_the_measurement():
    """A newer system that measures more must not be taken for one that measures less."""
    more = (*pki.APP[:-1], pki.runtime("network-policy", b"open"), pki.APP[-1])
    assert dstack_log.app(more).registers["network_policy"] == "sha256:" + hashlib.sha256(b"open").hexdigest()
    assert dstack_log.app(more).registers != dstack_log.app(pki.APP).registers


def test_init_scripts_may_be_many_and_their_order_counts():
    one, two = (pki.runtime("init-script-hash", hashlib.sha256(text).digest()) for text in (b"one", b"two"))
    there = dstack_log.app((*pki.APP[:3], one, two, *pki.APP[3:])).registers
    back = dstack_log.app((*pki.APP[:3], two, one, *pki.APP[3:])).registers
    assert there["init_script_hash"] != back["init_script_hash"]
    app_refused(*pki.APP[:3], replace(one, payload=b"short"), *pki.APP[3:], match="not a SHA-256 digest")


def test_what_belongs_to_the_machine_is_in_no_measurement():
    gpu = pki.runtime("gpu-attestation", b'{"evidence_sha256":"..."}')
    registers = dstack_log.app((*pki.APP[:-1], gpu, pki.APP[-1])).registers
    assert registers == dstack_log.app(pki.without(pki.APP, "instance-id")).registers


@pytest.mark.parametrize(
    "name",
    [
        "compose-hash",
        "app-id",
        "instance-id",
        "key-provider",
        "system-preparing",
        "gpu-policy-hash",
        "mr-anything",
        "storage-fs",
    ],
)
def test_the_app_cannot_say_afterwards_what_the_system_says(name: str):
    app_refused(*pki.APP, pki.runtime(name, bytes(32)), match="after the system was ready")


def test_what_the_app_measured_is_shown():
    assert dstack_log.app((*pki.APP, pki.runtime("MY_EVENT", b"x"))).after == ("MY_EVENT",)


def test_a_name_that_stands_twice():
    app_refused(*pki.APP[:3], pki.runtime("compose-hash", bytes(32)), *pki.APP[3:], match="twice")
    app_refused(*pki.APP, pki.APP[-1], match="2 times")


def test_a_log_without_an_app():
    for name in ("app-id", "compose-hash"):
        app_refused(*pki.without(pki.APP, name), match="does not name an app")
        app_refused(*pki.changed(pki.APP, "app-id", payload=b""), match="does not name an app")
    app_refused(*pki.APP[:-1], match="0 times")
    app_refused(match="0 times")


@pytest.mark.parametrize("name", ["Upper-Case", "mrtd", "rtmr3", "measurement", "x" * 33, "-first", "key_provider"])
def test_a_name_that_cannot_be_a_register(name: str):
    app_refused(*pki.APP[:-1], pki.runtime(name, b"x"), pki.APP[-1], match="cannot be the name of a register")


def test_a_mark_holds_nothing():
    app_refused(*pki.changed(pki.APP, "boot-mr-done", payload=b"x"), match="has a payload")


def test_a_digest_is_a_digest():
    app_refused(*pki.changed(pki.APP, "compose-hash", payload=bytes(48)), match="not a SHA-256 digest")


def test_more_names_than_a_measurement_holds():
    many = tuple(pki.runtime(f"event-{n}", b"x") for n in range(25))
    app_refused(*pki.APP[:-1], *many, pki.APP[-1], match="more names")


@pytest.mark.parametrize("left_out", ["digest", "payload"])
def test_a_log_that_leaves_something_out_is_not_whole(left_out: str):
    runtime = left_out == "digest"
    bare = tuple(replace(e, **{left_out: b""}) if (e.rtmr == 3) is runtime else e for e in ENTRIES)
    assert not dstack_log.app(bare).whole
    assert dstack_log.replay(bare) == dstack_log.replay(ENTRIES)


def test_a_digest_that_is_not_of_name_and_payload():
    lying = replace(pki.APP[1], digest=bytes(48))
    assert dstack_log.judge(lying)[0] is Found.CONTRADICTED
    assert dstack_log.judge(pki.APP[1])[0] is Found.RECOMPUTED
    assert dstack_log.judge(replace(lying, digest=b""))[0] is Found.RECOMPUTED


# --- dstack's configuration on SEV-SNP ----------------------------------------------------------------------------------


def test_a_configuration_measures_as_a_log_does():
    found = dstack_log.configuration(pki.CONFIGURATION)
    log = dstack_log.app(ENTRIES)
    assert (found.app_id, found.compose_hash, found.instance_id) == (log.app_id, log.compose_hash, log.instance_id)
    for name in ("compose_hash", "key_provider"):
        assert found.registers[name] == log.registers[name]
    signed = Measurement("dstack", {"measurement": "sha384:" + "00" * 48, **found.registers})
    assert eventlog.check("dstack", pki.CONFIGURATION, signed) == f"the configuration names app {found.app_id}"
    with pytest.raises(BadEventLog, match="compose_hash"):
        eventlog.check("dstack", pki.CONFIGURATION, Measurement("dstack", {"measurement": "sha384:" + "00" * 48}))


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"more": 1},
        {"compose_hash": "00"},
        {"app_id": ""},
        {"key_provider": "cloud"},
        {"gpu_policy_hash": "x"},
        {"instance_id": "A0"},
    ],
)
def test_a_configuration_that_is_not_one(change: dict[str, object]):
    with pytest.raises(BadEventLog):
        dstack_log.configuration(json.dumps(json.loads(pki.CONFIGURATION) | change).encode())


def test_a_gpu_policy_is_in_the_measurement():
    policy = json.dumps(json.loads(pki.CONFIGURATION) | {"gpu_policy_hash": "ab" * 32}).encode()
    assert dstack_log.configuration(policy).registers["gpu_policy_hash"] == "sha256:" + "ab" * 32


# --- single bits --------------------------------------------------------------------------------------------------------

HARMLESS = {
    "header": "register, versions and vendor's bytes in the header, which say nothing of what was measured",
    "bank": "digests of a bank that was not signed",
    "type": "the type of an event: its digest is of the data, whatever the type is called",
    "opaque": "text beside a digest of something else, which is shown as such",
    "register": "the register of an only event, moved to one that was not signed: the result says both",
    "unpromised": "data of a type that promises nothing: what is changed is shown as opaque",
    "junk": "bytes after the end of a command's text, which nobody shows",
    "label": "what makes an event one that is computed again: without it the text is shown as opaque",
}


def spans(log: Log, bank: str, start: int) -> Iterator[tuple[int, int, str]]:
    """First byte, last byte and reason of what is harmless, by position. A flip there may be refused all the same."""
    yield 0, 4, "header"
    yield 48, 56, "header"
    at = start
    extends = Counter(event.register for event in log.events if event.type != tcg_log.NO_ACTION)
    for event in log.events:
        if extends[event.register] == 1:
            yield at, at + 4, "register"
        yield at + 4, at + 8, "type"
        at += 12
        for number, digest in event.digests:
            if tcg_log.ALGORITHMS[number][0] != bank:
                yield at + 2, at + 2 + len(digest), "bank"
            at += 2 + len(digest)
        at += 4
        found, why = tcg_log.judge(event, bank)
        if found is Found.OPAQUE:
            yield at, at + len(event.data), "opaque"
        elif "command" in why:
            end = (event.data + b"\0").index(b"\0")
            yield at, at + len(next(label for label in tcg_log.LABELS if event.data.startswith(label))), "label"
            yield at + end + 1, at + len(event.data), "junk"
        elif event.data.startswith(b"LEAA"):
            yield at, at + 4, "label"
        elif tcg_log._hashed(event) is None:
            yield at, at + len(event.data), "unpromised"
        elif "variable" in why:
            yield at, at + 16, "opaque"  # the vendor's GUID and the name, where the value alone is hashed
            yield at + 32, at + len(event.data), "opaque"
        at += len(event.data)


def flips(data: bytes, platform: str, signed: Measurement, positions: Iterator[int] | range | list[int]) -> Counter[str]:
    """Flip the bits at these positions, one at a time: how each ended. Every flip is refused or harmless for a named reason.

    For the soak, with every position: ``range(8 * len(data))``.
    """
    guest = platform == "tdx"
    bank = next(iter(signed.registers.values())).split(":")[0]
    log = tcg_log.parse(data, guest=guest)
    start = 32 + 24 + 4 + 4 * len(log.algorithms) + 1 + len(log.vendor)
    reasons: dict[int, str] = {}
    for first, last, reason in spans(log, bank, start):
        reasons.update(dict.fromkeys(range(first, last), reason))
    ended: Counter[str] = Counter()
    for position in positions:
        changed = bytearray(data)
        changed[position // 8] ^= 1 << position % 8
        try:
            line = eventlog.check(platform, bytes(changed), signed)
        except BadEventLog:
            ended["refused"] += 1
        else:
            reason = reasons.get(position // 8)
            assert reason != "register" or ("not in the log" in line and "not signed" in line)
            assert reason in HARMLESS, f"bit {position % 8} of byte {position // 8} is neither refused nor harmless"
            ended[reason] += 1
    return ended


def some(data: bytes, count: int) -> list[int]:
    return random.Random(len(data)).sample(range(8 * len(data)), count)


@pytest.mark.parametrize(("log", "platform"), [(GUEST, "tdx"), (TPM, "tpm")], ids=["guest", "tpm"])
def test_a_flipped_bit_is_refused_or_harmless(log: Log, platform: str):
    ended = flips(log.encode(), platform, measured(log), some(log.encode(), 600))
    assert ended["refused"] > 100


def dstack_flips(data: bytes, signed: Measurement, positions: Iterator[int] | range | list[int]) -> Counter[str]:
    """The same for a log of dstack's, whose JSON can be spelled in other ways that say the same.

    RTMR3 is not in the measurement: the platform's own check (K) compares it with the quote's, before there is one.
    """
    before = dstack_log.parse(data)
    rtmr3 = dstack_log.replay(before)[dstack_log.RTMR3]
    ended: Counter[str] = Counter()
    for position in positions:
        changed = bytearray(data)
        changed[position // 8] ^= 1 << position % 8
        try:
            eventlog.check("dstack", bytes(changed), signed)
        except BadEventLog:
            ended["refused"] += 1
            continue
        after = dstack_log.parse(bytes(changed))
        if dstack_log.replay(after)[dstack_log.RTMR3] != rtmr3:
            ended["refused"] += 1
            continue
        pairs = list(zip(before, after, strict=True))
        assert all(a == b for a, b in pairs if a.rtmr == 3)  # what says which app runs did not change
        assert all(a.digest == b.digest for a, b in pairs)
        ended["harmless"] += 1  # the type, the label or the opaque payload of a firmware event; white space
    return ended


def test_a_flipped_bit_of_dstacks_log_changes_nothing_that_counts():
    data = dstack_log.encode(ENTRIES)
    ended = dstack_flips(data, make_eventlog.dstack_measurement(ENTRIES), some(data, 400))
    assert ended["refused"] > 200


# --- real logs ----------------------------------------------------------------------------------------------------------


def rtmrs(quote: bytes, platform: str = "tdx") -> Measurement:
    """The registers of a TDX quote of version 4, by their places (header 48 bytes, TD report after it)."""
    values = {f"rtmr{n}": quote[376 + 48 * n : 424 + 48 * n] for n in range(4)}
    return Measurement(platform, {name: f"sha384:{value.hex()}" for name, value in values.items()})


@real
@pytest.mark.parametrize(
    ("quote", "log", "seen"),
    [
        ("tdx/gcp_cos113_v4.quote", "tdx/gcp_cos113.ccel.bin", "RTMR0-2 replay from 43 events, 31 recomputed, 12 opaque"),
        ("tdx/lunal_live_v4.quote", "tdx/lunal_live.ccel.bin", "RTMR0-2 replay from 20 events, 12 recomputed, 8 opaque"),
    ],
)
def test_real_guests_logs_lead_to_their_quotes(quote: str, log: str, seen: str):
    assert eventlog.check("tdx", read(log), rtmrs(read(quote))) == seen
    assert flips(read(log), "tdx", rtmrs(read(quote)), some(read(log)[:20_000], 200))["refused"]


@real
def test_gcps_area_is_256_kib_of_which_padding_is_most():
    log = tcg_log.parse(read("tdx/gcp_cos113.ccel.bin"), guest=True)
    assert len(read("tdx/gcp_cos113.ccel.bin")) == 256 << 10
    assert log.padding == (0xFF, 244_043)
    assert log.encode() == read("tdx/gcp_cos113.ccel.bin")


@real
def test_the_log_of_a_dstack_leads_to_another_dstacks_rtmr0():
    log = tcg_log.parse(read("dstack/ccel_sample.bin"), guest=True)
    found = tcg_log.replay(log.events, "sha384", guest=True)
    signed = rtmrs(read("tdx/phala_tappd_v4.quote")).registers
    assert f"sha384:{found[1].hex()}" == signed["rtmr0"]
    assert f"sha384:{found[2].hex()}" != signed["rtmr1"]  # another boot
    with pytest.raises(BadEventLog, match="RTMR1 does not replay"):
        eventlog.check("tdx", read("dstack/ccel_sample.bin"), rtmrs(read("tdx/phala_tappd_v4.quote")))


@real
@pytest.mark.parametrize(
    ("name", "events", "recomputed"),
    [
        ("CCEL_data_gcp.bin", 21, 14),
        ("CCEL_data_grub.bin", 37, 19),
        ("CCEL_data_ovmf.bin", 20, 12),
        ("CCEL_AAEL_alibabacloud.bin", 87, 74),
        ("tpm_cos-101-amd-sev.bin", 48, 40),
        ("tpm_ubuntu-2404-amd-sevsnp.bin", 116, 96),
    ],
)
def test_real_logs_parse_and_none_of_their_events_contradicts_itself(name: str, events: int, recomputed: int):
    data, guest = read(f"eventlog/{name}"), name.startswith("CCEL")
    log = tcg_log.parse(data, guest=guest)
    assert log.encode() == data
    for bank in ("sha384",) if guest else ("sha1", "sha256", "sha384"):
        found = Counter(tcg_log.judge(event, bank)[0] for event in log.events)
        assert found == {Found.RECOMPUTED: recomputed, Found.OPAQUE: events - recomputed}
    assert eventlog.check("tdx" if guest else "tpm", data, measured(log))
    assert len(eventlog.events(data)) == events


@real
@pytest.mark.parametrize(
    ("name", "recomputed"), [("dstack_quote_report.json", 20), ("tdx_lite_getquote.json", 9)], ids=["whole", "lite"]
)
def test_real_logs_of_dstack_lead_to_their_quotes(name: str, recomputed: int):
    case = json.loads(read(f"dstack/{name}"))
    entries = dstack_log.parse(case["event_log"].encode())
    signed = rtmrs(bytes.fromhex(case["quote"]), "dstack")
    replayed = {f"rtmr{n}": f"sha384:{value.hex()}" for n, value in dstack_log.replay(entries).items()}
    assert replayed == signed.registers
    app = dstack_log.app(entries)
    measurement = Measurement("dstack", {**signed.registers, **app.registers})
    seen = eventlog.check("dstack", case["event_log"].encode(), measurement)
    assert f"{recomputed} recomputed" in seen
    assert app.compose_hash[:20].hex() == app.app_id


@real
def test_a_lite_log_does_not_replay_from_its_own_digests():
    """It leaves the digests of RTMR3's events out: what it leads to is computed from names and payloads, and only so."""
    case = json.loads(read("dstack/tdx_lite_getquote.json"))
    entries = dstack_log.parse(case["event_log"].encode())
    value = bytes(48)
    for entry in entries:
        if entry.rtmr == 3:
            assert entry.digest == b""
            value = hashlib.sha384(value + entry.digest).digest()
    assert f"sha384:{value.hex()}" != rtmrs(bytes.fromhex(case["quote"])).registers["rtmr3"]
    assert not dstack_log.app(entries).whole


@real
def test_a_real_event_of_an_app_is_its_own():
    case = json.loads(read("dstack/dstack_quote_report.json"))
    assert dstack_log.app(dstack_log.parse(case["event_log"].encode())).after == ("LIUM_MINER_HOTKEY",)
