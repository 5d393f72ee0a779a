"""The embedded model's training: what is held out, what is read, and that a stopped run goes on as if it had not been."""

from __future__ import annotations

import hashlib
import itertools
import json
import lzma
import math
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

HOME = Path(__file__).parents[1]
sys.path.insert(0, str(HOME / "training"))

import corpora  # noqa: E402 - the scripts of training/ import each other by name
import embedded  # noqa: E402
import held_out  # noqa: E402
import release  # noqa: E402
import run  # noqa: E402
import talk  # noqa: E402
import text  # noqa: E402
from text import ASSISTANT, BEGIN, END, SYSTEM, USER, Document, Turn  # noqa: E402

CORPORA = HOME.parent / "shared" / "corpora"


# --- which documents are held out --------------------------------------------------------------------------------------


def test_novels_are_held_out_whole_and_by_name() -> None:
    parts = {
        name: text.part("books", Document(f"level1/ENG{name}.xml", "")) for name in text.TEST_NOVELS + text.WATCH_NOVELS
    }
    assert parts == dict.fromkeys(text.TEST_NOVELS, "test") | dict.fromkeys(text.WATCH_NOVELS, "watch")
    assert text.part("books", Document("level1/ENG18400_Trollope.xml", "")) == "train"
    assert len({name.partition("_")[2] for name in text.TEST_NOVELS}) >= 6


def test_both_editions_of_an_article_are_on_one_side() -> None:
    heads = [f"HEAD {i}" for i in range(2000)]
    parts = [text.part("encyclopedia", Document("docs/1810/x", f"{head}\nfirst")) for head in heads]
    assert parts == [text.part("encyclopedia", Document("docs/1815/y", f"{head.lower()} \nother")) for head in heads]
    assert set(parts) == {"train", "watch", "test"}
    assert parts.count("train") > 1900


def test_other_owners_text_is_never_trained_on() -> None:
    assert text.part("biology", Document("contents/m1.md", "x")) == text.part("law", Document("a", "x")) == "test"
    assert text.TRAINED_ON == ("books", "encyclopedia")


@pytest.mark.skipif(not (CORPORA / "books.jsonl.xz").exists(), reason="the corpora are not beside the project")
def test_the_novels_held_out_are_in_the_corpus_and_their_authors_only_books() -> None:
    names = [document.id.rpartition("/ENG")[2].removesuffix(".xml") for document in text.read(CORPORA / "books.jsonl.xz")]
    held = text.TEST_NOVELS + text.WATCH_NOVELS
    assert set(held) <= set(names)
    authors = [name.partition("_")[2] for name in names]
    assert all(authors.count(name.partition("_")[2]) == 1 for name in held)


def test_documents_are_read_from_xz(tmp_path: Path) -> None:
    with lzma.open(tmp_path / "x.jsonl.xz", "wt", encoding="utf-8") as file:
        file.write('{"id": "a", "text": "é"}\n{"id": "b", "text": "two\\nlines"}\n')
    assert list(text.read(tmp_path / "x.jsonl.xz")) == [Document("a", "é"), Document("b", "two\nlines")]


# --- cleaning ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("“Oh!” she cried", '"Oh!" she cried'),
        ("‘tis´s", "'tis's"),
        ("no -- never --- I —  said", "no—never—I—said"),
        ("donovan , and so . Yes", "donovan, and so. Yes"),
        ("co\u00adoperate\u200b", "cooperate"),
        ("a\n\n  b \n\nc\r\n", "a\nb\nc"),
        ("two  spaces\u00a0here", "two spaces here"),
        ("* * * * so", "so"),
        ("e\u0301", "é"),
        ("wait…", "wait..."),
    ],
)
def test_one_spelling(written: str, read: str) -> None:
    assert text.clean(written) == read


@given(st.text())
def test_cleaned_text_has_one_paragraph_a_line(written: str) -> None:
    cleaned = text.clean(written)
    assert cleaned == cleaned.strip()
    assert "\n\n" not in cleaned
    assert "“" not in cleaned


KNOWN = text.known_words(["the city of rome stands on the river tiber and has many old temples"] * 5)


def test_words_are_known_once_they_are_frequent() -> None:
    assert "tiber" in KNOWN
    assert text.known_words(["seldom"] * 4) == frozenset()


@pytest.mark.parametrize(
    "line",
    ["| 3 | -9 |", "x = 3 + 14.2 / y", "Tbe cily os Rorae stauds", "Fig. 3", "", "\\[ \\frac{1}{2} \\]"],
)
def test_tables_formulas_and_misread_pages_are_not_readable(line: str) -> None:
    assert not text.readable(line, KNOWN)


