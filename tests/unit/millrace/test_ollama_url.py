import pytest

from millrace import ollama_url

WRITTEN = {
    "": "http://127.0.0.1:11434",
    " ": "http://127.0.0.1:11434",
    "gpu-1": "http://gpu-1:11434",
    "gpu-1:8080": "http://gpu-1:8080",
    ":8080": "http://127.0.0.1:8080",
    "0.0.0.0": "http://127.0.0.1:11434",
    "http://gpu-1": "http://gpu-1:80",
    "https://gpu-1/": "https://gpu-1:443",
    "https://gpu-1:9/ollama/": "https://gpu-1:9/ollama",
    "[::]:11434": "http://[::1]:11434",
    "http://[fe80::1]:5": "http://[fe80::1]:5",
}


@pytest.mark.parametrize(("value", "url"), WRITTEN.items())
def test_every_way_to_write_it_becomes_a_url(value: str, url: str) -> None:
    assert ollama_url.from_environment({"OLLAMA_HOST": value}) == url


@pytest.mark.parametrize("value", ["ftp://gpu", "http://gpu:99999", "http://[::1", "gpu:port"])
def test_what_is_no_address_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        ollama_url.normalised(value)
