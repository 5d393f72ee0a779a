"""The retrieval model that ships, from its corpora to its figures: split, build, train, evaluate, ship.

    python training/retrieval.py split       # documents that are held out, by a digest of their ids
    python training/retrieval.py build       # a store: public text learns tokenizer, retriever and quantizer
    python training/retrieval.py train       # goes on where it was killed; --seed, --alike 200, --no-store for the others
    python training/retrieval.py evaluate    # bits a byte on what was held out, into a JSON file
    python training/retrieval.py readers     # other ways to read the same neighbours, on what was held out
    python training/retrieval.py ship        # 16 bits a number, with the relevance that public text chose

Books, encyclopedia and programs (the standard library of the Python that runs) are public and are learned from. Law and
biology are owners' sources: never a target. Everything that is not for the repository lies in --work.
"""

import argparse
import hashlib
import json
import lzma
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PUBLIC, OWNED = ("books", "encyclopedia", "programs"), ("law", "biology")
HELD_OUT = {"books": 12, "biology": 12}  # one document of so many; of the others one of 20
STEPS, WINDOWS, NEIGHBOURS = 1400, 8, 8
READ = 16  # neighbours that the shipped model reads with: more than it was trained with
FLOOR = (1 << 20) // 20  # grains; chosen on public text that was held out: random neighbours cost it under 0.003 bits a byte
SHIPPED = ROOT / "src" / "strongroom" / "lm" / "model" / "retrieval.safetensors"


def documents(corpora: Path, name: str) -> Iterator[tuple[str, str]]:
    """Every document's id and text."""
    if name != "programs":
        with lzma.open(corpora / f"{name}.jsonl.xz", "rt", encoding="utf-8") as lines:
            for line in lines:
                said = json.loads(line)
                yield said["id"], said["text"]
        return
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(library.rglob("*.py")):
        if {"site-packages", "test", "tests"} & set(path.parts):
            continue
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        if len(text) > 200:
            yield str(path.relative_to(library)), text


def held_out(name: str, said: str) -> bool:
    return int(hashlib.sha256(said.encode()).hexdigest()[:8], 16) % HELD_OUT.get(name, 20) == 0


def split(args: argparse.Namespace) -> None:
    texts = args.work / "texts"
    texts.mkdir(parents=True, exist_ok=True)
    for name in PUBLIC + OWNED:
        with (texts / f"{name}.jsonl").open("w") as kept, (texts / f"{name}-held-out.jsonl").open("w") as out:
            for said, text in documents(args.corpora, name):
                line = json.dumps({"id": said, "text": text}, ensure_ascii=False) + "\n"
                (out if held_out(name, said) else kept).write(line)


def sample(texts: Path) -> Iterator[str]:
    """Public text that the frozen parts are learned of: a piece of every 200,000 characters."""
    for name in PUBLIC:
        with (texts / f"{name}.jsonl").open() as lines:
            for line in lines:
                text = json.loads(line)["text"]
                for at in range(0, len(text), 200_000):
                    yield text[at : at + (20_000 if name == "programs" else 40_000)]


def build(args: argparse.Namespace) -> None:
    from strongroom.lm.build import build as source
    from strongroom.lm.datastore import Datastore
    from strongroom.lm.parts import Parts
    from strongroom.lm.source import About
    from strongroom.lm.texts import Texts
    from strongroom.lm.tokenizer import Tokenizer

    texts = args.work / "texts"
    tokenizer = None if args.tokenizer is None else Tokenizer.load(args.tokenizer)
    parts = Parts.train(sample(texts), tokenizer=tokenizer) if args.parts is None else Parts.load(args.parts)
    Datastore.create(args.work / "store", parts)
    for name in PUBLIC + OWNED:
        made = source(
            args.work / "store", About(name, f"owner of {name}", "see corpora"), Texts.of([texts / f"{name}.jsonl"])
        )
        print(name, made.documents, made.tokens, made.chunks, flush=True)