def test_an_article_keeps_its_headword_and_what_is_readable() -> None:
    assert (
        text.article("ROME\nThe city of Rome stands on the Tiber.\n| 1 | 2 |", KNOWN)
        == "ROME\nThe city of Rome stands on the Tiber."
    )
    assert not text.article("ROME\n| 1 | 2 |", KNOWN)


def test_an_article_printed_again_is_read_once() -> None:
    long = "ROME\n" + " ".join(f"word{i}" for i in range(100))
    again, other = Document("b", long + " more"), Document("c", "ROME\n" + " ".join(f"else{i}" for i in range(100)))
    first = Document("a", long)
    assert list(text.distinct([first, again, other, replace(first, text="X" + long)])) == [
        first,
        other,
        replace(first, text="X" + long),
    ]


def test_a_section_loses_its_markup() -> None:
    assert text.section('class="x"\n### Cells\nSee [the *cell*](#a) [here][1].\n")') == "Cells\nSee the cell here."


# --- conversations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paragraph", "speech"),
    [
        ('"I know," he said, "that it is so."', "I know, that it is so."),
        ('"Talk," he said. "It will end in smoke."', "Talk. It will end in smoke."),
        ('"Come in," said he.', "Come in."),
        ('"Go," and with that he told them at great length of all that he had seen abroad.', ""),
        ("He went out.", ""),
        ('"', ""),
    ],
)
def test_what_is_said_in_a_paragraph(paragraph: str, speech: str) -> None:
    assert text.spoken(paragraph) == speech


def test_a_dialogue_ends_with_an_answer() -> None:
    rain = "The rain fell without end upon the roofs of the town."
    novel = f'{rain}\n"Who is there?"\n"It is I."\n"Come in."\nHe came in.\n"Alone?"\nYes.'
    found = list(text.dialogues(novel, random.Random(1)))
    said = (Turn(USER, "Who is there?"), Turn(ASSISTANT, "It is I."))
    scene = Turn(SYSTEM, rain)
    assert found in ([said], [(scene, *said)])
    both = {len(next(text.dialogues(novel, random.Random(seed)))) for seed in range(20)}
    assert both == {2, 3}


def test_long_dialogues_are_cut_where_the_user_speaks_next() -> None:
    novel = "\n".join(f'"Line number {i}."' for i in range(30))
    for conversation in text.dialogues(novel, random.Random(1)):
        assert len(conversation) <= 12
        assert conversation[0].role == USER
        assert conversation[-1].role == ASSISTANT


def test_passages_are_asked_for() -> None:
    prose = [
        "CHAPTER I.",
        *(f"Sentence {i} of the story goes on for quite a while and then it ends, as all of them do." for i in range(9)),
    ]
    prose = [line * 2 for line in prose]
    found = list(text.continuations("\n".join(prose), random.Random(1), share=1))
    assert found
    assert all([turn.role for turn in conversation] == [USER, ASSISTANT] for conversation in found)
    assert all(conversation[1].text.count("\n") == 1 for conversation in found)


@pytest.mark.parametrize(
    ("article", "asked", "answer"),
    [
        (
            "TOGA\nin Roman antiquity, a wide woollen gown or mantle.",
            "toga",
            "Toga, in Roman antiquity, a wide woollen gown or mantle.",
        ),
        (
            "TOLAND\nJOHN, a famous writer, was born near Londonderry.",
            "John Toland",
            "John Toland, a famous writer, was born near Londonderry.",
        ),
        (
            "TOKAY WINE\nderives its name from a town of Hungary.",
            "okay wine",
            "Tokay wine derives its name from a town of Hungary.",
        ),
    ],
)
def test_an_article_explains_its_headword(article: str, asked: str, answer: str) -> None:
    found = text.explanation(article, random.Random(1))
    assert found is not None
    assert asked.lower() in found[0].text.lower()
    assert found[1] == Turn(ASSISTANT, answer)


@pytest.mark.parametrize(
    "article", ["TOGA", "Plate XIII.\nSketch of the wheel for raising water.", "ABC\nTheY are many and go on without an end"]
)
def test_what_is_no_sentence_about_the_headword_explains_nothing(article: str) -> None:
    assert text.explanation(article, random.Random(1)) is None


def test_a_conversation_is_rendered_as_the_template_renders_it() -> None:
    jinja2 = pytest.importorskip("jinja2", reason="the chat template is rendered by jinja2, which is not installed")
    turns = (Turn(SYSTEM, "A room."), Turn(USER, "Who?"), Turn(ASSISTANT, "I."))
    messages = [{"role": turn.role[2:-2], "content": f" {turn.text}\n"} for turn in turns]
    template = jinja2.Environment(autoescape=False).from_string(release.TEMPLATE)
    assert template.render(messages=messages, bos_token=BEGIN, add_generation_prompt=False) == text.render(turns)
    asked = template.render(messages=messages[:2], bos_token=BEGIN, add_generation_prompt=True)
    assert text.render(turns).startswith(asked)
    assert asked.endswith(ASSISTANT)
    assert template.render(messages=[{"role": "developer", "content": "x"}], bos_token="") == f"{SYSTEM}x{END}"


