"""A cross-encoder of a few kilobytes with random weights, which loads and runs as a real one."""

from importlib import import_module
from pathlib import Path
from string import ascii_lowercase
from typing import Any

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def save_cross_encoder(folder: Path, labels: int = 1) -> str:
    """Write one; needs transformers, so skip the test where that is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = [*_SPECIAL, *ascii_lowercase, *(f"##{letter}" for letter in ascii_lowercase)]
    file = folder / "vocab.txt"
    file.write_text("\n".join(vocabulary), "utf-8")
    transformers: Any = import_module("transformers")
    import_module("torch").manual_seed(7)
    transformers.BertTokenizer(str(file)).save_pretrained(folder)
    shape = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        num_labels=labels,
        initializer_range=0.3,  # so that different texts get visibly different scores
    )
    transformers.BertForSequenceClassification(shape).save_pretrained(folder)
    return str(folder)
