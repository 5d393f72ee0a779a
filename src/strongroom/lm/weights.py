"""The file of a retrieval model: safetensors with its sizes and with the tokenizer that it was trained on; never pickle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from strongroom.errors import BadModel, MissingExtra, OtherTokenizer

PURPOSE: Final = "strongroom.retrieval.v1"
_MEMBERS: Final = {"purpose", "shape", "tokenizer", "relevance", "floor"}


def shipped() -> Path:
    """The model that ships; beside it, in ``parts``, the frozen parts of stores that it reads.

    Not in a confined child, whose modules have no files.
    """
    return Path(__file__).parent / "model" / "retrieval.safetensors"


def library() -> Any:
    """torch. Raises MissingExtra."""
    try:
        import torch  # noqa: PLC0415 - loaded when it is used
    except ImportError:
        raise MissingExtra("a retrieval model needs the library torch", hint="pip install 'strongroom[lm]'") from None
    return torch


@dataclass(frozen=True, slots=True)
class About:
    """What a model's file says of it.

    Attributes:
        shape: its sizes, as ``gates.Shape`` names them.
        tokenizer: digest of the tokenizer that it was trained on.
        relevance: the score in millionths under which a source is not asked.
        floor: the grains under which a gate is shut: a source gets so many of a token, or exactly nothing.
    """

    shape: dict[str, int]
    tokenizer: str
    relevance: int
    floor: int = 0

    def fits(self, tokenizer: str) -> None:
        """Raises OtherTokenizer: the store has another tokenizer."""
        if tokenizer != self.tokenizer:
            raise OtherTokenizer("the model was trained on another tokenizer than the store has")


def save(path: Path, model: Any, about: About, *, half: bool = True) -> None:
    """Write a model.

    Args:
        path: of the file; it is replaced as a whole.
        model: ``gates.RetrievalModel``.
        about: what is to be said of it.
        half: with 16 bits a number, which is half as long.
    """
    torch = library()
    from safetensors.torch import save as encode  # noqa: PLC0415

    kept = {name: weight.detach().to(torch.float16 if half else torch.float32) for name, weight in model.named_parameters()}
    said = {
        "floor": about.floor,
        "purpose": PURPOSE,
        "relevance": about.relevance,
        "shape": about.shape,
        "tokenizer": about.tokenizer,
    }
    data = encode(kept, {"strongroom": json.dumps(said, sort_keys=True, separators=(",", ":"))})
    beside = path.with_name(path.name + ".part")
    beside.write_bytes(data)
    beside.replace(path)


def load(path: Path) -> tuple[Any, About]:
    """Read a model, in ``float32``.

    Raises:
        BadModel: it is none, or is damaged, or its sizes are others than it says. MissingExtra. FileNotFoundError.
    """
    torch = library()
    from safetensors import safe_open  # noqa: PLC0415

    from .gates import RetrievalModel, Shape  # noqa: PLC0415 - needs torch

    try:
        with safe_open(path, "pt") as file:
            said = json.loads((file.metadata() or {}).get("strongroom", "null"))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except FileNotFoundError:
        raise
    except Exception as error:  # the libraries raise nothing more precise
        raise BadModel("the model's file cannot be read") from error
    about = _about(said)
    model = RetrievalModel(Shape.of(about.shape))
    wanted = {name: weight.shape for name, weight in model.named_parameters()}
    if {name: weight.shape for name, weight in weights.items()} != wanted:
        raise BadModel("the model's weights are not of the sizes that its file says")
    if not all(bool(torch.isfinite(weight).all()) for weight in weights.values()):
        raise BadModel("the model's weights are no numbers")
    model.load_state_dict({name: weight.float() for name, weight in weights.items()}, strict=True)
    return model.eval(), about


def _about(said: object) -> About:
    if not isinstance(said, dict) or set(said) != _MEMBERS or said["purpose"] != PURPOSE:
        raise BadModel("the file is no retrieval model of this version")
    shape, tokenizer, relevance, floor = (said[name] for name in ("shape", "tokenizer", "relevance", "floor"))
    if not isinstance(shape, dict) or not isinstance(tokenizer, str) or {type(relevance), type(floor)} != {int}:
        raise BadModel("the file does not say what a retrieval model's says")
    return About(shape, tokenizer, relevance, floor)
