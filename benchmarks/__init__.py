"""What the suite is measured by: each figure a ratio of two sides that took turns in one run.

    python -m benchmarks [acknowledgements] [claims] [drain] [transactions] [--events 4000] [--rounds 3]

See docs/performance.md.
"""
