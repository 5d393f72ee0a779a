"""How an appraisal is shown: the same for evidence in a file and for a receipt's evidence."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby

from strongroom.attest.evidence import FOREVER
from strongroom.attest.result import AttestationResult, DeviceResult
from strongroom.attest.vector import Tier, TrustVector, tier
from strongroom.transcript import Check, Status

from .screen import Screen

_STYLES = {Tier.AFFIRMING: "green", Tier.NONE: "yellow", Tier.WARNING: "yellow", Tier.CONTRAINDICATED: "red"}
_WORDS = {**{t: t.value for t in Tier}, Tier.NONE: "not established"}  # an EAR's "none" says little to people
_MOMENT = re.compile(r"\b(from|until|at|of|since|before|after|expires) ([1-9][0-9]{8,9})\b")  # unix seconds in a detail
_AGE = re.compile(r"\b([1-9][0-9]{4,}) s (old|ago)\b")


def show(result: AttestationResult, screen: Screen, *, service: tuple[Check, ...] = ()) -> None:
    """Every check in order, each device's and a service's own after the processor's, and what was found."""
    checks(result.checks, screen)
    for number, device in enumerate(result.devices):
        screen.line()
        show_device(number, device, screen)
    if service:
        screen.line()
        screen.said("service", "which keys are its own")
        checks(service, screen)
    screen.line()
    if result.measurement is not None:
        screen.said("measurement", f"{result.measurement.digest}{f'   {result.build}' if result.build else ''}")
        for name, value in result.measurement.registers.items():
            screen.said(f"  {name}", value)
    if result.verified is not None:
        if result.verified.machine:
            screen.said("machine", result.verified.machine)
        collateral(result.collateral, screen)
        end = result.verified.valid_until if result.valid_until is None else result.valid_until
        screen.said("valid until", until(end, affirming=result.affirming))
    screen.said("trust vector", vector(result.vector))
    screen.said("", result.label)
    screen.said("policy", result.policy_digest)
    screen.said("genuine", genuine(result))
    style = _STYLES[Tier.WARNING if result.affirming and result.tolerated else result.status]
    screen.said("verdict", screen.paint(verdict(result, service), style))


def show_device(number: int, device: DeviceResult, screen: Screen) -> None:
    """One device's own checks."""
    said = _WORDS[device.status]
    if device.status is Tier.AFFIRMING and device.vector.warnings:
        said += f", with a warning: {tolerated('', device.vector.warnings, device.tolerated_until)}"
    screen.said("device", f"{number}: {_named(device.label)}: {said}")
    checks(device.checks, screen)
    if device.verified is not None:
        if device.verified.machine:
            screen.said("machine", device.verified.machine)
        collateral(device.verified.collateral, screen)


def collateral(digests: tuple[str, ...], screen: Screen) -> None:
    """What vouches for the evidence: how many documents, and which."""
    screen.said("collateral", f"{len(digests)} document{'' if len(digests) == 1 else 's'}")
    for digest in digests:
        screen.said("", digest)


def checks(found: Iterable[Check], screen: Screen) -> None:
    """Each check, with its times as people write them; a run of checks that were not reached in one line."""
    for unreached, run in groupby(found, key=lambda check: not reached(check)):
        part = tuple(run)
        if unreached and len(part) > 1:
            numbers = f"{part[0].number} to {part[-1].number}"
            part = (replace(part[0], number=numbers, name=f"{len(part)} checks that were not reached", detail=""),)
        for check in part:
            screen.check(replace(check, detail=readable(check.detail)))


def reached(check: Check) -> bool:
    """Whether anything was looked at: a check that another stopped says nothing of its own."""
    return check.status is not Status.NOT_ESTABLISHED or bool(check.code)


def readable(detail: str) -> str:
    """The same with times and ages as people write them."""

    def age(found: re.Match[str]) -> str:
        seconds = int(found[1])
        spoken = f"{seconds // 86400} days" if seconds >= 2 * 86400 else f"{seconds // 3600} hours"
        return f"{spoken} {found[2]}"

    return _AGE.sub(age, _MOMENT.sub(lambda found: f"{found[1]} {when(int(found[2]))}", detail))


def until(end: int, *, affirming: bool) -> str:
    """The last second at which what vouches for evidence holds, or a result does."""
    whose = "this result" if affirming else "what vouches for it; this is no affirmation"
    return f"{'no end' if end == FOREVER else when(end)} ({whose})"


def when(at: int) -> str:
    """A time for people."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _named(label: str) -> str:
    return label.removeprefix("platform: ").removeprefix("device: ")


def genuine(result: AttestationResult) -> str:
    """Whether the platform signed it, which is one thing, and whether the policy takes it, which is another."""
    own = result.platform_transcript
    if own is None:
        return "not looked at"
    if own.ok:
        return f"yes: it passed every check of {_named(result.label)}; whether to accept it, the policy says"
    problem = own.first_problem
    assert problem is not None
    said = "no" if problem.status is Status.FAILED else "not established"
    return f"{said}: {problem.number} {readable(problem.detail)}"


def vector(found: TrustVector) -> str:
    """The claims that are made, in words."""
    made = [
        f"{name} {tier(value).value} ({value})"
        for name, value in found.to_json().items()
        if isinstance(value, int) and value
    ]
    return ", ".join(made) or "nothing is claimed"


def verdict(result: AttestationResult, service: tuple[Check, ...] = ()) -> str:
    """One line: the status, and how many checks ended how."""
    every = [*result.checks, *(check for device in result.devices for check in device.checks), *service]
    counts = {status: sum(check.status is status for check in every) for status in Status}
    parts = [f"{counts[status]} {status.value}" for status in Status if counts[status]]
    said = _WORDS[result.status]
    if result.status is not Tier.CONTRAINDICATED and result.tolerated:
        warnings = "; ".join(tolerated(name, (claim,), until) for name, claim, until in result.tolerated)
        said += f", with a warning: {warnings}"
    return f"{said}: {', '.join(parts)}"


def tolerated(name: str, claims: tuple[str, ...], until: int | None) -> str:
    """What the terms tolerate, and until when they do."""
    what = " ".join(part for part in (", ".join(claims), f"of {name}" if name else "") if part)
    return f"{what} tolerated" + ("" if until is None else f" until {when(until)}")
