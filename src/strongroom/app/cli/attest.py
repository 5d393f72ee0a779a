"""attest: look at hardware evidence of any kind, and say what to accept of it."""

from __future__ import annotations

import time
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from strongroom.app.client.home import read, reading
from strongroom.attest import detect, registry
from strongroom.attest.appraisal import Bare, appraise, look, look_at_devices
from strongroom.attest.appraisal_policy import AppraisalPolicy
from strongroom.attest.evidence import MAX_ENDORSEMENTS, Endorsements, Evidence
from strongroom.attest.keyset import NONCE_BYTES
from strongroom.attest.result import AttestationResult, DeviceResult, first_problem
from strongroom.attest.roots import ROOTS
from strongroom.errors import (
    AttestationError,
    DeviceNotBound,
    DevicesNotAccepted,
    EndorsementExpired,
    EndorsementMissing,
    EndorsementNotYetValid,
    KeysetExpired,
    NotAffirming,
    NotBound,
    NotFresh,
    Usage,
)
from strongroom.transcript import Check, Status, Transcript

from . import appraised, policies, shown
from .place import example
from .policies import policy_in, vendor_roots
from .screen import Screen

MAX_FILE_BYTES = 4 << 20
LACKING = "What a vendor has to add, --endorsements FILE brings, or --fetch."
STALE = "It may only be old: --at TIME judges it at another time"
FIRST_SECONDS = 1_000_000_000  # smaller numbers are years, or days: no unix times that evidence is judged at
LAST_MOMENT = 253_402_300_799  # the year 9999
MIN_NONCE_BYTES = 8  # fewer can be guessed
NO_AFFIRMATION = 3  # an exit status of its own: nothing failed, and nothing says which keys the evidence vouches for
WITHOUT_DOCUMENTS = frozenset({EndorsementMissing.code, EndorsementExpired.code, EndorsementNotYetValid.code})
OLD = frozenset({EndorsementExpired.code, KeysetExpired.code, NotFresh.code})
KEYSET_CHECKS = frozenset({"A5", "A8", "A9"})  # open wherever nobody gave a keyset


STATUSES = """\
exit status:
  0  affirming: every check passed; or a service's report, whose own keys the hardware vouches for
  1  a check failed or could not be made, or a file could not be read
  2  wrong usage
  3  every check that needs no keyset passed: the evidence is genuine and as you expect, and no affirmation, because
     nothing says which keys it vouches for"""


