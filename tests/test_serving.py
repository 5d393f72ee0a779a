"""What may be asked of a room that stays open: its bounds, its order in words, and its one form."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given

from strongroom.errors import BadField, EmptyPolicy, UnknownDimension
from strongroom.policy import Policy, explain
from strongroom.serving import MAX_LEASE_S, MAX_PADDING, MAX_RETENTION_S, Serving
from test_policy import servings

CHAT = Serving(frozenset({"chat"}), 3600)
USES = frozenset({"infer"})


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"routes": frozenset({"fine-tuning"})}, UnknownDimension),
        ({"routes": "chat"}, BadField),
        ({"lease_s": 59}, BadField),
        ({"lease_s": MAX_LEASE_S + 1}, BadField),
        ({"lease_s": True}, BadField),
        ({"plain_bodies": 1}, BadField),
        ({"padding": 1}, BadField),
        ({"padding": 300}, BadField),
        ({"padding": 2 * MAX_PADDING}, BadField),
        ({"observability": "everything"}, UnknownDimension),
        ({"retention_s": -1}, BadField),
        ({"retention_s": MAX_RETENTION_S + 1}, BadField),
        ({"input_guards": frozenset({"politeness"})}, UnknownDimension),
        ({"output_guards": frozenset({"politeness"})}, UnknownDimension),
    ],
)
def test_what_could_not_be_kept_to_is_refused(changes: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        replace(CHAT, **changes)


@pytest.mark.parametrize(
    ("wider", "said"),
    [
        ({"routes": frozenset({"chat", "embeddings"})}, "serve: embeddings may be asked; permitted: chat"),
        ({"lease_s": 3601}, "serve: keys are renewed every 3,601 s; at most 3,600 are permitted"),
        ({"plain_bodies": True}, "serve: bodies may come unencrypted by EHBP; that is not permitted"),
        ({"padding": 256}, "serve: bodies are padded to 256 bytes; at least 1,024 are asked for"),
        ({"observability": "full"}, "serve: the operator may see 'full'; at most 'aggregate' is permitted"),
        ({"retention_s": 61}, "serve: receipts are kept for 61 s; at most 60 are permitted"),
        ({"input_guards": frozenset()}, "serve: pii must guard requests"),
        ({"output_guards": frozenset({"pii"})}, "serve: injection must guard answers"),
    ],
)
def test_every_member_that_is_wider_is_said(wider: dict[str, object], said: str) -> None:
    terms = replace(
        CHAT,
        padding=1024,
        observability="aggregate",
        retention_s=60,
        input_guards=frozenset({"pii"}),
        output_guards=frozenset({"injection", "pii"}),
    )
    asked = replace(terms, **wider)
    assert explain(Policy(USES, serve=terms), Policy(USES, serve=asked)) == (said,)
    assert explain(Policy(USES, serve=asked), Policy(USES, serve=terms)) == ()


def test_nothing_may_be_asked_where_terms_say_nothing_of_it() -> None:
    assert explain(Policy(USES), Policy(USES, serve=CHAT)) == ("serve: chat may be asked; nothing may be",)


@given(servings)
def test_there_is_one_form(serving: Serving) -> None:
    policy = Policy(USES, serve=serving)
    if not serving.routes:
        assert policy.serve is None
        with pytest.raises(EmptyPolicy):
            policy.require()
        return
    assert policy.require() is policy
    assert Policy.from_json(policy.to_json()) == policy
    assert Serving.from_json(serving.to_json()).to_json() == serving.to_json()


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({**CHAT.to_json(), "watermark": True}, UnknownDimension),
        ({m: v for m, v in CHAT.to_json().items() if m != "padding"}, BadField),
        ({**CHAT.to_json(), "routes": []}, BadField),
        ({**CHAT.to_json(), "routes": ["embeddings", "chat"]}, BadField),
        ({**CHAT.to_json(), "observability": None}, BadField),
        ([], BadField),
    ],
)
def test_another_form_is_refused(value: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        Policy.from_json({**Policy(USES).to_json(), "serve": value})


def test_what_is_served_is_no_other_thing() -> None:
    with pytest.raises(BadField):
        Policy(USES, serve={"routes": ["chat"]})  # type: ignore[arg-type]
