"""Lists of a tenant's requests, newest first, without anything that is long."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from queue_schemas.states import REQUEST_TERMINAL, RequestState

OPEN = frozenset(RequestState) - REQUEST_TERMINAL
UNANSWERED = REQUEST_TERMINAL - {RequestState.COMPLETED, RequestState.CANCELLED}
"""Ended without an answer, not for their client's sake."""
LONGEST_QUESTION = 200
"""Characters of a question's first line."""
SEARCH_SECONDS = 3.0
"""What no index has may be looked for so long."""
_TOO_LONG = "57014"


class TooMany(Exception):
    """There was not enough time to look for this in so many requests."""


@dataclass(frozen=True)
class Filter:
    """Which requests; what is None or empty lets all of them through."""

    states: Collection[RequestState] = ()
    beginning: str = ""
    """How the id begins: hexadecimal, without hyphens."""
    ids: Sequence[UUID] = ()
    strategy: str | None = None
    model: str | None = None
    """As the client named it."""
    end_user: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    """Those from then on are left out."""
    words: Sequence[str] = ()
    """All of them are in the question, apart from documents that came with it."""

    @property
    def is_unindexed(self) -> bool:
        """Whether requests are read until enough of them pass, which may be all there are."""
        return bool(self.words or self.strategy or self.model or self.end_user)


@dataclass(frozen=True)
class ListedRequest:
    """A request as a list shows it."""

    id: UUID
    model: str
    end_user: str | None
    state: RequestState
    strategy: str
    question: str | None
    """Its first line, without documents that came with it, or what a front end's background prompt
    is for. None where it was deleted."""
    error: str | None
    """Its code."""
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    seconds: float
    """From its beginning to its end, or until now, by the database's clock."""
    subtasks: int
    ended: int
    """Subtasks that have ended, however."""
    tokens: int
    """Of all its executions that have ended."""
    task: str | None
    """A front end's background prompt, by its name."""
    score: float | None
    """0 to 1: what a person gave the answer last."""


# The page is cut before anything is counted. Ids are compared as a range, so that the beginning of
# one is found by the primary key.
_LISTED = """
    WITH page AS MATERIALIZED (
        SELECT id, model, end_user, state, plan ->> 'strategy' AS strategy, question,
               error ->> 'code' AS error, created_at, started_at, finished_at
          FROM millrace.requests
         WHERE tenant_id = :tenant {where}
         ORDER BY created_at DESC, id DESC LIMIT :limit)
    SELECT p.id, p.model, p.end_user, p.state, p.strategy, p.error, p.created_at, p.started_at,
           p.finished_at, s.subtasks, s.ended, coalesce(t.tokens, 0) AS tokens, j.score,
           coalesce(p.question ->> 'task', p.question ->> 'recognised') AS task,
           extract(epoch FROM coalesce(p.finished_at, now()) - p.created_at)::float8 AS seconds,
           CASE WHEN p.question -> 'hidden' IS NULL THEN left(split_part(ltrim(
                    coalesce(p.question ->> 'asked', u.content ->> 'text', u.content #>> '{{}}'),
                    E' \\n\\r\\t'), E'\\n', 1), :longest) END AS question
      FROM page p
     CROSS JOIN LATERAL (
           SELECT count(*) AS subtasks, count(finished_at) AS ended
             FROM millrace.subtasks WHERE request_id = p.id) s
     CROSS JOIN LATERAL (
           SELECT sum(a.prompt_tokens + a.completion_tokens) AS tokens
             FROM millrace.subtasks x JOIN millrace.attempts a ON a.subtask_id = x.id
            WHERE x.request_id = p.id) t
      LEFT JOIN LATERAL (
           SELECT score FROM millrace.judgements
            WHERE request_id = p.id AND kind = 'human' AND subject = '' AND score IS NOT NULL
            ORDER BY updated_at DESC LIMIT 1) j ON true
      LEFT JOIN LATERAL (
           SELECT CASE jsonb_typeof(m.said -> 'content') WHEN 'array'
                       THEN jsonb_path_query_first(m.said, '$.content[*] ? (@.type == "text")')
                       ELSE m.said -> 'content' END AS content
             FROM jsonb_array_elements(CASE jsonb_typeof(p.question -> 'messages') WHEN 'array'
                       THEN p.question -> 'messages' ELSE '[]' END)
                  WITH ORDINALITY AS m(said, place)
            WHERE m.said ->> 'role' = 'user' ORDER BY m.place DESC LIMIT 1) u ON true
     ORDER BY p.created_at DESC, p.id DESC
"""


