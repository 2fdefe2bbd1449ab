"""Documents in, passages out: parsing, chunking, embedding, search."""
