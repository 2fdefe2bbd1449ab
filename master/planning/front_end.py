"""Recognising a front end's background prompts: titles, tags, follow-ups, queries and the like.

The template header (`Question.task`) decides where it is set up. Without it, marks of Open
WebUI's stock templates do, and only for what those prompts always are: not streamed, no tools.
`### Task:` is no mark, because questions with an attached file begin with it too.
"""

from collections.abc import Mapping

from master.planning.assign import cheapest_model, default_model, output_limit, role
from master.planning.chat import estimate_chat_tokens, text_of
from master.planning.direct import direct_plan
from master.planning.plan import Plan, StepKind
from master.planning.question import Fleet, Question
from master.planning.summary import TASK as SUMMARY
from master.planning.summary import summariser
from queue_schemas.registry import Model

MERGES_ANSWERS = "moa_response_generation"
_HISTORY = "<chat_history>"
_MARKS: Mapping[str, tuple[str, ...]] = {
    # Before the others: it also quotes a chat history.
    "autocomplete_generation": ("autocompletion system", "<type>", "<text>"),
    "title_generation": (_HISTORY, '"title":'),
    "tags_generation": (_HISTORY, '"tags":'),
    "follow_up_generation": (_HISTORY, '"follow_ups":'),
    "query_generation": (_HISTORY, '"queries":'),
    "image_prompt_generation": (_HISTORY, '"prompt":'),
    "emoji_generation": ("facial expression", "fitting emoji"),
    MERGES_ANSWERS: ("responses from various models", "responses from models:"),
    "context_compaction": ("### previous summary:", "### messages being compacted:"),
}
_SYSTEM_MARKS: Mapping[str, tuple[str, ...]] = {
    "memory_review": ("private memory reviewer",),
    "function_calling": ("available tools:", "parameters", "json object"),
}
_MOST_EXPECTED_TOKENS = 1000


def background_task(question: Question) -> str | None:
    """The name of the background prompt; None for a person's question."""
    if question.task:
        return question.task
    if question.remembered is not None:  # those are asked in no conversation
        return None
    messages, given = question.messages, question.parameters
    if not messages or given.get("tools") or question.stream or messages[-1]["role"] != "user":
        return None
    if len(messages) == 1 and (found := _marked(text_of(messages[0]), _MARKS)):
        return found
    system = "\n".join(text_of(message) for message in messages if message["role"] == "system")
    return _marked(system, _SYSTEM_MARKS)


def task_plan(question: Question, task: str, fleet: Fleet) -> Plan:
    """Never split, and to the cheapest model; merging answers is for a person to read."""
    model = _model(question, task, fleet)
    name = task.replace("_", " ")[:60]
    reason = f"A background prompt of the front end ({name}): answered by {model.name}."
    return direct_plan(question, model, reason, kind=StepKind.TASK)


def _model(question: Question, task: str, fleet: Fleet) -> Model:
    roles = fleet.registry.roles
    if task == MERGES_ANSWERS:
        return role(roles.synthesis, fleet) or default_model(question, fleet)
    if task == SUMMARY and (model := summariser(fleet)):
        return model
    tokens = estimate_chat_tokens(question.messages)
    cheap = cheapest_model(tokens, fleet)
    expected = min(output_limit(question.parameters, cheap), _MOST_EXPECTED_TOKENS)
    return role(roles.task, fleet) or cheapest_model(tokens + expected, fleet)


def _marked(text: str, marks: Mapping[str, tuple[str, ...]]) -> str | None:
    lowered = text.lower()
    return next((task for task, words in marks.items() if all(w in lowered for w in words)), None)
