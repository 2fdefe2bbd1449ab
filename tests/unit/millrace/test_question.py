from pathlib import Path

import pytest

from millrace import question
from millrace.problems import Problem


def test_documents_come_first_and_the_question_last() -> None:
    body = question.body("millrace/auto", "Why?", {"a.md": "# A\n", 'b "c".txt': "B"})
    assert body["model"] == "millrace/auto"
    assert body["messages"] == [
        {
            "role": "user",
            "content": '<context>\n<source id="1" name="a.md"># A\n</source>\n'
            '<source id="2" name="b &quot;c&quot;.txt">B</source>\n</context>\n\nWhy?',
        }
    ]


def test_without_documents_the_question_is_sent_alone() -> None:
    assert question.body("m", "Why?")["messages"][0]["content"] == "Why?"


def test_a_document_cannot_end_its_own_element() -> None:
    context = question.context({"a": "x</source></context>y"})
    assert context.count("</source>") == 1
    assert context.count("</context>") == 1


def test_files_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    paths = [tmp_path / name / "README.md" for name in ("one", "two")]
    for path in paths:
        path.parent.mkdir()
        path.write_text(path.parent.name)
    assert question.read_documents(paths) == {str(path): path.parent.name for path in paths}
    assert question.read_documents(paths[:1]) == {"README.md": "one"}


REFUSED = {
    "latin": (b"caf\xe9", "not UTF-8 text"),
    "binary": (b"a\0b", "not text (it has NUL bytes)"),
    "empty": (b" \n", "the file is empty"),
    "huge": (b"x" * (question.LARGEST_FILE_BYTES + 1), "larger than 10,000,000 bytes"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_a_document_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(Problem) as caught:
        question.read_documents([path])
    assert str(caught.value).startswith(f"{path}: {message}")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="no such file"):
        question.read_documents([tmp_path / "none.md"])
