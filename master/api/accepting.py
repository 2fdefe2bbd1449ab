"""What the routes that take a question share: accept it, or say why not."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pydantic import JsonValue

from master.api import conversing, errors, outages, retrieving
from master.planning.chat import estimate_chat_tokens
from master.planning.question import Question
from master.planning.strategies import UnknownModel, named
from master.running import Running
from master.submit import Accepted, Asker, BrokerAway, Terms, TooBusy, submit


async def accept(
    master: Running, question: Question, who: Asker, terms: Terms | None = None
) -> Accepted:
    """Commit a question. Raises `ApiError` with nothing stored."""
    check_length(master, question.model, question.messages, question.parameters)
    question = named(question)
    if question.remembered is not None:
        terms = replace(terms or Terms(), conversation=question.remembered.conversation)
    collection = question.retrieval.collection if question.retrieval else ""
    try:
        with outages.answered(), retrieving.answered(collection), conversing.answered():
            return await submit(master.submission, question, who, terms)
    except UnknownModel as unknown:
        raise errors.model_not_found(unknown.name, unknown.available) from None
    except TooBusy as busy:
        raise errors.queue_full(busy.model, busy.wait_seconds) from None
    except BrokerAway:
        raise errors.service_unavailable("the message broker does not answer") from None


def check_length(
    master: Running,
    name: str,
    messages: Sequence[Mapping[str, JsonValue]],
    parameters: Mapping[str, JsonValue],
) -> None:
    """Refuse what cannot fit, rather than let an engine cut it silently."""
    model = master.registry().get(name)
    if model is None:
        return
    prompt = estimate_chat_tokens(messages)
    wanted = parameters.get("max_completion_tokens") or parameters.get("max_tokens")
    answer = wanted if isinstance(wanted, int) else 0
    if prompt + answer > model.context_length:
        raise errors.context_length_exceeded(model.context_length, prompt, answer)
