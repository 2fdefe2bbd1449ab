"""what judgements add up to, and who may propose"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# All functions run as the owner, whom no policy keeps from requests. So each asks for the tenant
# itself: those for tenants take it from the transaction, those for workflows from their caller.

# By request, kind and rater: what was said of the answer as a whole, else the mean of its parts.
# Of people, who asked has the one vote on an answer, or few could make up many names for one. Where
# nobody is known to have asked, all who say something are one rater, and have one vote together.
_RULE_VOTES = """
CREATE FUNCTION millrace.rule_votes(rule uuid, since timestamptz DEFAULT '-infinity')
RETURNS TABLE (judgement uuid, kind text, rater text, arm text, score double precision)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, millrace, pg_temp
AS $$
WITH said AS (
    SELECT j.id, j.request_id, j.kind, j.rater AS said_by, j.subject, j.score,
           CASE j.kind WHEN 'human' THEN 'user:' || coalesce(q.end_user, '') ELSE j.rater END
               AS rater,
           jsonb_path_query_first(q.plan, '$.rules[*] ? (@.id == $rule).arm',
                                  jsonb_build_object('rule', rule)) #>> '{}' AS arm
      FROM judgements j JOIN requests q ON q.id = j.request_id
     WHERE j.tenant_id = nullif(current_setting('millrace.tenant', true), '')::uuid
       AND j.updated_at >= since AND q.created_at >= since
       AND j.kind IN ('check', 'choice', 'human', 'review') AND j.score IS NOT NULL
       AND (j.kind <> 'human' OR coalesce(q.end_user, '') = '' OR j.rater = 'user:' || q.end_user)
), votes AS (
    SELECT request_id, kind, rater, arm, (array_agg(id ORDER BY subject))[1] AS id,
           coalesce(max(score) FILTER (WHERE subject = ''), avg(score)) AS score
      FROM said WHERE arm IS NOT NULL GROUP BY request_id, kind, rater, arm, said_by
)
SELECT (array_agg(id ORDER BY id))[1], kind, rater, arm, avg(score)
  FROM votes GROUP BY request_id, kind, rater, arm
$$
"""

_RULE_QUESTIONS = """
CREATE FUNCTION millrace.rule_questions(since timestamptz, most integer)
RETURNS TABLE (rule uuid, arm text, questions bigint)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, millrace, pg_temp
AS $$
SELECT (u ->> 'id')::uuid, u ->> 'arm', count(*)
  FROM (SELECT jsonb_path_query_array(q.plan, '$.rules[*]') AS rules
          FROM requests q
         WHERE q.tenant_id = nullif(current_setting('millrace.tenant', true), '')::uuid
           AND q.created_at >= since
         ORDER BY q.created_at DESC LIMIT most) r
 CROSS JOIN LATERAL jsonb_array_elements(r.rules) u
 GROUP BY 1, 2
