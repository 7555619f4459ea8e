"""Benchmarks: one command per claim, peers side by side in one run."""
