"""Writing captions: by a grammar or a language model, and their storage."""