def test_small_talk_alternates_and_says_what_it_is() -> None:
    made = list(talk.conversations(300, seed=1))
    assert made == list(talk.conversations(300, seed=1)) != list(talk.conversations(300, seed=2))
    for conversation in made:
        turns = conversation[1:] if conversation[0].role == SYSTEM else conversation
        assert [turn.role for turn in turns] == [USER, ASSISTANT] * (len(turns) // 2)
        assert all(turn.text == turn.text.strip() and turn.text for turn in conversation)
    said = {turn.text for conversation in made for turn in conversation if turn.role == ASSISTANT}
    assert any("small language model" in answer for answer in said)
    assert all(text.clean(answer) == answer for answer in said)


# --- schedule and feed -------------------------------------------------------------------------------------------------


def test_the_rate_rises_stays_and_falls_to_nothing() -> None:
    stable = run.Schedule(warmup=10)
    rates = [stable.rate(step) for step in range(50)]
    assert rates == sorted(rates)
    assert rates[0] > 0
    assert set(rates[10:]) == {1.0}
    assert not stable.ended(10**9)
    falling = replace(stable, decay_from=30, decay_steps=9)
    assert [falling.rate(step) for step in range(30)] == rates[:30]
    assert [round(falling.rate(step), 6) for step in range(30, 39)] == [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    assert [falling.ended(step) for step in (38, 39)] == [False, True]


@pytest.mark.parametrize("wrong", [{"warmup": -1}, {"warmup": 1, "decay_from": 3}, {"warmup": 1, "decay_steps": 3}])
def test_half_a_decay_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="decay"):
        run.Schedule(**wrong)


def tokens(count: int) -> run.Tokens:
    return np.arange(count, dtype=np.uint16)


def test_an_epoch_reads_every_window_once() -> None:
    windows = run.Windows(tokens(1000), 10, seed=3)
    for epoch in range(3):
        starts = [int(windows.at(epoch * windows.per_epoch + i)[0]) for i in range(windows.per_epoch)]
        assert len(set(starts)) == windows.per_epoch
        assert len({start % 10 for start in starts}) == 1
    assert all(len(windows.at(i)) == 11 for i in range(300))
    assert windows.at(5).tolist() == run.Windows(tokens(1000), 10, seed=3).at(5).tolist()


def test_too_few_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        run.Windows(tokens(20), 10, seed=0)


def feed(taken: dict[str, int] | None = None) -> run.Feed:
    windows = {name: run.Windows(tokens(500 * (i + 1)), 10, seed=i) for i, name in enumerate("ab")}
    return run.Feed(windows, {"a": 0.25, "b": 0.75}, 5, dict(taken or {}))


@given(st.integers(0, 30))
def test_a_feed_goes_on_where_it_was(stopped: int) -> None:
    whole, before = feed(), feed()
    expected = [whole.batch(step, 4).tolist() for step in range(40)]
    found = [before.batch(step, 4).tolist() for step in range(stopped)]
    after = feed(json.loads(json.dumps(before.taken)))
    found += [after.batch(step, 4).tolist() for step in range(stopped, 40)]
    assert found == expected
    assert after.taken == whole.taken
    assert whole.taken["a"] < whole.taken["b"]


@pytest.mark.parametrize("mix", [{}, {"c": 1.0}, {"a": 0.0}])
def test_a_mix_of_nothing_is_refused(mix: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="mix"):
        run.Feed(feed().windows, mix, 0)


START = run.Progress(0, 0, 0, 512, 32, {"a": 1.0}, {}, 10)


def test_progress_survives_json_and_counts() -> None:
    after = START.after({"a": 32})
    assert (after.step, after.tokens, after.taken) == (1, 512 * 32, {"a": 32})
    assert run.Progress(**json.loads(json.dumps(after.as_dict()))) == after
    assert after.resized(512, 64) == replace(after, batch=64)
    assert after.resized(256, 64) == replace(after, length=256, batch=64, phase=1, taken={})
    falling = after.decaying(7, length=1024, batch=16, mix={"b": 1.0})
    assert (falling.phase, falling.taken, falling.tokens) == (1, {}, after.tokens)
    assert falling.schedule() == run.Schedule(10, 1, 7)
    with pytest.raises(ValueError, match="nothing"):
        replace(START, step=-1)


def test_token_files_are_checked_against_their_facts(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    run.write_tokens(path, tokens(70), {"bytes": 7})
    read, facts = run.open_tokens(path)
    assert (read.tolist(), facts) == (list(range(70)), {"tokens": 70, "bytes": 7})
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ValueError, match="69 tokens and should hold 70"):
        run.open_tokens(path)


@given(st.integers(1, 300), st.sampled_from([2, 8, 64]))
def test_every_token_but_the_first_is_scored_once(length: int, context: int) -> None:
    scored: list[int] = []
    for start, end, first in held_out.spans(length, context):
        assert 0 <= start <= first < end <= start + context
        assert end < length
        assert start == 0 or first - start >= context // 2
        scored += range(first + 1, end + 1)
    assert scored == list(range(1, length))


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    lock = run.alone(tmp_path)
    with pytest.raises(SystemExit, match="trains there already"):
        run.alone(tmp_path)
    lock.close()
    run.alone(tmp_path).close()


def script(folder: Path, *lines: str) -> subprocess.Popen[str]:
    """A process that imports the training's modules and runs some lines, with `folder` at hand."""
    head = [
        "import sys, time",
        f"sys.path[:0] = [{str(HOME / 'training')!r}, {str(HOME / 'tests')!r}]",
        "from pathlib import Path",
    ]
    code = "\n".join([*head, f"folder = Path({str(folder)!r})", *lines])
    return subprocess.Popen([sys.executable, "-c", code], text=True, stdout=subprocess.PIPE)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_run_is_stopped_even_when_it_is_halted(tmp_path: Path) -> None:
    assert run.stop(tmp_path, 0) == "nothing trains there"
    loop = "while not stop.asked: time.sleep(0.01)"
    with script(
        tmp_path, "import run", "lock, stop = run.alone(folder), run.Stop()", "print('on', flush=True)", loop
    ) as held:
        assert line(held) == "on"
        os.kill(held.pid, signal.SIGSTOP)
        assert run.stop(tmp_path, 60) == "nothing trains there"
    assert held.returncode == 0


def test_one_that_does_not_stop_is_named(tmp_path: Path) -> None:
    with script(
        tmp_path, "import run", "lock, stop = run.alone(folder), run.Stop()", "print('on', flush=True)", "time.sleep(60)"
    ) as held:
        assert line(held) == "on"
        assert run.stop(tmp_path, 0.5) == f"process {held.pid} has been asked and is still at its step"
        held.kill()


def test_what_goes_behind_yields_to_all_others(tmp_path: Path) -> None:
    said = "print(os.getsid(0) == os.getpid(), os.nice(0), flush=True)"
    with script(tmp_path, "import os, run", "run.go_behind(folder)", said) as gone:
        pass
    assert gone.returncode == 0
    out = tmp_path / "out.txt"
    while not out.exists() or not out.read_text().endswith("\n"):
        time.sleep(0.02)
    assert out.read_text() == "True 19\n"


def test_frequencies_need_as_many_bits_as_their_entropy() -> None:
    read = np.array([0] * 6 + [1] * 2 + [2] * 0 + [3] * 4, np.uint16)  # and one of each more: 7, 3, 1, 5 of 16
    bits = held_out.unigram_bits(read, np.array([3, 0, 1, 2], np.uint16), 4)
    assert bits == pytest.approx(-sum(math.log2(n / 16) for n in (7, 3, 1)))


def test_a_passage_that_was_read_is_found_in_what_is_held_out() -> None:
    rng = np.random.default_rng(5)
    read, other = (rng.integers(0, 8192, 500, dtype=np.uint16) for _ in range(2))
    known = np.unique(held_out.passages(read))
    assert len(known) == 489
    assert held_out.shared(read, known) == 1
    assert held_out.shared(other, known) == 0
    assert held_out.shared(np.concatenate([other, read[100:112]]), known) == pytest.approx(1 / 501)
    assert held_out.shared(np.concatenate([other, read[100:111]]), known) == 0
    assert held_out.shared(read[:11], known) == held_out.shared(read, known[:0]) == 0


def test_what_was_not_evaluated_is_not_shipped(tmp_path: Path) -> None:
    out = tmp_path / "export"
    out.mkdir()
    (out / "embedded.gguf").write_bytes(b"GGUF")
    facts = {
        "gguf_bytes": 4,
        "sha256": hashlib.sha256(b"GGUF").hexdigest(),
        "kind": "q8_0",
        "average": False,
        "parameters": 10,
        "shape": {"context": 1024},
        "progress": START.as_dict(),
        "held_out": {"books": {"bits_per_byte": 1.23456, "bytes": 9, "documents": [["a", 9, 1.2]]}},
    }
    (out / "evaluation.json").write_text(json.dumps(facts))
    to = tmp_path / "model"
    embedded.main(["--work", str(tmp_path), "ship", "--to", str(to)])
    about = json.loads((to / "embedded.json").read_text())
    assert (to / about["file"]).read_bytes() == b"GGUF"
    assert about["held_out"] == {"books": {"bits_per_byte": 1.2346, "bytes": 9}}
    (out / "embedded.gguf").write_bytes(b"OTHR")
    with pytest.raises(SystemExit, match="evaluate first"):
        embedded.main(["--work", str(tmp_path), "ship", "--to", str(to)])


SHIPPED = HOME / "src" / "strongroom" / "app" / "inference" / "model"


@pytest.mark.skipif(not (SHIPPED / "embedded.gguf").exists(), reason="no model is in the package")
def test_the_shipped_file_is_the_one_that_its_facts_name() -> None:
    about = json.loads((SHIPPED / "embedded.json").read_text(encoding="utf-8"))
    whole = (SHIPPED / about["file"]).read_bytes()
    assert (len(whole), hashlib.sha256(whole).hexdigest()) == (about["bytes"], about["sha256"])
    assert len(whole) <= embedded.MOST_BYTES
    assert about["parameters"] >= 10_000_000
    books = about["held_out"]["books"]
    assert books["bits_per_byte"] < books["unigram_bits_per_byte"]


def test_names_and_rows_as_llama_cpp_wants_them() -> None:
    assert release.gguf_name("model.layers.11.self_attn.q_proj.weight") == "blk.11.attn_q.weight"
    assert release.gguf_name("model.embed_tokens.weight") == "token_embd.weight"
    rows = np.arange(8)[:, None]  # two heads of four: halves (0 1 | 2 3) become pairs (0 2) (1 3)
    assert release.interleaved(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


# --- with torch --------------------------------------------------------------------------------------------------------


@pytest.fixture
def torch() -> Any:
    found = pytest.importorskip("torch", reason="torch is not installed (training/requirements.txt)")
    found.set_num_threads(1)  # two threads beside a busy core wait for each other at every product
    return found


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in run.WATCHED:
        for part in ("train", "watch"):
            run.write_tokens(folder / f"{name}-{part}.bin", rng.integers(0, 64, 2000, dtype=np.uint16), {})
    np.save(folder / "token_bytes.npy", np.full(64, 2))
    return folder


def small_run(folder: Path, data: Path) -> run.Run:
    import model

    progress = run.Progress(0, 0, 0, 16, 4, dict.fromkeys(run.WATCHED, 1.0), {}, 2)
    return run.Run(folder, data, model.Model(model.Shape(64, 32, 2, 64, 2, 32)), progress, compiled=False)


@pytest.mark.usefixtures("torch")
def test_a_stopped_run_ends_like_one_that_was_not(tmp_path: Path, data: Path) -> None:
    whole = small_run(tmp_path / "whole", data)
    expected = [whole.step() for _ in range(6)]
    first = small_run(tmp_path / "stopped", data)
    found = [first.step() for _ in range(3)]
    first.save()
    first.step()  # lost: it came after the checkpoint
    second = small_run(tmp_path / "stopped", data)
    assert second.resume()
    found += [second.step() for _ in range(3)]
    assert found == expected
    assert second.progress == whole.progress
    assert all((second.average[name] == tensor).all() for name, tensor in whole.average.items())
    watched = second.watch(windows=4)
    assert set(watched) == {name + mark for name in run.WATCHED for mark in ("", "~")}
    assert whole.watch(windows=4) == watched


@pytest.mark.usefixtures("torch")
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stable = small_run(tmp_path / "run", data)
    for _ in range(3):
        stable.step()
        stable.save()
    kept = sorted(path.name for path in stable.folder.iterdir())
    assert kept == ["step-00000002.pt", "step-00000003.pt"]
    (stable.folder / kept[1]).write_bytes((stable.folder / kept[1]).read_bytes()[:1000])
    again = small_run(tmp_path / "run", data)
    assert again.resume()
    assert again.progress.step == 2
    assert "cannot be read" in capsys.readouterr().err
    assert not small_run(tmp_path / "other", data).resume()


@pytest.mark.usefixtures("torch")
def test_a_decay_ends_by_itself_and_learns(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "Stop", type("Never", (), {"asked": False}))
    release = small_run(tmp_path / "run", data)
    release.step()
    release.progress = release.progress.decaying(5, length=32, batch=2, mix={"chat": 1.0})
    release.open()
    run.go(release, tmp_path, minutes=10)
    assert release.ended
    assert release.progress.step == 6
    assert "held out" in (tmp_path / "log.txt").read_text()
    assert (release.folder / "step-00000006.pt").exists()


@pytest.mark.usefixtures("torch")
def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path: Path, data: Path) -> None:
    whole = small_run(tmp_path / "whole", data)
    lines = ["import test_training as t, itertools", "made = t.small_run(folder / 'killed', folder / 'data')"]
    lines += ["for _ in itertools.count(): made.step(), made.save(), print(made.progress.step, flush=True)"]
    with script(tmp_path, *lines) as killed:
        while int(line(killed)) < 3:
            pass
        killed.kill()
    (tmp_path / "killed" / "step-99999999.new").write_bytes(b"half of a checkpoint")
    again = small_run(tmp_path / "killed", data)
    assert again.resume()
    assert again.progress.step >= 3
    expected = [whole.step() for _ in range(again.progress.step + 2)][-2:]
    assert [again.step() for _ in range(2)] == expected
    again.save()
    assert not list(again.folder.glob("*.new"))


def test_two_processes_find_the_gradient_of_one(torch: Any) -> None:
    import model
    import parallel

    def made() -> tuple[model.Model, model.Loss]:
        lm = model.Model(model.Shape(64, 32, 2, 64, 2, 32))
        for weight in lm.parameters():
            torch.nn.init.normal_(weight, std=0.3, generator=torch.Generator().manual_seed(2))
        return lm, model.Loss(lm, compiled=False)

    rows = torch.arange(4 * 17).view(4, 17) % 64
    alone, together = made(), made()
    expected = parallel.Workers(*alone, 0, compiled=False).gradient(rows)
    with parallel.Workers(*together, 1, compiled=False) as workers:
        for _ in range(2):  # a worker begins anew with each batch
            assert workers.gradient(rows) == pytest.approx(expected, rel=1e-3)
            for ours, theirs in zip(together[0].parameters(), alone[0].parameters(), strict=True):
                assert torch.nn.functional.cosine_similarity(ours.grad.flatten(), theirs.grad.flatten(), dim=0) > 0.999
                assert ours.grad.norm() == pytest.approx(theirs.grad.norm().item(), rel=0.02)
                ours.grad = None
        with pytest.raises(ValueError, match="not shared equally"):
            workers.gradient(rows[:3])
        workers._others[0][0].kill()
        with pytest.raises(RuntimeError, match="a worker has died"):
            workers.gradient(rows)


def test_the_gradients_are_those_of_plain_autograd(torch: Any) -> None:
    import model

    lm = model.Model(model.Shape(64, 32, 2, 64, 2, 32), seed=1)
    for weight in lm.parameters():  # away from the zeros that training starts from
        torch.nn.init.normal_(weight, std=0.3, generator=torch.Generator().manual_seed(2))
    read = torch.arange(48).view(2, 24) % 64
    model.Loss(lm, compiled=False, block=7)(read[:, :-1], read[:, 1:]).backward()
    ours = {name: weight.grad.clone() for name, weight in lm.named_parameters()}
    lm.zero_grad()
    hidden = lm.embedding(read[:, :-1])
    for layer in lm.layers:
        hidden = layer(hidden, lm.cos[:23], lm.sin[:23], None)
    logits = lm.norm(hidden) @ lm.embedding.weight.T
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), read[:, 1:].flatten()).backward()
    for name, weight in lm.named_parameters():
        assert torch.nn.functional.cosine_similarity(ours[name].flatten(), weight.grad.flatten(), dim=0) > 0.995, name


