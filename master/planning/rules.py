"""Taking a question apart by rules alone: no model, the same result every time."""

import re
from collections.abc import Sequence

from master.planning.comparison import find_comparison, find_for_each
from master.planning.enumeration import Enumeration, find_enumeration
from master.planning.language import Phrases, language_of, phrases_for
from master.planning.masking import Masked, mask
from master.planning.sections import find_document, find_sections
from master.planning.sentences import Sentence, sentences
from master.planning.structure import MOST_PARTS, Structure, Wish, parts_of
from master.planning.wording import (
    dependencies,
    distributes,
    is_imperative,
    is_request,
    kind_of,
    takes_material,
)

LONGEST_ANALYSED = 400_000
"""Characters; a longer question is not taken apart."""
_FEWEST_WORDS = 8
_FEWEST_WORDS_IN_QUESTION = 3
_LONGEST_ASIDE = 400
_LONGEST_LEAD = 600
_STYLE = re.compile(
    r"\A\W*(?:(?:please|bitte|and|und)\s+)*(?:answer|keep|use|be|include|respond|thanks|antworte|"
    r"halte|nutze|verwende|danke|(?:write|make|schreibe?)\s+(?:in|it|them|the answers?|auf|es|"
    r"die antwort))\b",
    re.IGNORECASE,
)
_REASONS = frozenset({"why or why not", "why and how", "warum oder warum nicht", "if so, why"})
_CONTINUING_WORDS = frozenset({"or", "oder", "and", "und", "but", "aber", "sonst"})
_FILLERS = frozenset(
    {
        *("can you help me", "could you help me", "can you help", "can anyone help me"),
        *("how are you", "any ideas", "any suggestions", "does that make sense", "is that ok"),
        *("what do you think", "can i ask you something", "can i ask you a few questions"),
        *("kannst du mir helfen", "können sie mir helfen", "wie geht es dir", "wie geht's"),
        *("hast du eine idee", "was meinst du", "ist das ok", "could you please help me"),
    }
)


def find_structure(text: str, most: int = MOST_PARTS) -> Structure | None:
    """The parts of a question, not more than `most`; None when it is one question."""
    if len(text) > LONGEST_ANALYSED:
        return None
    masked = mask(text.replace("\r\n", "\n").strip())
    if masked is None:
        return None
    pasted = find_document(masked.text)
    request = pasted.request if pasted else masked.text
    phrases = phrases_for(request)
    document = masked.restore(pasted.document) if pasted else ""
    if pasted and (found := find_sections(pasted, masked, phrases, most)):
        return found
    return _by_list(masked, request, document, phrases, most) or _by_sentences(
        masked, request, document, phrases, most
    )


def _by_list(
    masked: Masked, request: str, document: str, phrases: Phrases, most: int
) -> Structure | None:
    found = find_enumeration(request)
    if found is None or not _is_asked_for(found):
        return None
    wishes = _wishes([masked.restore(item) for item in found.items], found.before)
    parts = parts_of(
        wishes, phrases, masked.restore(found.before), masked.restore(found.after), document, most
    )
    name = {"number": "numbered", "letter": "lettered", "bullet": "listed"}[found.style]
    return Structure(parts, f"{len(found.items)} {name} items")


def _is_asked_for(found: Enumeration) -> bool:
    """Whether the items are wishes, rather than material that one wish is about."""
    if len(found.before) > _LONGEST_LEAD or len(found.after) > _LONGEST_LEAD:
        return False
    if found.before.endswith(("?", "\uff1f")) or _asks(found.after):
        return False  # `Which of these is best? 1. … 2. …`
    share = sum(is_request(item) for item in found.items) / len(found.items)
    spread = distributes(_last_sentence(found.before))
    if takes_material(found.before):
        return spread and share == 1
    if spread:
        return share == 0 or share >= 0.5
    return share == 1 or (found.style != "bullet" and (share >= 0.6 or _is_foreign(found)))


