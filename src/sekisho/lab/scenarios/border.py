"""Scenario 1: confidential traffic under load while sites fail and recover; nothing of it crosses the border.

The two are told apart by destination. US West serves the very model that confidential clients ask for: a packet
to it would be a leak. Virginia serves the canary's model alone, and public clients ask for it all along: such packets
must be seen. Later every site in Japan is gone at once: then confidential work has to be lost or refused.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sekisho.federation.border import KIND, SignedStatement, Statement, to_csv, to_json, verify_chain
from sekisho.gateway.settings import GatewaySettings
from sekisho.lab.house import CANARY, CANARY_MODEL, HOSPITAL, MODEL, House, Serving
from sekisho.lab.load import Asked, Client
from sekisho.lab.network import Lab
from sekisho.lab.scenarios.latency import ask_all
from sekisho.lab.scenarios.report import Check, Report
from sekisho.lab.watch import BORDER, BorderPost
from sekisho.ledger.model import Decision

INSIDE = ("osaka", "ishikari", "fukuoka")
TEMPTING, CANARY_SITE = "us-west", "virginia"
_SETTINGS = GatewaySettings(workers=1, connect_timeout_s=1.0, first_byte_timeout_s=5.0, read_idle_timeout_s=5.0)


def faults(lab: Lab, house: House) -> tuple[tuple[float, str, Callable[[], None]], ...]:
    """What happens, at which share of the time."""

    def darkness() -> None:
        for site in INSIDE:
            lab.isolate(site)

    def light() -> None:
        for site in INSIDE:
            lab.rejoin(site)

    return (
        (0.10, "the line Tokyo–Ishikari is cut", lambda: lab.partition("tokyo", "ishikari")),
        (0.22, "it heals", lambda: lab.heal("tokyo", "ishikari")),
        (0.26, "the model at Osaka is killed (kill -9)", lambda: house.kill_model("osaka")),
        (0.40, "it starts again", lambda: house.start_model("osaka", wait=False)),
        (0.48, "Fukuoka loses every third packet", lambda: lab.link("tokyo", "fukuoka").set(loss=0.33)),
        (0.58, "its line is sound again", lambda: lab.link("tokyo", "fukuoka").set(loss=0.0)),
        (0.62, "every site in Japan is cut off", darkness),
        (0.78, "they are back", light),
    )


def run(folder: Path, *, seconds: float = 60.0, confidential: int = 4) -> Report:
    """`confidential` clients ask without a pause for so many seconds, and a canary twice a second beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    key = Ed25519PrivateKey.generate()
    events: list[tuple[float, str]] = []
    with Lab() as lab:
        # The control plane shares the gateway's site: nothing but requests may use a line.
        serving = (
            *(Serving(site=site) for site in (*INSIDE, TEMPTING)),
            Serving(site=CANARY_SITE, models=(CANARY_MODEL,)),
        )
        house = House(lab, folder, serving, settings=_SETTINGS)
        house.start()
        house.ask_control("POST", f"/api/v1/borders/{BORDER}/key", {"key": key.public_key().public_bytes_raw().hex()})
        post = BorderPost(
            lab,
            lab.capture(folder / "capture"),
            key,
            class_of=_class_of,
            deliver=lambda made: _deliver(house, made),
        )
        post.start()
        begun = time.monotonic()
        stop = threading.Event()
        failures: list[BaseException] = []

        def fail_and_recover() -> None:
            try:
                for share, words, act in faults(lab, house):
                    if stop.wait(max(0.0, begun + share * seconds - time.monotonic())):
                        return
                    act()
                    events.append((round(time.monotonic() - begun, 1), words))
            except Exception as error:
                failures.append(error)

        breaking = threading.Thread(target=fail_and_recover, name="faults")
        breaking.start()
        try:
            clients = (
                Client(
                    name=HOSPITAL,
                    key=house.keys[HOSPITAL],
                    models=(MODEL,),
                    parallel=confidential,
                    seconds=seconds,
                    pause_s=0.05,
                ),
                Client(name=CANARY, key=house.keys[CANARY], models=(CANARY_MODEL,), seconds=seconds, pause_s=0.5),
            )
            asked = ask_all(lab, house, folder, clients, within_s=seconds + 90)
        finally:
            stop.set()
            breaking.join()
        if failures:
            raise failures[0]
        house.stop_gateway()
        time.sleep(0.5)  # the last packets arrive: twice the longest line
        post.stop()
        house.stop_sequencer()
        decisions, logged = house.decisions(), house.logged(KIND)
    (folder / "border.json").write_bytes(to_json(post.statements))
    (folder / "border.csv").write_text(to_csv(post.statements), "utf-8")
    (folder / "border.pub").write_text(key.public_key().public_bytes_raw().hex() + "\n")
    chain = verify_chain(post.statements, key.public_key())
    in_log = tuple(msgspec.convert(each["statement"], Statement) for each in logged) == chain
    return _report(chain, asked, decisions, events, meant=len(faults(lab, house)), in_log=in_log)


