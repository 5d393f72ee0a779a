"""Appraisal policies on the command line: drafted from reference values, read from a file, adopted by a party."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from strongroom import wire
from strongroom.app.client.home import pretty, read, reading, reference, write
from strongroom.attest import registry
from strongroom.attest.appraisal_policy import MAX_POLICY_BYTES, AppraisalPolicy, Reference
from strongroom.attest.evidence import Roots, Terms
from strongroom.attest.roots import ROOTS
from strongroom.errors import BadField, Usage
from strongroom.trust import Root

from .place import party
from .screen import Screen

MAX_REFERENCES_BYTES = 4 << 20


def vendor_roots(names: Iterable[str]) -> dict[str, Roots]:
    return {name: Roots(certificates=tuple(ROOTS[name].values())) for name in names if name in ROOTS}


def policy_in(path: Path) -> AppraisalPolicy:
    """A policy, signed or not: whoever names it on the command line takes it as it is."""
    with reading(path):
        value = wire.loads(read(path, max_bytes=MAX_POLICY_BYTES))
        if isinstance(value, dict) and "payload" in value:
            value = wire.decode(wire.Envelope.from_json(value).payload, max_bytes=MAX_POLICY_BYTES)
        return AppraisalPolicy.from_json(value)


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
    references, roots = [], vendor_roots({*platforms, *devices})
    for path in args.reference:
        values, own = _references(path, args.name, args.build)
        mine = [value for value in values if value.measurement.platform in platforms]
        if not mine:
            raise BadField(f"{path}: there is no measurement of {' or '.join(sorted(platforms)) or 'a processor'}")
        references += mine
        for root in (root for root in own if root.platform in platforms):
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
    for name in sorted(platforms - {r.measurement.platform for r in references}):
        screen.note(f"It has no reference value for {name}, and so accepts nothing of it yet: --reference FILE")
    screen.result(found.to_json())
    return 0


def _references(path: Path, name: str, build: str) -> tuple[list[Reference], tuple[Root, ...]]:
    """What may run; and roots, where a trust file says them (``strongroom up`` writes one)."""
    roots: tuple[Root, ...] = ()
    with reading(path):
        value = wire.loads(read(path, max_bytes=MAX_REFERENCES_BYTES))
        if isinstance(value, dict) and "submods" in value:  # what `attest verify --json` said
            submods = value["submods"].items() if isinstance(value["submods"], dict) else ()
            said = [
                s.get("strongroom.measurement") for name, s in submods if name in registry.PLATFORMS and isinstance(s, dict)
            ]
            value = {"measurements": [measurement for measurement in said if measurement]}
        if isinstance(value, dict) and {"platform", "registers"} <= set(value):  # what `measure --json` said
            build = build or str(value.pop("build", ""))
            value.pop("programs", None)  # they are in the package, which is measured
            value = {"measurements": [value]}
        if isinstance(value, dict) and "format" in value:
            values = reference(read(path))
            found, roots = [Reference(m, name, build) for m in values.measurements], values.roots
        else:
            f = wire.Fields(value, "reference values")
            found = [replace(r, name=name, build=build) for r in f.items("measurements", _reference)]
            f.end()
    return found, roots


def _reference(value: object) -> Reference:
    return Reference.from_json({"build": "", "measurement": value, "name": ""})


def adopt(args: Namespace, screen: Screen) -> int:
    mine, found = party(args), policy_in(args.file)
    mine.save_trust(mine.trust.with_policy(found.sign(mine.keys.signing)))
    screen.said("adopted", f"{found.digest}, signed by {mine.name}")
    for name in sorted(found.platforms):
        count = sum(r.measurement.platform == name for r in found.references)
        values = "1 reference value" if count == 1 else f"{count} reference values"
        screen.said("platform", f"{name}: {values}" + ("" if count else ", so that nothing is accepted"))
    for name, count in found.devices.items():
        screen.said("device", f"{name}: exactly {count}")
    screen.said("machines", "any" if found.machines is None else f"{len(found.machines)} by name")
    screen.result({"adopted": found.digest, "party": mine.name})
    return 0
