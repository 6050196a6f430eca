"""Captions: writing them from tags, judging them, and training models to write them."""
