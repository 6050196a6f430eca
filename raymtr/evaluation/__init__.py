"""How good are the answers: benchmarks, figures, the report."""
