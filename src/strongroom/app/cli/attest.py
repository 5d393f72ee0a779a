"""attest: look at hardware evidence of any kind, and say what to accept of it."""

from __future__ import annotations

import time
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, Namespace
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from strongroom import wire
from strongroom.app.client.home import pretty, read, reading, reference, write
from strongroom.attest import detect, registry
from strongroom.attest.appraisal import Bare, appraise, look, look_at_devices
from strongroom.attest.appraisal_policy import MAX_POLICY_BYTES, AppraisalPolicy, Reference
from strongroom.attest.evidence import MAX_ENDORSEMENTS, Endorsements, Evidence, Roots, Terms
from strongroom.attest.keyset import NONCE_BYTES
from strongroom.attest.result import AttestationResult, first_problem
from strongroom.attest.roots import ROOTS
from strongroom.errors import (
    AttestationError,
    BadField,
    DeviceNotBound,
    DevicesNotAccepted,
    EndorsementMissing,
    NotAffirming,
    NotBound,
    Usage,
)
from strongroom.transcript import Check, Status, Transcript
from strongroom.trust import Root

from . import appraised, shown
from .place import example, party
from .screen import Screen

MAX_FILE_BYTES = 4 << 20
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
    verb = {"verify": verify, "show": show, "policy": policy, "adopt": adopt}[args.what]
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
    if found.devices and found.evidence is None:
        return _devices_alone(args, found, at, screen)
    evidence = found.require_evidence()
    if args.event_log:
        with reading(args.event_log):
            evidence = replace(evidence, event_log=read(args.event_log, max_bytes=MAX_FILE_BYTES))
    devices = evidence.devices or found.devices
    endorsements = _endorsements(args, (evidence, *found.devices), found.endorsements, at, screen)
    policy = _policy(args.policy) if args.policy else strict(evidence.platform, devices)
    nonce = _nonce(args.nonce)
    if found.report is not None and nonce is not None:
        if len(nonce) != NONCE_BYTES:
            raise Usage(f"this report answers a nonce of {NONCE_BYTES} bytes", hint="Give the 64 hex digits that you sent.")
        result = appraise(evidence, policy=policy, endorsements=endorsements, nonce=nonce, at=at, keyset=found.report.keyset)
    else:
        result = look(evidence, policy=policy, endorsements=endorsements, bare=Bare(nonce), at=at, devices=found.devices)
    screen.said("file", f"{args.file}: {found.kind}")
    screen.said("judged at", appraised.when(at))
    screen.line()
    service = _service(args, found, result, nonce)
    appraised.checks(service, screen)
    appraised.show(result, screen)
    return _conclude(result, service, found, args, screen)


def _service(args: Namespace, found: detect.Found, result: AttestationResult, nonce: bytes | None) -> tuple[Check, ...]:
    """A service's own checks, C1 to C5: which keys the hardware vouches for. Its numbers are of spec/evidence-dstack.md."""
    if found.service is None:
        return ()
    from strongroom.attest import aci_report
    from strongroom.attest.dstack import DstackVerified

    if not isinstance(result.verified, DstackVerified):
        return ()
    roots = [_hex(text, "a KMS root") for text in args.kms_root]
    transcript = Transcript(aci_report.STEPS)
    asked = nonce if nonce is not None and len(nonce) == NONCE_BYTES else None
    with suppress(AttestationError):  # it is in the transcript
        aci_report.examine(found.service, result.verified, nonce=asked, kms_roots=roots, transcript=transcript)
    return transcript.checks


def _conclude(
    result: AttestationResult, service: tuple[Check, ...], found: detect.Found, args: Namespace, screen: Screen
) -> int:
    value = {**result.to_json(), "kind": found.kind, "service": [check.to_json() for check in service]}
    checks = (*result.checks, *(check for device in result.devices for check in device.checks), *service)
    failed = next((check for check in checks if check.status is Status.FAILED), None)
    still_open = [c for c in checks if c.status is Status.NOT_ESTABLISHED]
    if failed is None and {check.number for check in still_open} <= (KEYSET_CHECKS if not result.affirming else set()):
        if not result.affirming:
            screen.said("", "No keyset was given: nothing says which keys this evidence vouches for, so send it no secret.")
        screen.result(value)
        return 0
    if result.affirming:
        screen.result(value)
        return 0
    screen.error(_refused(failed, still_open, result, args), **value)
    return 1