def folder(args: argparse.Namespace) -> Path:
    kind = "-alone" if args.no_store else ""
    return args.work / f"run-{args.seed}-{args.alike}-{args.neighbours}-{args.steps}{kind}"  # type: ignore[no-any-return]


def train(args: argparse.Namespace) -> None:
    import torch

    from strongroom.lm import training
    from strongroom.lm.batches import Plan
    from strongroom.lm.gates import Shape

    torch.set_num_threads(1)
    how = {"every": args.every, "neighbours": args.neighbours}
    plan = Plan(PUBLIC, seed=args.seed, windows=WINDOWS, alike=args.alike, **how)
    settings = training.Settings(args.steps, store=not args.no_store, save=50, workers=args.workers, compiled=args.compiled)
    into = folder(args)
    store, shape = args.work / "store", Shape(**how)
    training.train(into, store, shape, plan, settings, said=lambda said: print(said, flush=True), begin=args.begin)
    training.curve(into)


def evaluate(args: argparse.Namespace) -> None:
    import torch

    from strongroom.lm import weights
    from strongroom.lm.datastore import Datastore
    from strongroom.lm.evaluation import measure
    from strongroom.lm.thinned import Thinned

    torch.set_num_threads(1)
    path = args.model or folder(args) / "model.safetensors"
    model, about = weights.load(path)
    model.shape = replace(model.shape, every=args.every, neighbours=args.read)
    store = Datastore.open(args.work / "store")
    store = store if args.among is None else store.only(args.among)
    about.fits(store.tokenizer.digest)
    relevance = about.relevance if args.relevance is None else args.relevance
    found = {}
    for name in args.only or (*OWNED, *PUBLIC):
        tokens = held_out_tokens(args.work, name, store)

        def measured(part: Datastore | Thinned, tokens: Any = tokens) -> dict[str, Any]:
            return measure(
                model,
                part,
                tokens,
                most=args.windows,
                seed=args.seed,
                relevance=relevance / 1e6,
                floor=about.floor if args.floor is None else args.floor,
            ).to_json()

        found[name] = measured(store)
        print(name, json.dumps(found[name]["ways"]["on"]), json.dumps(found[name]["ways"]["random"]), flush=True)
        for share in args.shares if name in OWNED else ():
            ways = measured(Thinned.of(store, share, args.seed))["ways"]
            found[name].setdefault("shares", {})[f"{share / 10:g} %"] = {way: ways[way] for way in ("on", "random")}
        (args.into or path.with_suffix(".json")).write_text(json.dumps(found, indent=1) + "\n")


def crossed(args: argparse.Namespace, path: Path) -> Any:
    """Chunked cross-attention above the shipped decoder, whose own weights stay as they are; trained on public text."""
    import torch

    from strongroom.lm import weights
    from strongroom.lm.batches import Plan, Supply
    from strongroom.lm.datastore import Datastore
    from strongroom.lm.gates import Found
    from strongroom.lm.readers.cross import Cross

    model, _ = weights.load(path)
    model.requires_grad_(requires_grad=False)
    reader = Cross(model, args.seed)
    own = [weight for weight in reader.parameters() if weight.requires_grad]
    adam = torch.optim.Adam(own, 2e-3)
    shape = model.shape
    plan = Plan(PUBLIC, seed=args.seed + 1, windows=WINDOWS // 2, every=shape.every, neighbours=4)
    supply = Supply(Datastore.open(args.work / "store"), plan)
    for step in range(args.steps):
        batch = supply.batch(step)
        found = {"a": Found(torch.from_numpy(batch.neighbours), torch.from_numpy(batch.scores))}
        loss = -reader.logp(torch.from_numpy(batch.tokens), found).mean()
        loss.backward()
        for group in adam.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 20) * (1 - step / args.steps)
        adam.step()
        adam.zero_grad()
        if step % 10 == 9:
            print("cross", step + 1, round(float(loss.detach()), 4), flush=True)
    return reader.eval()


