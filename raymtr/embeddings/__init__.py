"""Embeddings: the vectors of one model, computed and stored."""
