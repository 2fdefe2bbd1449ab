"""Reading retrieval sets; what is wrong with one is said with its place."""

import json
from pathlib import Path

import pytest

from master.retrieval.evaluation.reading import read_set
from master.retrieval.evaluation.sets import Passage, Question, RetrievalSet, SetError

SETS = Path(__file__).parents[2] / "retrieval_sets"

CORPUS = '{"_id":"a","title":"One","text":"first"}\n\n{"_id":"b","text":"second"}\n'
QUERIES = '{"_id":"q1","text":"which?"}\n{"_id":"q2","text":"none?"}\n'
QRELS = "query-id\tcorpus-id\tscore\nq1\ta\t2\nq1\tb\t0\nq2\tb\t0\n"


def beir(folder: Path, corpus: str = CORPUS, queries: str = QUERIES, qrels: str = QRELS) -> Path:
    (folder / "qrels").mkdir()
    for name, content in (
        ("corpus.jsonl", corpus),
        ("queries.jsonl", queries),
        ("qrels/test.tsv", qrels),
    ):
        (folder / name).write_text(content, "utf-8")
    return folder


def squad(folder: Path, content: object) -> Path:
    path = folder / "set.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def article(*questions: dict[str, object], context: str = "The sky is blue.") -> dict[str, object]:
    return {"title": "The_Sky", "paragraphs": [{"context": context, "qas": list(questions)}]}


def asked(name: str, **more: object) -> dict[str, object]:
    return {"id": name, "question": "Colour?", "answers": [{"text": "blue"}], **more}


def refused(path: Path) -> str:
    with pytest.raises(SetError) as error:
        read_set(path)
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "passages", "questions", "left_out"),
    [
        ("handbook", 70, 78, 0),
        ("squad_small.json", 24, 71, 5),
        ("buecherei", 28, 32, 0),
        ("harbour", 30, 40, 0),
        ("clinic", 30, 50, 0),
    ],
)
def test_the_sets_of_the_repository_are_read(
    name: str, passages: int, questions: int, left_out: int
) -> None:
    found = read_set(SETS / name)
    assert (len(found.passages), len(found.questions), found.left_out) == (
        passages,
        questions,
        left_out,
    )
    known = {passage.id for passage in found.passages}
    assert all(question.relevant.keys() <= known for question in found.questions)


def test_a_beir_folder_is_read(tmp_path: Path) -> None:
    found = read_set(beir(tmp_path))
    assert found.passages == (Passage("a", "One", "first"), Passage("b", "", "second"))
    assert found.questions == (Question("q1", "which?", {"a": 2}),)
    assert found.left_out == 1  # q2 was judged, and nothing answers it


def test_judgements_may_lie_beside_the_corpus(tmp_path: Path) -> None:
    folder = beir(tmp_path)
    (folder / "qrels" / "test.tsv").rename(folder / "qrels.tsv")
    assert read_set(folder).questions


def test_judgements_need_no_heading(tmp_path: Path) -> None:
    assert read_set(beir(tmp_path, qrels="q1\ta\t1\n")).questions[0].relevant == {"a": 1}


def test_windows_files_are_read(tmp_path: Path) -> None:
    texts = [("\ufeff" + text).replace("\n", "\r\n") for text in (CORPUS, QUERIES, QRELS)]
    assert read_set(beir(tmp_path, *texts)).questions[0].relevant == {"a": 2}


