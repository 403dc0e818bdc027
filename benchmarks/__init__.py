"""Figures, each from one command: `./benchmarks/run recording`, `./benchmarks/run serving`."""
