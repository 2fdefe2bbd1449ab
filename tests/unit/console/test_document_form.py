"""What a person fills in becomes what the API takes."""

import pytest

from master.api.errors import ApiError
from master.console.document_form import settings_of, url_of
from master.console.remedies import remedy


def test_what_is_left_empty_is_not_said() -> None:
    texts = {"csrf": "x", "collection": " mills ", "strategy": "", "chunk_size": "", "replace": ""}
    assert settings_of(texts) == {"collection": "mills"}


def test_all_that_can_be_said_is_said_as_the_api_has_it() -> None:
    texts = {
        "collection": "mills",
        "strategy": "sparse",
        "embedding_model": "mini",
        "language": "german",
        "chunk_method": "sentences",
        "chunk_size": "200",
        "chunk_overlap": "0",
        "replace": "true",
    }
    assert settings_of(texts) == {
        "collection": "mills",
        "strategy": "sparse",
        "embedding_model": "mini",
        "language": "german",
        "chunking": {"method": "sentences", "size": 200, "overlap": 0},
        "replace": True,
    }
    assert url_of({"url": " https://example.org/a ", "name": ""}) == {
        "url": "https://example.org/a"
    }


@pytest.mark.parametrize("text", ["-1", "1.5", "many", "٣", "9999999"])
def test_sizes_are_whole_numbers(text: str) -> None:
    with pytest.raises(ApiError) as refused:
        settings_of({"chunk_size": text})
    assert (refused.value.status, refused.value.param) == (400, "chunking.size")


def test_errors_have_remedies() -> None:
    said = remedy({"code": "embedding_model_mismatch", "status": 409}, "mills")
    assert said == "Embed the collection anew: millrace reindex mills"
    assert remedy({"code": "never heard of", "status": 500}, "a") is not None
    assert remedy({"code": "database_unavailable", "status": 503}, "a") is None
    assert remedy(None, "a") is None
