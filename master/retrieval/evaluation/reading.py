"""Which format a path has."""

from pathlib import Path

from master.retrieval.evaluation import beir, squad
from master.retrieval.evaluation.sets import RetrievalSet, SetError


def read_set(path: Path) -> RetrievalSet:
    """A folder is BEIR's, a file is SQuAD's. Raises SetError."""
    if path.is_dir():
        return beir.read_folder(path)
    if path.is_file():
        return squad.read_file(path)
    raise SetError(path, None, "does not exist")
