"""Scenario 4: the time to the first token from Tokyo, in-country against trans-Pacific, with the same real model."""

from __future__ import annotations

from pathlib import Path

import msgspec

from sekisho.lab.house import CANARY, House, Serving
from sekisho.lab.load import Asked, Client, LoadSpec, read_results
from sekisho.lab.network import Lab
from sekisho.lab.scenarios.chart import Series, cumulative
from sekisho.lab.scenarios.report import Check, Report, distribution, percentile

IN_COUNTRY, ABROAD = "in-country", "trans-pacific"
NEAR, FAR = "osaka", "us-west"
_WARM_UP = 3  # connections are made, a model's first answer is slow


def run(folder: Path, *, pairs: int = 60) -> Report:
    """`pairs` questions, each put to both sites one after the other over warm connections."""
    folder.mkdir(parents=True, exist_ok=True)
    with Lab() as lab:
        serving = (Serving(site=NEAR, models=(IN_COUNTRY,)), Serving(site=FAR, models=(ABROAD,)))
        house = House(lab, folder, serving)
        house.start()
        # public work: confidential work could not be sent abroad even to be measured
        client = Client(name="tokyo", key=house.keys[CANARY], models=(IN_COUNTRY, ABROAD), count=pairs + _WARM_UP)
        results = ask_all(lab, house, folder, (client,), within_s=60 + pairs * 3.0)
        expected = {site: lab.topology.line(house.gateway_site, site).rtt_ms for site in (NEAR, FAR)}
        house.stop_gateway()
    near, far = (
        [asked.first_token_ms for asked in results if asked.model == model][_WARM_UP:]
        for model in (IN_COUNTRY, ABROAD)
    )
    savings = [b - a for a, b in zip(near, far, strict=True)]
    series = (
        Series(name_en="in-country (Osaka)", name_ja="国内（大阪）", values=tuple(near), ours=True),
        Series(name_en="trans-Pacific (US West)", name_ja="太平洋横断（米国西部）", values=tuple(far)),
    )
    for language in ("en", "ja"):
        (folder / f"first-token.{language}.svg").write_text(cumulative(series, language=language), "utf-8")
    floor = expected[FAR] - expected[NEAR]
    saved = percentile(savings, 0.5)
    answered = sum(asked.outcome == "answered" for asked in results)
    return Report(
        scenario="latency",
        title_en="Time to the first token: in-country against trans-Pacific",
        title_ja="最初のトークンまでの時間：国内と太平洋横断",
        checks=(
            Check(
                en="every question was answered, at the site that was meant",
                ja="すべての質問に、意図した拠点が回答した",
                held=answered == len(results)
                and all((asked.site == NEAR) == (asked.model == IN_COUNTRY) for asked in results),
                figures=f"{answered} / {len(results)}",
            ),
            Check(
                en=f"the median saving is at least the light's part of it ({floor:g} ms of round trip)",
                ja=f"節約の中央値は、往復時間の差（{floor:g} ms）以上である",
                # the distance itself is exact; what the two models add is noise that a median of pairs leaves out
                held=saved >= floor * 0.95,
                figures=f"{saved:.1f} ms",
            ),
        ),
        figures={
            "rtt_ms": expected,
            "first_token_ms": {"in_country": distribution(near), "trans_pacific": distribution(far)},
            "saving_ms": distribution(savings),
        },
        files=("first-token.en.svg", "first-token.ja.svg", "requests.jsonl"),
    )


def ask_all(lab: Lab, house: House, folder: Path, clients: tuple[Client, ...], *, within_s: float) -> list[Asked]:
    """Let the clients ask from the gateway's own site, to their end."""
    spec = folder / "load.json"
    spec.write_bytes(msgspec.json.encode(LoadSpec(url=house.url, clients=clients)))
    spec.chmod(0o600)  # it holds keys
    results = folder / "requests.jsonl"
    results.unlink(missing_ok=True)
    lab.result(house.gateway_site, "sekisho.lab.load", str(spec), str(results), within_s=within_s)
    return read_results(results)
