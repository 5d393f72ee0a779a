"""attest: look at hardware evidence of any kind, and say what to accept of it."""

from __future__ import annotations

import time
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, Namespace
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
    EndorsementMissing,
    KeysetExpired,
    NotAffirming,
    NotBound,
    Usage,
)
from strongroom.transcript import Check, Status, Transcript

from . import appraised, policies, shown
from .place import example
from .policies import policy_in, vendor_roots
from .screen import Screen

MAX_FILE_BYTES = 4 << 20
LACKING = "What a vendor has to add, --endorsements FILE brings, or --fetch."
LAST_MOMENT = 253_402_300_799  # the year 9999
KEYSET_CHECKS = frozenset({"A5", "A8", "A9"})  # open wherever nobody gave a keyset


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
    verify = verbs.add_parser("verify", help="make every check that can be made, and show each")
    verify.add_argument("file", type=Path, help="evidence of any kind: a quote, a report, a token, a service's answer")
    verify.add_argument(
        "--policy", type=Path, metavar="FILE", help="an appraisal policy, else the strict one of each platform"
    )
    verify.add_argument("--nonce", metavar="HEX", help="what you sent, and the evidence must repeat")
    verify.add_argument(
        "--at", type=moment, metavar="TIME", help="judge at this time (unix seconds or 2026-06-30T12:00:00Z), else now"
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
    """Unix seconds of a time on the command line. Raises ArgumentTypeError."""
    try:
        if text.isascii() and text.isdigit():
            at = int(text)
        else:
            found = datetime.fromisoformat(text)
            at = int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())
        if 0 <= at <= LAST_MOMENT:
            return at
    except (ValueError, OverflowError):
        pass
    raise ArgumentTypeError(f"not a time: {text[:40]!r}; unix seconds, or 2026-06-30T12:00:00Z")


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
        bare = Bare(found.service.report_data(nonce) if _has_keys(found) and nonce else nonce)
        result = look(evidence, policy=policy, endorsements=endorsements, bare=bare, at=at, devices=found.devices)
    screen.said("file", f"{args.file}: {found.kind}")
    screen.said("judged at", appraised.when(at))
    screen.line()
    service = _service(args, found, result, nonce)
    appraised.show(result, screen, service=service)
    return _conclude(result, service, found, missing, screen)


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
    result: AttestationResult, service: tuple[Check, ...], found: detect.Found, missing: list[str], screen: Screen
) -> int:
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
        return 0
    for line in missing:
        screen.note(line)
    screen.error(_refused(failed, still_open, result), **value)
    return 1


def _refused(failed: Check | None, still_open: list[Check], result: AttestationResult) -> NotAffirming:
    """The one line that people see: what failed, else what is open, and what can be done about it."""
    if failed is not None:
        terms = result.terms_transcript
        hint = None
        if terms is not None and failed in terms.checks:
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
            same = "" if nonce is None else ", the one asked about" if repeated == nonce else ", NOT the one asked about"
            screen.said("nonce", repeated.hex() + same)
    screen.line()
    for line in missing:
        screen.note(line)
    value = {"kind": found.kind, "submods": {f"{d.platform}-{n}": d.to_json() for n, d in enumerate(results)}}
    screen.error(_not_alone(results, found, nonce), **value)
    return 1


def _not_alone(results: tuple[DeviceResult, ...], found: detect.Found, nonce: bytes | None) -> NotAffirming:
    """Why devices without a processor are not accepted: there is always a reason."""
    problem = first_problem(check for device in results for check in device.checks)
    if len(results) != len(found.devices):
        said = f"the policy asks for {len(results)} of these {len(found.devices)} devices"
        return NotAffirming(said, reason=DevicesNotAccepted.code)
    if problem is not None:
        said = f"{problem.number} {problem.status.value}: {problem.name}: {appraised.readable(problem.detail)}"
        return NotAffirming(said, reason=problem.code, hint=LACKING if problem.code == EndorsementMissing.code else None)
    if nonce is not None and any(getattr(device.verified, "nonce", None) != nonce for device in results):
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
    return None if text is None else _hex(text, "a nonce")


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
    for title, claims in found.claims:
        screen.heading(title)
        value["fields"][title] = shown.plain(claims)
        shown.lines(value["fields"][title], screen)
    screen.result(value)
    return 0
