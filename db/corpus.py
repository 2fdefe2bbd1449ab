"""The tables of the corpus: collections, documents, their chunks and what finds them.

Everything here is read and written as the role of `db.tenancy`, which row level security keeps
inside one tenant. Indexes on embeddings are made per dimension, partly at run time
(`db.chunks.ensure_index`), so they are not part of this metadata.
"""

from enum import StrEnum

from pgvector.sqlalchemy import SPARSEVEC, VECTOR
from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR

from db.models import SCHEMA, metadata, sql_list
from queue_schemas.states import DocumentStage, DocumentState

SPARSE_DIMENSION = 1_000_000_000


class Strategy(StrEnum):
    """How a collection is searched."""

    DENSE = "dense"
    SPARSE = "sparse"
    HYBRID = "hybrid"


class Origin(StrEnum):
    """Where a document came from."""

    UPLOAD = "upload"
    TEXT = "text"
    URL = "url"


def _tenant() -> Column[object]:
    return Column("tenant_id", Uuid, ForeignKey(f"{SCHEMA}.tenants.id"), nullable=False)


def _of(table: str, name: str, *, key: bool = False) -> Column[object]:
    """A key into another table of the corpus, whose rows take these with them."""
    target = ForeignKey(f"{SCHEMA}.{table}.id", ondelete="CASCADE")
    return Column(name, target, nullable=False, primary_key=key)


def _count(name: str, kind: type[Integer] = Integer) -> Column[object]:
    return Column(name, kind, nullable=False, server_default="0")


def _time(name: str, *, now: bool = False) -> Column[object]:
    default = func.now() if now else None
    return Column(name, DateTime(timezone=True), nullable=not now, server_default=default)


def _json(name: str) -> Column[object]:
    return Column(name, JSONB, nullable=False, server_default=text("'{}'::jsonb"))


collections = Table(
    "collections",
    metadata,
    Column("id", Uuid, primary_key=True),
    _tenant(),
    Column("name", Text, nullable=False),
    Column("strategy", Text, nullable=False),
    Column("embedding_model", Text, comment="As the registry names it."),
    Column("dimension", Integer, comment="Fixed by the first document that was embedded."),
    Column("language", Text, nullable=False, server_default="english", comment="For its words."),
    _json("chunking"),
    Column("dense_weight", Double, nullable=False, server_default="0.7"),
    _count("chunk_count"),
    Column(
        "word_count",
        BigInteger,
        nullable=False,
        server_default="0",
        comment="Sum of its chunks' lengths.",
    ),
    Column(
        "average_length",
        Double,
        nullable=False,
        server_default="0",
        comment="That the stored weights were computed with; follows the real one now and then.",
    ),
    Column(
        "revision",
        Integer,
        nullable=False,
        server_default="0",
        comment="Grows with every change that has its documents done again.",
    ),
    _time("created_at", now=True),
    UniqueConstraint("tenant_id", "name"),
    CheckConstraint(f"strategy IN ({sql_list(Strategy)})", name="strategy"),
    CheckConstraint("strategy = 'sparse' OR embedding_model IS NOT NULL", name="model"),
    CheckConstraint("dimension > 0", name="dimension"),
    CheckConstraint("dense_weight BETWEEN 0 AND 1", name="dense_weight"),
    CheckConstraint("chunk_count >= 0 AND word_count >= 0", name="counts"),
)

