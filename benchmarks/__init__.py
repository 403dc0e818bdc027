"""Measure the speed of recording and serving: `./benchmarks/run recording` or `serving`."""
