"""What words tell about a piece of a question: request or material, kind, dependence.

Keywords are English and German. Other languages are understood by question marks and
enumerations, which need no words.
"""

import re
from collections.abc import Sequence

from queue_schemas.registry import Capability

_MAKING = (
    "write create design implement draft generate build develop code compose make invent"
    " schreib schreibe erstell erstelle entwirf entwerfe implementiere generiere baue entwickle"
    " programmiere verfasse"
)
_TELLING = (
    "explain describe define list name give show tell discuss outline sketch calculate compute"
    " prove derive find identify suggest propose recommend plan compare contrast convert add test"
    " evaluate estimate determine provide analyze analyse summarize summarise translate solve"
    " include state specify mention choose pick draw optimize optimise refactor document review"
    " improve deploy install set configure rank sort check help"
    " erklär erkläre beschreib beschreibe definier definiere nenn nenne gib zeig zeige berechne"
    " beweise finde schlag schlage empfiehl vergleich vergleiche wandle teste bewerte schätze"
    " bestimme analysiere fass fasse übersetz übersetze löse liste erläutere erläuter diskutiere"
    " skizziere prüfe optimiere verbessere ergänze füge plane stelle stell sag sage"
)
_ASKING = (
    "what why how when where who whose which whom is are does do did can could should would will"
    " was wie warum wann wo wer wessen welche welcher welches welchen wem wen wieso weshalb wozu"
    " womit woran wodurch ist sind kann können soll sollte gibt hat haben"
)
_POLITE = (
    r"(?:(?:and|then|also|finally|next|please|now|und|dann|danach|auch|bitte|nun|jetzt)\b[, ]*)*"
)
MAKING_WORDS = frozenset(_MAKING.split())
IMPERATIVES = MAKING_WORDS | frozenset(_TELLING.split())
_REQUEST_WORDS = IMPERATIVES | frozenset(_ASKING.split())

_LEADING_CLAUSE = re.compile(
    rf"\A\W*{_POLITE}(?:based|using|given|from|with|after|for|in|building)\b[^,\n]{{0,80}},\s*",
    re.IGNORECASE,
)
_FIRST_WORD = re.compile(rf"\A\W*{_POLITE}(\w+)", re.IGNORECASE)
_TAKES_MATERIAL = re.compile(
    r"\b(?:proof ?read|translate|rewrite|rephrase|paraphrase|reword|shorten|polish|correct|edit|"
    r"fix|reply|respond|classify|categori[sz]e|format|transcribe|extract|rank|sort|prioriti[sz]e|"
    r"review|rate|grade|convert|improve|simplify|parse|summari[sz]e|tl;?dr|"
    r"what (?:is|does|do)\b.{0,40}\bmean|feedback on|"
    r"übersetze?|korrigiere?|verbessere?|umformuliere?|formuliere|kürze?|"
    r"antworte auf|antwort auf|klassifiziere?|ordne|sortiere?|priorisiere?|bewerte|überarbeite|"
    r"prüfe|fasse?\b.{0,80}\bzusammen|zusammenfassung)\b",
    re.IGNORECASE | re.DOTALL,
)
_DISTRIBUTES = re.compile(
    r"\b(?:explain|describe|define|tell me about|each|every|answer|discuss|outline|questions?|"
    r"tasks?|the following:?\s*\Z|do the following|erklär\w*|beschreib\w*|definier\w*|erläuter\w*|"
    r"beantworte\w*|jeweils|jede[nmrs]?|fragen?|aufgaben?|folgendes:?\s*\Z)\b",
    re.IGNORECASE,
)
_SUMMARY = re.compile(
    r"\b(?:summari[sz]e|summary|tl;?dr|key (?:points|takeaways|facts|findings)|main points|"
    r"condense|abstract|zusammen\w*|fass\w*|kernaussagen|wichtigste\w*|überblick)\b",
    re.IGNORECASE,
)
_CODE = re.compile(
    r"```|\b(?:code|coding|function|method|class|script|program|python|javascript|typescript|java|"
    r"rust|golang|c\+\+|sql|regex|bash|shell|html|css|dockerfile|yaml|unit tests?|bug|refactor|"
    r"implement\w*|compile\w*|stack trace|api endpoint|funktion|skript|programmier\w*|quellcode)\b",
    re.IGNORECASE,
)
_REASONING = re.compile(
    r"\b(?:prove|proof|derive|calculate|compute|solve|why|how many|how much|trade-?offs?|"
    r"step by step|optimal|decide|puzzle|beweise?|berechne\w*|löse|warum|wieso|weshalb|"
    r"wie viele?|schritt für schritt)\b",
    re.IGNORECASE,
)
_NAMED = re.compile(
    r"\b(?:steps?|parts?|points?|items?|questions?|answers?|results?|tasks?|number|output|"
    r"schritt(?:e|en)?|teil|punkt|frage|antwort|ergebnis(?:se|sen)?|aufgabe|nummer|nr)\b\.?"
    r"(?:\s*(?:of|from|to|in|von|aus|zu))?\s*[#(]?(\d{1,2})\b(?:\s*(?:and|&|,|und)\s*(\d{1,2})\b)?",
    re.IGNORECASE,
)
_ON_ALL = re.compile(
    r"\b(?:all (?:of )?(?:the above|these|those|that)|these results|those answers|everything above|"
    r"all (?:dem|diesen)|diese(?:n)? ergebnisse(?:n)?|alle[nm]? obigen?)\b",
    re.IGNORECASE,
)
_COMPARES = r"(?:compare|contrast|combine|rank|weigh|vergleiche?|kombiniere?)\s+"
_OWN_LIST = r"(?![^\n]*:)"
"""`Which of these is prime: 4, 7 or 9?` names its own."""
_COMPARES_ALL = re.compile(
    rf"\A\W*{_POLITE}(?:{_COMPARES}(?:them|sie|all of (?:them|these|those))|"
    r"(?:which|who) (?:one )?of (?:them|these|those)|"
    rf"welche[rs]? von (?:ihnen|diesen))\b{_OWN_LIST}",
    re.IGNORECASE,
)
_COMPARES_TWO = re.compile(
    rf"\A\W*{_POLITE}(?:{_COMPARES}(?:both|(?:the|these|those) two|beides?|(?:die )?beiden)|"
    r"(?:which|who) (?:one )?of (?:the|these) two|"
    rf"welche[rs]? (?:von|der) beiden)\b(?!\s+\S+\s+(?:and|und)\b){_OWN_LIST}",
    re.IGNORECASE,
)
"""Not `compare both TCP and UDP`, which names them, too."""
_ON_PREVIOUS = re.compile(
    r"\A\W*(?:and )?(?:then|next,|afterwards|after that|dann|danach|anschließend)\b|"
    r"\b(?:based on (?:the|that|this|these|those|your|it)|"
    r"using (?:the (?:result|above|answer|previous|output)|that|those|your (?:answer|result))|"
    r"the above|the previous|from the (?:result|above)|"
    r"basierend auf|auf (?:der )?(?:basis|grundlage)|anhand (?:dieser|des ergebnisses|davon)|"
    r"daraus|obige[nrsm]?|vorherige[nrsm]?|mit dem ergebnis|das ergebnis)\b",
    re.IGNORECASE,
)
_POINTS_BACK = re.compile(
    r"\b(?:it|its|them|ihn|ihm|dafür|damit|davon|dazu|diese[nrsm]?|this|that|those)\b(?!\s+(?:is|ist)\b)",
    re.IGNORECASE,
)


