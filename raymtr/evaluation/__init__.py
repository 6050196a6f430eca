"""Evaluation: benchmarks, metrics, and the report."""
