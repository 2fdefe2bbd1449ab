"""How a worker reaches an inference engine: one file per kind of engine."""
