"""what n8n's workflows keep, and the functions that are all they may use"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_TABLES = (
    """
    CREATE TABLE millrace.feedback_inbox (
        id UUID DEFAULT gen_random_uuid() NOT NULL,
        tenant_id UUID,
        source TEXT NOT NULL,
        external_id TEXT,
        changed BIGINT,
        note JSONB NOT NULL,
        digest BYTEA NOT NULL,
        request_id UUID,
        state TEXT DEFAULT 'waiting' NOT NULL,
        problem TEXT,
        received_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        handled_at TIMESTAMP WITH TIME ZONE,
        CONSTRAINT pk_feedback_inbox PRIMARY KEY (id),
        CONSTRAINT ck_feedback_inbox_source CHECK (source IN ('openwebui', 'webhook')),
        CONSTRAINT ck_feedback_inbox_state CHECK (state IN ('refused', 'stored', 'waiting')),
        CONSTRAINT ck_feedback_inbox_note CHECK (jsonb_typeof(note) = 'object'),
        CONSTRAINT ck_feedback_inbox_handled CHECK ((state = 'waiting') = (handled_at IS NULL)),
        CONSTRAINT ck_feedback_inbox_problem CHECK (state <> 'refused' OR problem IS NOT NULL),
        CONSTRAINT fk_feedback_inbox_tenant_id FOREIGN KEY(tenant_id)
            REFERENCES millrace.tenants (id)
    )
    """,
    """
    CREATE TABLE millrace.watched_events (
        digest BYTEA NOT NULL,
        tenant_id UUID,
        type TEXT NOT NULL,
        request_id UUID,
        at TIMESTAMP WITH TIME ZONE NOT NULL,
        detail JSONB NOT NULL,
        seen_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        CONSTRAINT pk_watched_events PRIMARY KEY (digest)
    )
    """,
    """
    CREATE TABLE millrace.activity (
        hour TIMESTAMP WITH TIME ZONE NOT NULL,
        tenant_id UUID NOT NULL,
        type TEXT NOT NULL,
        count BIGINT NOT NULL,
        CONSTRAINT pk_activity PRIMARY KEY (hour, tenant_id, type)
    )
    """,
    """
    CREATE TABLE millrace.alerts (
        id UUID DEFAULT gen_random_uuid() NOT NULL,
        tenant_id UUID,
        key TEXT NOT NULL,
        kind TEXT NOT NULL,
        message TEXT NOT NULL,
        detail JSONB NOT NULL,
        times BIGINT DEFAULT '1' NOT NULL,
        first_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        last_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        sent_at TIMESTAMP WITH TIME ZONE,
        CONSTRAINT pk_alerts PRIMARY KEY (id),
        CONSTRAINT uq_alerts_key UNIQUE (key)
    )
    """,
    """
    CREATE TABLE millrace.reports (
        tenant_id UUID NOT NULL,
        starts_at TIMESTAMP WITH TIME ZONE NOT NULL,
        ends_at TIMESTAMP WITH TIME ZONE NOT NULL,
        text TEXT NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        CONSTRAINT pk_reports PRIMARY KEY (tenant_id, starts_at),
        CONSTRAINT ck_reports_period CHECK (starts_at < ends_at),
        CONSTRAINT fk_reports_tenant_id FOREIGN KEY(tenant_id) REFERENCES millrace.tenants (id)
    )
    """,
)
_NAMES = ("feedback_inbox", "watched_events", "activity", "alerts", "reports")
_INDEXES = (
    """
    CREATE UNIQUE INDEX uq_feedback_inbox_external ON millrace.feedback_inbox (source, external_id)
     WHERE external_id IS NOT NULL
    """,
    """
    CREATE INDEX ix_feedback_inbox_waiting ON millrace.feedback_inbox (received_at)
     WHERE state = 'waiting'
    """,
    """
    CREATE INDEX ix_feedback_inbox_request_id ON millrace.feedback_inbox (request_id)
     WHERE state = 'waiting'
    """,
    "CREATE INDEX ix_watched_events_seen_at ON millrace.watched_events (seen_at)",
    "CREATE INDEX ix_alerts_unsent ON millrace.alerts (first_at) WHERE sent_at IS NULL",
)
_TABLE_COMMENTS = {
    "feedback_inbox": "What was said somewhere else, until a master has verified it.",
    "watched_events": "Events that n8n has counted, so that none counts twice.",
    "activity": "How often what happened, by the hour.",
    "alerts": "What a person should know; one row for each thing.",
    "reports": "What n8n wrote about a week.",
}
_COMMENTS = {
    "feedback_inbox.tenant_id": "Whose answer it is about; null: not verified.",
    "feedback_inbox.external_id": "Its id where it comes from.",
    "feedback_inbox.changed": "When it was changed there, in seconds of that clock.",
    "feedback_inbox.note": (
        "The body of /v1/feedback, or a rating of Open WebUI; empty once it was handled."
    ),
    "feedback_inbox.digest": "SHA-256 of the note as it came.",
    "feedback_inbox.request_id": "The request that it is about, as far as that is known.",
    "feedback_inbox.problem": "Why it was refused, or why it still waits.",
    "watched_events.digest": "SHA-256 of the event.",
    "activity.tenant_id": "All zeros: of no tenant.",
    "alerts.key": "The same thing has the same key.",
}

# Everything below runs as the owner, for callers who may call it and nothing else. A function
# names every schema it looks into, and temporary tables come last.
_FUNCTIONS = {
    # Numbers that long are read by Postgres, and by hardly anybody else.
    "take_feedback(text, jsonb, text, bigint)": """
