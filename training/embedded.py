"""The embedded model from its corpora to the file that ships: prepare, train, decay, export, check, evaluate, ship.

    python training/embedded.py prepare     # tokenizer and token files, a few minutes
    python training/embedded.py leaks       # how much of what is held out stands in what is trained on
    python training/embedded.py train       # goes on until it is stopped, and from where it was stopped (--background)
    python training/embedded.py stop        # the process that trains saves and ends
    python training/embedded.py decay       # a release from the last checkpoint; training can go on afterwards
    python training/embedded.py export      # a GGUF file and a folder for transformers
    python training/embedded.py check       # llama.cpp against transformers, token for token
    python training/embedded.py evaluate    # bits per byte on whole documents that training never read
    python training/embedded.py samples     # what it writes
    python training/embedded.py ship        # into the package

Everything that is not for the repository lies in --work: data/ (tokenizer, token files), stable/ and decay/ (checkpoints),
export/, log.txt, pid.
"""

import argparse
import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import corpora
import held_out
import numpy as np
import release
import run
import text

ROOT = Path(__file__).resolve().parent.parent
PROCESSES = 2  # of one thread each
CONTEXT = 1024  # the longest that the model is made for, and that the decay reads
LENGTH, BATCH, WARMUP = 512, 16, 60  # tokens in a window, windows in a step, steps
MIX = {"books": 0.63, "encyclopedia": 0.25, "chat": 0.12}
DECAY_LENGTH, DECAY_BATCH, DECAY_SHARE = CONTEXT, 8, 0.15
DECAY_MIX = {"books": 0.6, "encyclopedia": 0.12, "chat": 0.18, "talk": 0.1}
MOST_BYTES = 40_000_000  # of the file that ships
# How the process starts. glibc's allocator would hand each large tensor back to the system and fault its pages in again,
# which takes more time than all else.
PROCESS = {
    "MALLOC_MMAP_THRESHOLD_": str(8 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
    "OMP_WAIT_POLICY": "passive",  # a thread that spins while the other waits for a busy core takes that core's time away
}


# --- prepare, train and decay ------------------------------------------------------------------------------------------


def prepare(options: argparse.Namespace) -> None:
    data = options.work / "data"
    data.mkdir(parents=True, exist_ok=True)
    if options.talk:
        corpora.write_talk(data)
    else:
        corpora.write_all(options.corpora, data)


def new_run(folder: Path, options: argparse.Namespace, layers: int | None = None) -> run.Run:
    """A run that has not begun, of the size that the checkpoints in `stable` have, if there are any."""
    from model import Model, Shape

    before = run.load(options.work / "stable")
    shape = Shape(vocabulary=corpora.VOCABULARY, context=CONTEXT, **({"layers": layers} if layers else {}))
    if before and layers and before["shape"] != shape.as_dict():
        sys.exit(f"what is in stable/ has the shape {before['shape']}: move it away to begin with another")
    model = Model(Shape(**before["shape"]) if before else shape).to(options.device)
    progress = run.Progress(0, 0, 0, LENGTH, BATCH, MIX, {}, WARMUP)
    processes = PROCESSES if options.device == "cpu" else 1
    return run.Run(folder, options.work / "data", model, progress, processes=processes)


def train(options: argparse.Namespace) -> None:
    with run.alone(options.work):
        stable = new_run(options.work / "stable", options, options.layers)
        how = "resumed" if stable.resume() else "new"
        p = stable.progress
        stable.progress = p.resized(options.length or p.length, options.batch or p.batch)
        stable.open()
        size = sum(weight.numel() for weight in stable.model.parameters())
        run.log(options.work, f"train: {how} at step {stable.progress.step}, {size:,} parameters")
        run.go(stable, options.work, options.minutes)
        run.log(options.work, f"train: stopped at step {stable.progress.step}, {stable.progress.tokens / 1e6:.2f}M tokens")


def stop(options: argparse.Namespace) -> None:
    print(run.stop(options.work, options.seconds))


def decay(options: argparse.Namespace) -> None:
    """Goes on with the last decay where that is unfinished, and else begins one from the newest stable checkpoint."""
    with run.alone(options.work):
        folder = max((options.work / "decay").glob("from-*"), default=None)
        branch = new_run(folder or options.work / "decay", options)
        if folder is None or not branch.resume() or branch.ended:
            if not branch.resume(options.work / "stable"):
                sys.exit("nothing to decay: train first")
            p = branch.progress
            branch.folder = options.work / "decay" / f"from-{p.step:08}"
            if branch.folder == folder:
                sys.exit(f"the decay from step {p.step} is done: train on first, or export")
            branch.folder.mkdir(parents=True)
            length = options.length or DECAY_LENGTH
            batch = max(DECAY_BATCH, p.batch * p.length // length)
            rest = DECAY_SHARE / (1 - DECAY_SHARE) * p.tokens / (length * batch)
            branch.progress = p.decaying(options.steps or max(1, round(rest)), length=length, batch=batch, mix=DECAY_MIX)
            branch.open()
        p = branch.progress
        run.log(options.work, f"decay: at step {p.step}, to step {(p.decay_from or 0) + p.decay_steps}")
        run.go(branch, options.work, options.minutes)
        how, p = "ended" if branch.ended else "stopped", branch.progress
        run.log(options.work, f"decay: {how} at step {p.step}, {p.tokens / 1e6:.2f}M tokens")


# --- export ------------------------------------------------------------------------------------------------------------


def export(options: argparse.Namespace) -> None:
    """The newest decay, or the folder of checkpoints that is named, as export/hf and export/embedded.gguf."""
    from model import Shape, llama
    from tokenizers import Tokenizer

    folder = options.checkpoint or max((options.work / "decay").glob("from-*"), default=options.work / "stable")
    state = run.load(folder)
    if state is None:
        sys.exit(f"{folder} holds no checkpoint")
    shape = replace(Shape(**state["shape"]), context=state["progress"]["length"])  # no longer than what was read last
    named = llama(state["average" if options.average else "model"], shape)
    stored, numbers = release.as_stored(named, options.kind)
    out = options.work / "export"
    out.mkdir(exist_ok=True)
    path = out / "embedded.gguf"
    tokenizer = Tokenizer.from_file(str(options.work / "data" / "tokenizer.json"))
    release.write_gguf(path, stored, shape.as_dict(), tokenizer, options.kind)
    release.write_gguf(out / "exact.gguf", numbers, shape.as_dict(), tokenizer, "f32")
    release.write_folder(out / "hf", numbers, shape.as_dict(), tokenizer)
    facts = {
        "kind": options.kind,
        "parameters": sum(array.size for array in numbers.values()),
        "gguf_bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "shape": shape.as_dict(),
        "progress": state["progress"],
        "average": options.average,
    }
    (out / "facts.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(facts, indent=1))


# --- evaluate ----------------------------------------------------------------------------------------------------------


def leaks(options: argparse.Namespace) -> None:
    """How much of each held-out document stands word for word in what is trained on, in passages of twelve tokens."""
    data = options.work / "data"
    read = [run.open_tokens(data / f"{corpus}-train.bin")[0] for corpus in text.TRAINED_ON]
    known = np.unique(np.concatenate([held_out.passages(np.asarray(tokens)) for tokens in read]))
    for corpus in text.TRAINED_ON:
        for part in ("test", "watch"):
            tokens, about = run.open_tokens(data / f"{corpus}-{part}.bin")
            at, found = 0, []
            for name, length in about["documents"]:
                found.append((held_out.shared(np.asarray(tokens[at : at + length]), known), name))
                at += length
            worst, name = max(found)
            whole = held_out.shared(np.asarray(tokens), known)
            print(f"{corpus}-{part}: {whole:.5f} of all passages; most {worst:.5f}, of {name}")


def evaluate(options: argparse.Namespace) -> None:
    """Held-out documents, whole or their first `--most` tokens: bits over UTF-8 bytes of the cleaned text, each token scored
    once (`held_out.spans`), and the same of token frequencies for comparison."""
    from model import Loss

    model, facts = held_out.exported(options.work)
    loss, data = Loss(model, compiled=False), options.work / "data"
    results: dict[str, Any] = {}
    sizes = np.load(data / "token_bytes.npy")
    read = np.concatenate([run.open_tokens(data / f"{corpus}-train.bin")[0] for corpus in text.TRAINED_ON])
    for corpus in options.corpora:
        tokens, about = run.open_tokens(data / f"{corpus}-test.bin")
        rows, at = [], 0
        for name, length in about["documents"]:
            piece = np.asarray(tokens[at : at + (min(length, options.most) if options.most else length)])
            at += length
            bits, plain = (
                held_out.document_bits(loss, piece, model.shape.context),
                held_out.unigram_bits(read, piece, len(sizes)),
            )
            rows.append((name, int(sizes[piece].sum()), bits, plain))
            if corpus == "books":
                print(f"{name}: {bits / rows[-1][1]:.4f} bits per byte", flush=True)
        size, bits, plain = (sum(row[i] for row in rows) for i in (1, 2, 3))
        results[corpus] = {
            "bits_per_byte": bits / size,
            "unigram_bits_per_byte": plain / size,
            "bytes": size,
            "first_tokens": options.most or None,
            "documents": [[name, bytes_, bits / bytes_] for name, bytes_, bits, _ in rows],
        }
        print(
            f"{corpus}: {bits / size:.4f} bits per byte of {size:,} in {len(rows)} documents; frequencies {plain / size:.4f}"
        )
    facts["held_out"] = results
    (options.work / "export" / "evaluation.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


# --- check and ship ----------------------------------------------------------------------------------------------------

PROMPTS = (
    "It was a cold evening in November, and",
    '"My dear sir," said the old gentleman,',
    "CHAPTER I.\nThe village of",
    "MERCURY\nin Chemistry, a metal",
    f"{text.USER}What is gunpowder?{text.END}{text.ASSISTANT}",
    f"{text.USER}Good morning. Who are you?{text.END}{text.ASSISTANT}",
    f"{text.SYSTEM}The rain was falling upon the moor.{text.END}{text.USER}Who are you?{text.END}{text.ASSISTANT}",
)
TRICKY = (
    "",
    "a",
    "  two  spaces\n\nand\ttabs ",
    "don't I'll we've 1862 and 3.14!",
    "naïve café — “quoted” Ελλάς 東京 🙂",
    "x" * 300,
)
NEAR = 0.1  # nats by which storing the weights in fewer bits may move the likeliest first token


def check(options: argparse.Namespace) -> None:
    """That the file is small enough, that llama.cpp cuts text and renders conversations as transformers does, that it writes
    the same tokens from the same numbers in 32 bits, and nearly the same from the file that ships. SystemExit if not."""
    import torch
    from llama_cpp import LlamaCpp
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = options.work / "export"
    path = out / "embedded.gguf"
    wrong: list[str] = []
    if path.stat().st_size > MOST_BYTES:
        wrong.append(f"{path.stat().st_size:,} bytes, and {MOST_BYTES:,} are allowed")
    tokenizer, reference = AutoTokenizer.from_pretrained(out / "hf"), AutoModelForCausalLM.from_pretrained(out / "hf").eval()
    ships, exact = (LlamaCpp(file, CONTEXT) for file in (path, out / "exact.gguf"))
    for prompt in (*PROMPTS, *TRICKY):
        ours, theirs = tokenizer(prompt)["input_ids"], ships.tokens(prompt)
        if ours != theirs:
            wrong.append(f"{prompt!r} is {ours} to transformers and {theirs} to llama.cpp")
    messages = [
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": " I. "},
        {"role": "user", "content": "You?"},
    ]
    ours = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    if ours != text.BEGIN + ships.rendered(messages):  # llama.cpp puts it there as it reads, not as it renders
        wrong.append(f"a conversation is {ours!r} to transformers and {ships.rendered(messages)!r} to llama.cpp")
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            first = torch.log_softmax(reference(ids).logits[0, -1], -1)
            whole = reference.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=options.tokens
            )
        ours = whole[0, ids.shape[1] :].tolist()
        if ours and ours[-1] == tokenizer.eos_token_id:
            ours.pop()
        theirs, _ = exact.greedy(ids[0].tolist(), options.tokens)
        if ours != theirs:
            wrong.append(
                f"{prompt!r}: {tokenizer.decode(ours)!r} of transformers, {tokenizer.decode(theirs)!r} of llama.cpp"
            )
        theirs, likeliest = ships.greedy(ids[0].tolist(), options.tokens)
        same = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
        print(f"{same} of {len(ours)} tokens alike as it ships: {prompt!r} -> {tokenizer.decode(theirs)!r}")
        if abs(likeliest - first.max().item()) > NEAR:
            wrong.append(
                f"{prompt!r}: the first token has {likeliest:.3f} as it ships, and {first.max().item():.3f} in 32 bits"
            )
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"{path.stat().st_size:,} bytes; llama.cpp and transformers agree")


def ship(options: argparse.Namespace) -> None:
    """The exported file into the package, with its digest and what was measured of it beside."""
    out, to = options.work / "export", options.to
    facts = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    whole = (out / "embedded.gguf").read_bytes()
    if (len(whole), hashlib.sha256(whole).hexdigest()) != (facts["gguf_bytes"], facts["sha256"]):
        sys.exit("another file was evaluated than the one that is there: evaluate first")
    progress = facts["progress"]
    about = {
        "name": "strongroom/embedded",
        "file": "embedded.gguf",
        "sha256": facts["sha256"],
        "bytes": facts["gguf_bytes"],
        "stored": facts["kind"],
        "parameters": facts["parameters"],
        "context_tokens": facts["shape"]["context"],
        "licence": "Apache-2.0",
        "trained_tokens": progress["tokens"],
        "steps": progress["step"],
        "of_which_decay_steps": progress["decay_steps"],
        "averaged": facts["average"],
        "held_out": {
            name: {
                key: round(value, 4) if isinstance(value, float) else value
                for key, value in found.items()
                if key != "documents"
            }
            for name, found in facts["held_out"].items()
        },
    }
    to.mkdir(parents=True, exist_ok=True)
    for name, data in (("embedded.gguf", whole), ("embedded.json", (json.dumps(about, indent=1) + "\n").encode())):
        new = to / f"{name}.new"
        new.write_bytes(data)
        new.replace(to / name)
    print(json.dumps(about, indent=1))


def samples(options: argparse.Namespace) -> None:
    """What the exported file writes, by llama.cpp, each prompt with one fixed seed."""
    from llama_cpp import LlamaCpp

    llama = LlamaCpp(options.work / "export" / "embedded.gguf", CONTEXT)
    for prompt in (*PROMPTS, *(f"{text.USER}{asked}{text.END}{text.ASSISTANT}" for asked in options.asked)):
        said = llama.sampled(llama.tokens(prompt), options.tokens, seed=1, temperature=options.temperature)
        print(f"--- {prompt}\n{said}\n", flush=True)


# --- the command -------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / ".train", help="what is not for the repository (%(default)s)")
    verbs = parser.add_subparsers(required=True)

    def verb(does: Callable[[argparse.Namespace], None], about: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(does.__name__, help=about)
        sub.set_defaults(does=does)
        return sub

    sub = verb(prepare, "tokenizer and token files")
    sub.add_argument("--corpora", type=Path, default=ROOT.parent / "shared" / "corpora", help="their folder (%(default)s)")
    sub.add_argument("--talk", action="store_true", help="only the small talk, with the tokenizer that is there")
    training, decaying = verb(train, "begin or go on"), verb(decay, "a release from the last checkpoint")
    for sub in (training, decaying):
        sub.add_argument("--minutes", type=float, default=math.inf, help="stop after so long (until it is stopped)")
        sub.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="what computes (%(default)s)")
        sub.add_argument("--background", action="store_true", help="in a session of its own, with the lowest priority")
    decaying.add_argument("--length", type=int, help=f"tokens in a window, and so in the file's context ({DECAY_LENGTH})")
    training.add_argument("--layers", type=int, help="of a new run (4; each adds 1.8 million parameters)")
    training.add_argument("--length", type=int, help=f"tokens in a window from now on (as before; {LENGTH} at first)")
    training.add_argument("--batch", type=int, help=f"windows in a step from now on (as before; {BATCH} at first)")
    verb(stop, "ask the process that trains to save and end").add_argument(
        "--seconds", type=float, default=120, help="wait for it so long (%(default)s)"
    )
    decaying.add_argument("--steps", type=int, default=0, help="how many (so that the decay has 15 %% of all tokens)")
    verb(leaks, "how much of what is held out stands in what is trained on")
    sub = verb(evaluate, "bits per byte of the exported weights on held-out documents")
    sub.add_argument("corpora", nargs="*", default=["books", "encyclopedia", "biology"], help="which (%(default)s)")
    sub.add_argument("--most", type=int, default=0, help="only so many tokens of each document (all)")
    sub = verb(export, "the files that others load")
    sub.add_argument("--kind", choices=release.KINDS, default="q8_0", help="how weights are stored (%(default)s)")
    sub.add_argument("--checkpoint", type=Path, help="a folder of checkpoints (the newest decay)")
    sub.add_argument("--average", action="store_true", help="the running average of the weights")
    verb(check, "llama.cpp against transformers").add_argument(
        "--tokens", type=int, default=64, help="to compare (%(default)s)"
    )
    verb(ship, "the exported and evaluated file into the package").add_argument(
        "--to", type=Path, default=ROOT / "src" / "strongroom" / "app" / "inference" / "model", help="(%(default)s)"
    )
    sub = verb(samples, "what the exported file writes")
    sub.add_argument("asked", nargs="*", help="questions beside the usual ones")
    sub.add_argument("--tokens", type=int, default=96, help="most tokens of an answer (%(default)s)")
    sub.add_argument("--temperature", type=float, default=0.7, help="of sampling (%(default)s)")
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    if getattr(options, "background", False):
        run.go_behind(options.work)
    if options.does in {train, decay, evaluate, export, check}:
        import torch

        torch.set_num_threads(1)
    options.does(options)


if __name__ == "__main__":
    if PROCESS.items() - os.environ.items():
        cache = {"TORCHINDUCTOR_CACHE_DIR": str(ROOT / ".train" / "compiled")}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | PROCESS | cache)  # noqa: S606 - itself
    main()
