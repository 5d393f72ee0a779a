"""The corpora as the model reads them: documents in their parts, conversations, the tokenizer, token files."""

import itertools
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import run
import talk
import text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VOCABULARY = 8192
TALKS = 6000  # conversations of small talk


def documents(corpora: Path) -> Iterator[tuple[str, str, text.Document]]:
    """(corpus, part, cleaned document) of every file that the model reads or is measured on."""
    books = [(text.part("books", d), text.Document(d.id, text.clean(d.text))) for d in text.read(corpora / "books.jsonl.xz")]
    yield from (("books", part, document) for part, document in books)
    known = text.known_words(document.text for part, document in books if part == "train")
    for document in text.distinct(text.read(corpora / "encyclopedia.jsonl.xz")):
        if cleaned := text.article(document.text, known):
            yield "encyclopedia", text.part("encyclopedia", document), text.Document(document.id, cleaned)
    for document in text.read(corpora / "biology.jsonl.xz"):
        if text.part("biology", document) == "test" and (cleaned := text.section(document.text)):
            yield "biology", "test", text.Document(document.id, cleaned)


def conversations(found: Sequence[tuple[str, str, text.Document]], part: str) -> list[str]:
    """The conversations of a part, as the model reads them, shuffled."""
    rng = random.Random(7)  # noqa: S311 - an order that anyone can make again
    made: list[text.Conversation] = []
    for corpus, where, document in found:
        if where != part:
            continue
        if corpus == "books":
            made += [*text.dialogues(document.text, rng), *text.continuations(document.text, rng)]
        elif corpus == "encyclopedia" and (explained := text.explanation(document.text, rng)):
            made.append(explained)
    rng.shuffle(made)
    return [text.render(conversation) for conversation in made]


def train_tokenizer(texts: Iterable[str], path: Path, size: int = VOCABULARY) -> "Tokenizer":
    """Byte-level BPE with GPT-2's way of cutting words, which llama.cpp knows as `gpt-2`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size, special_tokens=list(text.SPECIAL), initial_alphabet=alphabet)
    )
    tokenizer.save(str(path))
    return tokenizer


def token_bytes(tokenizer: "Tokenizer") -> np.ndarray:
    """How many bytes of text each token stands for; the special ones for none."""
    return np.array(
        [0 if i < len(text.SPECIAL) else len(tokenizer.id_to_token(i)) for i in range(tokenizer.get_vocab_size())]
    )


def write_group(data: Path, name: str, tokenizer: "Tokenizer", members: Sequence[text.Document]) -> None:
    """One token file. Conversations have no documents of their own to be named."""
    encoded = [e.ids for e in tokenizer.encode_batch([d.text for d in members])]
    made = name.startswith(("chat", "talk"))
    facts = {
        "bytes": sum(len(d.text.encode()) for d in members),
        "documents": [] if made else [[d.id, len(ids)] for d, ids in zip(members, encoded, strict=True)],
    }
    run.write_tokens(data / f"{name}.bin", np.fromiter(itertools.chain.from_iterable(encoded), np.uint16), facts)
    print(f"{name}: {len(members)} documents, {facts['bytes']:,} bytes, {sum(map(len, encoded)):,} tokens")


def write_talk(data: Path, count: int = TALKS) -> None:
    """The small talk, with the tokenizer that is there."""
    from tokenizers import Tokenizer

    made = (text.Document("", text.render(conversation)) for conversation in talk.conversations(count, seed=11))
    write_group(data, "talk-train", Tokenizer.from_file(str(data / "tokenizer.json")), list(made))


def write_all(corpora: Path, data: Path) -> None:
    """The tokenizer, made from what is trained on alone, and every token file."""
    found = list(documents(corpora))
    read = (d.text for corpus, part, d in found if part == "train" and corpus in text.TRAINED_ON)
    tokenizer = train_tokenizer(read, data / "tokenizer.json")
    np.save(data / "token_bytes.npy", token_bytes(tokenizer))
    groups: dict[str, list[text.Document]] = defaultdict(list)
    for corpus, part, document in found:
        groups[f"{corpus}-{part}"].append(text.Document(document.id, text.BEGIN + document.text))
    for part in ("train", "watch"):
        groups[f"chat-{part}"] = [text.Document(str(i), made) for i, made in enumerate(conversations(found, part))]
    for name, members in groups.items():
        write_group(data, name, tokenizer, members)
    write_talk(data)