def is_request(text: str) -> bool:
    """Whether this asks for something: a question, or a sentence that begins with a verb."""
    stripped = text.rstrip(' \n"”»)*_')
    return stripped.endswith(("?", "\uff1f", "؟")) or first_word(text) in _REQUEST_WORDS


def is_imperative(text: str) -> bool:
    """Whether this tells somebody to do something."""
    return first_word(text) in IMPERATIVES


def first_word(text: str) -> str:
    """The first word of the main clause that means something, in lower case."""
    found = _FIRST_WORD.match(_LEADING_CLAUSE.sub("", text, count=1))
    return found.group(1).lower() if found else ""


def takes_material(text: str) -> bool:
    """Whether this asks for something to be done to a given text: translate, proofread, …"""
    return bool(_TAKES_MATERIAL.search(text))


def distributes(text: str) -> bool:
    """Whether this is said about each item of the list that follows."""
    return bool(_DISTRIBUTES.search(text))


def asks_for_summary(text: str) -> bool:
    """Whether the wish is a shorter version of a text."""
    return bool(_SUMMARY.search(text))


def kind_of(text: str) -> Capability:
    """What a model must be good at to answer this."""
    if _CODE.search(text):
        return Capability.CODE
    if asks_for_summary(text):
        return Capability.SUMMARY
    return Capability.REASONING if _REASONING.search(text) else Capability.CHAT


def dependencies(texts: Sequence[str]) -> list[tuple[int, ...]]:
    """Which earlier texts each one builds on."""
    return [_needs(place, texts) for place in range(len(texts))]


def _needs(place: int, texts: Sequence[str]) -> tuple[int, ...]:
    if place == 0:
        return ()
    text = texts[place]
    named = {int(n) - 1 for pair in _NAMED.findall(text) for n in pair if n}
    if earlier := {need for need in named if 0 <= need < place}:
        return tuple(sorted(earlier))
    if _ON_ALL.search(text) or _COMPARES_ALL.match(text):
        return tuple(range(place))
    if _COMPARES_TWO.match(text):
        return tuple(range(max(0, place - 2), place))
    if _ON_PREVIOUS.search(text) or _continues(texts[place - 1], text):
        return (place - 1,)
    return ()


def _continues(previous: str, text: str) -> bool:
    """`Write a parser.` and then `Write tests for it.`"""
    made = first_word(previous) in MAKING_WORDS
    return made and is_imperative(text) and bool(_POINTS_BACK.search(text))
