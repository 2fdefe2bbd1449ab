"""`millrace eval retrieval` with a real database and real embeddings.

The guard below is a regression test on sets that took part in choosing how scores are fused; it is
not evidence that a hybrid is better everywhere. What was measured is in the documentation.
"""

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from master.retrieval.embedders.pool import Embedders
from master.retrieval.embedders.protocol import Embedder, Vector
from master.retrieval.evaluation.outcome import Evaluation, Leg
from master.retrieval.evaluation.reading import read_set
from master.retrieval.evaluation.sets import Passage, Question, RetrievalSet
from master.retrieval.fusion import DENSE_WEIGHT
from master.retrieval.search import Query
from millrace.evaluation import Wanted, evaluate
from millrace.one_machine import MINILM
from queue_schemas.registry import Model, Registry
from tests.integration.cli.command_line import millrace

SETS = Path(__file__).parents[2] / "retrieval_sets"
REGISTRY = Registry(models=(Model(name="chat", provider="extractive"), MINILM))

SMALL = RetrievalSet(
    "small",
    (Passage("a", "Herons", "fish at dawn"), Passage("b", "", ""), Passage("c", "", "owls hunt")),
    (Question("1", "heron", {"a": 1}), Question("2", "hunting owl", {"c": 1})),
    left_out=1,
)


def wanted(model: str | None, language: str = "english") -> Wanted:
    return Wanted(model, language, Query.candidates, DENSE_WEIGHT)


class Remembering(Embedders):
    """The real model, asked once for each text: a question is asked of every leg."""

    def __init__(self) -> None:
        super().__init__(lambda: REGISTRY)
        self._vectors: dict[str, Vector] = {}

    def get(self, name: str) -> "_Remembered":
        return _Remembered(super().get(name), self._vectors)


class _Remembered:
    def __init__(self, embedder: Embedder, vectors: dict[str, Vector]) -> None:
        self._embedder, self._vectors = embedder, vectors
        self.model, self.max_words = embedder.model, embedder.max_words
        self.check, self.aclose = embedder.check, embedder.aclose

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        self._vectors |= zip(new, await self._embedder.embed(new), strict=True)
        return [self._vectors[text] for text in texts]


@pytest.fixture(scope="module")
def embedders() -> Iterator[Embedders]:
    """The model is loaded once for all tests here."""
    kept = Remembering()
    yield kept
    asyncio.run(kept.aclose())


async def measured(
    engine: AsyncEngine, embedders: Embedders, asked: RetrievalSet, how: Wanted
) -> Evaluation:
    if how.model:
        await embedders.get(how.model).embed([question.text for question in asked.questions])
    return await evaluate(engine, embedders, asked, how, lambda *_: None)


async def count(engine: AsyncEngine, table: str) -> int:
    async with engine.connect() as connection:
        found = await connection.execute(text(f"SELECT count(*) FROM millrace.{table}"))
        return int(found.scalar_one())


async def test_words_alone_are_measured_without_a_model(
    engine: AsyncEngine, embedders: Embedders
) -> None:
    found = await measured(engine, embedders, SMALL, wanted(None))
    assert [leg.leg for leg in found.legs] == [Leg.SPARSE]
    assert found.legs[0].ndcg == (1.0, 1.0)
    assert (found.passages, found.questions, found.left_out) == (3, 2, 1)


async def test_nothing_stays_behind(
    engine: AsyncEngine, embedders: Embedders, tenant: UUID
) -> None:
    await measured(engine, embedders, SMALL, wanted(None))
    for table in ("collections", "documents", "chunks", "chunk_terms", "terms", "drafts"):
        assert await count(engine, table) == 0, table
    assert await count(engine, "tenants") == 1  # `tenant`, which was there before


async def test_nothing_stays_behind_when_it_fails(
    engine: AsyncEngine, embedders: Embedders
) -> None:
    def stop(what: str, done: int, _of: int) -> None:
        if what == "questions" and done:
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        await evaluate(engine, embedders, SMALL, wanted(None), stop)
    assert await count(engine, "chunks") == await count(engine, "tenants") == 0


@pytest.mark.parametrize(
    ("name", "language"),
    [("handbook", "english"), ("squad_small.json", "english"), ("buecherei", "german")],
)
async def test_both_legs_together_find_at_least_as_well_as_the_better_one(
    engine: AsyncEngine, embedders: Embedders, name: str, language: str
) -> None:
    pytest.importorskip("sentence_transformers", reason="no embedding model is installed")
    found = await measured(engine, embedders, read_set(SETS / name), wanted(MINILM.name, language))
    legs = {leg.leg: leg.means["nDCG@10"] for leg in found.legs}
    assert legs[Leg.HYBRID] >= max(legs[Leg.DENSE], legs[Leg.SPARSE]), legs


@pytest.mark.parametrize("name", ["harbour", "clinic"])
async def test_on_sets_written_afterwards_both_legs_together_are_not_clearly_worse(
    engine: AsyncEngine, embedders: Embedders, name: str
) -> None:
    pytest.importorskip("sentence_transformers", reason="no embedding model is installed")
    found = await measured(engine, embedders, read_set(SETS / name), wanted(MINILM.name))
    lead = found.lead(Leg.HYBRID)
    assert lead is not None
    assert lead.high >= 0, lead


def test_the_command_measures_and_plots(migrated_url: str, tmp_path: Path) -> None:
    plot = tmp_path / "bars.svg"
    models = tmp_path / "models.yaml"
    models.write_text("models:\n  - name: chat\n    provider: extractive\n", "utf-8")
    pytest.importorskip("sentence_transformers", reason="no embedding model is installed")
    done = millrace(
        "eval", "retrieval", str(SETS / "squad_small.json"), "--limit", "5", "--json",
        "--plot", str(plot), "--models", str(models), "--database-url", migrated_url,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["embedding_model"], told["questions"], told["left_out"]) == (MINILM.name, 5, 5)
    assert set(told["legs"]) == {"dense", "sparse", "hybrid", "hybrid+rerank"}
    assert plot.read_text("utf-8").startswith("<svg")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: does not exist"),
        ([str(SETS / "handbook"), "--model", "unheard-of"], "no embedding model 'unheard-of'"),
        ([str(SETS / "handbook"), "--limit", "0"], "should be greater than or equal to 1"),
        ([str(SETS / "handbook"), "--language", "klingon"], "klingon"),
        ([str(SETS / "handbook"), "--plot", "nowhere/bars.svg"], "there is no folder nowhere"),
    ],
    ids=["path", "model", "limit", "language", "plot"],
)
def test_what_cannot_be_measured_is_one_clear_line(
    migrated_url: str, tmp_path: Path, arguments: list[str], message: str
) -> None:
    models = tmp_path / "models.yaml"
    models.write_text("models:\n  - name: chat\n    provider: extractive\n", "utf-8")
    done = millrace(
        "eval", "retrieval", *arguments, "--models", str(models), "--database-url", migrated_url
    )
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
