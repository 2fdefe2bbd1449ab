"""What `/v1/rules` takes and answers. Pure."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    ValidationError,
)
from pydantic_core import to_json

from db.rules import NewRule, StoredRule
from master.api.bodies import refusal
from master.api.chat_schema import REFUSED
from master.rules.rule import (
    RULE_NAME,
    PromptChange,
    RetrievalChange,
    RouteChange,
    RuleKind,
    Scope,
    SplitChange,
)
from master.rules.trial import Decision, Verdict
from queue_schemas.states import RuleState

MOST_VERSIONS = 100
"""Of a name that are listed with a rule."""

_NO_KIND = f"must be one of {', '.join(RuleKind)}"
_Body = TypeVar("_Body", bound=BaseModel)
_Note = Annotated[str, Field(max_length=2_000)]
_User = Annotated[str, Field(max_length=512)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _tag(value: object) -> str | None:
    kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return f"<{kind}>" if isinstance(kind, str) and kind in set(RuleKind) else None


_Change = Annotated[
    Annotated[PromptChange, Tag("<prompt>")]
    | Annotated[RouteChange, Tag("<route>")]
    | Annotated[SplitChange, Tag("<split>")]
    | Annotated[RetrievalChange, Tag("<retrieval>")],
    Discriminator(
        _tag,
        custom_error_type=REFUSED,
        custom_error_message="{words}",
        custom_error_context={"words": _NO_KIND, "field": "kind"},
    ),
]


class Provenance(_Strict):
    """What a proposal rests on."""

    feedback: tuple[UUID, ...] = Field(
        default=(), max_length=100, description="Judgements, as `/v1/feedback` names them."
    )
    workflow: str | None = Field(default=None, min_length=1, max_length=200)


class RuleRequest(_Strict):
    """A rule that is proposed: the next version of its name. It changes nothing yet."""

    name: str = Field(pattern=RULE_NAME)
    scope: Scope = Field(default=Scope(), description="Where it holds; `{}`: everywhere.")
    change: _Change
    provenance: Provenance = Provenance()
    note: _Note | None = Field(default=None, description="Why.")
    user: _User | None = Field(
        default=None, description="Who says so, where no header of the front end does."
    )


class RuleDecision(_Strict):
    """Who decides, and why."""

    note: _Note | None = None
    user: _User | None = None


class RuleTrial(RuleDecision):
    """How a rule is tried."""

    share: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Of the questions that fit, for which it holds; none: it is only counted.",
    )


class RuleRollback(RuleDecision):
    """Which version is to hold again."""

    version: int | None = Field(
        default=None,
        ge=0,
        le=2**31 - 1,
        description="None: the one that was active before, if any; 0: none at all.",
    )


class RuleRecord(BaseModel):
    """One version of a rule."""

    id: str = Field(description="Of the version.")
    object: Literal["rule"]
    name: str
    version: int
    kind: RuleKind
    state: RuleState
    scope: dict[str, Any]
    change: dict[str, Any]
    share: float | None = Field(description="Of the questions that fit, while it is on trial.")
    measured: bool = Field(description="A measured lift made it active.")
    parent: str | None = Field(description="The version that it was made from.")
    provenance: dict[str, Any]
    note: str | None
    decided_by: str | None = Field(description="`user:<id>`, `key:<name> (<prefix>)`, or a trial.")
    decided_at: str | None
    created_at: str
    changed_at: str


class TrialSide(BaseModel):
    """What people said of answers with a rule, or without it."""

    given: int = Field(description="Votes as they came.")
    votes: int = Field(description="Counted: three of one rater at most.")
    raters: int
    mean: float = Field(description="0 to 1; each rater's mean, weighed with its votes.")


class TrialRecord(BaseModel):
    """How answers with a rule compare with those of its control group by now."""

    verdict: Verdict
    tried: TrialSide
    control: TrialSide
    evidence: float
    needed: float = Field(description="Evidence that decides on the side where the lift is.")
    reason: str = Field(description="The same as a sentence.")


class RuleWithHistory(RuleRecord):
    """A version, and all versions of its name."""

    trial: TrialRecord | None = Field(
        description="Of a canary, and of an active version with a control group."
    )
    history: list[RuleRecord] = Field(description="The newest first, at most a hundred.")


class RuleList(BaseModel):
    """`GET /v1/rules`."""

    object: Literal["list"]
    data: list[RuleRecord]
    has_more: bool = Field(description="There are more than are listed.")


class ChangedRules(BaseModel):
    """What a rollback moved: the version that is active now, if any, and the one that was."""

    object: Literal["list"]
    data: list[RuleRecord]


def read(model: type[_Body], raw: Mapping[str, JsonValue]) -> _Body:
    """A body as this model, every value of the type that JSON has for it. Raises 400."""
    try:
        return model.model_validate_json(to_json(raw), strict=True)
    except ValidationError as error:
        raise refusal(error) from None


def new_rule(body: RuleRequest, by: str) -> NewRule:
    """What is stored of a proposal: only what was said."""
    return NewRule(
        name=body.name,
        kind=body.change.kind,
        scope=_said(body.scope),
        change=_said(body.change),
        provenance={"by": by, **_said(body.provenance)},
        note=body.note or None,
    )


def _said(model: BaseModel) -> dict[str, Any]:
    given = model.model_dump(mode="json", exclude_none=True)
    return {name: value for name, value in given.items() if value != []}


def trial_record(found: Decision | None) -> dict[str, Any] | None:
    """How a trial stands, as clients see it."""
    return {**asdict(found), "reason": found.reason} if found else None


def rule_record(stored: StoredRule) -> dict[str, Any]:
    """A version as clients see it."""
    decided = stored.decided_at
    return {
        "id": str(stored.id),
        "object": "rule",
        "name": stored.name,
        "version": stored.version,
        "kind": stored.kind,
        "state": stored.state.value,
        "scope": dict(stored.scope),
        "change": dict(stored.change),
        "share": stored.share,
        "measured": stored.measured,
        "parent": str(stored.parent) if stored.parent else None,
        "provenance": dict(stored.provenance),
        "note": stored.note,
        "decided_by": stored.decided_by,
        "decided_at": decided.isoformat() if decided else None,
        "created_at": stored.created_at.isoformat(),
        "changed_at": stored.changed_at.isoformat(),
    }
