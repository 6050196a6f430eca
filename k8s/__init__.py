"""Manifests for a cluster, and what proves them without one."""
