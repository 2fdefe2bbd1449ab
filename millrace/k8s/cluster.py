"""`cluster.yaml`: what an overlay's cluster has, with errors that name the line and the field."""

import difflib
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from millrace import yaml_nodes
from millrace.k8s.problems import Unfit
from millrace.problems import one_line, reason

LONGEST_STABILISATION_SECONDS = 3600
"""What an autoscaler takes as `stabilizationWindowSeconds`."""

_LARGEST_BYTES = 1_000_000
_PLAIN = {
    "missing": "is missing",
    "model_type": "must be a mapping of `key: value` lines",
    "dict_type": "must be a mapping of `key: value` lines",
    "tuple_type": "must be a list",
}
_Label = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
_MOST = 1_000_000
_Positive = Annotated[int, Field(ge=1, le=_MOST, strict=True)]
_NAME = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_LABEL_KEY = re.compile(rf"([a-z0-9]([a-z0-9.-]{{0,251}}[a-z0-9])?/)?{_NAME}")
_LABEL_VALUE = re.compile(rf"({_NAME})?")


class Engine(StrEnum):
    """Where inference engines run."""

    OLLAMA = "ollama"
    """Beside each worker, in its pod."""
    LLAMA_SERVER = "llama-server"
    """Beside each worker, in its pod: llama.cpp's server, one GGUF file for each model."""
    OUTSIDE = "outside"
    """Nowhere in the cluster, or not ours: at the endpoint of each entry."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Toleration(_Strict):
    """As Kubernetes spells it."""

    key: str | None = None
    operator: Literal["Equal", "Exists"] | None = None
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    tolerationSeconds: int | None = Field(default=None, strict=True)  # noqa: N815  Kubernetes' name


class Storage(_Strict):
    """What holds the weights of a pool's models."""

    class_: str | None = Field(
        default=None,
        alias="class",
        pattern=r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$",
        description="None: the default class.",
    )
    access: Literal["ReadWriteOnce", "ReadWriteMany"] = "ReadWriteOnce"
    gib: _Positive = 100


class Pool(_Strict):
    """Nodes on which some models run. One volume for their weights belongs to it."""

    name: Annotated[_Label, Field(max_length=30)]
    node_selector: dict[str, str] = Field(default_factory=dict)
    gpus: Annotated[int, Field(ge=0, le=_MOST, strict=True)] = Field(
        default=0, description="Of all its nodes together; 0: it computes on CPUs."
    )
    slices: _Positive = Field(default=1, description="Time slices of each GPU; 1: no sharing.")
    memory_gib: float = Field(
        gt=0, strict=True, description="Of one GPU; of a pool of CPUs, what all models may take."
    )
    models: tuple[str, ...] | None = Field(
        default=None, description="None, in one pool at most: all that no other pool names."
    )

    @field_validator("node_selector")
    @classmethod
    def _labels(cls, selector: dict[str, str]) -> dict[str, str]:
        for key, value in selector.items():
            if not _LABEL_KEY.fullmatch(key):
                raise ValueError(f"{key!r} is no key of a label")
            if not _LABEL_VALUE.fullmatch(value):
                raise ValueError(f"{value!r} is no value of a label")
        return selector

    @model_validator(mode="after")
    def _slices_of_something(self) -> Self:
        if self.slices > 1 and not self.gpus:
            raise ValueError("slices are of GPUs, and gpus is 0")
        return self


class Cluster(_Strict):
    """All of a `cluster.yaml`."""

    engine: Engine
    runtime_class: _Label | None = Field(default=None, description="Of pods that need a GPU.")
    tolerations: tuple[Toleration, ...] = ()
    storage: Storage = Storage()
    scale_down_seconds: int = Field(
        default=300, ge=0, le=LONGEST_STABILISATION_SECONDS, strict=True
    )
    pools: tuple[Pool, ...] = ()

    @model_validator(mode="after")
    def _pools_are_told_apart(self) -> Self:
        names = [pool.name for pool in self.pools]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two pools have the name {name!r}")
        rest = [pool.name for pool in self.pools if pool.models is None]
        if len(rest) > 1:
            raise ValueError(
                f"only one pool may be without `models`, to take the rest: {', '.join(rest)}"
            )
        if self.engine is Engine.OUTSIDE and self.pools:
            raise ValueError("pools say where engines run, and engine is `outside`: leave them out")
        if self.engine is not Engine.OUTSIDE and not self.pools:
            raise ValueError(f"engine `{self.engine}` needs pools to run in")
        return self


def load(path: Path) -> Cluster:
    """The cluster in this file. Raises `Unfit`."""
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise Unfit([f"{path}: larger than {_LARGEST_BYTES:,} bytes"])
        return parse(path.read_text(encoding="utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise Unfit([f"{path}: not UTF-8 text (byte {error.start})"]) from error
    except OSError as error:
        raise Unfit([f"{path}: {reason(error)}"]) from error


def parse(text: str, name: str) -> Cluster:
    """The cluster in this text; `name` stands for the file in errors. Raises `Unfit`."""
    try:
        document = yaml_nodes.parse(text)
    except yaml_nodes.YamlError as error:
        raise Unfit([f"{name}:{error.line}: {one_line(error.message)}"]) from error
    if document.value is None:
        raise Unfit([f"{name}: the file is empty; it needs at least `engine:`"])
    try:
        return Cluster.model_validate(document.value)
    except ValidationError as error:
        found = sorted(_located(name, document, one) for one in error.errors(include_url=False))
        raise Unfit([text for _, text in found]) from error


def _located(name: str, document: yaml_nodes.Document, error: Mapping[str, Any]) -> tuple[int, str]:
    path = tuple(error["loc"])
    line = document.line(path)
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    where = f"{field.lstrip('.')}: " if field else ""
    return line, one_line(f"{name}:{line}: {where}{_message(error)}")


def _message(error: Mapping[str, Any]) -> str:
    kind, path = error["type"], error["loc"]
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(str(path[-1]), _fields_at(path[:-1]), n=1)
        return "unknown key" + (f"; did you mean {near[0]!r}?" if near else "")
    if kind in _PLAIN:
        return _PLAIN[kind]
    said = str(error["msg"]).removeprefix("Value error, ")
    if said.startswith("Input should be"):
        return f"must be{said.removeprefix('Input should be')}, not {error['input']!r}"
    return said


def _fields_at(path: tuple[int | str, ...]) -> list[str]:
    kinds: dict[str, type[BaseModel]] = {
        "pools": Pool,
        "storage": Storage,
        "tolerations": Toleration,
    }
    fields = (kinds.get(str(path[0]), Cluster) if path else Cluster).model_fields
    return [field.alias or name for name, field in fields.items()]
