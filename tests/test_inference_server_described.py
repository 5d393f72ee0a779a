"""The OpenAPI document: it is one, it is what the code does, and nothing that is made from it breaks the server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("schemathesis", reason="requests are made from the document by schemathesis, which is not installed")

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import positive_data_acceptance

from inference_world import MODEL, SERVE, InferenceWorld
from strongroom.app.inference.description import document
from strongroom.app.inference.server import ROUTES
from strongroom.lm.request import HARMLESS
from world import NOW

load_all_checks()

# What the document cannot say: a signature, hardware, and members that must fit each other.
UNSAID = ("contract.", "inference.no_intel_quote", "wire.")
TOGETHER = ("max_completion_tokens", "tool_choice", "tools")


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, str]]:
    """Of a room that needs a key, and a key."""
    with InferenceWorld(serve=replace(SERVE, plain_bodies=True), limits=None) as world, world.listening() as url:
        yield url, world.keys.add("tester", at=NOW)


@pytest.fixture(scope="module")
def described(address: tuple[str, str]) -> Any:
    return schemathesis.openapi.from_url(f"{address[0]}/openapi.json")


def operations() -> list[tuple[str, str, str]]:
    found = []
    for path, methods in json.loads(document())["paths"].items():
        for method, operation in methods.items():
            found.append((method, path, "positive"))
            if operation.get("parameters") or "requestBody" in operation:
                found.append((method, path, "negative"))
    return found


@pytest.mark.parametrize(("method", "path", "mode"), operations())
def test_what_is_made_from_the_document_is_answered_as_it_says(described, address, method, path, mode):
    headers = {"Authorization": f"Bearer {address[1]}"}
    made = described[path][method].as_strategy(generation_mode=GenerationMode(mode))

    @given(made)
    @settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    def asked(case: Any) -> None:
        if isinstance(case.body, dict) and isinstance(name := case.body.get("model"), str) and 0 < len(name) <= 256:
            case.body["model"] = MODEL  # else nearly all would be of a model that is not there
        answer = case.call(headers=headers)
        without = []
        if answer.status_code == 400:
            error = json.loads(answer.content)["error"]
            if error["code"].startswith(UNSAID) or (error["param"] or "").startswith(TOGETHER):
                without.append(positive_data_acceptance)
        case.validate_response(answer, excluded_checks=without, headers=headers)

    asked()


def test_every_route_of_the_code_is_in_the_document_and_no_other():
    with InferenceWorld() as world:
        exact, below = set(world.service._exact), set(world.service._below)
    found = set(json.loads(document())["paths"])
    assert {path for path in found if "{" not in path} == exact
    assert {path.split("{")[0] for path in found if "{" in path} == below
    assert set(ROUTES) <= found


def test_members_that_change_nothing_are_in_the_document():
    members = json.loads(document())["components"]["schemas"]["ChatRequest"]
    assert set(HARMLESS) <= set(members["properties"])
    assert members["additionalProperties"] is False


def test_every_reference_in_the_document_leads_somewhere():
    found = json.loads(document())
    named = {word.split('"')[0] for word in document().decode().split('"#/components/schemas/')[1:]}
    assert named == set(found["components"]["schemas"])