@pytest.mark.parametrize(
    ("part", "content", "message"),
    [
        ("corpus", "{", "corpus.jsonl: line 1: is not JSON"),
        ("corpus", "[" * 100_000, "corpus.jsonl: line 1: is not JSON"),
        ("corpus", "\n[1]", "corpus.jsonl: line 2: is not a JSON object"),
        ("corpus", '{"text":"x"}', "corpus.jsonl: line 1: no '_id'"),
        ("corpus", '{"_id":"","text":"x"}', "corpus.jsonl: line 1: '_id' is not a text"),
        ("corpus", '{"_id":1,"text":"x"}', "corpus.jsonl: line 1: '_id' is not a text"),
        ("corpus", '{"_id":"a","text":null}', "corpus.jsonl: line 1: 'text' is not a text"),
        ("corpus", CORPUS + CORPUS, "corpus.jsonl: line 4: the id 'a' is used twice"),
        ("queries", QUERIES + QUERIES, "queries.jsonl: line 3: the id 'q1' is used twice"),
        ("queries", '{"_id":"q","text":" "}', "queries.jsonl: line 1: the question 'q' is empty"),
        ("qrels", "q1\ta\t1\nq1 b 1", "test.tsv: line 2: has 1 tab-separated fields, not 3"),
        ("qrels", "q1\ta\t1\nq1\tb\tx", "test.tsv: line 2: the score 'x' is not a whole number"),
        ("qrels", "q1\tc\t1", "test.tsv: line 1: the passage 'c' does not exist"),
        ("qrels", "q9\ta\t1", "test.tsv: line 1: the question 'q9' does not exist"),
        ("qrels", "q1\ta\t1\nq1\ta\t0", "test.tsv: line 2: 'q1' and 'a' were judged before"),
        ("qrels", "q1\ta\t0", "test.tsv: no question has a relevant passage"),
        ("qrels", "", "test.tsv: no question has a relevant passage"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said_with_file_and_line(
    tmp_path: Path, part: str, content: str, message: str
) -> None:
    assert refused(beir(tmp_path, **{part: content})).endswith(message)


def test_a_missing_corpus_is_said(tmp_path: Path) -> None:
    assert "corpus.jsonl: cannot be read: no such file" in refused(tmp_path)


def test_missing_judgements_are_said(tmp_path: Path) -> None:
    folder = beir(tmp_path)
    (folder / "qrels" / "test.tsv").unlink()
    assert refused(folder).endswith("has neither qrels/test.tsv nor qrels.tsv")


def test_a_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    folder = beir(tmp_path)
    (folder / "corpus.jsonl").write_bytes(CORPUS.encode() + b'{"_id":"\xff"}\n')
    assert refused(folder).endswith("corpus.jsonl: line 4: is not UTF-8")


def test_a_path_that_is_not_there_is_said(tmp_path: Path) -> None:
    assert refused(tmp_path / "nothing").endswith("nothing: does not exist")


def test_a_squad_file_is_read(tmp_path: Path) -> None:
    found = read_set(squad(tmp_path, {"data": [article(asked("q1"))]}))
    assert found.passages == (Passage("p1", "The Sky", "The sky is blue."),)
    assert found.questions == (Question("q1", "Colour?", {"p1": 1}),)


def test_unanswerable_questions_are_left_out_and_counted(tmp_path: Path) -> None:
    questions = asked("q1"), asked("q2", is_impossible=True), asked("q3", answers=[])
    found = read_set(squad(tmp_path, {"data": [article(*questions)]}))
    assert ([question.id for question in found.questions], found.left_out) == (["q1"], 2)


def test_a_paragraph_that_comes_twice_is_one_passage(tmp_path: Path) -> None:
    twice = [article(asked("q1")), article(asked("q2")), article(asked("q3"), context="Grey.")]
    found = read_set(squad(tmp_path, {"data": twice}))
    assert len(found.passages) == 2
    assert [dict(question.relevant) for question in found.questions] == [
        {"p1": 1},
        {"p1": 1},
        {"p2": 1},
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"data": [\n{"title" 1}]}', "line 2: is not JSON: expecting ':' delimiter"),
        ("[" * 100_000, "is not JSON in UTF-8"),
        ([], "is not a JSON object with 'data'"),
        ({}, "data: is not a list"),
        ({"data": [{"title": 1}]}, "data[0].title: is not a text"),
        ({"data": [{"title": "x"}]}, "data[0].paragraphs: is not a list"),
        ({"data": ["x"]}, "data[0].title: is not a text"),
        (
            {"data": [{"paragraphs": [{"qas": []}]}]},
            "data[0].paragraphs[0].context: is not a text",
        ),
        ({"data": [article(7)]}, "data[0].paragraphs[0].qas[0].id: is not a text"),  # type: ignore[arg-type]  # bad on purpose
        (
            {"data": [article({"id": "q", "question": "?"})]},
            "data[0].paragraphs[0].qas[0].answers: is not a list",
        ),
        (
            {"data": [article(asked("q"), asked("q"))]},
            "data[0].paragraphs[0].qas[1]: the id 'q' is used twice",
        ),
        (
            {"data": [article(asked("q", question="  "))]},
            "data[0].paragraphs[0].qas[0]: the question is empty",
        ),
        ({"data": [article(asked("q", is_impossible=True))]}, "no question has an answer"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_place(
    tmp_path: Path, content: object, message: str
) -> None:
    assert refused(squad(tmp_path, content)).endswith(message)


def test_fewer_questions_are_spread_over_the_set_and_all_passages_stay() -> None:
    passages = (Passage("p", "", "x"),)
    questions = tuple(Question(str(number), "?", {"p": 1}) for number in range(10))
    whole = RetrievalSet("s", passages, questions)
    assert [question.id for question in whole.limited(3).questions] == ["0", "3", "6"]
    assert whole.limited(3).passages == passages
    assert whole.limited(None) is whole.limited(10) is whole.limited(99) is whole


def test_a_passage_is_indexed_with_its_title() -> None:
    assert Passage("p", " Title ", "text\n").content == "Title\ntext"
    assert Passage("p", "", "text").content == "text"