def test_muon_makes_updates_of_one_size_in_every_direction(torch: Any) -> None:
    import model

    for rows, columns in ((24, 16), (16, 24), (16, 16)):
        x = torch.randn(rows, columns, generator=torch.Generator().manual_seed(1))
        singular = torch.linalg.svdvals(model.orthogonal(x).float())
        assert singular.min() > 0.5
        assert singular.max() < 1.3


def test_the_names_of_llama_and_back(torch: Any) -> None:
    import model

    shape = model.Shape(64, 32, 2, 64, 2, 32)
    weights = dict(model.Model(shape).named_parameters())
    named = model.llama(weights, shape)
    assert len(named) == 2 + 9 * shape.layers
    back = model.from_llama(named, shape)
    assert set(back) == set(weights)
    assert all(torch.equal(back[name], weights[name]) for name in weights)


def test_the_logits_are_those_of_transformers(torch: Any) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (training/requirements.txt)")
    import model

    shape = model.Shape(64, 32, 2, 64, 2, 32)
    lm = model.Model(shape)
    for weight in lm.parameters():
        torch.nn.init.normal_(weight, std=0.2, generator=torch.Generator().manual_seed(3))
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=32,
        rms_norm_eps=shape.epsilon,
        tie_word_embeddings=True,
    )
    reference = transformers.LlamaForCausalLM(config)
    reference.load_state_dict(model.llama(dict(lm.named_parameters()), shape), strict=False)
    reference.tie_weights()
    read = torch.arange(40).view(2, 20) % 64
    with torch.no_grad():
        assert torch.allclose(lm.logits(read), reference(read).logits, atol=1e-4)


