"""Turns folders, manifests and datasets into one catalog of tracks."""