$$
"""

# The strategy that a client asked for; `direct` is a model's own name.
_ASKED_FOR = """
CREATE FUNCTION millrace.asked_for(model text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN CASE WHEN starts_with(model, 'millrace/')
            THEN split_part(substr(model, 10), ':', 1) ELSE 'direct' END
"""

# What was asked for, and what came of it; without a rule all requests count, with one those that it
# fitted. A rater's votes count as their mean, three times at most, or one person could speak for
# all.
_ROLLUP = """
CREATE FUNCTION millrace.rollup(of_tenant uuid, since interval)
RETURNS TABLE (
    tenant_id uuid, asked text, strategy text, kind text, model text,
    rule_id uuid, rule_name text, rule_version integer, arm text,
    requests bigint, judged bigint, votes bigint, mean_score double precision, raters bigint,
    stops bigint, retries bigint, p50_seconds double precision,
    prompt_tokens bigint, completion_tokens bigint)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, millrace, pg_temp
AS $$
WITH ended AS MATERIALIZED (
    SELECT q.id, q.tenant_id, asked_for(q.model) AS asked, coalesce(p.strategy, '') AS strategy,
           coalesce(p.chosen, '') AS chosen,
           jsonb_path_query_array(p.rules, '$[*]') AS rules
      FROM requests q
     CROSS JOIN LATERAL jsonb_to_record(
               CASE jsonb_typeof(q.plan) WHEN 'object' THEN q.plan ELSE '{}' END)
           AS p(strategy text, chosen text, rules jsonb)
     WHERE q.finished_at IS NOT NULL AND q.created_at > now() - since
       AND (of_tenant IS NULL OR q.tenant_id = of_tenant)
), said AS MATERIALIZED (
    SELECT j.request_id, j.kind, j.rater, j.subject, j.score
      FROM judgements j JOIN ended e ON e.id = j.request_id
     WHERE j.kind IN ('human', 'retry', 'stop')
), marks AS (
    SELECT request_id, bool_or(kind = 'stop') AS stopped, bool_or(kind = 'retry') AS retried
      FROM said GROUP BY 1
), steps AS MATERIALIZED (
    SELECT e.id AS request, e.tenant_id, e.asked, e.strategy, e.chosen, e.rules,
           s.id AS subtask, s.step, s.kind, s.model, m.stopped, m.retried,
           CASE s.state WHEN 'succeeded'
                THEN extract(epoch FROM s.finished_at - s.started_at)::float8 END AS seconds,
           t.prompt_tokens, t.completion_tokens
      FROM ended e
      JOIN subtasks s ON s.request_id = e.id
      LEFT JOIN marks m ON m.request_id = e.id
     CROSS JOIN LATERAL (
           SELECT sum(a.prompt_tokens) AS prompt_tokens,
                  sum(a.completion_tokens) AS completion_tokens
             FROM attempts a WHERE a.subtask_id = s.id) t
), grains AS MATERIALIZED (
    SELECT tenant_id, asked, strategy, kind, model, request, subtask, step, chosen, stopped,
           retried, seconds, prompt_tokens, completion_tokens,
           '' AS rule_id, '' AS rule_name, 0 AS rule_version, '' AS arm
      FROM steps
    UNION ALL
    SELECT tenant_id, asked, strategy, kind, model, request, subtask, step, chosen, stopped,
           retried, seconds, prompt_tokens, completion_tokens,
           coalesce(u ->> 'id', ''), coalesce(u ->> 'name', ''),
           coalesce((u ->> 'version')::integer, 0), coalesce(u ->> 'arm', '')
      FROM steps CROSS JOIN LATERAL jsonb_array_elements(rules) u
), votes AS MATERIALIZED (
    SELECT s.subtask, j.rater,
           coalesce(max(j.score) FILTER (WHERE j.subject = s.step), max(j.score)) AS score
      FROM steps s
      JOIN said j ON j.request_id = s.request
     WHERE j.kind = 'human' AND j.score IS NOT NULL
       AND (j.subject = s.step
            OR j.subject = '' AND (s.kind IN ('answer', 'synthesis') OR s.step = s.chosen))
     GROUP BY 1, 2
), counted AS (
    SELECT g.tenant_id, g.asked, g.strategy, g.kind, g.model,
           g.rule_id, g.rule_name, g.rule_version, g.arm,
           count(DISTINCT g.request) AS requests,
           count(DISTINCT g.request) FILTER (WHERE g.stopped) AS stops,
           count(DISTINCT g.request) FILTER (WHERE g.retried) AS retries,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY g.seconds) AS p50_seconds,
           sum(g.prompt_tokens)::bigint AS prompt_tokens,
           sum(g.completion_tokens)::bigint AS completion_tokens
      FROM grains g GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
), judged AS (
    SELECT g.tenant_id, g.asked, g.strategy, g.kind, g.model,
           g.rule_id, g.rule_name, g.rule_version, g.arm,
           count(DISTINCT g.request) AS judged
      FROM grains g
     WHERE EXISTS (SELECT FROM votes v WHERE v.subtask = g.subtask)
     GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
), by_rater AS (
    SELECT g.tenant_id, g.asked, g.strategy, g.kind, g.model,
           g.rule_id, g.rule_name, g.rule_version, g.arm, v.rater,
           least(count(*), 3) AS votes, avg(v.score) AS mean
      FROM grains g JOIN votes v ON v.subtask = g.subtask
     GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
), scored AS (
    SELECT b.tenant_id, b.asked, b.strategy, b.kind, b.model,
           b.rule_id, b.rule_name, b.rule_version, b.arm,
           sum(b.votes)::bigint AS votes, sum(b.votes * b.mean) / sum(b.votes) AS mean_score,
           count(*) AS raters
      FROM by_rater b GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
)
SELECT tenant_id, asked, strategy, kind, model,
       nullif(rule_id, '')::uuid, nullif(rule_name, ''), nullif(rule_version, 0), nullif(arm, ''),
       requests, coalesce(j.judged, 0), coalesce(s.votes, 0), s.mean_score, coalesce(s.raters, 0),
       stops, retries, p50_seconds, coalesce(prompt_tokens, 0), coalesce(completion_tokens, 0)
  FROM counted
  LEFT JOIN judged j USING (
       tenant_id, asked, strategy, kind, model, rule_id, rule_name, rule_version, arm)
  LEFT JOIN scored s USING (
       tenant_id, asked, strategy, kind, model, rule_id, rule_name, rule_version, arm)
 ORDER BY 1, 2, 3, 4, 5, 7 NULLS FIRST, 8, 9
