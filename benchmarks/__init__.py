"""Benchmarks: one script a claim, figures as JSON in runs/bench, a table in docs/performance.md."""
