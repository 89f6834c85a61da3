"""Benchmarks: each result is the ratio of two candidates that were measured alternately in one run.

    python -m benchmarks [acknowledgements] [verify] [endpoints] [import] [...] [--events 4000]

See docs/performance.md.
"""
