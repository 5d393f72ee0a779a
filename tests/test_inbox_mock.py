"""What code did on the mocks, in an owner's browser: the proposer's claim, one's own run beside it, and who must approve."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: it drives the browser")
pytest.importorskip("pandas", reason="pandas is not installed: pip install 'strongroom[data]'")
pytest.importorskip("bandit", reason="bandit is not installed: pip install 'strongroom[review]'")

from playwright.sync_api import Browser, expect

from inbox_story import SECOND, Told, proposed, told
from strongroom import wire
from strongroom.app.client import trials
from strongroom.contract import Proposal
from test_inbox_page import HOSTILE, Eyes, Visitor, chromium, in_chromium

__all__ = ["chromium"]  # a fixture


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    with told(tmp_path_factory.mktemp("story")) as found:
        yield found


@pytest.fixture
def visitor(story: Told) -> Iterator[Visitor]:
    found = Visitor(story.served, inside=False)
    found.client.cookies.set("strongroom-inbox", story.served.page._session)  # the entrance may be used already
    yield found
    found.client.close()


def again(eyes: Eyes, story: Told, proposal: Proposal) -> None:
    """Open a proposal in a browser: the entrance is good for one visit, and a test may not be the first."""
    story.served.page._token = "again"
    eyes.page.goto(story.served.page.entrance)
    eyes.page.goto(f"{eyes.page.url}p/{proposal.digest}")


@in_chromium
def test_a_reviewer_runs_it_and_sees_that_it_is_as_claimed(chromium: Browser, story: Told) -> None:
    eyes = Eyes(chromium, story.served)
    again(eyes, story, story.second)
    page = eyes.page
    expect(page.get_by_text("claimed by lab, who proposes it")).to_be_visible()
    expect(page.get_by_text("1 of ann, ben: ann has not, ben is no party to it; 1 missing")).to_be_visible()
    expect(page.get_by_text("dpo: dpo has; enough")).to_be_visible()
    page.get_by_role("button", name="Run it here").click()
    expect(page.locator("#here")).to_contain_text("run here")
    expect(page.get_by_text("as claimed", exact=True)).to_have_count(2)
    expect(page.get_by_role("cell", name="Leiden")).to_have_count(2)
    picture = page.get_by_role("img")
    expect(picture).to_have_count(1)  # one's own alone: a claimed one is never drawn
    assert picture.evaluate("image => image.complete && image.naturalWidth") == 360
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    eyes.is_clean()
    eyes.context.close()


def lying(story: Told, text: str) -> Proposal:
    """The lab proposes the same code, and claims that it said something else."""
    honest = trials.trial_of(story.tried)
    shown = dict(honest.outputs)
    data = wire.encode({"Delft": text})
    shown["means"] = replace(shown["means"], size=len(data), digest=wire.digest(data), content=data)
    lie = replace(honest, outputs=shown, refused={}, log=text)
    lab = story.desk.lab
    lab.exchange.put_trial(lie)
    made = proposed(story.desk, SECOND, among=("ann",))
    return lab._propose(replace(made, trial=lie.digest))


@in_chromium
def test_a_proposer_who_claims_another_outcome_is_found_out(chromium: Browser, story: Told) -> None:
    eyes = Eyes(chromium, story.served)
    again(eyes, story, lying(story, HOSTILE))
    page = eyes.page
    page.get_by_text("What it printed").click()
    expect(page.get_by_role("cell", name=HOSTILE[:20])).to_be_visible()
    expect(page.locator("pre").first).to_have_text(HOSTILE)
    page.get_by_role("button", name="Run it here").click()
    expect(page.get_by_text("Not what was claimed: means.")).to_be_visible()
    expect(page.get_by_text("not as claimed", exact=True)).to_have_count(1)
    expect(page.get_by_text("as claimed", exact=True)).to_have_count(1)  # the picture
    eyes.is_clean()
    eyes.context.close()


def test_nothing_is_run_for_a_form_of_another_page(story: Told, visitor: Visitor) -> None:
    digest = story.first.digest
    assert visitor.post(f"p/{digest}/try", {"proposal": digest, "secret": "guessed"}).status_code == 403
    other = {"proposal": story.second.digest, "secret": visitor.secret(digest)}
    assert visitor.post(f"p/{digest}/try", other).status_code == 400  # about another than its address
    assert visitor.post(f"p/{digest}/try", {**other, "proposal": digest}, origin="http://evil").status_code == 403
    assert digest not in story.served.page._tried


def test_a_picture_is_shown_of_ones_own_run_alone(story: Told, visitor: Visitor) -> None:
    digest = story.second.digest
    story.served.page._tried[digest] = story.tried
    found = visitor.get(f"p/{digest}/mock/plot")
    assert (found.headers["content-type"], found.content) == ("image/png", story.tried.outputs["plot"])
    assert found.headers["x-content-type-options"] == "nosniff"
    for path in (f"p/{digest}/mock/means", f"p/{digest}/mock/other", f"p/{story.first.digest}/mock/plot"):
        assert visitor.get(path).status_code == 404
    del story.served.page._tried[digest]
    assert visitor.get(f"p/{digest}/mock/plot").status_code == 404


def test_a_claim_that_cannot_be_had_is_said_on_the_page(story: Told, visitor: Visitor) -> None:
    made = proposed(story.desk, SECOND, among=("ann",))
    gone = story.desk.lab._propose(replace(made, trial=wire.digest(b"nowhere")))
    said = visitor.get(f"p/{gone.digest}").text
    assert "Mind: no trial file" in said
    assert "The proposer sent nothing along" in visitor.get(f"p/{made.digest}").text
