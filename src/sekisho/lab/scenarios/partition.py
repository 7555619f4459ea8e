"""Scenario 3: the line between Tokyo and Osaka is cut, and heals.

The gateway and the clients are in Tokyo, the control plane in Osaka, models in Osaka and Ishikari. With the line cut
the gateway goes on with its last route table, and Ishikari serves. When the evidence under that table has run out,
confidential routes close by themselves, public ones do not. After the heal the gateway gets a new table, and they
open again. The evidence is what the configuration declares, valid for seconds.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path

from sekisho.gateway.settings import GatewaySettings
from sekisho.lab.house import CANARY, HOSPITAL, MODEL, House, Serving
from sekisho.lab.load import Asked, Client
from sekisho.lab.network import Lab
from sekisho.lab.scenarios.latency import ask_all
from sekisho.lab.scenarios.report import Check, Report

LOST_LINE = ("tokyo", "osaka")
_SETTINGS = GatewaySettings(workers=1, connect_timeout_s=1.0, first_byte_timeout_s=3.0, read_idle_timeout_s=3.0)


def run(folder: Path, *, validity_s: float = 8.0, before_s: float = 4.0, after_s: float = 12.0) -> Report:
    """The line is cut after `before_s`, for one and a half times the validity, then there are `after_s` more."""
    folder.mkdir(parents=True, exist_ok=True)
    cut_s = validity_s * 1.5
    seconds = before_s + cut_s + after_s
    moments: dict[str, float] = {}
    tables: dict[str, int] = {}
    with Lab() as lab:
        serving = (Serving(site="osaka"), Serving(site="ishikari"))
        house = House(lab, folder, serving, control="osaka", evidence_validity=f"{validity_s:g}s", settings=_SETTINGS)
        house.start()

        def cut_and_heal() -> None:
            time.sleep(before_s)
            tables["before"] = house.snapshot().table_version
            lab.partition(*LOST_LINE)
            moments["cut"] = time.time()
            time.sleep(cut_s)
            tables["cut"] = house.snapshot().table_version
            lab.heal(*LOST_LINE)
            moments["healed"] = time.time()

        breaking = threading.Thread(target=cut_and_heal, name="partition")
        breaking.start()
        clients = tuple(
            Client(name=name, key=house.keys[name], models=(MODEL,), parallel=2, seconds=seconds, pause_s=0.1)
            for name in (HOSPITAL, CANARY)
        )
        asked = ask_all(lab, house, folder, clients, within_s=seconds + 60)
        breaking.join()
        tables["after"] = house.snapshot().table_version
        house.stop_gateway()
        recorded = {each.id for each in house.decisions()}
    return report(asked, recorded, moments, tables, validity_s=validity_s)


def report(
    asked: list[Asked], recorded: set[str], moments: dict[str, float], tables: dict[str, int], *, validity_s: float
) -> Report:
    """What the requests say. `moments` are Unix seconds of `cut` and `healed`, `tables` versions in force."""
    cut, healed = moments["cut"], moments["healed"]
    lost = [each for each in asked if each.outcome == "lost"]
    in_flight = [each for each in asked if each.at < cut < each.ended_at]
    beyond = [each for each in lost if each not in in_flight and not _closed(each)]
    refused = [each for each in asked if each.client == HOSPITAL and _closed(each)]
    closed_at = min((each.at for each in refused), default=0.0)
    opened = [each for each in asked if each.client == HOSPITAL and each.outcome == "answered" and each.at > healed]
    opened_at = min((each.at for each in opened), default=0.0)
    between = [each for each in asked if closed_at and closed_at < each.at < healed]
    leaked = [each for each in between if each.client == HOSPITAL and each.outcome == "answered"]
    public = [each for each in between if each.client == CANARY]
    served = [each for each in public if each.outcome == "answered"]
    meanwhile = [each for each in asked if each.outcome == "answered" and cut + 1 < each.at < healed]
    unrecorded = [each.decision for each in asked if each.decision and each.decision not in recorded]
    return Report(
        scenario="partition",
        title_en="A partition between Tokyo and Osaka",
        title_ja="東京・大阪間の分断",
        checks=(
            Check(
                en="no request was lost beyond those in flight when the line was cut",
                ja="切断の瞬間に処理中だったもの以外、失われた要求はない",
                held=not beyond,
                figures=f"{len(asked)} requests; in flight {len(in_flight)}, lost {len(lost)}, "
                f"of these later {len(beyond)}: {dict(Counter(each.code for each in beyond))}",
            ),
            Check(
                en="Ishikari served while the line was cut, and Osaka did not",
                ja="切断中は石狩が応答し、大阪は応答しなかった",
                held=bool(meanwhile) and {each.site for each in meanwhile} == {"ishikari"},
                figures=f"{dict(Counter(each.site for each in meanwhile))}",
            ),
            Check(
                en="confidential routes closed by themselves when the evidence had run out, and not later",
                ja="証跡の期限が切れると、機密の経路は自動的に閉じた",
                # one second for a request that was on its way
                held=bool(refused) and cut < closed_at <= cut + validity_s + 1 and not leaked,
                figures=f"first refusal {closed_at - cut:.1f} s after the cut (validity {validity_s:g} s); "
                f"{len(refused)} refused ({dict(Counter(each.code for each in refused))}), "
                f"{len(leaked)} answered in between",
            ),
            Check(
                en="public work went on all the time",
                ja="公開の処理はその間も続いた",
                held=bool(public) and len(served) == len(public),
                figures=f"{len(served)} / {len(public)}",
            ),
            Check(
                en="they opened again after the heal, with a newer route table",
                ja="復旧後、新しい経路表で再び開いた",
                held=bool(opened) and tables["after"] > tables["cut"] == tables["before"],
                figures=f"{opened_at - healed:.1f} s after the heal; table {tables['cut']} → {tables['after']}",
            ),
            Check(
                en="every answer that a client got has its decision in the journal",
                ja="クライアントが得たすべての応答に、証跡の判定がある",
                held=not unrecorded,
                figures=f"{len(asked)} requests, {len(unrecorded)} without",
            ),
        ),
        figures={
            "requests": len(asked),
            "in_flight_at_the_cut": len(in_flight),
            "lost": len(lost),
            "lost_later": len(beyond),
            "closed_after_s": round(closed_at - cut, 2),
            "opened_after_s": round(opened_at - healed, 2),
            "tables": tables,
        },
        files=("requests.jsonl",),
    )


def _closed(asked: Asked) -> bool:
    """Refused because no evidence is fresh: a verdict, not a loss."""
    return asked.code.startswith("residency.")
