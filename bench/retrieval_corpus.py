"""A corpus as large as wanted, made from a seed, and written past the ingest.

Vectors: 384 numbers around 2 000 centres, which lie in 32 directions. A chunk is its centre, plus
noise in 24 directions that are the centre's own (each half as strong as the one eight before it),
plus a little in all directions; so neighbours differ in a dozen or two ways, as with real
embeddings, and not in 384.

Texts: a vocabulary of 60 000 invented words whose frequencies follow Zipf and Mandelbrot, without
stop words. A document has a topic: a third of its words come from 150 of the vocabulary.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from typing import Final

import numpy as np
from numpy.typing import NDArray

DIMENSION: Final = 384
CHUNKS_OF_A_DOCUMENT: Final = 50
PARTS: Final = 10
"""A document's metadata say which tenth of the collection it is in."""
_CENTRES: Final = 2000
_CENTRE_DIRECTIONS: Final = 32
_OWN_DIRECTIONS: Final = 24
_VOCABULARY: Final = 60_000
_TOPIC_WORDS: Final = 150
_TOPIC_SHARE: Final = 1 / 3
_LENGTHS: Final = (60, 240)
"""Of a chunk, in words that are no stop words; evenly spread."""

Numbers = NDArray[np.float32]


@dataclass(frozen=True)
class Question:
    """What is searched for."""

    text: str
    vector: list[float]


class Synthetic:
    """Vectors, texts and questions that are the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        shape = np.random.default_rng(1)  # every collection is about the same things
        plane = shape.standard_normal((_CENTRE_DIRECTIONS, DIMENSION), np.float32)
        where = shape.standard_normal((_CENTRES, _CENTRE_DIRECTIONS), np.float32)
        self._centres = where @ plane / (_CENTRE_DIRECTIONS * DIMENSION) ** 0.5
        strengths = np.float32(0.35) * 0.5 ** (np.arange(_OWN_DIRECTIONS, dtype=np.float32) / 8)
        own = shape.standard_normal((_CENTRES, _OWN_DIRECTIONS, DIMENSION), np.float32)
        own *= strengths[:, None] / np.float32(DIMENSION**0.5)
        self._own = own
        self._random = np.random.default_rng(seed)

    def vectors(self, count: int) -> Numbers:
        """So many unit vectors."""
        centres = self._random.integers(0, _CENTRES, count)
        noise = self._random.standard_normal((count, _OWN_DIRECTIONS), np.float32)
        every = self._random.standard_normal((count, DIMENSION), np.float32) * 0.15 / DIMENSION**0.5
        made = self._centres[centres] + every
        for start in range(0, count, 1000):
            some = slice(start, start + 1000)
            made[some] += np.einsum("co,cod->cd", noise[some], self._own[centres[some]])
        unit: Numbers = made / np.linalg.norm(made, axis=1, keepdims=True)
        return unit

    @cached_property
    def words(self) -> list[str]:
        """The vocabulary, the most frequent first."""
        syllables = [a + b for a, b in product("bdfgklmnprtvz", "aou")]
        all_ = ["".join(parts) + "x" for parts in product(syllables, repeat=3)]
        all_ += ["".join(parts) + "x" for parts in product(syllables, repeat=2)]
        random.Random(1).shuffle(all_)
        return all_[:_VOCABULARY]

    def _drawn(self, count: int) -> NDArray[np.int64]:
        return np.searchsorted(self._cumulated, self._random.random(count))

    @cached_property
    def _cumulated(self) -> NDArray[np.float64]:
        frequencies = 1 / (np.arange(len(self.words)) + 30.0) ** 1.07
        return np.cumsum(frequencies / frequencies.sum())

    def document(self, chunks: int) -> list[str]:
        """The texts of its chunks."""
        topic = self._drawn(_TOPIC_WORDS)
        lengths = self._random.integers(*_LENGTHS, chunks)
        drawn = self._drawn(int(lengths.sum()))
        on_topic = self._random.random(len(drawn)) < _TOPIC_SHARE
        drawn[on_topic] = self._random.choice(topic, int(on_topic.sum()))
        ends = [0, *np.cumsum(lengths)]
        return [" ".join(self.words[n] for n in drawn[a:b]) for a, b in pairwise(ends)]

    def questions(self, count: int) -> list[Question]:
        """Two to eight words each: a tenth are rare, a quarter among the hundred commonest."""
        vectors = self.vectors(count)
        return [Question(" ".join(self._asked()), v.tolist()) for v in vectors]

    def common_questions(self, count: int) -> list[Question]:
        """Of nothing but the hundred commonest words."""
        vectors = self.vectors(count)
        numbers = self._random.integers(0, 100, (count, 4))
        return [
            Question(" ".join(self.words[n] for n in some), vector.tolist())
            for some, vector in zip(numbers, vectors, strict=True)
        ]

    def _asked(self) -> Iterator[str]:
        for kind in self._random.random(self._random.integers(2, 9)):
            low, high = (0, 100) if kind < 0.25 else (100, 5000) if kind < 0.9 else (5000, 60_000)
            # Within a class, as frequent as in a text.
            a, b = self._cumulated[low], self._cumulated[min(high, _VOCABULARY) - 1]
            yield self.words[int(np.searchsorted(self._cumulated, self._random.uniform(a, b)))]
