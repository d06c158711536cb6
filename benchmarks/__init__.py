"""The benchmark suite: ``python -m benchmarks``, or in pytest's own form ``pytest benchmarks --benchmark-only``."""
