"""Scenarios: what the laboratory shows, each with a report."""
