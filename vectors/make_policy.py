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


NUMBER = {"maximum": 1, "minimum": 0, "type": "number"}
COUNT = {"maximum": 100000, "minimum": 0, "type": "integer"}
AREA = {"enum": ["north", "south"], "type": "string"}
MEANS = {"properties": {"mean": {**NUMBER, "nullable": True}, "n": COUNT}, "type": "object"}
BY_AREA = {
    "columns": {"area": AREA, "mean": NUMBER, "n": COUNT},
    "count": "n",
    "key": ["area"],
    "maxRows": 2,
    "type": "table",
}
WEIGHTS = {"tensors": {"bias": {"dtype": "F64", "shape": []}, "w": {"dtype": "F32", "shape": [2, 3]}}, "type": "tensors"}


def observed(duration: Any = 60, failure: str = "withheld", **more: Any) -> dict[str, Any]:
    return {**policy("analyse", values=rule(schema=MEANS)), "observed": {"duration_s": duration, "failure": failure, **more}}


def reviewed(*by: str, reasons: bool = False, recipients: Any = ("lab",), **more: Any) -> dict[str, Any]:
    recipients = recipients if isinstance(recipients, str) else list(recipients)
    release = {"by": list(by), "reasons": reasons, **more}
    return policy("evaluate", report=rule(recipients=recipients, release=release))


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
    "structured": (
        "the kinds whose rules hold a schema, and the one that says nothing",
        "ok",
        policy(
            "analyse", success=rule(), table=rule(schema=BY_AREA), tensors=rule(schema=WEIGHTS), values=rule(schema=MEANS)
        ),
    ),
    "any-schema": ("whichever schema the contract names", "ok", policy("analyse", values=rule(schema="any-schema"))),
    "schema-missing": ("values without a schema", "wire.bad_field", policy("analyse", values=rule())),
    "schema-of-another-kind": (
        "a table's schema for values",
        "wire.bad_field",
        policy("analyse", values=rule(schema=BY_AREA)),
    ),
    "schema-where-none-may-be": (
        "a report has its own form",
        "wire.bad_field",
        policy("evaluate", report=rule(schema=MEANS)),
    ),
    "schema-free-text": (
        "a text that is not one of a list",
        "wire.bad_field",
        policy("analyse", values=rule(schema={"type": "string"})),
    ),
    "schema-without-an-end": (
        "an array of any length",
        "wire.bad_field",
        policy("analyse", values=rule(schema={"items": NUMBER, "type": "array"})),
    ),
    "schema-unknown-member": (
        "a member of JSON Schema that is not enforced here",
        "policy.unknown_dimension",
        policy("analyse", values=rule(schema={**AREA, "pattern": ".*"})),
    ),
    "schema-unknown-type": (
        "a type that is none",
        "policy.unknown_dimension",
        policy("analyse", values=rule(schema={"type": "date"})),
    ),
    "schema-unknown-dtype": (
        "a tensor's type that is none",
        "policy.unknown_dimension",
        policy("analyse", tensors=rule(schema={"tensors": {"w": {"dtype": "F4", "shape": [1]}}, "type": "tensors"})),
    ),
    "schema-key-of-numbers": (
        "rows cannot be named by what is rounded",
        "wire.bad_field",
        policy("analyse", table=rule(schema={**BY_AREA, "key": ["mean"]})),
    ),
    "reviewed": ("somebody passes it first", "ok", reviewed("hospital", reasons=True)),
    "reviewed-by-nobody": ("a review without a reviewer", "wire.bad_field", reviewed()),
    "reviewed-by-any-party": ("nobody is called any-party", "wire.bad_field", reviewed("any-party")),
    "reviewed-unknown-member": ("a member of another version", "policy.unknown_dimension", reviewed("hospital", votes=2)),
    "observed": ("times to a minute, and failures alike", "ok", observed()),
    "observed-withheld": ("no time at all", "ok", observed("withheld", "step")),
    "observed-everything": ("what tells everything has no place in normal form", "wire.bad_field", observed(1, "step")),
    "observed-nothing-runs": (
        "nor has what may be seen where nothing may run",
        "wire.bad_field",
        {**observed(), "uses": []},
    ),
    "observed-never": ("a multiple of no seconds", "wire.bad_field", observed(0)),
    "observed-another-word": ("a failure that is told half", "policy.unknown_dimension", observed(60, "code")),
    "observed-unknown-member": ("a member of another version", "policy.unknown_dimension", observed(60, memory=1)),
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

