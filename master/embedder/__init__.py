"""The embedder: one embedding model behind HTTP, with neither database nor queue."""
