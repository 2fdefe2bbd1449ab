"""Search in the console: every score, every leg's place, and the legs side by side."""

import re

from db import tenants
from millrace.chaos.engine import Reply, serve
from millrace.chaos.stack import until
from tests.doubles.embedding_engine import EmbeddingEngine
from tests.integration.console.browsing import signed_in, words
from tests.integration.db.corpus_acts import collection_of, published
from tests.integration.master.mill import Mill, a_script, installation
from tests.integration.retrieval.ingests import embedding_entry

TEXTS = ("The mill wheel turns.", "Water turns a wheel slowly.", "Bread is baked of flour.")
SCORES = r"Dense \(cosine\) (\S+)(.*?) Sparse \(BM25\) (\S+)(.*?) Fused (\S+)(.*?) Ranked again"


async def fill(mill: Mill) -> None:
    """A hybrid collection `default`, and a sparse one `plain`."""
    for place, text in enumerate(TEXTS):
        body = {"text": text, "name": f"{place}.txt"}
        assert (await mill.http.post("/v1/documents", json=body)).status_code == 202

    async def ready() -> bool:
        found = (await mill.http.get("/v1/collections/default")).json()
        return bool(found["documents"]["ready"] == len(TEXTS))

    await until(ready, 30)
    async with mill.running.engine.begin() as connection:
        owner = await tenants.ensure_tenant(connection, "acme")
    plain = await collection_of(mill.running.engine, owner, name="plain")
    await published(mill.running.engine, plain, "plain.md", TEXTS)


async def test_a_search_shows_every_score_and_every_legs_place(migrated_url: str) -> None:
    engine = EmbeddingEngine()
    with serve(engine) as url:
        models = a_script(name="chat"), embedding_entry(url)
        async with (
            installation(migrated_url, *models, ingest_seconds=0.5) as mill,
            signed_in(mill.url, mill.key) as person,
        ):
            await fill(mill)
            assert "What to find" in await person.get("/console/search")
            page = words(await person.get("/console/search?query=mill+wheel&top=2"))
            assert "2 found in default" in page
            first, second = re.findall(SCORES, page)
            assert [first[n].strip() for n in (1, 3, 5)] == ["place 1"] * 3
            assert [second[n].strip() for n in (3, 5)] == ["place 2"] * 2
            assert all(re.fullmatch(r"\d\.\d{3}", first[n]) for n in (0, 2, 4))
            assert "Embed" in page
            plain = words(await person.get("/console/search?query=wheel&collection=plain"))
            assert re.search(r"Dense \(cosine\) \S Sparse", plain)
            both = words(await person.get("/console/search?query=wheel&compare=yes"))
            assert re.search(r"Dense 0\.txt .* Sparse 0\.txt .* Hybrid 0\.txt", both)
            legs = await person.get("/console/search?query=wheel&collection=plain&compare=yes")
            assert "it has words and no vectors" in words(legs)
            nothing = await person.get("/console/search?query=zebra&collection=plain")
            assert "Nothing is found." in nothing
            engine.reply = Reply(status=503)
            degraded = words(await person.get("/console/search?query=wheel"))
            assert "The stage dense had to do without its model." in degraded
            legs = words(await person.get("/console/search?query=wheel&compare=yes"))
            assert re.search(r"Dense .*does not answer now.* Sparse 0\.txt", legs)
            failed = await person.get("/console/search?query=wheel&strategy=dense", status=503)
            assert "service_unavailable" in failed
