"""Manifests for a cluster, and checks of them that need no cluster."""
