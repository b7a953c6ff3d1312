"""Measurements of array-mlp beside its floor and its peers: `python -m benchmarks --help`."""
