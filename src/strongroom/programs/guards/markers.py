"""The markers of prompt injection: what is looked for, and how much each tells.

Regular expressions over a plain view of a text (``plain.py``): no capitals, no accents, one space between words. Every
repeat is bounded, so that the time they take grows with a text's length and no faster.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

_WHAT = (
    r"(?:instruction|instructions|prompt|prompts|rule|rules|guideline|guidelines|guidance|direction|directions|directive|"
    r"directives|command|commands|order|orders|restriction|restrictions|constraint|constraints|programming|training|policy|"
    r"policies|safeguards|safety (?:rules|settings|filters?|training)|context|constraints?|persona|system messages?)"
)
_BEFORE = r"(?:previous(?:ly)?|prior|above|earlier|preceding|original|initial|existing|current|foregoing|former|past)"
_YOURS = rf"(?:{_BEFORE}|all|any|every|your|the system|system|developer|openai|anthropic|these|those|everything|whatever)"
_DROP = (
    r"(?:ignore|ignoring|disregard|disregarding|forget|override|overriding|bypass|neglect|discard|dismiss|abandon|drop|"
    r"pay no attention to|do not (?:follow|obey)|don.?t (?:follow|obey)|stop (?:following|obeying)|set aside|erase|delete|"
    r"cancel|void|nullify|throw out|take no notice of|no longer (?:follow|bound by|obey))"
)
_TELL = (
    r"(?:reveal|show|print|repeat|output|display|give|leak|expose|disclose|tell|share|write|dump|recite|quote|return|echo|"
    r"provide|send|copy|paste|translate|encode|summari[sz]e|spell|list|what (?:is|are|was|were|does)|what.?s)"
)
_HIDDEN = r"(?:system|hidden|secret|initial|original|internal|developer|confidential|pre-?prompt|base|underlying)"

# Words without which a pattern cannot be there: to look for these first takes a tenth of the time.
_DROPS: Final = (
    "ignor",
    "disregard",
    "forget",
    "overrid",
    "bypass",
    "neglect",
    "discard",
    "dismiss",
    "abandon",
    "drop",
    "attention",
    "obey",
    "follow",
    "set aside",
    "erase",
    "delete",
    "cancel",
    "void",
    "nullify",
    "throw out",
    "no notice",
    "bound by",
)
_WHATS: Final = (
    "instruct",
    "prompt",
    "rule",
    "guid",
    "direct",
    "command",
    "order",
    "strict",
    "strain",
    "program",
    "training",
    "polic",
    "safe",
    "context",
    "persona",
    "message",
)
_TOLD: Final = ("prompt", "instruct", "message", "rules", "config", "directive", "context")
_SHOWN: Final = ("repeat", "print", "output", "copy", "recite", "echo", "translate", "return", "show", "give")
_MODELS: Final = ("ai", "llm", "model", "assistant", "bot", "gpt", "claude", "copilot", "agent", "summari")

# name, points, words, pattern: of each tuple of words one must be there. All look at a plain view: no capitals, one space
# between words.
Words: TypeAlias = tuple[tuple[str, ...], ...]
MARKERS: Final[tuple[tuple[str, int, Words, re.Pattern[str]], ...]] = tuple(
    (name, points, words, re.compile(pattern))
    for name, points, words, pattern in (
        ("override", 100, (_DROPS, _WHATS), rf"\b{_DROP}\b[^.!?]{{0,20}}\b{_YOURS}\b[^.!?]{{0,40}}\b{_WHAT}\b"),
        (
            "override everything",
            100,
            (_DROPS,),
            (
                rf"\b{_DROP}\b (?:absolutely )?(?:everything|all|anything|what)\b[^.!?]{{0,24}}"
                rf"\b(?:above|before(?: this| that)?[.,:;!]?\Z|before (?:this|that|now|here)|you (?:were|have been|"
                rf"are) (?:told|taught|instructed)|i (?:said|told you)|was said|so far|{_BEFORE})\b"
            ),
        ),
        (
            "override",
            100,
            (("ignor", "disregard", "forget"),),
            (
                r"\b(?:ignore|disregard|forget) (?:the |all |all of the )?(?:above|foregoing|preceding)\b"
                r"(?: and\b|,| then\b|\.|:|!| text| message)"
            ),
        ),
        (
            "new orders",
            50,
            (
                ("new", "updated", "revised", "real", "actual", "true", "important"),
                ("instruct", "directive", "orders", "task", "objective", "goal", "prompt"),
            ),
            (
                r"\b(?:new|updated|revised|real|actual|true|important) (?:system )?(?:instructions?|directives?|"
                r"orders|task|objective|goal|prompt) ?(?::|is\b|are\b|follow)"
            ),
        ),
        (
            "new orders",
            100,
            (
                ("new", "only", "real", "actual", "true"),
                ("task", "job", "goal", "instruct", "purpose", "objective", "role", "directive"),
            ),
            (
                r"\b(?:your|the) (?:new|only|real|actual|true) (?:task|job|goal|instructions?|purpose|objective|"
                r"role|directive) (?:is|are) (?:now |to )"
            ),
        ),
        (
            "reveal prompt",
            100,
            (
                _TOLD,
                (
                    "system",
                    "hidden",
                    "secret",
                    "initial",
                    "original",
                    "internal",
                    "developer",
                    "confidential",
                    "prompt",
                    "base",
                    "underlying",
                ),
            ),
            (
                rf"\b{_TELL}\b[^.!?]{{0,40}}\b(?:your|the|its|this|these|my)\b[^.!?]{{0,20}}\b{_HIDDEN}\b ?"
                r"(?:prompts?|instructions?|messages?|rules|configuration|directives?|context)\b"
            ),
        ),
        (
            "reveal prompt",
            100,
            (_SHOWN, ("above", "before this", "preceding")),
            (
                r"\b(?:repeat|print|output|copy|recite|echo|translate|return|show|give)\b[^.!?]{0,30}\b(?:everything|"
                r"all|the (?:text|words|lines|content|sentences)|words|text)\b[^.!?]{0,12}\b(?:above|before this|"
                r"preceding)\b"
            ),
        ),
        (
            "reveal prompt",
            100,
            (("prompt", "instructions", "directives", "configuration", "programming", "guidelines"), ("your",)),
            (
                rf"\b{_TELL}\b (?:me )?(?:all )?(?:of )?your (?:full |exact |complete |entire |own |verbatim ){{0,4}}"
                r"(?:prompt|instructions|directives|configuration|programming|guidelines)\b"
            ),
        ),
        (
            "jailbreak",
            100,
            (),
            (
                r"\b(?:do anything now|dan mode|jailbroken|jailbreak mode|developer mode (?:is )?(?:now )?(?:enabled|"
                r"on|activated|v\d)|enable developer mode|enter developer mode|god mode|sudo mode|stan mode|dude mode|"
                r"unrestricted mode|evil ?bot|aim mode|always intelligent and machiavellian|opposite mode)\b"
            ),
        ),
        (
            "persona",
            50,
            (("you", "act as", "pretend", "play as", "simulate", "imagine", "behave"),),
            (
                r"\b(?:you are now|from now on,? you(?:.re| are| will)|act as|pretend (?:to be|you are|that you)|you will "
                r"(?:now )?(?:act|play|pretend)|role-?play as|simulate|imagine you are|behave like|you.?re going to act)\b"
            ),
        ),
        (
            "no limits",
            50,
            (),
            (
                r"\b(?:without (?:any )?(?:restrictions?|limitations?|limits|filters?|filtering|censorship|safety|"
                r"ethical|moral|content polic|guidelines|rules)|no (?:restrictions|limitations|limits|filters?|rules|"
                r"ethic\w{0,20}|moral\w{0,20}|guidelines|censorship)|unfiltered|uncensored|unrestricted|not bound by|"
                r"free (?:of|from) (?:all )?(?:restrictions|rules|constraints|limits|censorship)|"
                r"has no (?:rules|limits|ethics|filter)|never (?:refuse|say no|decline)|cannot refuse|must not refuse|"
                r"ignore(?:s|d)? (?:ethics|safety|"
                r"morals|legality))\b"
            ),
        ),
        (
            "no refusal",
            50,
            (("warning", "disclaimer", "ethic", "that", "can"),),
            (
                r"\b(?:do not|don.?t|never|must not|cannot) (?:mention|add|include|give|use|say|"
                r"state)\b[^.!?]{0,30}\b(?:warnings?|"
                r"disclaimers?|ethic\w{0,20}|that (?:you are|it is) (?:an ai|illegal)|you can.?t|i can.?t|i.?m sorry)\b"
            ),
        ),
        (
            "template",
            100,
            (("<", "["),),
            (
                r"<\|(?:im_start|im_end|system|user|assistant|endoftext|eot_id|start_header_id|end_header_id|begin_of_text|"
                r"end|tool|channel)\|>|\[/?inst\]|<</?sys>>|<(?:start|end)_of_turn>|</?(?:system|assistant)(?:_prompt)?>|"
                r"<\|?(?:system|assistant)\|?>"
            ),
        ),
        (
            "template",
            50,
            (("system", "assistant", "developer"), (":", "]")),
            (
                r"(?:^|[#\]\)\"'*=>-] ?)(?:system|assistant|developer)(?: (?:message|prompt|note|override|update|alert|"
                r"notice))? ?[:\]]"
            ),
        ),
        (
            "template",
            100,
            (("begin", "end", "start"), ("prompt", "system", "instruct", "input", "data", "content", "conversation")),
            (
                r"\b(?:begin|end|start) (?:of )?(?:system )?(?:prompt|system message|instructions|user input|untrusted "
                r"(?:data|content))\b ?[\]>=*#-]|[\[<=*#-] ?(?:begin|end|"
                r"start)(?: of)?(?: the)? (?:system (?:prompt|message)|"
                r"prompt|user input|instructions|conversation)\b"
            ),
        ),
        (
            "to the model",
            50,
            (_MODELS, ("note", "message", "attention", "instruct", "notice", "important", "memo", "dear", "hey", "hello")),
            (
                r"\b(?:note|message|attention|instructions?|notice|important|memo|dear|hey|hello) ?(?:to|"
                r"for|,)? ?(?:the |any |all )?"
                r"(?:ai|llm|language model|assistant|chatbot|model|gpt|chatgpt|claude|copilot|bot|agent|summari[sz]er|"
                r"reviewer model)s?\b(?: models?| assistants?| agents?| systems?)?(?: reading| processing|[:,!.-])"
            ),
        ),
        (
            "to the model",
            50,
            (_MODELS, ("if you are", "as a")),
            (
                r"\b(?:if you are|as) an? (?:ai|llm|language model|large language model|automated|assistant)\b[^.!?]{0,40}"
                r"\b(?:you must|must|please|should|then|always|ignore|recommend|rate|reading|processing)\b"
            ),
        ),
        (
            "behind the back",
            50,
            (("tell", "inform", "mention", "alert", "notify", "let", "reveal", "disclos"),),
            (
                r"\b(?:do not|don.?t|never|without) (?:tell(?:ing)?|inform(?:ing)?|mention(?:ing)?|alert(?:ing)?|"
                r"notify(?:ing)?|let(?:ting)?|reveal(?:ing)?|disclos(?:e|ing))\b[^.!?]{0,24}\b(?:the )?(?:user|human|"
                r"reader|anyone|them|operator|owner|this (?:instruction|message|text))\b"
            ),
        ),
        ("exfiltration", 100, (("![",),), r"!\[[^\]]{0,80}\]\(\s?https?://[^)\s]{1,280}[?&/=][{<\[$%]"),
        (
            "exfiltration",
            100,
            (("http", "@", "url", "address", "server", "endpoint", "webhook"),),
            (
                r"\b(?:send|post|forward|upload|exfiltrate|transmit|email|append|leak|"
                r"submit)\b[^.!?]{0,50}\b(?:conversation|"
                r"chat(?: history)?|history|api keys?|passwords?|credentials|secrets?|tokens?|user data|contents of|"
                r"inbox|private (?:data|files|messages)|system prompt|personal (?:data|information|details))\b[^!?]{0,40}"
                r"(?:https?://|\bto (?:https?|the (?:url|address|server|endpoint|webhook)|this (?:url|address|server))|"
                r"[^\s@]@[^\s@]{1,80}\.\w)"
            ),
        ),
        (
            "verdict",
            50,
            (("review", "safe", "highest", "full marks", "10", "strong", "not mention"),),
            (
                r"\b(?:give|rate|score|mark|classify|label|grade|recommend|say|respond|reply|"
                r"answer)\b[^.!?]{0,40}\b(?:only )?"
                r"(?:positive review|as safe|highest (?:score|rating|possible)|full marks|10/10|10 out of 10|\"?safe\"?$|"
                r"strong(?:ly)? (?:accept|hire|recommend)|not mention)\b"
            ),
        ),
        (
            "prompt end",
            100,
            (("above", "previous", "preceding"),),
            (
                r"\b(?:the )?(?:above|previous|preceding) (?:text|message|prompt|instructions?|"
                r"conversation)s? (?:was|were|is|are)"
                r" (?:just )?(?:a |an )?(?:test|fake|wrong|example|draft|joke|outdated|void|cancel|over|no longer|untrue|"
                r"obsolete|superseded|incorrect)"
            ),
        ),
        (
            "override",
            100,
            (("ignorier", "vergiss", "missacht"),),
            (
                r"\b(?:ignorier\w{0,20}|vergiss|missacht\w{0,20})\b[^.!?]{0,30}\b(?:vorherig\w{0,20}|bisherig\w{0,20}|obig\w{0,20}|"
                r"alle\w{0,20}|vorangegangen\w{0,20}|deine)"
                r"\b[^.!?]{0,20}\b(?:anweisung\w{0,20}|instruktion\w{0,20}|regeln|vorgaben|befehle|eingaben)\b"
            ),
        ),
        (
            "override",
            100,
            (("ignore", "oublie", "pas compte"),),
            (
                r"\b(?:ignore[zr]?|oublie[zr]?|ne tiens? pas compte)\b[^.!?]{0,30}\b(?:instructions?|"
                r"consignes|regles|ordres|directives)"
                r"\b[^.!?]{0,20}\b(?:precedent\w{0,20}|anterieur\w{0,20}|ci-dessus|initial\w{0,20}|recues?)\b"
            ),
        ),
        (
            "override",
            100,
            (("ignora", "olvid", "omite", "descarta", "caso omiso"),),
            (
                r"\b(?:ignora\w{0,20}|olvid\w{0,20}|omite|descarta|haz caso omiso)\b[^.!?]{0,30}\b(?:instruccion\w{0,20}|"
                r"indicacion\w{0,20}|reglas|ordenes|"
                r"directrices)\b[^.!?]{0,20}\b(?:anterior\w{0,20}|previa\w{0,20}|de arriba|recibid\w{0,20}|iniciales)\b"
            ),
        ),
        (
            "override",
            100,
            (("ignora", "dimentica", "esquec", "ignore"), ("istruz", "instruc", "rego", "regr", "ordin", "orden")),
            (
                r"\b(?:ignora\w{0,20}|dimentica\w{0,20}|esquec\w{0,20}|ignore)\b[^.!?]{0,30}\b(?:istruzioni|instrucoes|"
                r"regole|regras|ordini|ordens)\b"
                r"[^.!?]{0,20}\b(?:precedent\w{0,20}|anterior\w{0,20}|sopra|acima)\b"
            ),
        ),
        (
            "override",
            100,
            (("ignore", "disregard", "forget", "override", "reveal", "repeat"),),
            (
                r"\b(?:ignore|disregard|forget|override)"
                r"(?:all|any|the|your|my|everything|of|these|those|previous|prior|above|earlier){1,5}"
                r"(?:instructions?|prompts?|rules|guidelines|above|before|told)|(?:reveal|repeat|show|"
                r"print)(?:me|us)?(?:your|the)"
                r"(?:full|entire|hidden|secret)?(?:system)?(?:prompt|instructions)"
            ),
        ),
        (
            "override",
            100,
            (),
            "(?:忽略|无视|忽視|無視)[^。！？]{0,12}(?:指令|指示|提示|规则|規則)|(?:игнорир|игhopиp|забудь|зaбyдь)",
        ),
    )
)
