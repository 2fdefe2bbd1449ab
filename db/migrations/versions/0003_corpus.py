"""the corpus: collections, documents, chunks; every table bound to its tenant"""

from alembic import op
from sqlalchemy import text

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_EARLIER = ("api_keys", "requests", "subtasks", "attempts", "outbox")
_CORPUS = (
    "collections",
    "documents",
    "document_bodies",
    "drafts",
    "chunks",
    "chunk_terms",
    "terms",
)
_DIMENSIONS = (384, 768, 1024, 1536)

_TABLES = """
CREATE TABLE millrace.collections (
    id UUID NOT NULL,
    tenant_id UUID NOT NULL,
    name TEXT NOT NULL,
    strategy TEXT NOT NULL,
    embedding_model TEXT,
    dimension INTEGER,
    language TEXT DEFAULT 'english' NOT NULL,
    chunking JSONB DEFAULT '{}'::jsonb NOT NULL,
    dense_weight DOUBLE PRECISION DEFAULT '0.7' NOT NULL,
    chunk_count INTEGER DEFAULT '0' NOT NULL,
    word_count BIGINT DEFAULT '0' NOT NULL,
    average_length DOUBLE PRECISION DEFAULT '0' NOT NULL,
    revision INTEGER DEFAULT '0' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_collections PRIMARY KEY (id),
    CONSTRAINT uq_collections_tenant_id_name UNIQUE (tenant_id, name),
    CONSTRAINT ck_collections_strategy CHECK (strategy IN ('dense', 'hybrid', 'sparse')),
    CONSTRAINT ck_collections_model CHECK (strategy = 'sparse' OR embedding_model IS NOT NULL),
    CONSTRAINT ck_collections_dimension CHECK (dimension > 0),
    CONSTRAINT ck_collections_dense_weight CHECK (dense_weight BETWEEN 0 AND 1),
    CONSTRAINT ck_collections_counts CHECK (chunk_count >= 0 AND word_count >= 0),
    CONSTRAINT fk_collections_tenant_id FOREIGN KEY(tenant_id) REFERENCES millrace.tenants (id)
);
COMMENT ON COLUMN millrace.collections.embedding_model IS 'As the registry names it.';
COMMENT ON COLUMN millrace.collections.dimension IS
    'Fixed by the first document that was embedded.';
COMMENT ON COLUMN millrace.collections.language IS 'For its words.';
COMMENT ON COLUMN millrace.collections.word_count IS 'Sum of its chunks'' lengths.';
COMMENT ON COLUMN millrace.collections.average_length IS
    'That the stored weights were computed with; follows the real one now and then.';
COMMENT ON COLUMN millrace.collections.revision IS
    'Grows with every change that has its documents done again.';

CREATE TABLE millrace.documents (
    id UUID NOT NULL,
    tenant_id UUID NOT NULL,
    collection_id UUID NOT NULL,
    name TEXT NOT NULL,
    origin TEXT NOT NULL,
    url TEXT,
    media_type TEXT,
    digest BYTEA NOT NULL,
    metadata JSONB DEFAULT '{}'::jsonb NOT NULL,
    replaces BOOLEAN DEFAULT false NOT NULL,
    state TEXT DEFAULT 'waiting' NOT NULL,
    stage TEXT,
    attempt INTEGER DEFAULT '0' NOT NULL,
    tries INTEGER DEFAULT '0' NOT NULL,
    revision INTEGER DEFAULT '0' NOT NULL,
    lease_until TIMESTAMP WITH TIME ZONE,
    available_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    error JSONB,
    byte_count BIGINT DEFAULT '0' NOT NULL,
    page_count INTEGER,
    chunk_count INTEGER DEFAULT '0' NOT NULL,
    embedded_count INTEGER DEFAULT '0' NOT NULL,
    timings JSONB DEFAULT '{}'::jsonb NOT NULL,
    flags JSONB DEFAULT '{}'::jsonb NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    ready_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_documents PRIMARY KEY (id),
    CONSTRAINT uq_documents_collection_id_digest UNIQUE (collection_id, digest),
    CONSTRAINT ck_documents_state CHECK (state IN ('failed', 'ready', 'running', 'waiting')),
    CONSTRAINT ck_documents_stage CHECK (stage IN ('chunk', 'embed', 'parse', 'store')),
    CONSTRAINT ck_documents_origin CHECK (origin IN ('text', 'upload', 'url')),
    CONSTRAINT ck_documents_leased CHECK ((state = 'running') = (lease_until IS NOT NULL)),
    CONSTRAINT ck_documents_ready CHECK ((state = 'ready') = (ready_at IS NOT NULL)),
    CONSTRAINT ck_documents_failed CHECK (state <> 'failed' OR error IS NOT NULL),
    CONSTRAINT ck_documents_attempt CHECK (state <> 'running' OR attempt >= 1),
    CONSTRAINT ck_documents_digest CHECK (length(digest) = 32),
    CONSTRAINT ck_documents_metadata CHECK (jsonb_typeof(metadata) = 'object'),
    CONSTRAINT fk_documents_tenant_id FOREIGN KEY(tenant_id) REFERENCES millrace.tenants (id),
    CONSTRAINT fk_documents_collection_id FOREIGN KEY(collection_id)
        REFERENCES millrace.collections (id) ON DELETE CASCADE
);
COMMENT ON COLUMN millrace.documents.digest IS 'SHA-256 of the content, or of the URL.';
COMMENT ON COLUMN millrace.documents.replaces IS 'When it is ready, older ones of its name go.';
COMMENT ON COLUMN millrace.documents.attempt IS
    'Only ever grows: who holds an old one can write nothing.';
COMMENT ON COLUMN millrace.documents.tries IS 'Attempts since somebody asked for it.';
COMMENT ON COLUMN millrace.documents.revision IS 'Of its collection, when it was claimed.';
CREATE INDEX ix_documents_lease_until ON millrace.documents (lease_until)
    WHERE state = 'running';
CREATE INDEX ix_documents_name ON millrace.documents USING hash (name);
CREATE INDEX ix_documents_due ON millrace.documents (available_at) WHERE state = 'waiting';
CREATE INDEX ix_documents_tenant_id_created_at ON millrace.documents (tenant_id, created_at, id);

CREATE TABLE millrace.document_bodies (
    document_id UUID NOT NULL,
    tenant_id UUID NOT NULL,
    body BYTEA NOT NULL,
    CONSTRAINT pk_document_bodies PRIMARY KEY (document_id),
    CONSTRAINT fk_document_bodies_document_id FOREIGN KEY(document_id)
        REFERENCES millrace.documents (id) ON DELETE CASCADE,
    CONSTRAINT fk_document_bodies_tenant_id FOREIGN KEY(tenant_id) REFERENCES millrace.tenants (id)
);
COMMENT ON TABLE millrace.document_bodies IS
    'Content as it came, so that every stage can be done again.';

CREATE TABLE millrace.drafts (
    document_id UUID NOT NULL,
    position INTEGER NOT NULL,
    tenant_id UUID NOT NULL,
    text TEXT NOT NULL,
    heading_path TEXT[] DEFAULT '{}' NOT NULL,
    page INTEGER,
    embedding vector,
    CONSTRAINT pk_drafts PRIMARY KEY (document_id, position),
    CONSTRAINT fk_drafts_document_id FOREIGN KEY(document_id)
        REFERENCES millrace.documents (id) ON DELETE CASCADE,
    CONSTRAINT fk_drafts_tenant_id FOREIGN KEY(tenant_id) REFERENCES millrace.tenants (id)
);
COMMENT ON TABLE millrace.drafts IS 'Chunks that were cut and cannot be found yet.';

CREATE TABLE millrace.chunks (
    id BIGINT GENERATED BY DEFAULT AS IDENTITY,
    tenant_id UUID NOT NULL,
    collection_id UUID NOT NULL,
    document_id UUID NOT NULL,
    position INTEGER NOT NULL,
    text TEXT NOT NULL,
    heading_path TEXT[] DEFAULT '{}' NOT NULL,
    page INTEGER,
    embedding vector,
    embedded_by TEXT,
    CONSTRAINT pk_chunks PRIMARY KEY (id),
    CONSTRAINT uq_chunks_document_id_position UNIQUE (document_id, position)
        DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT ck_chunks_embedding CHECK (embedding IS NULL OR vector_norm(embedding) > 0),
    CONSTRAINT ck_chunks_embedded_by CHECK ((embedding IS NULL) = (embedded_by IS NULL)),
    CONSTRAINT fk_chunks_tenant_id FOREIGN KEY(tenant_id) REFERENCES millrace.tenants (id),
    CONSTRAINT fk_chunks_collection_id FOREIGN KEY(collection_id)
        REFERENCES millrace.collections (id) ON DELETE CASCADE,
    CONSTRAINT fk_chunks_document_id FOREIGN KEY(document_id)
        REFERENCES millrace.documents (id) ON DELETE CASCADE
);
COMMENT ON COLUMN millrace.chunks.embedded_by IS
    'Model of the embedding: two models cannot be compared.';
-- Texts are moved out of the row before embeddings are: comparing reads only the latter.
ALTER TABLE millrace.chunks ALTER COLUMN embedding SET STORAGE MAIN;
CREATE INDEX ix_chunks_collection_id ON millrace.chunks (collection_id);

CREATE TABLE millrace.chunk_terms (
    chunk_id BIGINT NOT NULL,
    tenant_id UUID NOT NULL,
    collection_id UUID NOT NULL,
    document_id UUID NOT NULL,
    length INTEGER NOT NULL,
    terms TSVECTOR NOT NULL,
    keys TSVECTOR NOT NULL,
    weights sparsevec(1000000000) NOT NULL,
    CONSTRAINT pk_chunk_terms PRIMARY KEY (chunk_id),
    CONSTRAINT fk_chunk_terms_chunk_id FOREIGN KEY(chunk_id)
        REFERENCES millrace.chunks (id) ON DELETE CASCADE,
    CONSTRAINT fk_chunk_terms_tenant_id FOREIGN KEY(tenant_id) REFERENCES millrace.tenants (id)
);
COMMENT ON TABLE millrace.chunk_terms IS 'Only an index of chunks, without text.';
COMMENT ON COLUMN millrace.chunk_terms.length IS 'In lexemes, repetitions counted.';
COMMENT ON COLUMN millrace.chunk_terms.keys IS
    'Hashes of (collection, lexeme): what the index is on.';
COMMENT ON COLUMN millrace.chunk_terms.weights IS 'BM25 without the query''s part.';
ALTER TABLE millrace.chunk_terms ALTER COLUMN weights SET STORAGE MAIN;
CREATE INDEX ix_chunk_terms_collection_id ON millrace.chunk_terms (collection_id);
CREATE INDEX ix_chunk_terms_document_id ON millrace.chunk_terms (document_id);
-- Without a list of pending entries: every search would have to read all of it.
CREATE INDEX ix_chunk_terms_keys ON millrace.chunk_terms USING gin (keys)
    WITH (fastupdate = off);

CREATE TABLE millrace.terms (
    collection_id UUID NOT NULL,
    lexeme TEXT NOT NULL,
    tenant_id UUID NOT NULL,
    chunk_count INTEGER NOT NULL,
    CONSTRAINT pk_terms PRIMARY KEY (collection_id, lexeme),
    CONSTRAINT ck_terms_chunk_count CHECK (chunk_count > 0),
    CONSTRAINT fk_terms_collection_id FOREIGN KEY(collection_id)
        REFERENCES millrace.collections (id) ON DELETE CASCADE,
    CONSTRAINT fk_terms_tenant_id FOREIGN KEY(tenant_id) REFERENCES millrace.tenants (id)
);
COMMENT ON TABLE millrace.terms IS 'In how many chunks of a collection a word is.';
"""

