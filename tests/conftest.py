"""What all tests share. That this file is here makes `from support.… import …` work in every folder of tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Machines that run the tests are slow and busy: no deadline on an example, and no verdict on the pace of making them.
# A shared worker is a fixture; the tests that use it with many examples forget what was before by themselves.
settings.register_profile(
    "sekisho",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    print_blob=True,
)
settings.load_profile("sekisho")