def test_documents_flow_from_the_corpora_to_their_parts(tmp_path: Path) -> None:
    line = "The city of Rome stands on the river Tiber, and has many old temples."
    files = {
        "books": [("level1/ENG19999_Nobody.xml", "\n".join([line] * 9)), (f"level1/ENG{text.TEST_NOVELS[0]}.xml", line)],
        "encyclopedia": [("1", f"ROME\nan old city. {line}"), ("2", f"ROME\nan old city. {line}"), ("3", "TABLE\n| 1 |")],
        "biology": [("m1", f"### Cells\n{line}")],
    }
    for name, rows in files.items():
        with lzma.open(tmp_path / f"{name}.jsonl.xz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps({"id": key, "text": value}) + "\n" for key, value in rows)
    found = list(corpora.documents(tmp_path))
    assert [(corpus, part, document.id[-5:]) for corpus, part, document in found] == [
        ("books", "train", "y.xml"),
        ("books", "test", "h.xml"),
        ("encyclopedia", "train", "1"),
        ("biology", "test", "m1"),
    ]
    made = corpora.conversations(found, "train")
    assert list(itertools.chain(made))
    assert all(conversation.startswith(BEGIN + USER) and conversation.endswith(END) for conversation in made)


# --- with tokenizers and llama.cpp -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    pytest.importorskip("tokenizers", reason="tokenizers is not installed (training/requirements.txt)")
    story = [
        "The city of Rome stands on the river Tiber, and has many old temples.\n",
        '"Oh!" she said; "don\'t go there."\n',
    ]
    return corpora.train_tokenizer(story * 9, tmp_path_factory.mktemp("tokenizer") / "tokenizer.json", size=320)


@given(written=st.text())
def test_any_text_comes_back_from_its_tokens(tokenizer: Any, written: str) -> None:
    ids = tokenizer.encode(written, add_special_tokens=False).ids
    for special in text.SPECIAL:
        assert special not in written
    assert tokenizer.decode(ids, skip_special_tokens=False) == written
    assert corpora.token_bytes(tokenizer)[ids].sum() == len(written.encode())


def test_special_tokens_are_one_token_of_no_bytes(tokenizer: Any) -> None:
    ids = tokenizer.encode(f"{BEGIN}{USER}Oh!{END}").ids
    assert ids[:2] == [0, 3]
    assert ids[-1] == 1
    assert corpora.token_bytes(tokenizer)[ids].sum() == len("Oh!")


@pytest.fixture
def small_model(torch: Any, tokenizer: Any) -> Any:
    import model

    shape = model.Shape(tokenizer.get_vocab_size(), 64, 2, 96, 2, 96)
    lm = model.Model(shape)
    for weight in lm.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=torch.Generator().manual_seed(4))
    return lm