# Hashes of text and uuid are stable across releases of Postgres: hash partitions rest on them.
_TERM_FUNCTIONS = """
CREATE FUNCTION millrace.term_index(lexeme text) RETURNS integer
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (abs(hashtextextended(lexeme, 0) % 999999999) + 1)::integer;

CREATE FUNCTION millrace.term_key(collection uuid, lexeme text) RETURNS integer
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (hashtextextended(lexeme, uuid_hash_extended(collection, 0)) & 2147483647)::integer;

-- BM25 with k1 = 1.2 and b = 0.75, without the query's part. Of two words with the same index the
-- heavier counts, so that no weight passes k1 + 1. A sparsevec holds 16 000 words at most.
CREATE FUNCTION millrace.term_weights(terms tsvector, length integer, average double precision)
RETURNS sparsevec LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (
    SELECT ('{' || coalesce(string_agg(w.index || ':' || w.weight, ','), '') || '}/1000000000')
           ::sparsevec
      FROM (SELECT millrace.term_index(u.lexeme) AS index,
                   max(u.tf * 2.2::float8 / (u.tf + 1.2::float8 * (0.25::float8
                       + 0.75::float8 * coalesce(length / nullif(average, 0), 1))))::real AS weight
              FROM (SELECT t.lexeme, cardinality(t.positions) AS tf FROM unnest(terms) t) u
             GROUP BY 1 ORDER BY 2 DESC LIMIT 16000) w);
"""