CREATE FUNCTION millrace.take_feedback(
    of_source text, of_note jsonb, of_external text DEFAULT NULL, of_changed bigint DEFAULT NULL)
RETURNS TABLE (note uuid, fresh boolean, problem text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    of_digest bytea := sha256(convert_to(of_note::text, 'UTF8'));
    of_request text := of_note ->> 'request';
BEGIN
    fresh := false;
    problem := CASE
        WHEN of_source IS NULL OR of_source NOT IN ('webhook', 'openwebui')
            THEN 'the source is not known'
        WHEN of_note IS NULL OR jsonb_typeof(of_note) <> 'object' THEN 'it is not an object'
        WHEN length(of_note::text) > 200000 THEN 'it is too long'
        WHEN jsonb_path_exists(of_note, '$.** ? (@.type() == "number"
                && (@ > 9223372036854775807 || @ < -9223372036854775807))')
            THEN 'a number is too large'
        WHEN length(of_external) > 200 THEN 'its id is too long'
        WHEN EXISTS (SELECT FROM millrace.feedback_inbox i
                      WHERE i.state = 'waiting' OFFSET 100000) THEN 'too many notes wait'
    END;
    IF problem IS NOT NULL THEN
        RETURN NEXT;
        RETURN;
    END IF;
    INSERT INTO millrace.feedback_inbox AS i
           (source, external_id, changed, note, digest, request_id)
    VALUES (of_source, of_external, of_changed, of_note, of_digest,
            CASE WHEN of_request ~* '^[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}$'
                THEN of_request::uuid END)
    ON CONFLICT (source, external_id) WHERE external_id IS NOT NULL DO UPDATE
       SET note = excluded.note, digest = excluded.digest, changed = excluded.changed,
           request_id = excluded.request_id, state = 'waiting', problem = NULL,
           received_at = now(), handled_at = NULL
     WHERE i.digest <> excluded.digest
    RETURNING i.id, true INTO note, fresh;
    IF note IS NULL THEN
        fresh := false;
        UPDATE millrace.feedback_inbox i SET changed = greatest(i.changed, of_changed)
         WHERE i.source = of_source AND i.external_id = of_external
        RETURNING i.id INTO note;
    END IF;
    RETURN NEXT;
END
$$
""",
    # Open WebUI's clock has whole seconds: what changed just now may change again in the same one.
    "wanted_ratings(jsonb, integer)": """
CREATE FUNCTION millrace.wanted_ratings(listed jsonb, most integer DEFAULT 200)
RETURNS TABLE (id text, changed bigint)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT r.id, r.updated_at
      FROM jsonb_to_recordset(CASE jsonb_typeof(listed) WHEN 'array' THEN listed ELSE '[]' END)
           AS r(id text, updated_at bigint)
      LEFT JOIN millrace.feedback_inbox i ON i.source = 'openwebui' AND i.external_id = r.id
     WHERE r.id ~ '^[A-Za-z0-9_-]{1,200}$'
       AND (i.id IS NULL OR i.changed IS NULL OR i.changed < r.updated_at
            OR r.updated_at >= extract(epoch FROM now()) - 120)
     ORDER BY r.updated_at, r.id LIMIT least(greatest(most, 1), 1000)
$$
""",
    "note_event(jsonb)": """
CREATE FUNCTION millrace.note_event(event jsonb) RETURNS TABLE (fresh boolean, problem text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    of_tenant uuid;
    of_request uuid;
    happened timestamptz;
    happening text := event ->> 'type';
BEGIN
    fresh := false;
    BEGIN
        of_tenant := event ->> 'tenant';
        of_request := event ->> 'request';
        happened := event ->> 'at';
    EXCEPTION WHEN data_exception THEN
        problem := 'a tenant, a request or a time cannot be read';
    END;
    IF problem IS NULL AND (happened IS NULL OR NOT isfinite(happened) OR happening IS NULL
            OR happening !~ '^[a-z0-9_.-]{1,100}$') THEN
        problem := 'a type and a time are needed';
    END IF;
    IF problem IS NULL AND length(event::text) > 20000 THEN
        problem := 'it is too long';
    END IF;
    IF problem IS NOT NULL THEN
        RETURN NEXT;
        RETURN;
    END IF;
    INSERT INTO millrace.watched_events (digest, tenant_id, type, request_id, at, detail)
    VALUES (sha256(convert_to(event::text, 'UTF8')), of_tenant, happening, of_request, happened,
            coalesce(event -> 'detail', '{}'))
    ON CONFLICT DO NOTHING;
    fresh := FOUND;
    IF fresh THEN
        INSERT INTO millrace.activity AS a (hour, tenant_id, type, count)
        VALUES (date_trunc('hour', happened, 'UTC'), coalesce(of_tenant,
                '00000000-0000-0000-0000-000000000000'), happening, 1)
        ON CONFLICT (hour, tenant_id, type) DO UPDATE SET count = a.count + 1;
    END IF;
    RETURN NEXT;
END
$$
""",
    "endings(interval)": """
CREATE FUNCTION millrace.endings(since interval)
RETURNS TABLE (tenant uuid, tenant_name text, completed integer, failed integer, expired integer,
               cancelled integer)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT e.tenant_id, coalesce(t.name, ''),
           (count(*) FILTER (WHERE e.type = 'request.completed'))::integer,
           (count(*) FILTER (WHERE e.type = 'request.failed'))::integer,
           (count(*) FILTER (WHERE e.type = 'request.expired'))::integer,
           (count(*) FILTER (WHERE e.type = 'request.cancelled'))::integer
      FROM millrace.watched_events e LEFT JOIN millrace.tenants t ON t.id = e.tenant_id
     WHERE e.seen_at > now() - since AND e.at > now() - since AND e.type LIKE 'request.%'
     GROUP BY 1, 2 ORDER BY 2
$$
""",
    # What is known already and was sent is sent again after a day at the earliest.
    "raise_alert(text, text, text, jsonb, uuid)": """
CREATE FUNCTION millrace.raise_alert(
    of_key text, of_kind text, of_message text, of_detail jsonb DEFAULT '{}',
    of_tenant uuid DEFAULT NULL)
RETURNS TABLE (alert uuid, times integer)
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO millrace.alerts AS a (key, kind, message, detail, tenant_id)
    VALUES (left(of_key, 300), left(of_kind, 100), left(of_message, 2000),
            CASE WHEN length(of_detail::text) <= 20000 THEN of_detail ELSE '{}' END, of_tenant)
    ON CONFLICT (key) DO UPDATE
       SET times = a.times + 1, last_at = now(), message = excluded.message,
           detail = excluded.detail,
           sent_at = CASE WHEN a.sent_at > now() - interval '1 day' THEN a.sent_at END
    RETURNING a.id, a.times::integer
$$
""",
    "unsent_alerts(integer)": """
CREATE FUNCTION millrace.unsent_alerts(most integer DEFAULT 20)
RETURNS TABLE (alert uuid, kind text, message text, times integer, tenant_name text, since text)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT a.id, a.kind, a.message, a.times::integer, coalesce(t.name, ''), a.first_at::text
      FROM millrace.alerts a LEFT JOIN millrace.tenants t ON t.id = a.tenant_id
     WHERE a.sent_at IS NULL ORDER BY a.first_at LIMIT least(greatest(most, 1), 100)
$$
""",
    "alert_sent(uuid)": """
CREATE FUNCTION millrace.alert_sent(of_alert uuid) RETURNS boolean
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH sent AS (UPDATE millrace.alerts SET sent_at = now()
                   WHERE id = of_alert AND sent_at IS NULL RETURNING 1)
    SELECT EXISTS (SELECT FROM sent)
$$
""",
    # Tried again by itself: once, soon, and only what may go better the next time.
    "dead_letters(integer)": """
CREATE FUNCTION millrace.dead_letters(most integer DEFAULT 20)
RETURNS TABLE (subtask uuid, request uuid, tenant uuid, tenant_name text, step text, model text,
               code text, message text, retry boolean)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT s.id, s.request_id, s.tenant_id, t.name, s.step, s.model,
           coalesce(s.error ->> 'code', ''), left(coalesce(s.error ->> 'message', ''), 500),
           q.state = 'failed' AND q.redriven_from IS NULL
               AND coalesce(s.error ->> 'kind', '') = 'transient'
               AND s.finished_at > now() - interval '1 hour'
      FROM millrace.subtasks s
      JOIN millrace.requests q ON q.id = s.request_id
      JOIN millrace.tenants t ON t.id = s.tenant_id
     WHERE s.state = 'dead' AND s.seen_at IS NULL AND q.finished_at IS NOT NULL
       AND s.finished_at > now() - interval '7 days'
       AND NOT EXISTS (SELECT FROM millrace.requests r WHERE r.redriven_from = q.id)
       AND NOT EXISTS (SELECT FROM millrace.alerts a WHERE a.key = 'dead:' || s.id)
     ORDER BY s.finished_at, s.id LIMIT least(greatest(most, 1), 100)
$$
""",
    "learning_tenants()": """
CREATE FUNCTION millrace.learning_tenants() RETURNS TABLE (tenant uuid, tenant_name text)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT t.id, t.name FROM millrace.tenants t
     WHERE EXISTS (SELECT FROM millrace.requests q
                    WHERE q.tenant_id = t.id AND q.created_at > now() - interval '30 days')
     ORDER BY t.name
$$
""",
    "week_of(uuid, timestamptz, timestamptz)": """
CREATE FUNCTION millrace.week_of(of_tenant uuid, starts timestamptz, ends timestamptz)
RETURNS TABLE (week jsonb)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH asked AS (
        SELECT q.id, q.state, coalesce(q.plan ->> 'strategy', '?') AS strategy,
               extract(epoch FROM q.finished_at - q.created_at)::float8 AS seconds
          FROM millrace.requests q
         WHERE q.tenant_id = of_tenant AND q.created_at >= starts AND q.created_at < ends
    ), said AS (
        SELECT j.request_id, j.score, j.rater, j.reason FROM millrace.judgements j
         WHERE j.tenant_id = of_tenant AND j.kind = 'human'
           AND j.updated_at >= starts AND j.updated_at < ends
    ), spent AS (
        SELECT a.model, count(*)::integer AS executions,
               sum(a.prompt_tokens + a.completion_tokens)::float8 AS tokens,
               sum(a.engine_seconds)::float8 AS engine_seconds
          FROM millrace.attempts a
         WHERE a.tenant_id = of_tenant AND a.finished_at >= starts AND a.finished_at < ends
         GROUP BY a.model
    )
    SELECT jsonb_build_object(
        'requests', (SELECT count(*) FROM asked),
        'states', (SELECT coalesce(jsonb_object_agg(g.state, g.n), '{}')
                     FROM (SELECT state, count(*) AS n FROM asked GROUP BY 1) g),
        'strategies', (SELECT coalesce(jsonb_agg(to_jsonb(g) ORDER BY g.requests DESC, g.strategy), '[]')
                         FROM (SELECT a.strategy, count(*) AS requests,
                                      percentile_cont(0.5) WITHIN GROUP (ORDER BY a.seconds) AS p50_seconds,
                                      count(s.score) AS judged, avg(s.score) AS mean_score
                                 FROM asked a LEFT JOIN said s ON s.request_id = a.id
                                GROUP BY 1) g),
        'models', (SELECT coalesce(jsonb_agg(to_jsonb(g) ORDER BY g.tokens DESC, g.model), '[]')
                     FROM spent g),
        'judged', (SELECT count(*) FROM said), 'raters', (SELECT count(DISTINCT rater) FROM said),
        'mean_score', (SELECT avg(score) FROM said),
        'reasons', (SELECT coalesce(jsonb_agg(to_jsonb(g) ORDER BY g.times DESC, g.reason), '[]')
                      FROM (SELECT reason, count(*) AS times FROM said WHERE reason IS NOT NULL
                             GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 10) g),
        'rules', (SELECT coalesce(jsonb_agg(to_jsonb(g) ORDER BY g.name, g.version), '[]')
                    FROM (SELECT name, version, kind, state FROM millrace.rules
                           WHERE tenant_id = of_tenant
                             AND (state IN ('active', 'canary', 'shadow', 'proposed')
                                  OR changed_at >= starts AND changed_at < ends)
                           ORDER BY name, version LIMIT 100) g),
        'alerts', (SELECT coalesce(jsonb_agg(to_jsonb(g) ORDER BY g.times DESC, g.kind), '[]')
                     FROM (SELECT kind, sum(times) AS times FROM millrace.alerts
                            WHERE (tenant_id = of_tenant OR tenant_id IS NULL)
                              AND last_at >= starts AND last_at < ends GROUP BY 1) g))
$$
""",
    "store_report(uuid, timestamptz, timestamptz, text)": """
CREATE FUNCTION millrace.store_report(
    of_tenant uuid, starts timestamptz, ends timestamptz, report text)
RETURNS boolean
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO millrace.reports (tenant_id, starts_at, ends_at, text)
    VALUES (of_tenant, starts, ends, left(report, 200000))
    ON CONFLICT (tenant_id, starts_at) DO UPDATE
       SET ends_at = excluded.ends_at, text = excluded.text, created_at = now()
    RETURNING true
$$
""",
    "forget_watched()": """
CREATE FUNCTION millrace.forget_watched() RETURNS integer
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH events AS (DELETE FROM millrace.watched_events
                     WHERE seen_at < now() - interval '30 days' RETURNING 1),
         notes AS (DELETE FROM millrace.feedback_inbox
                    WHERE source = 'webhook' AND handled_at < now() - interval '30 days'
                    RETURNING 1),
         old AS (DELETE FROM millrace.alerts
                  WHERE sent_at IS NOT NULL AND last_at < now() - interval '90 days' RETURNING 1)
    SELECT ((SELECT count(*) FROM events) + (SELECT count(*) FROM notes)
            + (SELECT count(*) FROM old))::integer
$$
""",
}


def upgrade() -> None:
    """Apply."""
    for table in _TABLES:
        op.execute(table)
    for index in _INDEXES:
        op.execute(index)
    for table, comment in _TABLE_COMMENTS.items():
        op.execute(f"COMMENT ON TABLE millrace.{table} IS '{comment}'")
    for column, comment in _COMMENTS.items():
        op.execute(f"COMMENT ON COLUMN millrace.{column} IS '{comment}'")
    for name in _NAMES:
        op.execute(f"ALTER TABLE millrace.{name} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE millrace.{name} FORCE ROW LEVEL SECURITY")
        # Nobody else: n8n has the functions below, tenants have the API.
        op.execute(
            f"CREATE POLICY owner ON millrace.{name} TO CURRENT_USER USING (true) WITH CHECK (true)"
        )
    op.execute("GRANT USAGE ON SCHEMA millrace TO millrace_n8n")
    for name, function in _FUNCTIONS.items():
        op.get_bind().exec_driver_sql(function)
        op.execute(f"REVOKE ALL ON FUNCTION millrace.{name} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION millrace.{name} TO millrace_n8n")


def downgrade() -> None:
    """Take back."""
    for name in reversed(_FUNCTIONS):
        op.execute(f"DROP FUNCTION millrace.{name}")
    for name in reversed(_NAMES):
        op.execute(f"DROP TABLE millrace.{name}")