def _refused(failed: Check | None, still_open: list[Check], result: AttestationResult, args: Namespace) -> NotAffirming:
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
    hint = "Say what you expect with --nonce and --policy"
    if any(check.code == EndorsementMissing.code for check in asked):
        hint = "What a vendor has to add, " + ("--endorsements brings" if args.fetch else "--endorsements or --fetch brings")
    return NotAffirming(
        f"not established: {numbers} ({first.number} {first.name}: {first.detail})", reason=first.code, hint=hint + "."
    )


def _devices_alone(args: Namespace, found: detect.Found, at: int, screen: Screen) -> int:
    """Devices without a processor: every check of their own is shown, and the end is never good."""
    policy = _policy(args.policy) if args.policy else strict("", found.devices)
    endorsements = _endorsements(args, found.devices, found.endorsements, at, screen)
    results = look_at_devices(found.devices, policy=policy, endorsements=endorsements, at=at)
    nonce = _nonce(args.nonce)
    screen.said("file", f"{args.file}: {found.kind}")
    screen.said("judged at", appraised.when(at))
    for number, device in enumerate(results):
        screen.line()
        appraised.show_device(number, device, screen)
        repeated = getattr(device.verified, "nonce", None)
        if device.verified is not None and repeated is not None:
            same = (
                ""
                if nonce is None
                else ": the one that was asked about"
                if repeated == nonce
                else ": NOT the one asked about"
            )
            screen.said("nonce", repeated.hex() + same)
    screen.line()
    problem = first_problem(check for device in results for check in device.checks)
    value = {"kind": found.kind, "submods": {f"{d.platform}-{n}": d.to_json() for n, d in enumerate(results)}}
    if len(results) != len(found.devices):
        said = f"the policy asks for {len(results)} of these {len(found.devices)} devices"
        screen.error(NotAffirming(said, reason=DevicesNotAccepted.code), **value)
    elif problem is not None:
        said = f"{problem.number} {problem.status.value}: {problem.name}: {appraised.readable(problem.detail)}"
        hint = None
        if problem.code == EndorsementMissing.code:
            hint = "What a vendor has to add, " + (
                "--endorsements brings." if args.fetch else "--endorsements or --fetch brings."
            )
        screen.error(NotAffirming(said, reason=problem.code, hint=hint), **value)
    elif nonce is not None and any(getattr(device.verified, "nonce", None) != nonce for device in results):
        screen.error(NotAffirming("a device answered another nonce", reason=NotBound.code), **value)
    else:
        hint = "Look at the evidence of the machine that they are in, which binds theirs."
        screen.error(
            NotAffirming(
                "the devices are genuine, and nothing says which machine uses them", reason=DeviceNotBound.code, hint=hint
            ),
            **value,
        )
    return 1


def strict(platform: str, devices: tuple[Evidence, ...]) -> AppraisalPolicy:
    """The strict policy for whatever was found: the vendors' roots, every platform's strict terms, no reference value.

    Args:
        platform: the processor's, or ``""``.
        devices: those that were found.
    """
    kinds = [device.platform for device in devices if device.platform in registry.DEVICES]
    return AppraisalPolicy(
        platforms=frozenset({platform} - {""}) - registry.DEVICES,
        roots=_roots(ROOTS),
        devices={kind: kinds.count(kind) for kind in kinds},
    )


def _roots(names: Any) -> dict[str, Roots]:
    return {name: Roots(certificates=tuple(ROOTS[name].values())) for name in names if name in ROOTS}


def _nonce(text: str | None) -> bytes | None:
    return None if text is None else _hex(text, "a nonce")