# The owner runs it, so the tenant is asked for here and not by a policy: under a policy the index
# is not used, because `@@` is not leakproof.
#
# A chunk scores no more than the bounds of the words that it has, so it must have one of the `sets`
# of words whose bounds together pass a bar. The index alone finds those that do; only they are
# read. The bar is first so high that few pass it, and then as high as the last of the best ones
# scores: nothing else can be better. In large collections it stays where it was, as soon as there
# are enough, and the result may miss some. How many pass is guessed as if words were independent. Sets are of the rarest words;
# a chunk is taken to have all the others, and the last set is to have any of those.
_SPARSE_HITS = """
CREATE FUNCTION millrace.sparse_hits(
    of_collection uuid, query text, of_documents uuid[], most integer, also bigint[])
RETURNS TABLE (chunk_id bigint, score double precision)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, millrace, {extensions}, pg_temp
SET plan_cache_mode = force_custom_plan
SET enable_seqscan = off
AS $$
DECLARE
    of_tenant CONSTANT uuid := nullif(current_setting('millrace.tenant', true), '');
    most_weight CONSTANT double precision := 2.2;
    most_words CONSTANT integer := 7;
    most_read double precision := 8000;
    to_read double precision := 1000;
    config regconfig;
    total integer;
    wanted integer[];
    parts double precision[];
    bounds double precision[];
    asked sparsevec;
    others double precision;
    sets text[];
    set_bounds double precision[];
    set_parts double precision[];
    set_leasts double precision[];
    lowest double precision;
    bar double precision;
    condition tsquery;
    ids bigint[];
    scores double precision[];
BEGIN
    SELECT c.language::regconfig, c.chunk_count INTO config, total FROM collections c
     WHERE c.id = of_collection AND c.tenant_id = of_tenant;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT array_agg(w.key ORDER BY w.n, w.key),
           array_agg(w.n / total::float8 ORDER BY w.n, w.key),
           array_agg(most_weight * w.idf ORDER BY w.n, w.key),
           ('{{' || string_agg(w.index || ':' || w.idf::real, ',') FILTER (WHERE w.first)
               || '}}/1000000000')::sparsevec
      INTO wanted, parts, bounds, asked
      FROM (SELECT i.*, row_number() OVER (PARTITION BY i.index ORDER BY i.n) = 1 AS first
              FROM (SELECT t.chunk_count AS n, term_key(of_collection, t.lexeme) AS key,
                           term_index(t.lexeme) AS index,
                           ln(1 + (total - t.chunk_count + 0.5::float8)
                                  / (t.chunk_count + 0.5::float8)) AS idf
                      FROM unnest(to_tsvector(config, left(query, 20000))) q
                      JOIN terms t ON t.collection_id = of_collection AND t.tenant_id = of_tenant
                                  AND t.lexeme = q.lexeme) i) w;
    IF wanted IS NULL THEN
        RETURN;
    END IF;
    IF total > most_read THEN
        most_read := to_read;
    END IF;
    SELECT coalesce(sum(b), 0) INTO others FROM unnest(bounds[most_words + 1:]) b;
    SELECT array_agg(s.words), array_agg(s.bound), array_agg(s.part), array_agg(s.least),
           min(s.bound)
      INTO sets, set_bounds, set_parts, set_leasts, lowest
      FROM (SELECT coalesce(string_agg(w.key::text, '&') FILTER (WHERE w.has),
                            array_to_string(wanted[most_words + 1:], '|')) AS words,
                   others + coalesce(sum(w.bound) FILTER (WHERE w.has), 0) AS bound,
                   exp(sum(ln(CASE WHEN w.has THEN w.part ELSE 1 - w.part + 1e-9 END))) AS part,
                   CASE WHEN count(*) FILTER (WHERE w.has) > 1
                        THEN min(w.bound) FILTER (WHERE w.has) ELSE 'infinity' END AS least
              FROM (SELECT n, k AS key, parts[i] AS part, bounds[i] AS bound,
                           n >> (i::integer - 1) & 1 = 1 AS has
                      FROM generate_series(CASE WHEN others > 0 THEN 0 ELSE 1 END,
                                           (1 << least(cardinality(wanted), most_words)) - 1) n
                     CROSS JOIN unnest(wanted[:most_words]) WITH ORDINALITY u(k, i)) w
             GROUP BY w.n) s;
    LOOP
        SELECT coalesce(min(s.bound) FILTER (WHERE s.count <= to_read), max(s.bound)) INTO bar
          FROM (SELECT u.bound, total * sum(u.part) OVER (ORDER BY u.bound DESC) AS count
                  FROM unnest(set_bounds, set_parts) u(bound, part)) s;
        -- Scores are single precision.
        bar := greatest(bar, scores[most] * (1 - 1e-6));
        SELECT string_agg('(' || u.words || ')', '|')::tsquery INTO condition
          FROM unnest(sets, set_bounds, set_leasts) u(words, bound, least)
         WHERE u.bound >= bar AND u.bound - u.least < bar;
        SELECT array_agg(b.id ORDER BY b.score DESC, b.id),
               array_agg(b.score ORDER BY b.score DESC, b.id)
          INTO ids, scores
          FROM (SELECT t.chunk_id AS id, -(t.weights <#> asked) AS score
                  FROM chunk_terms t
                 WHERE t.keys @@ condition
                   AND t.collection_id = of_collection AND t.tenant_id = of_tenant
                   AND (of_documents IS NULL OR t.document_id = ANY (of_documents))
                 ORDER BY 2 DESC, 1 LIMIT most) b;
        EXIT WHEN bar <= greatest(lowest, scores[most] * (1 - 1e-6));
        EXIT WHEN to_read >= most_read AND scores[most] IS NOT NULL;
        to_read := to_read * 8;
    END LOOP;
    RETURN QUERY SELECT h.id, h.score FROM unnest(ids, scores) h(id, score) WHERE h.score > 0;
    RETURN QUERY SELECT t.chunk_id, -(t.weights <#> asked) FROM chunk_terms t
     WHERE t.chunk_id = ANY (also) AND t.chunk_id <> ALL (coalesce(ids, '{{}}'))
       AND t.collection_id = of_collection AND t.tenant_id = of_tenant;
END
$$;
"""