def _deliver(house: House, made: SignedStatement) -> None:
    house.ask_control("POST", f"/agent/v1/borders/{BORDER}", {"statements": (made,)})


def _class_of(_: str, outside: str) -> tuple[str, bool]:
    return ("public", True) if outside == CANARY_SITE else ("confidential", False)


def _report(
    chain: tuple[Statement, ...],
    asked: list[Asked],
    decisions: list[Decision],
    events: list[tuple[float, str]],
    *,
    meant: int,
    in_log: bool,
) -> Report:
    totals = {"confidential": Counter[str](), "public": Counter[str]()}
    for made in chain:
        for row in made.rows:
            for name in ("line", "interface", "capture"):
                totals[row.way.data_class][name] += getattr(row.counted, name).packets
    guarded = {name: totals["confidential"][name] for name in ("line", "interface", "capture")}
    canary = {name: totals["public"][name] for name in ("line", "interface", "capture")}
    hospital = [each for each in decisions if each.data_class == "confidential"]
    reached = Counter(attempt.endpoint for each in hospital for attempt in each.attempts)
    abroad = [endpoint for endpoint in reached if endpoint in (f"{TEMPTING}-1", f"{CANARY_SITE}-1")]
    outcomes = {
        name: dict(Counter(each.outcome for each in asked if each.client == name)) for name in (HOSPITAL, CANARY)
    }
    served = Counter(each.site for each in hospital if each.outcome == "completed")
    findings = Counter(made.finding for made in chain)
    ids = {each.id for each in decisions}
    unrecorded = [each.decision for each in asked if each.decision and each.decision not in ids]
    return Report(
        scenario="border",
        title_en="Confidential traffic under load and failures: nothing crosses the border",
        title_ja="負荷と障害の中の機密通信：国境を越えたパケットは皆無",
        checks=(
            Check(
                en="no packet of confidential work crossed the border, by three counts",
                ja="機密のパケットは、三つの計数のいずれでも国境を越えていない",
                held=not any(guarded.values()),
                figures=_three(guarded),
            ),
            Check(
                en="the public canary was seen crossing by all three, and they agree",
                ja="公開のカナリアの通過は三つの計数すべてで観測され、一致している",
                held=min(canary.values()) > 0 and len(set(canary.values())) == 1,
                figures=_three(canary),
            ),
            Check(
                en="no decision of confidential work names an endpoint abroad, not even as an attempt",
                ja="機密の判定に、国外のエンドポイントは試行としても現れない",
                held=bool(hospital) and not abroad and {each.country for each in hospital} <= {"JP", ""},
                figures=f"{len(hospital)} decisions; attempts {dict(reached)}",
            ),
            Check(
                en="confidential work was under way: every site in Japan answered some of it",
                ja="機密の処理は実際に行われ、国内のすべての拠点が応答した",
                held=set(served) == set(INSIDE),
                figures=f"{dict(served)}",
            ),
            Check(
                en="every failure and every recovery that was meant took place",
                ja="予定したすべての障害と復旧が実際に起きた",
                held=len(events) == meant,
                figures=f"{len(events)} / {meant}",
            ),
            Check(
                en="every answer that a client got has its decision in the journal",
                ja="クライアントが得たすべての応答に、証跡の判定がある",
                held=not unrecorded,
                figures=f"{len(asked)} requests, {len(unrecorded)} without",
            ),
            Check(
                en="the border ledger is whole: signed, chained, no statement of a crossing",
                ja="国境台帳は完全：署名と連鎖が正しく、通過の記載がない",
                held=bool(chain) and "crossed" not in findings and findings["clean"] > 0,
                figures=f"{len(chain)} statements: {dict(findings)}",
            ),
            Check(
                en="every statement stands in the transparency log, in its order",
                ja="すべての記載が、順序どおりに透明性ログに入っている",
                held=in_log,
                figures=f"{len(chain)} statements",
            ),
        ),
        figures={
            "packets": {"confidential": guarded, "public": canary},
            "outcomes": outcomes,
            "events": [{"after_s": at, "what": words} for at, words in events],
            "findings": dict(findings),
        },
        files=("border.csv", "border.json", "border.pub", "requests.jsonl", "capture"),
    )


def _three(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counts.items())
