"""llama.cpp with one GGUF file, asked in this process: what the exported file is checked against."""

import json
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class LlamaCpp:
    """A server of `xllamacpp` on a free port of this machine, one thread, nothing sampled."""

    def __init__(self, path: Path, context: int) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.offline, params.fit_params, params.n_ctx, params.n_parallel = True, False, context, 1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.port, params.verbosity = 0, -1
        self._server = xllamacpp.Server(params)

    def _ask(self, route: str, body: Mapping[str, Any]) -> Any:
        request = urllib.request.Request(  # noqa: S310 - the server in this process
            f"{self._server.listening_address}/{route}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as response:  # noqa: S310
            return json.load(response)

    def tokens(self, written: str) -> list[int]:
        """The tokens of a text, the first of all before them and special ones read as such."""
        found: list[int] = self._ask("tokenize", {"content": written, "add_special": True, "parse_special": True})["tokens"]
        return found

    def text(self, tokens: Sequence[int]) -> str:
        found: str = self._ask("detokenize", {"tokens": list(tokens)})["content"]
        return found

    def rendered(self, messages: Sequence[Mapping[str, str]]) -> str:
        """A conversation as the file's chat template writes it, up to where the answer begins."""
        found: str = self._ask("apply-template", {"messages": list(messages)})["prompt"]
        return found

    def greedy(self, prompt: Sequence[int], most: int) -> tuple[list[int], float]:
        """The likeliest tokens after a prompt, without the one that ends an answer, and the logarithm of the first one's
        probability."""
        body = {"prompt": list(prompt), "n_predict": most, "temperature": 0, "n_probs": 1, "return_tokens": True}
        found = self._ask("completion", body | {"cache_prompt": False})
        tokens = found["tokens"][: -1 if found["stop_type"] == "eos" else None]
        return tokens, found["completion_probabilities"][0]["top_logprobs"][0]["logprob"]

    def sampled(self, prompt: Sequence[int], most: int, *, seed: int, temperature: float) -> str:
        body = {"prompt": list(prompt), "n_predict": most, "temperature": temperature, "seed": seed, "min_p": 0.05}
        found: str = self._ask("completion", body)["content"]
        return found