# The role belongs to the whole cluster: another database may have made it, or be making it now.
_ROLE = """
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'millrace_app') THEN
        CREATE ROLE millrace_app NOLOGIN NOINHERIT;
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
    WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'this user may not make the role millrace_app; a superuser runs: CREATE ROLE millrace_app NOLOGIN NOINHERIT; GRANT millrace_app TO %;',
            quote_ident(current_user);
END $$;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles
                WHERE rolname = 'millrace_app' AND (rolsuper OR rolbypassrls)) THEN
        RAISE EXCEPTION 'the role millrace_app must be neither superuser nor BYPASSRLS';
    END IF;
    IF current_setting('server_version_num')::integer < 160000 THEN
        IF NOT pg_has_role(current_user, 'millrace_app', 'MEMBER') THEN
            EXECUTE format('GRANT millrace_app TO %I', current_user);
        END IF;
    ELSIF NOT pg_has_role(current_user, 'millrace_app', 'SET') THEN
        EXECUTE format('GRANT millrace_app TO %I WITH INHERIT FALSE, SET TRUE', current_user);
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'this user may not become millrace_app; a superuser runs: GRANT millrace_app TO %;',
            quote_ident(current_user);
END $$;
"""

_OWNERS = "CREATE POLICY owner ON millrace.{} TO CURRENT_USER USING (true) WITH CHECK (true)"
# What the loops read across tenants, and what the functions of the owner read.
_OWNER_READS = "CREATE POLICY owner_reads ON millrace.{} FOR SELECT TO CURRENT_USER USING (true)"
_TENANTS = """
    CREATE POLICY tenant ON millrace.{} TO millrace_app
     USING (tenant_id = (SELECT nullif(current_setting('millrace.tenant', true), '')::uuid))
     WITH CHECK (tenant_id = (SELECT nullif(current_setting('millrace.tenant', true), '')::uuid))
"""
_GRANTS = """
GRANT USAGE ON SCHEMA millrace TO millrace_app;
REVOKE ALL ON FUNCTION millrace.term_index, millrace.term_key, millrace.term_weights,
    millrace.sparse_hits FROM PUBLIC;
GRANT EXECUTE ON FUNCTION millrace.term_index, millrace.term_key, millrace.term_weights,
    millrace.sparse_hits TO millrace_app;
DO $$
BEGIN
    IF NOT has_schema_privilege('millrace_app', '{extensions}', 'USAGE') THEN
        GRANT USAGE ON SCHEMA {extensions} TO millrace_app;
    END IF;
    IF NOT has_schema_privilege('millrace_app', '{extensions}', 'USAGE') THEN
        RAISE insufficient_privilege;
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'this user may not let millrace_app use pgvector; the owner of its schema runs: GRANT USAGE ON SCHEMA {extensions} TO millrace_app;';
END $$;
"""


