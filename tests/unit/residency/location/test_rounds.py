"""Who measures whom, and when."""

from __future__ import annotations

from random import Random

from sekisho.residency.location.rounds import JITTER, MOST_AT_ONCE, RETRY_S, Rounds

NOW = 1_800_000_000.0
EVERY_S = 1200.0


def rounds(seed: int = 1) -> Rounds:
    return Rounds(every_s=EVERY_S, chance=Random(seed))


def test_everybody_is_measured_at_first_and_again_after_the_interval_give_or_take_its_jitter() -> None:
    made = rounds()
    assert made.due("tokyo", ("osaka", "ishikari"), now=NOW) == ("ishikari", "osaka")
    made.measured("tokyo", "osaka", now=NOW)
    earliest, latest = NOW + EVERY_S * (1 - JITTER), NOW + EVERY_S * (1 + JITTER)
    assert made.due("tokyo", ("osaka",), now=earliest - 1) == ()
    assert made.due("tokyo", ("osaka",), now=latest + 1) == ("osaka",)


def test_the_moment_of_the_next_measurement_can_not_be_known() -> None:
    moments = set()
    for seed in range(20):
        made = rounds(seed)
        made.measured("tokyo", "osaka", now=NOW)
        at = NOW
        while not made.due("tokyo", ("osaka",), now=at):
            at += 1
        moments.add(at)
    assert len(moments) > 10


def test_what_brought_nothing_is_tried_again() -> None:
    made = rounds()
    assert made.due("tokyo", ("osaka",), now=NOW) == ("osaka",)
    assert made.due("tokyo", ("osaka",), now=NOW + RETRY_S - 1) == ()
    assert made.due("tokyo", ("osaka",), now=NOW + RETRY_S) == ("osaka",)


def test_on_demand_comes_at_once_and_first() -> None:
    made = rounds()
    for site in ("osaka", "ishikari"):
        made.measured("tokyo", site, now=NOW)
    made.ask(("tokyo",), "osaka")
    assert made.due("tokyo", ("ishikari", "osaka"), now=NOW) == ("osaka",)
    assert made.due("fukuoka", ("osaka",), now=NOW) == ("osaka",)


def test_no_heart_beat_gets_more_than_it_can_do() -> None:
    sites = tuple(f"site-{number:02}" for number in range(3 * MOST_AT_ONCE))
    made = rounds()
    handed_out: list[str] = []
    for step in range(3):
        handed_out += made.due("tokyo", sites, now=NOW + step)
    assert sorted(handed_out) == sorted(sites)
