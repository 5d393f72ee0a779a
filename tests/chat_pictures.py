"""The pictures of the chat page in ``docs/pictures``: ``python tests/chat_pictures.py``, with Chromium and playwright.

What they show is the real page before a real room of ``inference_world``. The evidence behind the green one is the project's
own, under test roots.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, expect, sync_playwright

from inference_world import SERVE
from test_chat_page import CHROMIUM, FLAGS, Desk, TdWorld, at_desk, flipped

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
SERVED = replace(SERVE, observability="aggregate", padding=1024, input_guards=frozenset({"pii"}))
QUESTION = "How does a Merkle tree help somebody who trusts nobody?"
ANSWER = '''\
A Merkle tree keeps a hash for every leaf, and above every two nodes the hash of both. To change one leaf unnoticed, you \
would have to change every hash on its way up, and somebody has already written down the root.

Three things follow:

1. **Inclusion** takes only the siblings on the way up, about `log2(n)` hashes.
2. **Consistency** between two sizes takes as few.
3. Nobody has to be trusted to keep the log, only to keep the *root*.

```python
def root(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1."""
    if len(leaves) == 1:
        return sha256(b"\\x00" + leaves[0]).digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\\x01" + root(leaves[:split]) + root(leaves[split:])).digest()
```

The details are in [RFC 6962](https://www.rfc-editor.org/rfc/rfc6962).'''
WORDS = re.findall(r"\s*\S+", ANSWER)
WIDE = {"viewport": {"width": 1180, "height": 820}, "device_scale_factor": 1.5}
PHONE = {"viewport": {"width": 390, "height": 780}, "device_scale_factor": 1.5, "has_touch": True, "is_mobile": True}


def picture(desk: Desk, name: str, folder: Path) -> None:
    desk.page.wait_for_timeout(300)  # what moves has arrived
    shot = Image.open(io.BytesIO(desk.page.screenshot())).convert("RGB")
    shot.quantize(256, dither=Image.Dither.NONE).save(folder / f"chat-{name}.png", optimize=True)


@contextmanager
def talking(browser: Browser, looks: dict[str, Any], **options: Any) -> Iterator[Desk]:
    """A desk where three conversations have been."""
    with at_desk(browser, looks=looks, address="https://models.example", serve=SERVED, **options) as desk:
        yield desk


def talked(desk: Desk) -> None:
    desk.pin()
    for question, answer in (
        ("Why is a log's root enough?", "Because everything below it can be recomputed and compared."),
        ("Can I check a receipt offline?", "Yes: take the evidence away, and run strongroom verify."),
    ):
        desk.world.engine.words = [answer]
        desk.asked(question)
        desk.page.keyboard.press("Alt+n")
    desk.world.engine.words = WORDS


def make(browser: Browser, folder: Path) -> None:
    for scheme in ("light", "dark"):
        looks = {**WIDE, "color_scheme": scheme}
        with talking(browser, looks, room=TdWorld) as desk:
            talked(desk)
            desk.asked(QUESTION)
            picture(desk, f"verified-{scheme}", folder)
            desk.shield.click()
            picture(desk, f"checks-{scheme}", folder)
    with talking(browser, WIDE) as desk:
        desk.visit()
        expect(desk.page.get_by_role("button", name="Pin this")).to_be_enabled()
        picture(desk, "first", folder)
        talked(desk)
        desk.world.engine.pause = 0.08
        desk.ask(QUESTION)
        expect(desk.last).to_contain_text("RFC 6962, section", timeout=30_000)
        picture(desk, "streaming", folder)
        expect(desk.shield).to_be_visible(timeout=30_000)
        desk.world.engine.pause = 0
        picture(desk, "simulated", folder)
        desk.between.tamper = flipped
        desk.ask("And when somebody changes the answer on its way?")
        expect(desk.shield).to_be_visible()
        picture(desk, "refused", folder)
        desk.shield.click()
        picture(desk, "refused-checks", folder)
    with talking(browser, PHONE) as desk:
        desk.pin()
        desk.world.engine.words = WORDS
        desk.asked(QUESTION)
        picture(desk, "phone", folder)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURES
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        make(browser, folder)
        browser.close()


if __name__ == "__main__":
    main()
