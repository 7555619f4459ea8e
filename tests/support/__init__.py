"""Helpers of the tests that start real processes and talk to them in bytes."""
