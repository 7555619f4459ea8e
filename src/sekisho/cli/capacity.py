"""`sekisho capacity replay | profile`: what reservations are worth under real load."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click
import msgspec

from sekisho.assembly.live_replay import check_host, live, profile
from sekisho.assembly.replay import Plan, replay
from sekisho.capacity.throughput.trace import Profile, read_profile, read_trace
from sekisho.cli import capacity_texts as texts
from sekisho.cli.local import json_option
from sekisho.cli.reserve_output import as_json_output, print_table

# Of the order of an 8B model on a datacentre GPU; said to be assumed wherever it is used.
_ASSUMED = Profile(fixed_s=0.03, prefill_s=0.0001, decode_s=0.02)
_USUAL = Plan()


@click.group(help=str(texts.CAPACITY))
def capacity() -> None:
    """The help is `texts.CAPACITY`."""


@capacity.command("replay", help=str(texts.REPLAY))
@click.argument("trace", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--profile", "profile_file", type=click.Path(path_type=Path), help=str(texts.OPTION_PROFILE))
@click.option("--endpoints", type=click.IntRange(1, 1000), default=_USUAL.endpoints, show_default=True,
              help=str(texts.OPTION_ENDPOINTS))  # fmt: skip
@click.option("--slots", type=click.IntRange(1, 10_000), default=_USUAL.slots, show_default=True,
              help=str(texts.OPTION_SLOTS))  # fmt: skip
@click.option("--greedy", type=click.IntRange(1, 10_000), default=_USUAL.greedy, show_default=True,
              help=str(texts.OPTION_GREEDY))  # fmt: skip
@click.option("--load", type=click.FloatRange(0.01, 100), default=_USUAL.load, show_default=True,
              help=str(texts.OPTION_LOAD))  # fmt: skip
@click.option("--reserve", "reserved", type=click.IntRange(1, 10_000), default=_USUAL.reserved, show_default=True,
              help=str(texts.OPTION_RESERVED))  # fmt: skip
@click.option("--keep-warm-s", type=click.FloatRange(0, 60), default=_USUAL.keep_warm_s, show_default=True,
              help=str(texts.OPTION_KEEP))  # fmt: skip
@click.option("--slo-s", type=click.FloatRange(0.001, 600), default=_USUAL.slo_s, show_default=True,
              help=str(texts.OPTION_SLO))  # fmt: skip
@click.option("--seconds", type=click.FloatRange(1, 36_000), default=120.0, show_default=True,
              help=str(texts.OPTION_SECONDS))  # fmt: skip
@click.option("--live", "url", help=str(texts.OPTION_LIVE))
@click.option("--model", default="", help=str(texts.OPTION_MODEL))
@click.option("--speed", type=click.FloatRange(0.001, 1000), default=1.0, show_default=True,
              help=str(texts.OPTION_SPEED))  # fmt: skip
@click.option("--allow-host", multiple=True, help=str(texts.OPTION_HOST))
@click.option("--key", envvar="SEKISHO_KEY", default="", help=str(texts.OPTION_KEY))
@json_option
def replay_(
    *,
    trace: Path,
    profile_file: Path | None,
    url: str | None,
    model: str,
    speed: float,
    allow_host: tuple[str, ...],
    key: str,
    as_json: bool,
    **given: Any,
) -> None:
    """The help is `texts.REPLAY`."""
    arrivals = read_trace(trace)
    plan = Plan(**given)
    if url is not None:
        check_host(url, allow_host)
        told = asyncio.run(
            live(arrivals, url=url, model=model, key=key, speed=speed, seconds=plan.seconds, slo_s=plan.slo_s)
        )
        if not as_json_output(as_json, told):
            values = msgspec.structs.asdict(told)
            click.echo(texts.LIVE(p50=told.first_p50_s, p99=told.first_p99_s, **values))
        return
    if plan.reserved > plan.endpoints * plan.slots:
        raise click.BadParameter(f"{plan.reserved} > {plan.endpoints} × {plan.slots}", param_hint="--reserve")
    measured = read_profile(profile_file) if profile_file is not None else _ASSUMED
    found = replay(arrivals, plan, measured)
    if as_json_output(as_json, found):
        return
    click.echo(
        texts.SIMULATED(
            endpoints=plan.endpoints, slots=plan.slots, load=plan.load, speed=found.speed,
            source=measured.source or texts.MADE_UP,
        )
    )  # fmt: skip
    print_table(
        (texts.COLUMN_TENANT, texts.COLUMN_REQUESTS, texts.COLUMN_REFUSED, texts.COLUMN_SLO, texts.COLUMN_P99),
        [
            (
                before.tenant,
                before.requests,
                f"{before.refused} → {after.refused}",
                f"{before.slo:.1%} → {after.slo:.1%}",
                f"{before.wait_p99_s:.3f} → {after.wait_p99_s:.3f}",
            )
            for before, after in zip(found.without.tenants, found.with_share.tenants, strict=True)
        ],
    )
    click.echo(texts.BUSY(without=found.without.busy, kept=found.with_share.busy))


@capacity.command("profile", help=str(texts.PROFILE))
@click.argument("url")
@click.option("--model", required=True, help=str(texts.OPTION_MODEL))
@click.option("--allow-host", multiple=True, help=str(texts.OPTION_HOST))
@click.option("--key", envvar="SEKISHO_KEY", default="", help=str(texts.OPTION_KEY))
def profile_(*, url: str, model: str, allow_host: tuple[str, ...], key: str) -> None:
    """The help is `texts.PROFILE`."""
    check_host(url, allow_host)
    found = asyncio.run(profile(url=url, model=model, key=key))
    click.echo(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())