def declare(_verb: str, parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom attest show quote.bin                                  # every field, believed by nobody
strongroom attest verify quote.bin --fetch                        # the vendor's collateral is asked for
strongroom attest verify quote.bin --endorsements bundle.json --at 2026-06-30T12:00:00Z
strongroom attest verify report.json --policy policy.json --nonce 00112233…     # 64 hex digits
strongroom attest policy tdx nvidia_cc=8 --reference image.json --out policy.json
strongroom attest adopt policy.json --as hospital                 # signed by it, in its trust file
""",
    )
    verbs = parser.add_subparsers(dest="what", required=True, metavar="verify|show|policy|adopt")
    verify = verbs.add_parser(
        "verify",
        help="make every check that can be made, and show each",
        formatter_class=RawDescriptionHelpFormatter,
        epilog=STATUSES,
    )
    verify.add_argument("file", type=Path, help="evidence of any kind: a quote, a report, a token, a service's answer")
    verify.add_argument(
        "--policy", type=Path, metavar="FILE", help="an appraisal policy, else the strict one of each platform"
    )
    verify.add_argument("--nonce", metavar="HEX", help="what you sent, and the evidence must repeat: 8 bytes at least")
    verify.add_argument(
        "--at",
        type=moment,
        metavar="TIME",
        help="judge at this time (2026-06-30, 2026-06-30T12:00:00Z or unix seconds), else now",
    )
    verify.add_argument("--certificates", type=Path, metavar="FILE", help="of an NVIDIA device's bare report, in PEM")
    verify.add_argument("--event-log", type=Path, metavar="FILE", help="what was measured into the registers")
    verify.add_argument(
        "--endorsements",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a bundle, a certificate, a manifest …; may be said again",
    )
    verify.add_argument(
        "--kms-root", action="append", default=[], metavar="HEX", help="the key of a dstack KMS that you trust"
    )
    verify.add_argument(
        "--fetch", action="store_true", help="ask the vendors for what is missing, else nothing is asked of anybody"
    )
    show = verbs.add_parser("show", help="every field of evidence or of an event log, for people; nothing is verified")
    show.add_argument("file", type=Path)
    policy = verbs.add_parser(
        "policy", help="draft an appraisal policy: strict terms, the vendors' roots, your reference values"
    )
    policy.add_argument("platform", nargs="+", help=f"{', '.join(sorted(registry.PLATFORMS))}; a device as nvidia_cc=COUNT")
    policy.add_argument(
        "--reference",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="what may run: from `measure --json`, a trust file, or `attest verify --json` of a machine that you trust",
    )
    policy.add_argument("--name", default="", help="what to call these reference values")
    policy.add_argument("--build", default="", help="where what they measure comes from: a commit, a digest, an address")
    policy.add_argument(
        "--machine",
        action="append",
        metavar="ID",
        help="accept this machine alone (ppid:…, chip:…, ueid:…); may be said again",
    )
    policy.add_argument("--out", type=Path, metavar="FILE", help="where to write it, else it is printed")
    adopt = verbs.add_parser("adopt", help="sign a policy and put it into your trust file")
    adopt.add_argument("file", type=Path)
    for sub in (verify, show, policy, adopt):
        for flag, dest in (("--home", "home"), ("--as", "party")):
            sub.add_argument(flag, dest=dest, default=SUPPRESS)
        sub.add_argument("--json", action="store_true", default=SUPPRESS)
    parser.set_defaults(run=run)


def run(args: Namespace, screen: Screen) -> int:
    verb = {"verify": verify, "show": show, "policy": policies.policy, "adopt": policies.adopt}[args.what]
    return verb(args, screen)


def moment(text: str) -> int:
    """Unix seconds of a time on the command line: a day, a day and a time, or unix seconds since 2001 (a year is none).

    Raises:
        ArgumentTypeError: none of these.
    """
    try:
        if text.isascii() and text.isdigit():
            at, first = int(text), FIRST_SECONDS
        else:
            found = datetime.fromisoformat(text)
            at, first = int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()), 0
        if first <= at <= LAST_MOMENT:
            return at
    except (ValueError, OverflowError):
        pass
    raise ArgumentTypeError(f"not a time: {text[:40]!r}; say 2026-06-30, 2026-06-30T12:00:00Z or unix seconds")


def found_in(path: Path) -> detect.Found:
    """What a file holds. Raises NotFound, TooLarge, EmptyFile, BadEvidence."""
    data = read(path, max_bytes=MAX_FILE_BYTES)
    with reading(path):
        return detect.detect(data)


# --- verify -----------------------------------------------------------------------------------------------------------


def verify(args: Namespace, screen: Screen) -> int:
    at = int(time.time()) if args.at is None else args.at
    found = found_in(args.file)
    if args.certificates:
        with reading(args.certificates):
            found = detect.with_certificates(found, read(args.certificates))
    nonce = _nonce(args.nonce)
    if found.devices and found.evidence is None:
        return _devices_alone(args, found, nonce, at, screen)
    evidence = found.require_evidence()
    if args.event_log:
        with reading(args.event_log):
            evidence = replace(evidence, event_log=read(args.event_log, max_bytes=MAX_FILE_BYTES))
    if nonce is not None and len(nonce) != NONCE_BYTES and (found.report or _has_keys(found)):
        raise Usage(f"this report answers a nonce of {NONCE_BYTES} bytes", hint="Give the 64 hex digits that you sent.")
    policy = policy_in(args.policy) if args.policy else strict(evidence.platform, evidence.devices or found.devices)
    endorsements, missing = _endorsements(args, (evidence, *found.devices), found.endorsements, at, screen)
    if found.report is not None and nonce is not None:
        result = appraise(evidence, policy=policy, endorsements=endorsements, nonce=nonce, at=at, keyset=found.report.keyset)
    else:
        keyset = found.report.keyset if found.report is not None else None
        bare = Bare(found.service.report_data(nonce) if _has_keys(found) and nonce else nonce, keyset)
        result = look(evidence, policy=policy, endorsements=endorsements, bare=bare, at=at, devices=found.devices)
    screen.said("file", f"{args.file}: {found.kind}")
    screen.said("judged at", appraised.when(at))
    screen.line()
    service = _service(args, found, result, nonce)
    appraised.show(result, screen, service=service)
    return _conclude(result, service, found, missing, screen, now=args.at is None)


def _has_keys(found: detect.Found) -> bool:
    """Whether it is a service's report that names keys."""
    service = found.service
    return service is not None and (service.keyset is not None or service.signing_address is not None)


def _service(args: Namespace, found: detect.Found, result: AttestationResult, nonce: bytes | None) -> tuple[Check, ...]:
    """A service's own checks, C1 to C5 (spec/evidence-dstack.md): which keys the hardware vouches for, if it names any."""
    if not _has_keys(found):
        return ()
    from strongroom.attest import aci_report
    from strongroom.attest.dstack import DstackVerified

    if not isinstance(result.verified, DstackVerified):
        return ()
    roots = [_hex(text, "a KMS root") for text in args.kms_root]
    transcript = Transcript(aci_report.STEPS)
    with suppress(AttestationError):  # it is in the transcript
        aci_report.examine(found.service, result.verified, nonce=nonce, kms_roots=roots, transcript=transcript)
    return transcript.checks


def _conclude(
    result: AttestationResult,
    service: tuple[Check, ...],
    found: detect.Found,
    missing: list[str],
    screen: Screen,
    *,
    now: bool,
) -> int:
    """Say how it ended; the exit status (``STATUSES``)."""
    value = {**result.to_json(), "kind": found.kind, "service": [check.to_json() for check in service]}
    checks = (*result.checks, *(check for device in result.devices for check in device.checks), *service)
    failed = next((check for check in checks if check.status is Status.FAILED), None)
    still_open = [c for c in checks if c.status is Status.NOT_ESTABLISHED]
    if failed is None and {check.number for check in still_open} <= (KEYSET_CHECKS if not result.affirming else set()):
        until = found.service.keyset.not_after if service and found.service.keyset else result.at
        if result.at > until:
            expired = f"the service's keys counted until {appraised.when(until)}"
            screen.error(NotAffirming(expired, reason=KeysetExpired.code, hint=KeysetExpired.hint), **value)
            return 1
        if service:
            screen.said("", "The hardware vouches for the service's own keys (C2).")
        elif not result.affirming:
            said = "Every check that needs no keyset passed. Nothing says which keys this vouches for: send it no secret."
            screen.said("", said)
        screen.result(value)
        return 0 if service or result.affirming else NO_AFFIRMATION
    if WITHOUT_DOCUMENTS & {check.code for check in checks}:  # else what was not at hand was not missed
        for line in missing:
            screen.note(line)
    screen.error(_refused(failed, still_open, result, now=now), **value)
    return 1


def _refused(failed: Check | None, still_open: list[Check], result: AttestationResult, *, now: bool) -> NotAffirming:
    """The one line that people see: what failed, else what is open, and what can be done about it."""
    if failed is not None:
        terms = result.terms_transcript
        hint = None
        if now and failed.code in OLD:
            made = getattr(result.verified, "produced_at", None)
            hint = _stale(made)
        elif terms is not None and failed in terms.checks:
            hint = "It is genuine, and your policy's terms refuse it; terms of your own: strongroom attest policy PLATFORM"
        said = f"{failed.number} failed: {failed.name}: {appraised.readable(failed.detail)}"
        return NotAffirming(said, reason=failed.code, hint=hint)
    asked = [check for check in still_open if check.number not in KEYSET_CHECKS and appraised.reached(check)]
    first, numbers = asked[0], ", ".join(check.number for check in asked)
    lacking = any(check.code == EndorsementMissing.code and check.number[0] != "C" for check in asked)
    said = f"not established: {numbers} ({first.number} {first.name}: {first.detail})"
    return NotAffirming(
        said, reason=first.code, hint=LACKING if lacking else "Say what you expect: --nonce HEX, --policy FILE"
    )


def _stale(made: int | None) -> str:
    """What to do about evidence that nobody said a time for, and that no longer holds now."""
    own = "" if made is None else f" (--at {datetime.fromtimestamp(made, UTC):%Y-%m-%dT%H:%M:%SZ}: when it was made)"
    return f"{STALE}{own}. As it stands, send it no secret."


def _devices_alone(args: Namespace, found: detect.Found, nonce: bytes | None, at: int, screen: Screen) -> int:
    """Devices without a processor: every check of their own is shown, and the end is never good."""
    if args.event_log:
        raise Usage("devices have no event log", hint="Give it with the evidence of the machine that they are in.")
    policy = policy_in(args.policy) if args.policy else strict("", found.devices)
    endorsements, missing = _endorsements(args, found.devices, found.endorsements, at, screen)
    results = look_at_devices(found.devices, policy=policy, endorsements=endorsements, at=at)
    screen.said("file", f"{args.file}: {found.kind}")
    screen.said("judged at", appraised.when(at))
    for number, device in enumerate(results):
        screen.line()
        appraised.show_device(number, device, screen)
        repeated = getattr(device.verified, "nonce", None)
        if repeated is not None:
            screen.said("nonce", repeated.hex() + _NONCE_WORDS[_answered(device, nonce)])
        elif nonce is not None:
            screen.said("nonce", "NOT compared with the one asked about: the device's own checks did not pass")
    screen.line()
    if WITHOUT_DOCUMENTS & {check.code for device in results for check in device.checks}:
        for line in missing:
            screen.note(line)
    value = {
        "kind": found.kind,
        "submods": {
            f"{d.platform}-{n}": {**d.to_json(), "strongroom.nonce": _answered(d, nonce)} for n, d in enumerate(results)
        },
    }
    screen.error(_not_alone(results, found, nonce, now=args.at is None), **value)
    return 1


_NONCE_WORDS = {"not asked about": "", "repeated": ", the one asked about", "another": ", NOT the one asked about"}


def _answered(device: DeviceResult, nonce: bytes | None) -> str:
    """Whether a device repeated the nonce that was asked about."""
    if nonce is None:
        return "not asked about"
    if device.verified is None:
        return "not compared"
    return "repeated" if getattr(device.verified, "nonce", None) == nonce else "another"


def _not_alone(results: tuple[DeviceResult, ...], found: detect.Found, nonce: bytes | None, *, now: bool) -> NotAffirming:
    """Why devices without a processor are not accepted: there is always a reason."""
    problem = first_problem(check for device in results for check in device.checks)
    if len(results) != len(found.devices):
        said = f"the policy asks for {len(results)} of these {len(found.devices)} devices"
        return NotAffirming(said, reason=DevicesNotAccepted.code)
    if problem is not None:
        said = f"{problem.number} {problem.status.value}: {problem.name}: {appraised.readable(problem.detail)}"
        hint = LACKING if problem.code == EndorsementMissing.code else None
        if now and problem.code in OLD:
            hint = _stale(None)
        return NotAffirming(said, reason=problem.code, hint=hint)
    if any(_answered(device, nonce) == "another" for device in results):
        return NotAffirming("a device answered another nonce", reason=NotBound.code)
    hint = "Look at the evidence of the machine that they are in, which binds theirs."
    said = "the devices are genuine, and nothing says which machine uses them"
    return NotAffirming(said, reason=DeviceNotBound.code, hint=hint)


def strict(platform: str, devices: tuple[Evidence, ...]) -> AppraisalPolicy:
    """The strict policy for whatever was found: the vendors' roots, every platform's strict terms, no reference value.

    Args:
        platform: the processor's, or ``""``.
        devices: those that were found.
    """
    kinds = [device.platform for device in devices if device.platform in registry.DEVICES]
    return AppraisalPolicy(
        platforms=frozenset({platform} - {""}) - registry.DEVICES,
        roots=vendor_roots(ROOTS),
        devices={kind: kinds.count(kind) for kind in kinds},
    )


def _nonce(text: str | None) -> bytes | None:
    """What was sent. Raises Usage: what is no nonce, or stands in a slot that nobody filled."""
    if text is None:
        return None
    found = _hex(text, "a nonce")
    if len(found) < MIN_NONCE_BYTES or not any(found):
        hint = "Give all the hex digits that you sent; without --nonce, whether it is fresh is left open."
        raise Usage(f"a nonce is {MIN_NONCE_BYTES} bytes or more, and not zeros alone", hint=hint)
    return found


def _hex(text: str, what: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise Usage(f"{what} is hex digits") from None


def _endorsements(
    args: Namespace, members: tuple[Evidence, ...], own: Endorsements, at: int, screen: Screen
) -> tuple[Endorsements, list[str]]:
    """What came along, what the files hold, what is kept, and, where it is asked for, what the vendors say; and a line for
    each document that could not be had."""
    from strongroom.app.endorsements.bundle import open_bundle
    from strongroom.app.endorsements.cache import Cache, default_folder
    from strongroom.app.endorsements.provider import EndorsementProvider
    from strongroom.app.endorsements.web import configured

    carried = [document for path in args.endorsements for document in open_bundle(path).documents]
    provider = EndorsementProvider(
        bundle=carried, cache=Cache(default_folder()), web=configured(Path(args.home)) if args.fetch else None
    )
    if args.fetch:
        screen.note("asking the vendors for what is missing …")
    found, missing = dict.fromkeys(own.documents), []
    for evidence in members:
        gathered = provider.collect(evidence, at, beside=own)
        found.update(dict.fromkeys(gathered.endorsements.documents))
        missing += [f"{p.about}: {p.error.message}" for p in gathered.problems if args.fetch or carried]
    return Endorsements(tuple(found)[:MAX_ENDORSEMENTS]), missing


# --- show -------------------------------------------------------------------------------------------------------------


def show(args: Namespace, screen: Screen) -> int:
    found = found_in(args.file)
    screen.said("file", f"{args.file}: {found.kind}")
    screen.said("", "Nothing here has been verified: strongroom attest verify")
    value: dict[str, Any] = {"kind": found.kind, "fields": {}, "verified": False}
    for title, claims in shown.sections(found):
        screen.heading(title)
        value["fields"][title] = shown.plain(claims)
        shown.lines(value["fields"][title], screen)
    screen.result(value)
    return 0