_ERRED = REQUEST_TERMINAL - {RequestState.COMPLETED}
# Submit stores what was asked where the last message has documents as well.
_SAID = """coalesce(question ->> 'asked',
            jsonb_path_query_array(question, '$.messages[*] ? (@.role == "user")')
            -> -1 ->> 'content')"""
# Newest first, each looked at on the way: otherwise all are read and sorted before the first is
# shown, since nobody knows how many have a word.
_SEARCH = text("""
    SELECT set_config('statement_timeout', :wait, true), set_config('enable_seqscan', 'off', true),
           set_config('enable_bitmapscan', 'off', true)
""")


async def listed(
    connection: AsyncConnection,
    tenant: UUID,
    limit: int,
    which: Filter | None = None,
    after: tuple[datetime, UUID] | None = None,
) -> list[ListedRequest]:
    """Requests of a tenant that pass, below this place. Raises `TooMany` if `is_unindexed`."""
    which = which or Filter()
    wanted = [*_equal(which), *_indexed(which), *_spoken(which)]
    if after:
        wanted.append(("(created_at, id) < (:at, :id)", {"at": after[0], "id": after[1]}))
    values: dict[str, Any] = {"tenant": tenant, "limit": limit, "longest": LONGEST_QUESTION}
    for _, more in wanted:
        values |= more
    query = _LISTED.format(where="".join(f" AND {sql}" for sql, _ in wanted))
    if which.is_unindexed:
        await connection.execute(_SEARCH, {"wait": f"{SEARCH_SECONDS * 1000:.0f}"})
    try:
        rows = (await connection.execute(text(query), values)).mappings()
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _TOO_LONG:
            raise
        raise TooMany from error
    return [_listed(dict(row)) for row in rows]


def _listed(row: Mapping[str, Any]) -> ListedRequest:
    task, question = row["task"], row["question"]
    if task and question is not None:
        question = str(task).replace("_", " ").capitalize()[:LONGEST_QUESTION]
    return ListedRequest(**{**row, "state": RequestState(row["state"]), "question": question})


_Condition = tuple[str, dict[str, Any]]
"""SQL of ours, with the values for it."""


def _equal(which: Filter) -> list[_Condition]:
    compared = {
        "strategy": "plan ->> 'strategy' = :strategy",
        "model": "model = :model",
        "end_user": "end_user = :end_user",
        "since": "created_at >= :since",
        "until": "created_at < :until",
    }
    return [
        (sql, {name: getattr(which, name)})
        for name, sql in compared.items()
        if getattr(which, name) is not None
    ]


def _indexed(which: Filter) -> list[_Condition]:
    """What is said of states is said again by what an index has.

    One on the state itself would be written at every move.
    """
    found: list[_Condition] = []
    if which.states:
        found.append(("state = ANY(:states)", {"states": sorted(which.states)}))
        if OPEN.issuperset(which.states):
            found.append(("finished_at IS NULL", {}))
        elif _ERRED.issuperset(which.states):
            found.append(("error IS NOT NULL", {}))
    if which.ids:
        found.append(("id = ANY(:ids)", {"ids": list(which.ids)}))
    if which.beginning:
        ends = {name: UUID(which.beginning.ljust(32, fill)) for name, fill in _ENDS.items()}
        found.append(("id BETWEEN :least AND :most", ends))
    return found


_ENDS = {"least": "0", "most": "f"}


def _spoken(which: Filter) -> list[_Condition]:
    found: list[_Condition] = [
        (f"{_SAID} ILIKE :word_{number}", {f"word_{number}": f"%{_literally(word)}%"})
        for number, word in enumerate(which.words)
    ]
    return [("question -> 'hidden' IS NULL", {}), *found] if found else []


def _literally(word: str) -> str:
    return word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


async def place(
    connection: AsyncConnection, tenant: UUID, request: UUID
) -> tuple[datetime, UUID] | None:
    """Where a request of this tenant stands in its list; None: it has no such request."""
    query = text("SELECT created_at FROM millrace.requests WHERE id = :id AND tenant_id = :tenant")
    at = await connection.scalar(query, {"id": request, "tenant": tenant})
    return (at, request) if at else None
