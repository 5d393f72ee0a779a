"""Writes vectors/policy/: one file per case, the expected outcome in the file. Deterministic; run it from anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "policy"


def rule(**changes: Any) -> dict[str, Any]:
    return {"decimals": 4, "max_bytes": 1048576, "min_group": 10, "recipients": ["hospital"], **changes}


def policy(*uses: str, **outputs: Any) -> dict[str, Any]:
    return {"egress": [], "outputs": outputs, "uses": list(uses)}


def serve(**changes: Any) -> dict[str, Any]:
    return {
        "input_guards": ["pii"],
        "lease_s": 3600,
        "observability": "aggregate",
        "output_guards": [],
        "padding": 1024,
        "plain_bodies": False,
        "retention_s": 86400,
        "routes": ["chat", "embeddings"],
        **changes,
    }


def serving(**changes: Any) -> dict[str, Any]:
    return {**policy("infer"), "serve": serve(**changes)}


TERMS = policy("evaluate", picture=rule(), report=rule(recipients="any-party"))

PARSE: dict[str, tuple[str, str, Any]] = {
    "normal-form": ("a policy in normal form", "ok", TERMS),
    "every-kind": (
        "every output kind, and the limits at their ends",
        "ok",
        policy(
            "evaluate",
            "train",
            log=rule(decimals=0, max_bytes=1, min_group=1, recipients=["hospital", "lab"]),
            picture=rule(decimals=15, max_bytes=2**53 - 1, min_group=2**53 - 1),
            records=rule(),
            report=rule(),
        ),
    ),
    "unknown-dimension": ("a dimension of another version", "policy.unknown_dimension", {**TERMS, "tools": []}),
    "unknown-output-kind": (
        "an output kind of another version",
        "policy.unknown_dimension",
        policy("evaluate", video=rule()),
    ),
    "unknown-rule-member": (
        "a member of a rule that cannot be enforced",
        "policy.unknown_dimension",
        policy("evaluate", report=rule(watermark=True)),
    ),
    "egress-to-a-host": (
        "egress, which no version enforces yet",
        "policy.unknown_dimension",
        {**TERMS, "egress": ["example.com"]},
    ),
    "egress-null": ("egress that is no list", "wire.bad_field", {**TERMS, "egress": None}),
    "dimension-missing": (
        "a signed policy says every dimension",
        "wire.bad_field",
        {"outputs": TERMS["outputs"], "uses": []},
    ),
    "uses-unsorted": ("uses out of order", "wire.bad_field", policy("train", "evaluate", report=rule())),
    "uses-doubled": ("a use twice", "wire.bad_field", policy("evaluate", "evaluate", report=rule())),
    "uses-a-string": ("a string is no list of names", "wire.bad_field", {**TERMS, "uses": "evaluate"}),
    "recipients-empty": (
        "a rule that lets nothing out has no place in normal form",
        "wire.bad_field",
        policy("evaluate", report=rule(recipients=[])),
    ),
    "recipients-any-party-listed": (
        "a party cannot be called any-party",
        "wire.bad_field",
        policy("evaluate", report=rule(recipients=["any-party"])),
    ),
    "recipients-another-word": (
        "another word for everybody",
        "wire.bad_field",
        policy("evaluate", report=rule(recipients="*")),
    ),
    "decimals-too-many": ("16 decimals", "wire.bad_field", policy("evaluate", report=rule(decimals=16))),
    "decimals-negative": ("decimals below 0", "wire.bad_field", policy("evaluate", report=rule(decimals=-1))),
    "min-group-zero": ("groups of nobody", "wire.bad_field", policy("evaluate", report=rule(min_group=0))),
    "max-bytes-true": ("true is no number", "wire.bad_field", policy("evaluate", report=rule(max_bytes=True))),
    "rule-member-missing": (
        "no limit is not no limit at all",
        "wire.bad_field",
        policy("evaluate", report={k: v for k, v in rule().items() if k != "min_group"}),
    ),
    "rule-not-an-object": ("a number is no rule", "wire.bad_field", policy("evaluate", report=7)),
    "outputs-not-an-object": ("a list is no map", "wire.bad_field", {**TERMS, "outputs": []}),
    "not-an-object": ("a list is no policy", "wire.bad_field", []),
    "serve": ("requests may be answered", "ok", serving()),
    "serve-unknown-route": ("a route of another version", "policy.unknown_dimension", serving(routes=["images"])),
    "serve-unknown-guard": ("a guard that is none", "policy.unknown_dimension", serving(input_guards=["politeness"])),
    "serve-unknown-level": ("a level that is none", "policy.unknown_dimension", serving(observability="some")),
    "serve-unknown-member": ("a member of another version", "policy.unknown_dimension", serving(more=1)),
    "serve-no-route": ("what serves nothing has no place in normal form", "wire.bad_field", serving(routes=[])),
    "serve-null": ("nothing is served by leaving it out", "wire.bad_field", {**policy("infer"), "serve": None}),
    "serve-lease-too-short": ("a lease of 59 seconds", "wire.bad_field", serving(lease_s=59)),
    "serve-lease-too-long": ("a lease of more than a week", "wire.bad_field", serving(lease_s=604801)),
    "serve-padding-odd": ("buckets that are no power of two", "wire.bad_field", serving(padding=1000)),
    "serve-member-missing": (
        "no end of retention is not no retention",
        "wire.bad_field",
        {**policy("infer"), "serve": {k: v for k, v in serve().items() if k != "retention_s"}},
    ),
}

REQUIRE: dict[str, tuple[str, str, Any]] = {
    "usable": ("a use and an output", "ok", TERMS),
    "no-use": ("nothing may be done with the data", "policy.empty", policy(report=rule())),
    "no-output": ("nothing may leave", "policy.empty", policy("evaluate")),
    "nothing": ("the bottom", "policy.empty", policy()),
    "serves": ("a use, and answers to requests", "ok", serving()),
    "serves-without-a-use": ("answers, and no use", "policy.empty", {**policy(), "serve": serve()}),
}

PERMITS: dict[str, tuple[str, Any, list[str]]] = {
    "itself": ("a policy permits itself", TERMS, []),
    "narrower": (
        "narrower in every dimension",
        policy("evaluate", report=rule(decimals=2, max_bytes=1024, min_group=20)),
        [],
    ),
    "wider-use": (
        "a use that the terms do not have",
        policy("evaluate", "train", report=rule()),
        ["use: train is asked for; permitted: evaluate"],
    ),
    "other-output": (
        "an output kind that the terms do not have",
        policy("evaluate", records=rule()),
        ["records: may leave; permitted output kinds: picture, report"],
    ),
    "other-recipient": (
        "a recipient that the terms do not have",
        policy("evaluate", picture=rule(recipients=["hospital", "lab"])),
        ["picture: may go to lab; permitted recipients: hospital"],
    ),
    "any-recipient": (
        "everybody, where the terms name one",
        policy("evaluate", picture=rule(recipients="any-party")),
        ["picture: may go to any party; permitted recipients: hospital"],
    ),
    "every-limit": (
        "every limit wider",
        policy("evaluate", report=rule(decimals=5, max_bytes=2097152, min_group=5)),
        [
            "report: may be up to 2,097,152 bytes long; at most 1,048,576 are permitted",
            "report: may show groups of 5; groups under 10 must be suppressed",
            "report: may show 5 decimal places; at most 4 are permitted",
        ],
    ),
}

SERVED: dict[str, tuple[str, Any, list[str]]] = {
    "serve-narrower": (
        "narrower in every member",
        serving(lease_s=60, observability="none", output_guards=["pii"], padding=4096, retention_s=0, routes=["chat"]),
        [],
    ),
    "serve-wider": (
        "wider in every member",
        serving(
            input_guards=[],
            lease_s=3601,
            observability="full",
            padding=0,
            plain_bodies=True,
            retention_s=86401,
            routes=["chat", "completions"],
        ),
        [
            "serve: completions may be asked; permitted: chat, embeddings",
            "serve: keys are renewed every 3,601 s; at most 3,600 are permitted",
            "serve: bodies may come unencrypted by EHBP; that is not permitted",
            "serve: bodies are padded to 0 bytes; at least 1,024 are asked for",
            "serve: the operator may see 'full'; at most 'aggregate' is permitted",
            "serve: receipts are kept for 86,401 s; at most 86,400 are permitted",
            "serve: pii must guard requests",
        ],
    ),
}

MEET: dict[str, tuple[str, Any, Any, Any]] = {
    "narrowest-of-each": (
        "the narrower of each dimension",
        policy("evaluate", "train", report=rule(recipients="any-party", decimals=2)),
        policy("evaluate", log=rule(), report=rule(max_bytes=10, min_group=20)),
        policy("evaluate", report=rule(decimals=2, max_bytes=10, min_group=20)),
    ),
    "no-common-recipient": (
        "a rule that nobody is left in drops out",
        policy("evaluate", report=rule(recipients=["lab"])),
        policy("evaluate", report=rule(recipients=["hospital"])),
        policy("evaluate"),
    ),
    "serve-narrowest-of-each": (
        "the narrower of each member; what guards for one guards for both",
        serving(routes=["chat", "completions"], lease_s=60, output_guards=["model"]),
        serving(padding=256, observability="none", input_guards=["injection"], plain_bodies=True),
        serving(
            routes=["chat"], lease_s=60, observability="none", input_guards=["injection", "pii"], output_guards=["model"]
        ),
    ),
    "serve-no-common-route": (
        "what serves nothing drops out",
        serving(routes=["chat"]),
        serving(routes=["embeddings"]),
        policy("infer"),
    ),
}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    cases: dict[str, dict[str, Any]] = {}
    for name, (description, expect, value) in PARSE.items():
        cases[f"parse-{name}"] = {"description": description, "expect": expect, "operation": "parse", "policy": value}
    for name, (description, expect, value) in REQUIRE.items():
        cases[f"require-{name}"] = {"description": description, "expect": expect, "operation": "require", "policy": value}
    permits = [(name, TERMS, *case) for name, case in PERMITS.items()]
    permits += [(name, serving(), *case) for name, case in SERVED.items()]
    permits.append(
        (
            "serve-nothing",
            TERMS,
            "requests, where the terms say nothing of them",
            {**TERMS, "serve": serve()},
            ["serve: chat, embeddings may be asked; nothing may be"],
        )
    )
    for name, terms, description, asked, why in permits:
        cases[f"permits-{name}"] = {
            "asked": asked,
            "description": description,
            "expect": "policy.not_permitted" if why else "ok",
            "explanation": why,
            "operation": "permits",
            "terms": terms,
        }
    for name, (description, one, other, met) in MEET.items():
        cases[f"meet-{name}"] = {
            "description": description,
            "expect": "ok",
            "first": one,
            "meet": met,
            "operation": "meet",
            "second": other,
        }
    for name, case in cases.items():
        (FOLDER / f"{name}.json").write_text(json.dumps(case, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
