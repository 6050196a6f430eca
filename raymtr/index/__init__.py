"""Vectors of a catalog: making, keeping and publishing them."""
