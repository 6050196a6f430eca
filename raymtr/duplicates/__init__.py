"""Duplicates: tracks that are one song."""
