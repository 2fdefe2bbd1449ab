"""The contract between master and workers: messages, states, topology and the model registry.

Everybody imports this package and it imports nobody, so it holds only pydantic and the
standard library. `millrace schemas export` writes it as JSON Schema and AsyncAPI for workers in
other languages.
"""