def _is_foreign(found: Enumeration) -> bool:
    """In a language whose verbs are not known here, a numbered list of phrases is a wish."""
    unknown = language_of(f"{found.before} {' '.join(found.items)}") == "other"
    return unknown and _all_say_something(found.items)


def _all_say_something(items: Sequence[str]) -> bool:
    return all(Sentence(item).words >= _FEWEST_WORDS_IN_QUESTION for item in items)


def _by_sentences(
    masked: Masked, request: str, document: str, phrases: Phrases, most: int
) -> Structure | None:
    if find_enumeration(request) is not None:
        return None  # a list that is material: what is asked about it is one question
    if not document:
        text = masked.restore(request)
        found = find_for_each(text, phrases, most) or find_comparison(text, phrases, most)
        if found:
            return found
    return _by_questions(masked, request, document, phrases, most)


def _by_questions(
    masked: Masked, request: str, document: str, phrases: Phrases, most: int
) -> Structure | None:
    if sum(Sentence(line).words for line in request.split("\n")) < _FEWEST_WORDS:
        return None
    before, questions, after = _questions(sentences(request))
    if len(questions) < 2 or _is_material(before, questions, after):
        return None
    wishes = _wishes([masked.restore(question) for question in questions], "")
    parts = parts_of(wishes, phrases, masked.restore(before), masked.restore(after), document, most)
    return Structure(parts, f"{len(questions)} questions")


def _questions(found: Sequence[Sentence]) -> tuple[str, list[str], str]:
    """What is said first, the questions with what leads to each, and what is said last."""
    before: list[str] = []
    questions: list[str] = []
    waiting: list[str] = []
    for sentence in found:
        waiting.append(sentence.text)
        if not sentence.is_question:
            continue
        if not questions and not _is_filler(sentence):
            *before, last = waiting
            questions.append(last)
        elif questions and _continues(sentence) and len(waiting) == 1:
            questions[-1] = f"{questions[-1]} {sentence.text}"
        elif not _is_filler(sentence):
            questions.append(" ".join(waiting))
        elif not questions:
            continue
        waiting = []
    return "\n".join(before), questions, "\n".join(waiting)


def _is_material(before: str, questions: Sequence[str], after: str) -> bool:
    """Whether the questions stand in a text that something is to be done with."""
    opening, colon, _ = questions[0].partition(":")
    if takes_material(f"{before}\n{opening if colon else ''}") or _asks(after):
        return True
    if len(after) > _LONGEST_ASIDE:
        return True
    asides = sum(len(question) - len(sentences(question)[-1].text) for question in questions)
    return asides > _LONGEST_ASIDE * 2


def _asks(text: str) -> bool:
    """Whether words after the parts are a wish of their own, not just about style."""
    return any(
        sentence.is_question or (is_imperative(sentence.text) and not _STYLE.match(sentence.text))
        for sentence in sentences(text)
    )


def _is_filler(sentence: Sentence) -> bool:
    return sentence.text.lower().strip(" ?!.,") in _FILLERS


def _continues(sentence: Sentence) -> bool:
    """`Why or why not?`, `And in Berlin?`, `Or is Go better?` belong to the question before."""
    bare = sentence.text.lower().strip(" ?!.,")
    short = sentence.words < _FEWEST_WORDS_IN_QUESTION or bare in _REASONS
    first = sentence.text.split(maxsplit=1)[0].lower().strip(",")
    return short or (first in _CONTINUING_WORDS and sentence.words < 2 * _FEWEST_WORDS_IN_QUESTION)


def _last_sentence(text: str) -> str:
    found = sentences(text)
    return found[-1].text if found else ""


def _wishes(texts: Sequence[str], lead: str) -> list[Wish]:
    """The lead tells the kind where the item is only a name: `Write a function for each:`."""
    kinds = [kind_of(text if is_request(text) else f"{lead} {text}") for text in texts]
    needs = dependencies(texts)
    return [Wish(*wish) for wish in zip(texts, kinds, needs, strict=True)]