STRUCTURED = {
    "schema-narrower": (
        "fewer texts, closer bounds, whole numbers, a shorter table",
        policy("analyse", table=rule(schema=BY_AREA)),
        policy(
            "analyse",
            table=rule(
                schema={
                    **BY_AREA,
                    "columns": {
                        "area": {"enum": ["north"], "type": "string"},
                        "mean": {"maximum": 1, "minimum": 1, "type": "integer"},
                        "n": {"maximum": 10, "minimum": 5, "type": "integer"},
                    },
                    "maxRows": 1,
                }
            ),
        ),
        [],
    ),
    "schema-any": (
        "one schema, where any is permitted",
        policy("analyse", values=rule(schema="any-schema")),
        policy("analyse", values=rule(schema=MEANS)),
        [],
    ),
    "schema-wider": (
        "one more text",
        policy("analyse", values=rule(schema=AREA)),
        policy("analyse", values=rule(schema={"enum": ["north", "south", "west"], "type": "string"})),
        ["values: may hold what the permitted schema does not allow"],
    ),
    "schema-other-names": (
        "a member that the terms do not have",
        policy("analyse", values=rule(schema=MEANS)),
        policy("analyse", values=rule(schema={"properties": {"n": COUNT, "name": COUNT}, "type": "object"})),
        ["values: may hold what the permitted schema does not allow"],
    ),
    "reviewed-by-more": (
        "another recipient reads it first as well",
        reviewed("hospital", recipients="any-party"),
        reviewed("hospital", "lab", recipients="any-party"),
        [],
    ),
    "reviewed-by-nobody": (
        "it leaves unread",
        reviewed("hospital"),
        policy("evaluate", report=rule(recipients=["lab"])),
        ["report: leaves before hospital passed it"],
    ),
    "reviewed-by-a-stranger": (
        "a review is a way to read",
        reviewed("hospital"),
        reviewed("hospital", "press"),
        ["report: is read by press in review; permitted reviewers: hospital"],
    ),
    "reviewed-with-reasons": (
        "the recipients are told why",
        reviewed("hospital"),
        reviewed("hospital", reasons=True),
        ["report: recipients are told why a reviewer refused; that is not permitted"],
    ),
    "observed-coarser": ("two minutes are a multiple of one", observed(), observed(120), []),
    "observed-not-at-all": ("nothing is told where a minute may be", observed(), observed("withheld"), []),
    "observed-finer": (
        "seconds and steps, where the terms want neither",
        observed(),
        policy("analyse", values=rule(schema=MEANS)),
        [
            "observed: the time of a run is told to 1 s; to 60 s is permitted",
            "observed: the step and code of a failure are told; they are to be withheld",
        ],
    ),
    "observed-between": (
        "90 seconds are coarser than 60, but no multiple: both together would tell more",
        observed(),
        observed(90),
        ["observed: the time of a run is told to 90 s; to 60 s is permitted"],
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
    "schema": (
        "the texts, numbers and rows that both allow",
        policy("analyse", values=rule(schema={"items": {**NUMBER, "nullable": True}, "maxItems": 5, "type": "array"})),
        policy("analyse", values=rule(schema={"items": {**COUNT, "nullable": True}, "maxItems": 3, "type": "array"})),
        policy(
            "analyse",
            values=rule(
                schema={
                    "items": {"maximum": 1, "minimum": 0, "nullable": True, "type": "integer"},
                    "maxItems": 3,
                    "type": "array",
                }
            ),
        ),
    ),
    "schema-nothing-in-common": (
        "a rule that no output can keep to drops out",
        policy("analyse", values=rule(schema=AREA)),
        policy("analyse", values=rule(schema=NUMBER)),
        policy("analyse"),
    ),
    "reviewed-by-both": (
        "each of them must pass it, and may read it under the other's rule",
        reviewed("hospital", recipients="any-party", reasons=True),
        reviewed("lab", recipients=["hospital", "lab"]),
        reviewed("hospital", "lab", recipients=["hospital", "lab"]),
    ),
    "reviewed-by-a-stranger": (
        "a reviewer who may not read it under the other's rule",
        reviewed("hospital"),
        reviewed("press"),
        policy("evaluate"),
    ),
    "observed": (
        "multiples of both",
        observed(60),
        observed(90, "step"),
        observed(180),
    ),
    "observed-longer-than-a-day": (
        "what is no multiple of both within a day is not told",
        observed(86400),
        observed(86399),
        observed("withheld"),
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
    permits += [(name, terms, what, asked, why) for name, (what, terms, asked, why) in STRUCTURED.items()]
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
