"""Summarising a conversation: which exchanges, and the question that is asked about them."""

from collections.abc import Sequence

from master.planning.assign import cheapest_model, generative, role
from master.planning.chat import ChatMessage, estimate_tokens, text_of
from master.planning.language import phrases_for
from master.planning.memory import Exchange, Summary, turns
from master.planning.question import Fleet, Question
from master.planning.quoting import quoted
from queue_schemas.registry import RESERVED_PREFIX, Model, ProviderName

TASK = "conversation_summary"
"""As a background prompt is named, which is what it is."""
_MOST_TOKENS = 600
_SPARE_TOKENS = 400
_LEAST_TOKENS = 200
"""What is shorter is not worth a summary."""
_LONGEST_PIECE = 3000
"""Characters of one message; whoever wants its every word has it in the window."""
_SPEAKERS = {"user": "User", "assistant": "Assistant", "tool": "Tool"}


def summariser(fleet: Fleet) -> Model | None:
    """The model that summarises: the registry's choice, else the cheapest; None if none writes."""
    chosen = role(fleet.registry.roles.summarise, fleet)
    if chosen is None:
        able = generative(fleet.registry.chat_models())
        if all(model.provider is ProviderName.EXTRACTIVE for model in able):
            return None
        chosen = cheapest_model(0, fleet)
    return None if chosen.provider is ProviderName.EXTRACTIVE else chosen


def to_summarise(
    exchanges: Sequence[Exchange], summary: Summary | None, window: int, model: Model
) -> tuple[Exchange, ...]:
    """Those of the exchanges since the last summary that the next one is to cover.

    The newest stay out, half a window of them: so there is one summary for several exchanges. What
    does not fit the model waits for the summary after this one; a turn that no summary has room
    for is shortened.
    """
    found = turns(exchanges)
    keep = max(1, window // 2) if window else 0
    if keep and found:
        keep = max(1, min(keep, found[-1][-1].turns or keep))
    left = _room(summary, model)
    if left < _LEAST_TOKENS:
        return ()
    chosen: list[Exchange] = []
    for turn in found[: len(found) - keep]:
        left -= sum(estimate_tokens(transcript(exchange)) for exchange in turn)
        if left < 0 and chosen:
            break
        chosen.extend(turn)
    return tuple(chosen)


def summary_question(
    exchanges: Sequence[Exchange], summary: Summary | None, model: Model
) -> Question:
    """What the summarising model is asked, within its context."""
    transcripts = [transcript(exchange) for exchange in exchanges]
    room = _room(summary, model)
    if sum(map(estimate_tokens, transcripts)) > room:
        transcripts = [_shortened(text, room // len(transcripts)) for text in transcripts]
    phrases = phrases_for("\n".join(transcripts))
    pieces = [("", summary.text)] if summary else []
    material = quoted("conversation", [*pieces, *(("", text) for text in transcripts)])
    messages: tuple[ChatMessage, ...] = (
        {"role": "system", "content": phrases.summarise},
        {"role": "user", "content": material},
    )
    limits = {"max_tokens": _MOST_TOKENS, "temperature": 0.2}
    return Question(f"{RESERVED_PREFIX}direct", messages, limits, task=TASK)


def _room(summary: Summary | None, model: Model) -> int:
    """Tokens that the context has for exchanges."""
    before = estimate_tokens(summary.text) if summary else 0
    return model.context_length - _MOST_TOKENS - _SPARE_TOKENS - before


def _shortened(text: str, tokens: int) -> str:
    """The beginning and the end of a text, of so many tokens together."""
    shown, length = text, len(text)
    while estimate_tokens(shown) > tokens and length:
        length = length * 3 // 4
        half = length // 2
        shown = f"{text[:half]}\n[…]\n{text[len(text) - half :]}"
    return shown


def transcript(exchange: Exchange) -> str:
    """Who said what, a line or more for each message."""
    spoken = [_spoken(message) for message in exchange.said]
    return "\n".join(line for line in spoken if line)


def _spoken(message: ChatMessage) -> str:
    text = text_of(message).strip()
    if len(text) > _LONGEST_PIECE:
        text = f"{text[:_LONGEST_PIECE]} […]"
    speaker = _SPEAKERS.get(str(message.get("role")), "System")
    return f"{speaker}: {text}" if text else ""