def _hex(text: str, what: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise Usage(f"{what} is hex digits") from None


def _policy(path: Path) -> AppraisalPolicy:
    """A policy, signed or not: whoever names it on the command line takes it as it is."""
    with reading(path):
        value = wire.loads(read(path, max_bytes=MAX_POLICY_BYTES))
        if isinstance(value, dict) and "payload" in value:
            value = wire.decode(wire.Envelope.from_json(value).payload, max_bytes=MAX_POLICY_BYTES)
        return AppraisalPolicy.from_json(value)


def _endorsements(
    args: Namespace, members: tuple[Evidence, ...], own: Endorsements, at: int, screen: Screen
) -> Endorsements:
    """What came along, what the files hold, what is kept, and, where it is asked for, what the vendors say."""
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
    found = dict.fromkeys(own.documents)
    for evidence in members:
        gathered = provider.collect(evidence, at, beside=own)
        found.update(dict.fromkeys(gathered.endorsements.documents))
        for problem in gathered.problems if args.fetch or carried else ():
            screen.note(f"{problem.about}: {problem.error.message}")
    return Endorsements(tuple(found)[:MAX_ENDORSEMENTS])


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


# --- policies ---------------------------------------------------------------------------------------------------------


def _named(words: list[str]) -> tuple[set[str], dict[str, int]]:
    """The platforms, and how many of which devices. Raises Usage."""
    platforms: set[str] = set()
    devices: dict[str, int] = {}
    for word in words:
        name, _, count = word.partition("=")
        if name in registry.DEVICES:
            if not (count.isascii() and count.isdigit()):
                raise Usage(f"say how many there must be: {name}=8")
            devices[name] = int(count[:9])
        elif word in registry.PLATFORMS:
            platforms.add(word)
        else:
            raise Usage(f"there is no platform {word!r}", hint=f"One of: {', '.join(sorted(registry.PLATFORMS))}.")
    return platforms, devices


def _terms(names: set[str]) -> dict[str, Terms]:
    """Every platform's strict terms, written out so that they can be edited."""
    modules = {name: registry.verifier(name) for name in sorted(names)}
    return {name: module.Terms() for name, module in modules.items() if module and module.TERMS_STEPS is not None}


def policy(args: Namespace, screen: Screen) -> int:
    platforms, devices = _named(args.platform)
    references, roots = [], _roots({*platforms, *devices})
    for path in args.reference:
        values, own = _references(path, args.name, args.build)
        references += values
        for root in own:
            if root.platform in platforms:
                before = roots.get(root.platform, Roots())
                roots[root.platform] = replace(before, keys=(*before.keys, root.key))
    found = AppraisalPolicy(
        platforms=frozenset(platforms),
        roots=roots,
        references=tuple(references),
        machines=frozenset(args.machine) if args.machine else None,
        devices=devices,
        terms=_terms({*platforms, *devices}),
    )
    AppraisalPolicy.from_json(found.to_json())  # what is written here is read again elsewhere
    if args.out:
        write(args.out, pretty(found.to_json()))
        screen.said("policy", f"{args.out}   {found.digest}")
    else:
        screen.line(pretty(found.to_json()).decode())
    if not references:
        screen.note("It has no reference value, and so accepts nothing yet: --reference FILE, or edit `references`.")
    screen.result(found.to_json())
    return 0


def _references(path: Path, name: str, build: str) -> tuple[list[Reference], tuple[Root, ...]]:
    """What may run; and roots, where a trust file says them (``strongroom up`` writes one)."""
    roots: tuple[Root, ...] = ()
    with reading(path):
        value = wire.loads(read(path, max_bytes=MAX_FILE_BYTES))
        if isinstance(value, dict) and "submods" in value:  # what `attest verify --json` said
            submods = value["submods"].items() if isinstance(value["submods"], dict) else ()
            said = [
                s.get("strongroom.measurement") for name, s in submods if name in registry.PLATFORMS and isinstance(s, dict)
            ]
            value = {"measurements": [measurement for measurement in said if measurement]}
        if isinstance(value, dict) and set(value) == {"platform", "registers"}:  # what `measure --json` said
            value = {"measurements": [value]}
        if isinstance(value, dict) and "format" in value:
            values = reference(read(path))
            found, roots = [Reference(m, name, build) for m in values.measurements], values.roots
        else:
            f = wire.Fields(value, "reference values")
            found = [replace(r, name=name, build=build) for r in f.items("measurements", _reference)]
            f.end()
        if not found:
            raise BadField("there is no measurement")
    return found, roots


def _reference(value: object) -> Reference:
    return Reference.from_json({"build": "", "measurement": value, "name": ""})


def adopt(args: Namespace, screen: Screen) -> int:
    mine, found = party(args), _policy(args.file)
    mine.save_trust(mine.trust.with_policy(found.sign(mine.keys.signing)))
    screen.said("adopted", f"{found.digest}, signed by {mine.name}")
    for name in sorted(found.platforms):
        count = sum(r.measurement.platform == name for r in found.references)
        screen.said("platform", f"{name}: {count} reference values" + ("" if count else ", so that nothing is accepted"))
    for name, count in found.devices.items():
        screen.said("device", f"{name}: exactly {count}")
    screen.said("machines", "any" if found.machines is None else f"{len(found.machines)} by name")
    screen.result({"adopted": found.digest, "party": mine.name})
    return 0
