"""The law of shared keys by many more examples. ``make soak`` runs it."""

from __future__ import annotations

import pytest
from hypothesis.stateful import run_state_machine_as_test

from test_threshold_law import Beyond, Sharing, at_most

pytestmark = pytest.mark.slow


def test_the_law_of_shared_keys() -> None:
    run_state_machine_as_test(Sharing, settings=at_most(300, 60))  # type: ignore[no-untyped-call]


def test_beyond_it_signed_papers_name_a_liar() -> None:
    run_state_machine_as_test(Beyond, settings=at_most(300, 60))  # type: ignore[no-untyped-call]