def readers(args: argparse.Namespace) -> None:
    import torch

    from strongroom.lm import weights
    from strongroom.lm.datastore import Datastore
    from strongroom.lm.evaluation import compare
    from strongroom.lm.readers import Alone, Gates
    from strongroom.lm.readers.context import Context
    from strongroom.lm.readers.nearest import Nearest

    torch.set_num_threads(1)
    path = args.model or SHIPPED
    model, about = weights.load(path)
    ways = {
        "off": Alone(model),
        "gates": Gates(model),
        "nearest": Nearest(model),
        "context": Context(model),
        "cross": crossed(args, path),
    }
    store = Datastore.open(args.work / "store")
    about.fits(store.tokenizer.digest)
    found = {}
    for name in args.only or ("law",):
        tokens = held_out_tokens(args.work, name, store)
        measured = compare(ways, store.only([name]), model.shape, tokens, most=args.windows, seed=args.seed)
        found[name] = {**measured.to_json(), "cross_steps": args.steps}
        print(name, json.dumps(found[name]["ways"]), flush=True)
    (args.into or args.work / "readers.json").write_text(json.dumps(found, indent=1) + "\n")


def held_out_tokens(work: Path, name: str, store: Any) -> Any:
    import numpy as np

    with (work / "texts" / f"{name}-held-out.jsonl").open() as lines:
        return np.concatenate(store.tokenizer.encode_many([json.loads(line)["text"] for line in lines]))


def ship(args: argparse.Namespace) -> None:
    from strongroom.lm import weights

    model, about = weights.load(args.model or folder(args) / "model.safetensors")
    about = replace(about, shape={**about.shape, "neighbours": READ})
    relevance = about.relevance if args.relevance is None else args.relevance
    SHIPPED.parent.mkdir(exist_ok=True)
    weights.save(SHIPPED, model, replace(about, relevance=relevance, floor=FLOOR if args.floor is None else args.floor))
    for name in ("parts.json", "tokenizer.json", "retriever.safetensors", "quantizer.safetensors"):
        parts = SHIPPED.parent / "parts"
        parts.mkdir(exist_ok=True)
        (parts / name).write_bytes((args.work / "store" / "parts" / name).read_bytes())
    print(SHIPPED, SHIPPED.stat().st_size)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["split", "build", "train", "evaluate", "readers", "ship"])
    parser.add_argument("--work", type=Path, default=ROOT / "work" / "retrieval")
    parser.add_argument("--corpora", type=Path, default=ROOT.parent / "shared" / "corpora")
    parser.add_argument("--tokenizer", type=Path, help="one that is there already")
    parser.add_argument("--parts", type=Path, help="frozen parts that are there already, such as those that ship")
    parser.add_argument("--begin", type=Path, help="a model whose weights training begins with")
    parser.add_argument("--every", type=int, default=32, help="tokens that share a list of neighbours")
    parser.add_argument("--neighbours", type=int, default=NEIGHBOURS, help="of a list")
    parser.add_argument("--read", type=int, default=READ, help="neighbours to evaluate with")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--alike", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--windows", type=int, default=100)
    parser.add_argument("--relevance", type=int, help="in millionths of a score")
    parser.add_argument("--floor", type=int, help="in grains")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--only", nargs="*", help="held-out text to measure on")
    parser.add_argument("--among", nargs="*", help="sources of the store")
    parser.add_argument(
        "--shares", type=int, nargs="*", default=[10, 100], help="of the store, in thousandths, for owned text"
    )
    parser.add_argument("--into", type=Path, help="the file of figures")
    parser.add_argument("--no-store", action="store_true")
    parser.add_argument("--compiled", action="store_true")
    args = parser.parse_args()
    {"split": split, "build": build, "train": train, "evaluate": evaluate, "readers": readers, "ship": ship}[args.verb](args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