$$
"""

# Reasons of Open WebUI's page among them. Whole words: `\m` begins one, `\M` ends one.
_COMPLAINTS = {
    "too_long": (r"too (long|verbose|wordy)", "verbose", "rambl", "zu lang", "langatmig"),
    "too_short": (r"too (short|brief)", "being lazy", "not enough detail", "zu kurz", "zu knapp"),
    "not_factual": (
        "not factual",
        r"not (true|correct|right)\M",
        "incorrect",
        "made up",
        "hallucinat",
        r"falsch\M",
        "stimmt nicht",
        "erfunden",
    ),
    "not_followed": (
        "didnt (fully )?follow",
        r"not (fully )?follow(ed|ing)?\M",
        "ignored",
        "not what i asked",
        "thema verfehlt",
        "nicht beantwortet",
    ),
    "style": ("dont like the style", r"tone\M", r"style\M", r"stil\M", r"tonfall\M"),
    "refused": ("refus", "weiger"),
    "wrong_language": ("wrong language", "falsche sprache", "not in (english|german)"),
    "no_sources": (r"no sources?\M", "without (a )?sources?", "keine quelle", "ohne quelle"),
    "unclear": (r"unclear\M", "confus", "hard to (read|understand|follow)", "unverst", "unklar"),
}
_COMPLAINTS_FUNCTION = """
CREATE FUNCTION millrace.complaints(of_tenant uuid, since interval)
RETURNS TABLE (
    tenant_id uuid, asked text, complaint text, votes bigint, raters bigint, judgements uuid[])
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, millrace, pg_temp
AS $$
SELECT s.tenant_id, s.asked, c.complaint, count(DISTINCT s.request_id),
       count(DISTINCT s.rater), (array_agg(s.id ORDER BY s.updated_at DESC, s.id))[:20]
  FROM (SELECT j.id, j.tenant_id, j.request_id, j.rater, j.updated_at,
               asked_for(q.model) AS asked,
               lower(translate(left(concat_ws(' / ', j.reason, j.comment), 1000), '_-''', '  '))
                   AS words
          FROM judgements j JOIN requests q ON q.id = j.request_id
         WHERE j.kind = 'human' AND j.score < 0.5 AND j.updated_at > now() - since
           AND (j.reason IS NOT NULL OR j.comment IS NOT NULL)
           AND (of_tenant IS NULL OR j.tenant_id = of_tenant)) s
  JOIN (VALUES {values}) AS c(complaint, pattern) ON s.words ~ c.pattern
 GROUP BY 1, 2, 3 ORDER BY 1, 2, 4 DESC, 3
