"""What a question asks for: something to look up, to work out, or to invent."""

import re
from enum import StrEnum

_FEWEST_WORDS = 4
_LONGEST_LOOK = 2_000
"""Characters: what is wanted is said soon, and looking costs time."""


class QuestionKind(StrEnum):
    """What a question asks for."""

    FACTUAL = "factual"
    ANALYTICAL = "analytical"
    CREATIVE = "creative"


_WORKS = (
    r"(?:poems?|haikus?|limericks?|sonnets?|rhymes?|songs?|lyrics|story|stories|tales?|fables?|"
    r"jokes?|riddles?|slogans?|taglines?|jingles?|dialogues?|monologues?|screenplays?|"
    r"gedichte?s?|reime?|lied(?:er|text)?|geschichten?|märchen|fabeln?|witze?|rätsel|dialoge?|"
    r"werbesprüche?|trinksprüche?)"
)
_CREATIVE = re.compile(
    r"\b(?:write|compose|create|tell|make up|draft|give|schreib\w*|verfass\w*|erstell\w*|"
    rf"erzähl\w*|denk\w*|mach\w*|gib)\b[^.?!\n]{{0,60}}?\b{_WORKS}\b"
    r"|\b(?:invent|imagine|brainstorm|come up with|erfinde\w*|dichte|reime|"
    r"stell(?:e)? (?:dir|euch) vor)\b",
    re.IGNORECASE,
)
_ANALYTICAL = re.compile(
    r"\b(?:why|compare|comparison|contrast|versus|vs|pros and cons|advantages|disadvantages|"
    r"trade-?offs?|analy[sz]e|analysis|evaluate|assess|critique|argue|justify|recommend|prove|"
    r"derive|calculate|estimate|should (?:i|we|one)|(?:which|what) (?:is|are|would be) (?:the )?"
    r"(?:better|best|worse)|what (?:would|will) happen|implications?|root cause|"
    r"warum|weshalb|wieso|vergleich\w*|vor- und nachteile|vorteile|nachteile|unterschiede?|"
    r"analysier\w*|analyse|bewerte\w*|beurteile\w*|begründe\w*|empfiehl|empfehl\w*|beweise?|"
    r"berechne\w*|schätze|abwäg\w*|soll(?:te|ten)? (?:ich|wir|man)|was (?:ist|wäre|sind) "
    r"(?:besser|am besten|schlechter)|was (?:würde|wird) passieren|folgen|ursachen?)\b",
    re.IGNORECASE,
)
_FACTUAL = re.compile(
    r"(?:\A|[.!?\n])\W*(?:who|whose|when|where|which|what (?:is|are|was|were|does|did)|"
    r"how (?:many|much|old|long|far|tall|high|big|often|large|deep|fast)|define|name|list|is|are|"
    r"was|were|did|does|wer|wessen|wem|wann|wo|woher|wohin|welche[rsnm]?|was (?:ist|sind|war|"
    r"waren|bedeutet|heißt)|wie (?:viele?|alt|lange?|weit|hoch|groß|oft|tief|schnell|heißt|"
    r"heißen)|definiere?|nenne?|ist|sind|war|waren|hat|gibt)\b",
    re.IGNORECASE,
)
_BY_WORDS = (
    (QuestionKind.CREATIVE, _CREATIVE),
    (QuestionKind.ANALYTICAL, _ANALYTICAL),
    (QuestionKind.FACTUAL, _FACTUAL),
)


def kind_by_words(text: str) -> QuestionKind | None:
    """The kind that English or German words tell; None where none do, and for a few words only."""
    beginning = text[:_LONGEST_LOOK]
    if len(beginning.split()) < _FEWEST_WORDS:
        return None
    return next((kind for kind, words in _BY_WORDS if words.search(beginning)), None)
