"""Subtasks, models and settings as tests need them."""

from typing import Any
from uuid import UUID, uuid4

from queue_schemas.messages import SubtaskRequest
from queue_schemas.registry import Model

TENANT = UUID(int=1)


def a_subtask(prompt: str = "Why does the wheel turn?", **fields: Any) -> SubtaskRequest:
    """A subtask of the model `mill`; every field can be given."""
    defaults: dict[str, Any] = {
        "request": uuid4(),
        "subtask": uuid4(),
        "attempt": 1,
        "tenant": TENANT,
        "step": "answer",
        "model": "mill",
        "messages": ({"role": "user", "content": prompt},),
        "seed": 7,
        "timeout_seconds": 30.0,
    }
    return SubtaskRequest.model_validate(defaults | fields)


def a_model(provider: str = "scripted", **fields: Any) -> Model:
    """The model `mill`."""
    return Model.model_validate({"name": "mill", "provider": provider} | fields)
