"""A proposal with everything that a page can show: tried on the mock, asked of approvers, changed since its last version.

For ``test_inbox_mock.py``, and for the pictures: ``python tests/inbox_story.py`` writes those in ``docs/pictures``, with
Chromium and playwright.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from inbox_case import Desk, Served, served
from strongroom.app.client import approvers
from strongroom.app.client.analysis import Tried
from strongroom.app.client.mock.reveal import Reveal
from strongroom.app.client.offer import Offering
from strongroom.app.client.room import Room
from strongroom.contract import Proposal
from strongroom.policy import ANY_PARTY, OutputRule, Policy
from strongroom.review import Kind
from strongroom.schema import ANY_SCHEMA

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
RULE = OutputRule(ANY_PARTY, 4 << 20, 1, 15)
TERMS = Policy(
    uses=frozenset({"analyse"}),
    outputs={
        "picture": RULE,
        "values": OutputRule(ANY_PARTY, 1 << 20, 1, 15, ANY_SCHEMA),
    },
)
REVEAL = b"""{"columns":[{"name":"age","null":false,"range":["18","90"],"type":"int64"},\
{"name":"city","categories":["Delft","Leiden","Zwolle"],"null":false,"type":"string"},\
{"name":"income","null":false,"range":["0","90000"],"type":"int64"}],"format":"strongroom.reveal.v1","rows":100,"withhold":[]}"""
FIRST = '''\
"""Mean income by city, and a picture of it."""

import io

CITIES = ["Delft", "Leiden", "Zwolle"]


def summarise(census):
    from PIL import Image, ImageDraw

    means = {city: census[census.city == city].income.mean() for city in CITIES}
    image = Image.new("RGB", (360, 150), "white")
    draw = ImageDraw.Draw(image)
    for row, (city, mean) in enumerate(means.items()):
        draw.rectangle((80, 15 + 45 * row, 80 + mean / 300, 45 + 45 * row), fill=(60, 110, 190))
        draw.text((12, 24 + 45 * row), city, fill="black")
    png = io.BytesIO()
    image.save(png, "PNG")
    print("rows", len(census))
    return {"means": means, "plot": png.getvalue()}
'''
SECOND = FIRST.replace("income.mean()", "income.median()").replace(
    '    print("rows", len(census))\n', '    print("rows", len(census))\n    print(census.head())\n'
)
NUMBER = {"maximum": 100_000, "minimum": 0, "type": "number"}
SCHEMAS = {"means": {"properties": dict.fromkeys(("Delft", "Leiden", "Zwolle"), NUMBER), "type": "object"}}
OUTPUTS = {"means": "values:lab", "plot": "picture:lab"}


@dataclass
class Told:
    """The hospital's page, and what the lab proposes there."""

    served: Served
    first: Proposal
    second: Proposal
    tried: Tried

    @property
    def desk(self) -> Desk:
        return self.served.desk


def join(desk: Desk, *names: str) -> list[Room]:
    """More parties, whom everybody has pinned."""
    found = [desk.join(name) for name in names]
    everybody = [desk.lab, desk.hospital, *found]
    for me in everybody:
        trust = me.trust
        for other in everybody:
            known = other is me or other.name in {p.name for p in trust.parties}
            trust = trust if known else trust.pin(other.home.card)
        me.home.save_trust(trust)
    return found


def proposed(desk: Desk, code: str, tried: Tried | None = None, **more: object) -> Proposal:
    path = desk.folder / "analysis.py"
    path.write_text(code)
    inputs = {"census": "hospital/census"}
    said = {"entry": "analysis:summarise", "inputs": inputs, "outputs": OUTPUTS, "schemas": SCHEMAS}
    return desk.lab.submit(path, **said, title="Income by city", tried=tried, **more)


def tried(desk: Desk, code: str) -> Tried:
    path = desk.folder / "analysis.py"
    path.write_text(code)
    inputs = {"census": desk.lab.assets["census"]}
    return desk.lab.try_(path, entry="analysis:summarise", inputs=inputs, outputs=OUTPUTS, schemas=SCHEMAS)


@contextmanager
def told(folder: Path) -> Iterator[Told]:
    """The hospital offers a census, for which its data protection officer and one of two reviewers must approve."""
    with served(folder) as found:
        desk = found.desk
        rooms = join(desk, "ann", "ben", "dpo")
        table = folder / "census.parquet"
        pq.write_table(pa.table({"age": [31, 45], "city": ["Delft", "Zwolle"], "income": [31_000, 45_000]}), table)
        asked = approvers.read(desk.hospital, ["1:ann,ben", "dpo"])
        desk.hospital.offer(Offering(table, reveal=Reveal.parse(REVEAL)), terms=TERMS, approvers=asked)
        first = proposed(desk, FIRST, among=("ann",))
        found.inbox.show(first.digest)
        for room in (desk.hospital, *rooms[::2]):
            room.approve(first.digest)
        did = tried(desk, SECOND)
        second = proposed(desk, SECOND, did, among=("ann",))
        found.inbox.say(
            second.digest, Kind.COMMENT, "Why the first rows? Nobody reads the log.", file="analysis.py", line=21
        )
        rooms[2].approve(second.digest)
        yield Told(found, first, second, did)
        for room in rooms:
            room.close()


def pictures(folder: Path, *, every: bool) -> None:
    """The page, as a hospital's reviewer sees it; in other looks too, for who works on it."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    from test_inbox_page import CHROMIUM, FLAGS

    looks = {
        "light": {"viewport": {"width": 1180, "height": 1500}, "color_scheme": "light"},
        "dark": {"viewport": {"width": 1180, "height": 1500}, "color_scheme": "dark"},
        "phone": {"viewport": {"width": 390, "height": 780}, "has_touch": True, "is_mobile": True},
    }
    with tempfile.TemporaryDirectory() as place, told(Path(place)) as story, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for name, look in [pair for pair in looks.items() if every or pair[0] == "light"]:
            context = browser.new_context(**look)
            page = context.new_page()
            story.served.page._token = "again-" + name  # each address is good for one visit
            page.goto(story.served.page.entrance)
            page.goto(page.url + f"p/{story.second.digest}")
            page.get_by_role("button", name="Run it here").click()
            page.locator("#here").wait_for()
            page.evaluate("scrollTo(0, 0)")
            shot = Image.open(io.BytesIO(page.screenshot(full_page=name != "phone"))).convert("RGB")
            place_of = folder / ("inbox.png" if name == "light" else f"inbox-{name}.png")
            shot.quantize(256, dither=Image.Dither.NONE).save(place_of, optimize=True)
            if name == "phone":
                page.locator("#mocks").scroll_into_view_if_needed()
                Image.open(io.BytesIO(page.screenshot())).save(folder / "inbox-phone-mocks.png")
            context.close()
        browser.close()


if __name__ == "__main__":
    pictures(Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURES, every=len(sys.argv) > 1)