def written_file(small_model: Any, tokenizer: Any, path: Path, kind: str) -> Path:
    import model

    pytest.importorskip("gguf", reason="gguf is not installed (training/requirements.txt)")
    named = {n: w.detach() for n, w in model.llama(dict(small_model.named_parameters()), small_model.shape).items()}
    stored, _ = release.as_stored(named, kind)
    release.write_gguf(path, stored, small_model.shape.as_dict(), tokenizer, kind)
    return path


def torch_greedy(torch: Any, model: Any, ids: list[int], most: int) -> tuple[list[int], float]:
    """As `LlamaCpp.greedy`."""
    ours, likeliest = list(ids), []
    with torch.no_grad():
        for _ in range(most):
            said = torch.log_softmax(model.logits(torch.tensor([ours]))[0, -1], -1)
            ours.append(int(said.argmax()))
            likeliest.append(said.max().item())
    found = ours[len(ids) :]
    return found[: found.index(1)] if 1 in found else found, likeliest[0]


def test_llama_cpp_writes_what_torch_writes(torch: Any, small_model: Any, tokenizer: Any, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp", reason="xllamacpp is not installed (training/requirements.txt)")
    from llama_cpp import LlamaCpp

    llama = LlamaCpp(written_file(small_model, tokenizer, tmp_path / "a.gguf", "f32"), small_model.shape.context)
    for prompt in ("The city", '"Oh!" she', f"{USER}Rome?{END}{ASSISTANT}"):
        ids = tokenizer.encode(BEGIN + prompt).ids
        assert llama.tokens(prompt) == ids
        expected, first = torch_greedy(torch, small_model, ids, 40)
        found, likeliest = llama.greedy(ids, 40)
        assert found == expected
        assert likeliest == pytest.approx(first, abs=1e-3)
    for written in (*embedded.TRICKY, "\u0301\u200d\U0001f469\u200d\U0001f680\x00\x7f", "'S 's ''re  \r\n\t"):
        assert llama.tokens(written) == tokenizer.encode(BEGIN + written).ids
        assert llama.text(tokenizer.encode(written, add_special_tokens=False).ids) == written
    messages = [{"role": "system", "content": "A room."}, {"role": "user", "content": " Who? "}]
    assert llama.rendered(messages).removeprefix(BEGIN) == f"{SYSTEM}A room.{END}{USER}Who?{END}{ASSISTANT}"


def test_both_end_an_answer_at_the_same_token(torch: Any, small_model: Any, tokenizer: Any, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp", reason="xllamacpp is not installed (training/requirements.txt)")
    from llama_cpp import LlamaCpp

    ids = tokenizer.encode(f"{BEGIN}The city").ids
    written, _ = torch_greedy(torch, small_model, ids, 20)
    last = next(token for i, token in enumerate(written) if i >= 3 and token not in {*ids, *written[:i]})
    with torch.no_grad():  # where it wrote this token it now ends
        small_model.embedding.weight[[1, last]] = small_model.embedding.weight[[last, 1]]
    expected, _ = torch_greedy(torch, small_model, ids, 20)
    assert expected == written[: written.index(last)]
    llama = LlamaCpp(written_file(small_model, tokenizer, tmp_path / "a.gguf", "f32"), small_model.shape.context)
    assert llama.greedy(ids, 20)[0] == expected


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_fewer_bits_stand_for_nearly_the_same_numbers(small_model: Any, tokenizer: Any, tmp_path: Path, kind: str) -> None:
    import model

    gguf = pytest.importorskip("gguf", reason="gguf is not installed (training/requirements.txt)")
    named = {n: w.detach() for n, w in model.llama(dict(small_model.named_parameters()), small_model.shape).items()}
    stored, numbers = release.as_stored(named, kind)
    for name, weight in named.items():
        assert abs(numbers[name] - weight.numpy()).max() <= (0.01 if weight.dim() == 2 else 0)
    assert sum(array.nbytes for array in stored.values()) < 0.55 * sum(4 * weight.numel() for weight in named.values())
    read = gguf.GGUFReader(written_file(small_model, tokenizer, tmp_path / "a.gguf", kind))
    assert {tensor.name for tensor in read.tensors} == {release.gguf_name(name) for name in named}
    assert read.fields["tokenizer.ggml.pre"].contents() == "gpt-2"
    assert read.fields["tokenizer.chat_template"].contents() == release.TEMPLATE


def test_from_training_to_the_file_that_ships(
    torch: Any, tokenizer: Any, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("gguf", "safetensors", "transformers", "xllamacpp"):
        pytest.importorskip(name, reason=f"{name} is not installed (training/requirements.txt)")
    work = data.parent
    tokenizer.save(str(data / "tokenizer.json"))
    corpora.write_talk(data, 50)
    rng = np.random.default_rng(1)
    run.write_tokens(
        data / "books-test.bin", rng.integers(0, 64, 200, dtype=np.uint16), {"documents": [["a", 90], ["b", 110]]}
    )
    np.save(data / "token_bytes.npy", corpora.token_bytes(tokenizer))
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(run, "Stop", type("Never", (), {"asked": False}))
    monkeypatch.setattr(corpora, "VOCABULARY", tokenizer.get_vocab_size())
    for name, value in {
        "PROCESSES": 1,
        "CONTEXT": 64,
        "DECAY_LENGTH": 64,
        "DECAY_BATCH": 2,
        "LENGTH": 32,
        "BATCH": 2,
    }.items():
        monkeypatch.setattr(embedded, name, value)

    def verb(*arguments: str) -> str:
        embedded.main(["--work", str(work), *arguments])
        return capsys.readouterr().out

    assert "train: new at step 0" in verb("train", "--layers", "1", "--minutes", "0.001")
    with pytest.raises(SystemExit, match="move it away"):
        verb("train", "--layers", "2")
    assert "train: resumed at step" in verb("train", "--minutes", "0", "--batch", "4")
    assert "decay: ended" in verb("decay", "--steps", "2")
    with pytest.raises(SystemExit, match="is done"):
        verb("decay")
    verb("export", "--kind", "f16")
    assert "llama.cpp and transformers agree" in verb("check", "--tokens", "6")
    assert "frequencies" in verb("evaluate", "books", "--most", "80")
    assert "--- CHAPTER I." in verb("samples", "Who?", "--tokens", "4")
    about = json.loads(verb("ship", "--to", str(work / "model")))
    assert about["of_which_decay_steps"] == 2
    assert about["held_out"]["books"]["first_tokens"] == 80
    exported = (work / "export" / "embedded.gguf").read_bytes()
    assert hashlib.sha256(exported).hexdigest() == about["sha256"]
    monkeypatch.setattr(embedded, "MOST_BYTES", len(exported) - 1)
    monkeypatch.setattr(embedded, "NEAR", -1.0)
    with pytest.raises(SystemExit, match=r"bytes, and .* are allowed\n[\s\S]*the first token has"):
        verb("check", "--tokens", "1")