documents = Table(
    "documents",
    metadata,
    Column("id", Uuid, primary_key=True),
    _tenant(),
    _of("collections", "collection_id"),
    Column("name", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("url", Text),
    Column("media_type", Text),
    Column("digest", LargeBinary, nullable=False, comment="SHA-256 of the content, or of the URL."),
    _json("metadata"),
    Column(
        "replaces",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="When it is ready, older ones of its name go.",
    ),
    Column("state", Text, nullable=False, server_default=DocumentState.WAITING),
    Column("stage", Text),
    Column(
        "attempt",
        Integer,
        nullable=False,
        server_default="0",
        comment="Only ever grows: who holds an old one can write nothing.",
    ),
    Column(
        "tries",
        Integer,
        nullable=False,
        server_default="0",
        comment="Attempts since somebody asked for it.",
    ),
    Column(
        "revision",
        Integer,
        nullable=False,
        server_default="0",
        comment="Of its collection, when it was claimed.",
    ),
    _time("lease_until"),
    _time("available_at", now=True),
    Column("error", JSONB),
    Column("byte_count", BigInteger, nullable=False, server_default="0"),
    Column("page_count", Integer),
    _count("chunk_count"),
    _count("embedded_count"),
    _json("timings"),
    _json("flags"),
    _time("created_at", now=True),
    _time("updated_at", now=True),
    _time("ready_at"),
    UniqueConstraint("collection_id", "digest"),
    CheckConstraint(f"state IN ({sql_list(DocumentState)})", name="state"),
    CheckConstraint(f"stage IN ({sql_list(DocumentStage)})", name="stage"),
    CheckConstraint(f"origin IN ({sql_list(Origin)})", name="origin"),
    CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name="leased"),
    CheckConstraint("(state = 'ready') = (ready_at IS NOT NULL)", name="ready"),
    CheckConstraint("state <> 'failed' OR error IS NOT NULL", name="failed"),
    CheckConstraint("state <> 'running' OR attempt >= 1", name="attempt"),
    CheckConstraint("length(digest) = 32", name="digest"),
    CheckConstraint("jsonb_typeof(metadata) = 'object'", name="metadata"),
    Index("ix_documents_tenant_id_created_at", "tenant_id", "created_at", "id"),
    # A hash, because a name may be a URL, which is too long for a tree.
    Index("ix_documents_name", "name", postgresql_using="hash"),
    Index("ix_documents_due", "available_at", postgresql_where=text("state = 'waiting'")),
    Index("ix_documents_lease_until", "lease_until", postgresql_where=text("state = 'running'")),
)

document_bodies = Table(
    "document_bodies",
    metadata,
    _of("documents", "document_id", key=True),
    _tenant(),
    Column("body", LargeBinary, nullable=False),
    comment="Content as it came, so that every stage can be done again.",
)

drafts = Table(
    "drafts",
    metadata,
    _of("documents", "document_id", key=True),
    Column("position", Integer, primary_key=True),
    _tenant(),
    Column("text", Text, nullable=False),
    Column("heading_path", ARRAY(Text), nullable=False, server_default="{}"),
    Column("page", Integer),
    Column("embedding", VECTOR),
    comment="Chunks that were cut and cannot be found yet.",
)

chunks = Table(
    "chunks",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    _tenant(),
    _of("collections", "collection_id"),
    _of("documents", "document_id"),
    Column("position", Integer, nullable=False),
    Column("text", Text, nullable=False),
    Column("heading_path", ARRAY(Text), nullable=False, server_default="{}"),
    Column("page", Integer),
    Column("embedding", VECTOR),
    Column("embedded_by", Text, comment="Model of the embedding: two models cannot be compared."),
    # The new chunks of a document are there for a moment beside its old ones.
    UniqueConstraint("document_id", "position", deferrable=True, initially="DEFERRED"),
    CheckConstraint("embedding IS NULL OR vector_norm(embedding) > 0", name="embedding"),
    CheckConstraint("(embedding IS NULL) = (embedded_by IS NULL)", name="embedded_by"),
    Index("ix_chunks_collection_id", "collection_id"),
)

chunk_terms = Table(
    "chunk_terms",
    metadata,
    Column(
        "chunk_id",
        ForeignKey(f"{SCHEMA}.chunks.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    _tenant(),
    Column("collection_id", Uuid, nullable=False),
    Column("document_id", Uuid, nullable=False),
    Column("length", Integer, nullable=False, comment="In lexemes, repetitions counted."),
    Column("terms", TSVECTOR, nullable=False),
    Column(
        "keys",
        TSVECTOR,
        nullable=False,
        comment="Hashes of (collection, lexeme): what the index is on.",
    ),
    Column(
        "weights",
        SPARSEVEC(SPARSE_DIMENSION),
        nullable=False,
        comment="BM25 without the query's part.",
    ),
    Index("ix_chunk_terms_document_id", "document_id"),
    Index("ix_chunk_terms_collection_id", "collection_id"),
    Index(
        "ix_chunk_terms_keys",
        "keys",
        postgresql_using="gin",
        postgresql_with={"fastupdate": "off"},
    ),
    comment="Only an index of chunks, without text.",
)

terms = Table(
    "terms",
    metadata,
    _of("collections", "collection_id", key=True),
    Column("lexeme", Text, primary_key=True),
    _tenant(),
    Column("chunk_count", Integer, nullable=False),
    CheckConstraint("chunk_count > 0", name="chunk_count"),
    comment="In how many chunks of a collection a word is.",
)
