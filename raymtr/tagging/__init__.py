"""Tagging: the tags that are heard in a recording, and its measured attributes."""
