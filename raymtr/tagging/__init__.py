"""Tagging: the tags that musicnn assigns to a recording, and its measured attributes."""
