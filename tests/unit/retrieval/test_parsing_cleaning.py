import pytest

from master.retrieval.parsing import plain
from master.retrieval.parsing.parse import parse


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("plain\n\ttext é 機械 😀", ("plain\n\ttext é 機械 😀", 0, 0)),
        ("a\x00b\x7fc\x1b", ("abc", 3, 0)),
        ("a\ud800b", ("a\ufffdb", 1, 0)),
        ("a\U000e0041b", ("ab", 0, 1)),
        ("a\r\nb\rc\x0cd\u2028e", ("a\nb\nc\nd\ne", 0, 0)),
    ],
)
def test_only_odd_characters_are_cleaned(text: str, cleaned: tuple[str, int, int]) -> None:
    assert plain.clean(text) == cleaned


def test_headings_and_titles_are_cleaned_too() -> None:
    parsed = parse(b"# He\x00ad\n\ntext\n", "a.md")
    assert parsed.title == "Head"
    assert parsed.blocks[1].heading_path == ("Head",)
    assert parsed.flags == {"cleaned_characters": 1}
