"""Many requests for the console: copies of real ones, spread over weeks.

What is copied was planned, answered and accounted by a running installation, so whatever a page
reads is there and fits together; only identity, times, people, words and models are new.
"""

from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

import asyncpg

DAYS: Final = 30
_CANCELLED_EVERY: Final = 29
_RATED_EVERY: Final = 5
_WORDS: Final = (
    "overshot wheel, head race, tail race, sluice gate, runner stone, bedstone, hopper, damsel, "
    "spur wheel, great gear, millpond, spillway, tentering screw, stone crane, sack hoist, "
    "wind shaft, cap, fantail, rye, spelt"
)

_PEOPLE: Final = (
    "ada bertha carl dora emil frieda gustav hanna ivo jana karl lene max nora otto paula quirin "
    "rosa samuel thea"
)

# Busier by day than by night, and busier lately than long ago.
_COPIES: Final = """
    CREATE TEMP TABLE copies AS
    WITH dealt AS (
        SELECT n, (CAST($1 AS uuid[]))[1 + n % cardinality(CAST($1 AS uuid[]))] AS template,
               random() AS age, random() AS late, random() AS pace
          FROM generate_series(1, CAST($2 AS integer)) n
    )
    SELECT n, template, gen_random_uuid() AS id,
           now() - interval '5 minutes'
               - make_interval(secs => 86400 * $3::float8 * power(age, 1.4))
               - make_interval(secs => 21600 * power(late, 3)) AS at,
           1 + (CAST($8 AS float8) - 1) * power(pace, 2) AS pace,
           (string_to_array($7, ' '))[1 + n / 7 % 20] AS person,
           btrim((string_to_array($4, ','))[1 + n % 20]) AS word,
           (CAST($5 AS text[]))[1 + n % cardinality(CAST($5 AS text[]))] AS model,
           n % CAST($6 AS integer) = 0 AS cancelled
      FROM dealt
"""
_REQUESTS: Final = """
    INSERT INTO millrace.requests
    SELECT made.*
      FROM copies c JOIN millrace.requests r ON r.id = c.template,
           LATERAL jsonb_populate_record(r, jsonb_build_object(
               'id', c.id,
               'end_user', c.person,
               'model', CASE WHEN r.model LIKE 'millrace/%' THEN r.model ELSE c.model END,
               'question', jsonb_set(r.question, '{messages,0,content}', to_jsonb(
                   (r.question #>> '{messages,0,content}') || E'\n(It is about the '
                   || c.word || ', no. ' || c.n || '.)')),
               'plan', replace(r.plan::text, to_jsonb($1::text)::text, to_jsonb(c.model)::text)
                   ::jsonb,
               'state', CASE WHEN c.cancelled THEN 'cancelled' ELSE r.state END,
               'answer', CASE WHEN NOT c.cancelled THEN r.answer END,
               'error', CASE WHEN NOT c.cancelled THEN r.error END,
               'redriven_from', NULL, 'idempotency_key', NULL, 'body_digest', NULL,
               'cache_digest', NULL, 'asked_digest', NULL,
               'created_at', c.at,
               'started_at', c.at + (r.started_at - r.created_at) * c.pace,
               'finished_at', c.at + (r.finished_at - r.created_at) * c.pace,
               'deadline_at', c.at + (r.deadline_at - r.created_at))) AS made
"""
_SUBTASKS: Final = """
    INSERT INTO millrace.subtasks
    SELECT made.*
      FROM copies c
      JOIN millrace.requests r ON r.id = c.template
      JOIN millrace.subtasks s ON s.request_id = c.template,
           LATERAL jsonb_populate_record(s, jsonb_build_object(
               'id', md5(s.id::text || c.n)::uuid,
               'request_id', c.id,
               'model', CASE WHEN s.model = $1 THEN c.model ELSE s.model END,
               'owner', s.tenant_id || '/' || c.person,
               'state', CASE WHEN c.cancelled AND s.position > 0 THEN 'cancelled'
                             ELSE s.state END,
               'first_token_seconds', s.first_token_seconds * c.pace,
               'created_at', c.at + (s.created_at - r.created_at) * c.pace,
               'ready_at', c.at + (s.ready_at - r.created_at) * c.pace,
               'queued_at', c.at + (s.queued_at - r.created_at) * c.pace,
               'started_at', c.at + (s.started_at - r.created_at) * c.pace,
               'finished_at', c.at + (s.finished_at - r.created_at) * c.pace)) AS made
"""
_ATTEMPTS: Final = """
    INSERT INTO millrace.attempts
    SELECT made.*
      FROM copies c
      JOIN millrace.requests r ON r.id = c.template
      JOIN millrace.subtasks s ON s.request_id = c.template
      JOIN millrace.attempts a ON a.subtask_id = s.id,
           LATERAL jsonb_populate_record(a, jsonb_build_object(
               'subtask_id', md5(s.id::text || c.n)::uuid,
               'model', CASE WHEN a.model = $1 THEN c.model ELSE a.model END,
               'engine_seconds', a.engine_seconds * c.pace,
               'first_token_seconds', a.first_token_seconds * c.pace,
               'finished_at', c.at + (a.finished_at - r.created_at) * c.pace)) AS made
     WHERE NOT (c.cancelled AND s.position > 0)
"""
_JUDGEMENTS: Final = """
    INSERT INTO millrace.judgements
           (id, tenant_id, request_id, kind, rater, score, rating, comment, source,
            created_at, updated_at)
    SELECT gen_random_uuid(), r.tenant_id, r.id, 'human', 'user:' || c.person,
           CASE WHEN good THEN 1 ELSE 0 END,
           jsonb_build_object('thumb', CASE WHEN good THEN 1 ELSE -1 END),
           CASE WHEN NOT good THEN 'It does not say how the ' || c.word || ' is looked after.' END,
           'api', r.finished_at + interval '1 minute', r.finished_at + interval '1 minute'
      FROM copies c
      JOIN millrace.requests r ON r.id = c.id,
           LATERAL (SELECT hashtext(c.id::text) % 4 <> 0 AS good) rated
     WHERE r.state = 'completed' AND c.n % $1 < 2
"""
_TABLES: Final = ("requests", "subtasks", "attempts", "judgements")


async def fill(
    database_url: str,
    templates: Mapping[UUID, int],
    count: int,
    *,
    model: str,
    models: Sequence[str],
    slowest: float = 40.0,
) -> None:
    """Store `count` copies of the requests in `templates`, each so often as its weight says.

    They lie in the last 30 days and have ended. Where a copied request named `model`, the copies
    name one of `models`; they take up to `slowest` times as long. It is one transaction.
    """
    dealt = [id_ for id_, weight in templates.items() for _ in range(weight)]
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction():
            values = (dealt, count, float(DAYS), _WORDS, list(models), _CANCELLED_EVERY, _PEOPLE)
            await connection.execute(_COPIES, *values, slowest)
            await connection.execute("ANALYZE copies")
            for statement in (_REQUESTS, _SUBTASKS, _ATTEMPTS):
                await connection.execute(statement, model)
            await connection.execute(_JUDGEMENTS, _RATED_EVERY)
            await connection.execute("DROP TABLE copies")
        for table in _TABLES:  # what autovacuum would do within a minute
            await connection.execute(f"ANALYZE millrace.{table}")
    finally:
        await connection.close()