$$
"""

# The same bounds as in `master.rules.rule`; a test compares them. Null: nothing is wrong.
_WRONG_RULE = r"""
CREATE FUNCTION millrace.wrong_rule(name text, scope jsonb, change jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    kind CONSTANT text := CASE jsonb_typeof(change) WHEN 'object' THEN change ->> 'kind' END;
    allowed CONSTANT text[] := CASE kind
        WHEN 'prompt' THEN '{kind,text}' WHEN 'route' THEN '{kind,model,strategy}'
        WHEN 'split' THEN '{kind,split,max_parts}'
        WHEN 'retrieval' THEN '{kind,top,candidates}' END;
BEGIN
    IF name IS NULL OR name !~ '^[a-z0-9][a-z0-9._-]{0,63}$' THEN
        RETURN 'name: 1 to 64 of a-z 0-9 . _ -';
    ELSIF allowed IS NULL THEN
        RETURN 'change.kind: prompt, route, split or retrieval';
    ELSIF EXISTS (SELECT FROM jsonb_object_keys(change) k WHERE k <> ALL (allowed)) THEN
        RETURN 'change: only ' || array_to_string(allowed, ', ');
    ELSIF jsonb_typeof(scope) IS DISTINCT FROM 'object' THEN
        RETURN 'scope: an object';
    ELSIF EXISTS (SELECT FROM jsonb_object_keys(scope) k
                   WHERE k NOT IN ('strategy', 'model', 'topic')) THEN
        RETURN 'scope: only strategy, model, topic';
    ELSIF jsonb_typeof(scope -> 'strategy') <> 'string' OR length(scope ->> 'strategy') > 64 THEN
        RETURN 'scope.strategy: at most 64 characters';
    ELSIF jsonb_typeof(scope -> 'model') <> 'string' OR length(scope ->> 'model') > 256 THEN
        RETURN 'scope.model: at most 256 characters';
    ELSIF jsonb_typeof(scope -> 'topic') <> 'array' THEN
        RETURN 'scope.topic: a list';
    ELSIF jsonb_array_length(scope -> 'topic') > 20
       OR EXISTS (SELECT FROM jsonb_array_elements(scope -> 'topic') t
                   WHERE jsonb_typeof(t) <> 'string'
                      OR length(t #>> '{}') NOT BETWEEN 1 AND 100) THEN
        RETURN 'scope.topic: at most 20 texts of 1 to 100 characters';
    END IF;
    RETURN CASE kind
        WHEN 'prompt' THEN
            CASE WHEN jsonb_typeof(change -> 'text') = 'string'
                  AND length(change ->> 'text') BETWEEN 1 AND 2000 THEN NULL
                 ELSE 'change.text: 1 to 2000 characters' END
        WHEN 'route' THEN
            CASE WHEN (change ? 'model') = (change ? 'strategy') THEN
                      'change: a model or a strategy, one of the two'
                 WHEN change ? 'model' AND jsonb_typeof(change -> 'model') = 'string'
                  AND length(change ->> 'model') BETWEEN 1 AND 256 THEN NULL
                 WHEN change ? 'strategy' AND jsonb_typeof(change -> 'strategy') = 'string'
                  AND length(change ->> 'strategy') BETWEEN 1 AND 64 THEN NULL
                 ELSE 'change: a model of 1 to 256 or a strategy of 1 to 64 characters' END
        WHEN 'split' THEN
            CASE WHEN NOT change ?| '{split,max_parts}' THEN 'change: split or max_parts'
                 WHEN change ? 'split' AND jsonb_typeof(change -> 'split') <> 'boolean' THEN
                      'change.split: true or false'
                 WHEN change ? 'max_parts' AND NOT (
                          jsonb_typeof(change -> 'max_parts') = 'number'
                          AND change ->> 'max_parts' ~ '^([2-9]|1[0-6])$') THEN
                      'change.max_parts: 2 to 16' END
        ELSE
            CASE WHEN NOT change ?| '{top,candidates}' THEN 'change: top or candidates'
                 WHEN change ? 'top' AND NOT (
                          jsonb_typeof(change -> 'top') = 'number'
                          AND change ->> 'top' ~ '^([1-9]|[1-4][0-9]|50)$') THEN
                      'change.top: 1 to 50'
                 WHEN change ? 'candidates' AND NOT (
                          jsonb_typeof(change -> 'candidates') = 'number'
                          AND change ->> 'candidates' ~ '^([1-9][0-9]?|1[0-9][0-9]|200)$') THEN
                      'change.candidates: 1 to 200' END
        END;
END
$$
"""

# Who may call it can put nothing into force, cannot flood a tenant, and cannot propose again what
# was refused. The state is always `proposed`; who connected is written into the provenance.
_PROPOSE = """
CREATE FUNCTION millrace.propose_rule(
    of_tenant uuid, rule_name text, rule_scope jsonb, rule_change jsonb, workflow text,
    provenance jsonb DEFAULT '{}', note text DEFAULT NULL)
RETURNS uuid LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, millrace, pg_temp
AS $$
DECLARE
    most_open CONSTANT integer := 50;
    new_scope CONSTANT jsonb := CASE jsonb_strip_nulls(rule_scope) -> 'topic'
        WHEN '[]' THEN jsonb_strip_nulls(rule_scope) - 'topic'
        ELSE jsonb_strip_nulls(rule_scope) END;
    new_change CONSTANT jsonb := jsonb_strip_nulls(rule_change);
    wrong CONSTANT text := wrong_rule(rule_name, new_scope, new_change);
    newest rules%ROWTYPE;
    made uuid;
BEGIN
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION '%', wrong USING ERRCODE = 'invalid_parameter_value';
    ELSIF workflow IS NULL OR length(workflow) NOT BETWEEN 1 AND 200 THEN
        RAISE EXCEPTION 'workflow: 1 to 200 characters' USING ERRCODE = 'invalid_parameter_value';
    ELSIF jsonb_typeof(propose_rule.provenance) IS DISTINCT FROM 'object'
       OR length(propose_rule.provenance::text) > 20000 THEN
        RAISE EXCEPTION 'provenance: an object of at most 20000 characters'
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF length(propose_rule.note) > 2000 THEN
        RAISE EXCEPTION 'note: at most 2000 characters' USING ERRCODE = 'invalid_parameter_value';
    ELSIF NOT EXISTS (SELECT FROM tenants t WHERE t.id = of_tenant) THEN
        RAISE EXCEPTION 'there is no such tenant' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- Nobody else changes the tenant's rules until the transaction ends; one that idles is ended.
    PERFORM set_config('idle_in_transaction_session_timeout', '10s', true);
    PERFORM hold_rules(of_tenant);
    SELECT r.id INTO made FROM rules r
     WHERE r.tenant_id = of_tenant AND r.name = rule_name AND r.scope = new_scope
       AND r.change = new_change AND r.state IN ('proposed', 'shadow', 'canary', 'active')
     ORDER BY r.version DESC LIMIT 1;
    IF made IS NOT NULL THEN
        RETURN made;
    ELSIF EXISTS (SELECT FROM rules r
                   WHERE r.tenant_id = of_tenant AND r.scope = new_scope AND r.change = new_change
                     AND r.state IN ('rejected', 'retired')
                     AND r.decided_at > now() - interval '30 days') THEN
        RETURN NULL;
    ELSIF (SELECT count(*) FROM rules r
            WHERE r.tenant_id = of_tenant AND r.state IN ('proposed', 'shadow')) >= most_open THEN
        RAISE EXCEPTION 'this tenant has % open proposals; decide on some first', most_open
            USING ERRCODE = 'program_limit_exceeded';
    END IF;
    SELECT * INTO newest FROM rules r
     WHERE r.tenant_id = of_tenant AND r.name = rule_name
     ORDER BY r.state = 'active' DESC, r.version DESC LIMIT 1;
    INSERT INTO rules (id, tenant_id, name, version, kind, scope, change, parent, provenance, note)
    SELECT gen_random_uuid(), of_tenant, rule_name, coalesce(max(r.version), 0) + 1,
           new_change ->> 'kind', new_scope, new_change, newest.id,
           propose_rule.provenance
               || jsonb_build_object('workflow', workflow, 'by', 'role:' || session_user),
           propose_rule.note
      FROM rules r WHERE r.tenant_id = of_tenant AND r.name = rule_name
    RETURNING id INTO made;
    RETURN made;
END
$$
"""

# The role belongs to the whole cluster: another database may have made it, or be making it now.
_ROLE = """
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'millrace_n8n') THEN
        CREATE ROLE millrace_n8n NOLOGIN;
    ELSIF EXISTS (SELECT FROM pg_roles
                   WHERE rolname = 'millrace_n8n' AND (rolsuper OR rolbypassrls)) THEN
        RAISE EXCEPTION 'the role millrace_n8n must be neither superuser nor BYPASSRLS';
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
    WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'this user may not make the role millrace_n8n; a superuser runs: CREATE ROLE millrace_n8n NOLOGIN;';
END $$
"""
_FUNCTIONS = (
    "rule_votes(uuid, timestamptz)",
    "rule_questions(timestamptz, integer)",
    "complaints(uuid, interval)",
    "rollup(uuid, interval)",
    "asked_for(text)",
    "propose_rule(uuid, text, jsonb, jsonb, text, jsonb, text)",
    "wrong_rule(text, jsonb, jsonb)",
)
_TENANTS_OWN = _FUNCTIONS[:2]
_WORKFLOWS_OWN = (_FUNCTIONS[2], _FUNCTIONS[3], _FUNCTIONS[5])


def _run(statement: str) -> None:
    """As it stands: no colon is a parameter."""
    op.get_bind().exec_driver_sql(statement)


def _patterns() -> str:
    return ", ".join(
        rf"('{name}', '\m({'|'.join(patterns)})')" for name, patterns in _COMPLAINTS.items()
    )


def upgrade() -> None:
    """Apply."""
    _run("""
        CREATE INDEX ix_judgements_tenant_id_updated_at
            ON millrace.judgements (tenant_id, updated_at)
    """)
    _run(_ROLE)
    for function in (_RULE_VOTES, _RULE_QUESTIONS, _ASKED_FOR, _ROLLUP, _WRONG_RULE, _PROPOSE):
        _run(function)
    _run(_COMPLAINTS_FUNCTION.format(values=_patterns()))
    for function in _FUNCTIONS:
        _run(f"REVOKE ALL ON FUNCTION millrace.{function} FROM PUBLIC")
    for function in _TENANTS_OWN:
        _run(f"GRANT EXECUTE ON FUNCTION millrace.{function} TO millrace_app")
    _run("GRANT USAGE ON SCHEMA millrace TO millrace_n8n")
    for function in _WORKFLOWS_OWN:
        _run(f"GRANT EXECUTE ON FUNCTION millrace.{function} TO millrace_n8n")


def downgrade() -> None:
    """Take back. The role stays: it belongs to all databases of the cluster."""
    for function in _FUNCTIONS:
        _run(f"DROP FUNCTION millrace.{function}")
    _run("REVOKE USAGE ON SCHEMA millrace FROM millrace_n8n")
    _run("DROP INDEX millrace.ix_judgements_tenant_id_updated_at")
