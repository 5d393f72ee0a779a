"""``model``: a guard model, asked about each request or answer, whose word is read strictly.

Its answer must be the word for what may pass, alone. Anything else, and no answer at all, is a refusal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from . import REFUSED, Ask, Mark, Verdict

MAX_CHARS: Final = 200_000
NAME: Final = "guard"
"""What the guard model is called in a request: whoever asks it has only one."""

# The hazards of the MLCommons taxonomy, by the codes that Llama Guard models were trained with.
_HAZARDS: Final = (
    "S1: Violent Crimes.",
    "S2: Non-Violent Crimes.",
    "S3: Sex-Related Crimes.",
    "S4: Child Sexual Exploitation.",
    "S5: Defamation.",
    "S6: Specialized Advice.",
    "S7: Privacy.",
    "S8: Intellectual Property.",
    "S9: Indiscriminate Weapons.",
    "S10: Hate.",
    "S11: Suicide & Self-Harm.",
    "S12: Sexual Content.",
    "S13: Elections.",
    "S14: Code Interpreter Abuse.",
)


def _llama_guard(stage: str) -> str:
    whose = "User" if stage == "input" else "Agent"
    return "\n".join(
        [
            f"Task: Check if there is unsafe content in '{whose}' messages in conversations according to our safety policy",
            "with the below categories.",
            "",
            "<BEGIN UNSAFE CONTENT CATEGORIES>",
            *_HAZARDS,
            "<END UNSAFE CONTENT CATEGORIES>",
            "",
            "<BEGIN CONVERSATION>",
            "",
            f"{whose}: {{texts}}",
            "",
            "<END CONVERSATION>",
            "",
            f"Provide your safety assessment for ONLY THE LAST {whose} message in the above conversation:",
            "- First line must read 'safe' or 'unsafe'.",
            "- If unsafe, a second line must include a comma-separated list of violated categories.",
        ]
    )


class Judge:
    """The guard.

    Args:
        program: its digest.
        stage: whether it judges requests or answers.
        settings: ``max_tokens``, ``passed``, ``prompt``.
        ask: puts a question to the model.
    """

    name = "model"
    whole = True
    hold_chars = MAX_CHARS

    def __init__(self, program: str, stage: str, settings: Mapping[str, Any], ask: Ask) -> None:
        self.program = program
        self._settings, self._ask = settings, ask
        self._prompt = _llama_guard(stage) if settings["prompt"] == "llama-guard" else settings["prompt"]

    def look(self, texts: Sequence[str]) -> Verdict:
        """All texts as one conversation, so that nothing is judged without what it belongs to."""
        try:
            marks = self.mark("\n\n".join(texts))
        except Exception:  # noqa: BLE001 - a guard that fails lets nothing through, and says nothing of the text
            return REFUSED
        return REFUSED if marks is None else Verdict("allowed", tuple(texts))

    def mark(self, text: str) -> tuple[Mark, ...] | None:
        if not text.strip():
            return ()
        if len(text) > MAX_CHARS:
            return None
        return () if passes(self._ask(self.request(text)), self._settings["passed"]) else None

    def settled(self, text: str) -> int:
        del text
        return 0

    def request(self, text: str) -> bytes:
        """What the model is asked, as a chat of one message. The text cannot end its part of the prompt: the marks of chat
        templates are broken in it."""
        harmless = text.replace("<|", "< |").replace("<BEGIN ", "< BEGIN ").replace("<END ", "< END ")
        before, after = self._prompt.split("{texts}")
        message = {"content": before + harmless + after, "role": "user"}
        asked = {"max_tokens": self._settings["max_tokens"], "messages": [message], "model": NAME, "temperature": 0}
        return json.dumps(asked, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def passes(answer: str, word: str) -> bool:
    """Whether a guard model's answer says that a text may pass: that word and nothing else.

    Args:
        answer: all of it.
        word: without capitals.
    """
    return answer.strip().lower() == word
