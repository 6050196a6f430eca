"""Generates a small synthetic catalog: musical material, composition, sound, invented artists."""
