"""Tables of text as they are handed to code: by no thread that needs the interpreter, also after an error and at the end."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest

pytest.importorskip("polars", reason="polars is not installed: pip install 'strongroom[data]'")

from strongroom.app.client.mock.tabular import FIRST_BYTES
from strongroom.errors import TableUnreadable
from strongroom.programs import Input, handed, texts

ROWS = 300_000
CHILD = """
import io, sys, time
from strongroom.errors import StrongroomError
from strongroom.programs import Input, handed

text, media_type, form, rows = {text!r}, {media_type!r}, {form!r}, {rows}
data = text[0] + text[1] * rows + text[2] + text[1] * rows

class Slow(io.RawIOBase):
    def __init__(self):
        self.inner = io.BytesIO(data)
    def readable(self):
        return True
    def seekable(self):
        return True
    def seek(self, *where):
        return self.inner.seek(*where)
    def tell(self):
        return self.inner.tell()
    def readinto(self, buffer):
        time.sleep(0.001)
        return self.inner.readinto(buffer)

source = Input(media_type, len(data), lambda: io.BufferedReader(Slow(), 1 << 16))
try:
    found = handed.hand(source, form)
    if form == "polars":
        print(found.head(2).collect().height)
    else:
        print(len(found))
except StrongroomError as error:
    print(error.code)
"""
CSV = (b"a,b\n", b"1,2\n", b"")
BROKEN = (b"a,b\n1,2\n1,2,3\n", b"1,2\n", b"")
LINES = (b"", b'{"a":1}\n', b"")


@pytest.mark.parametrize("form", ["arrow", "pandas", "polars"])
@pytest.mark.parametrize(
    ("media_type", "text", "said"),
    [
        ("text/csv", CSV, str(2 * ROWS)),
        ("text/csv", BROKEN, "program.table_unreadable"),
        ("application/jsonl", LINES, str(2 * ROWS)),
    ],
)
def test_a_process_that_read_some_of_a_text_ends_as_it_should(
    media_type: str, text: tuple[bytes, ...], said: str, form: str
) -> None:
    code = CHILD.format(text=text, media_type=media_type, form=form, rows=ROWS)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == ("2" if form == "polars" and said.isdigit() else said)


def test_a_file_that_ends_too_early_is_unreadable() -> None:
    source = Input("text/csv", 100, lambda: io.BytesIO(b"a\n1\n"))  # type: ignore[arg-type]
    with pytest.raises(TableUnreadable):
        handed.hand(source, "arrow")


def test_a_room_finds_the_types_of_csv_where_an_offer_looks_for_them() -> None:
    assert texts.BLOCK_BYTES == FIRST_BYTES
