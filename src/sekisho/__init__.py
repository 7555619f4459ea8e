"""Sekisho: one checkpoint in front of many operators' GPUs."""
