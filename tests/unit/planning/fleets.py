"""Fleets and questions that the planning tests share."""

from pydantic import JsonValue

from master.planning.question import Fleet, Question
from queue_schemas.registry import Capability, Model, Price, ProviderName, Registry, Roles

SMALL, CODER, QUOTER = "llama3.1:8b", "codellama:34b-instruct", "extractive"


def small(**fields: object) -> Model:
    chat = {Capability.CHAT, Capability.SUMMARY, Capability.REASONING}
    return Model.model_validate(
        {
            "name": SMALL,
            "provider": "ollama",
            "capabilities": chat,
            "slots": 2,
            "max_workers": 4,
            "gpu_memory_gib": 6,
            **fields,
        }
    )


def coder(**fields: object) -> Model:
    return Model.model_validate(
        {
            "name": CODER,
            "provider": "ollama",
            "capabilities": {Capability.CHAT, Capability.CODE},
            "context_length": 16384,
            "max_workers": 2,
            "gpu_memory_gib": 20,
            "price": Price(prompt=1, completion=1),
            **fields,
        }
    )


QUOTING = Model(name=QUOTER, provider=ProviderName.EXTRACTIVE)
EMBEDDING = Model(
    name="nomic-embed-text",
    provider=ProviderName.OLLAMA,
    capabilities=frozenset({Capability.EMBEDDING}),
)


def fleet(*models: Model, **known: object) -> Fleet:
    roles = Roles.model_validate(known.pop("roles", {}))
    chosen = models or (small(), coder(), EMBEDDING)
    known.setdefault("free_slots", {model.name: 4 for model in chosen if model.chats})
    return Fleet(Registry(models=chosen, roles=roles), **known)  # type: ignore[arg-type]


def question(
    text: str,
    model: str = "millrace/split",
    *before: dict[str, JsonValue],
    task: str | None = None,
    stream: bool = False,
    **parameters: JsonValue,
) -> Question:
    messages = (*before, {"role": "user", "content": text})
    return Question(model, messages, parameters, stream=stream, task=task)
