"""Embeddings: the vectors of one model, made and kept on storage."""
