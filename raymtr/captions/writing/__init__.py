"""Captions are written: by a grammar, by a language model, and kept on storage."""
