"""How text becomes vectors; one file for each way to reach an embedding model."""