def _script(statements: str) -> None:
    """Run several statements at once, as they stand: no colon is a parameter."""
    for statement in _split(statements):
        op.get_bind().exec_driver_sql(statement)


def _split(statements: str) -> list[str]:
    """At every semicolon that ends a line, except within `$$`."""
    found, quoted = [""], False
    for line in statements.strip().splitlines():
        quoted ^= line.count("$$") % 2 == 1
        found[-1] += line + "\n"
        if line.rstrip().endswith(";") and not quoted:
            found.append("")
    return [statement for statement in found if statement.strip()]


def _secure(table: str) -> None:
    op.execute(f"ALTER TABLE millrace.{table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE millrace.{table} FORCE ROW LEVEL SECURITY")


def upgrade() -> None:
    """Apply."""
    bind = op.get_bind()
    extensions = bind.scalar(
        text("""
            SELECT quote_ident(n.nspname)
              FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
             WHERE e.extname = 'vector'
        """)
    )
    before = bind.scalar(text("SELECT current_setting('search_path')"))
    op.execute(f"SET LOCAL search_path = millrace, {extensions}")
    _script(_ROLE)
    _script(_TABLES)
    for dimension in _DIMENSIONS:
        op.execute(f"""
            CREATE INDEX hnsw_chunks_{dimension} ON millrace.chunks
             USING hnsw ((embedding::vector({dimension})) vector_cosine_ops)
             WHERE vector_dims(embedding) = {dimension}
        """)
    _script(_TERM_FUNCTIONS)
    _script(_SPARSE_HITS.format(extensions=extensions))
    _script(_GRANTS.format(extensions=extensions))
    for table in _EARLIER:
        _secure(table)
        op.execute(_OWNERS.format(table))
    for table in _CORPUS:
        _secure(table)
        op.execute(_TENANTS.format(table))
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON millrace.{table} TO millrace_app")
    for table in ("documents", "collections", "terms", "chunk_terms"):
        op.execute(_OWNER_READS.format(table))
    bind.execute(text("SELECT set_config('search_path', :before, true)"), {"before": before})


def downgrade() -> None:
    """Take back. The role stays: it belongs to all databases of the cluster."""
    op.execute("DROP FUNCTION millrace.sparse_hits")
    for table in reversed(_CORPUS):
        op.execute(f"DROP TABLE millrace.{table}")
    for function in ("term_weights", "term_key", "term_index"):
        op.execute(f"DROP FUNCTION millrace.{function}")
    for table in _EARLIER:
        op.execute(f"DROP POLICY owner ON millrace.{table}")
        op.execute(f"ALTER TABLE millrace.{table} NO FORCE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE millrace.{table} DISABLE ROW LEVEL SECURITY")
    op.execute("REVOKE USAGE ON SCHEMA millrace FROM millrace_app")
