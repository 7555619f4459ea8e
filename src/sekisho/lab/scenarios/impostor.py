"""Scenario 2: an impostor overseas that declares Osaka is contradicted by how fast it answers; with a stolen key too.

Who answers: the honest site at Osaka; an impostor in US West that declares Osaka and answers with its own key; a
patient one there that holds its answers back, so that none comes too fast; a thief there who has the honest site's
key, and to whom that site's traffic is led. Landmarks stand in Kobe, Tokyo, Fukuoka, Ishikari and Virginia. The
answer that is too *fast* at Virginia contradicts Osaka: nobody there can give it. Slow answers contradict nothing, so
the patient one is consistent with Osaka; but only the honest site can answer Kobe so fast that it is *proven* to be
in Japan, and that is what the default policy asks. What the route tables then hold is compiled with the real policy.
"""

from __future__ import annotations

import secrets
import subprocess
import time
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sekisho.federation.challenge import spki
from sekisho.federation.landmark import Landmark, MeasurementRefused, check_measurement, landmark_of
from sekisho.federation.model import Declaration, Endpoint, Federation, Operator, Site, Tenant
from sekisho.kernel.classes import DataClass
from sekisho.lab.network import Lab, LabFailed
from sekisho.lab.prove import AnswerSpec, Measured, MeasureSpec
from sekisho.lab.scenarios.report import Check, Report
from sekisho.lab.topology import JAPAN, Line, Place, Topology
from sekisho.residency.compile import compile_table
from sekisho.residency.location.decide import decide, facts
from sekisho.residency.location.land import natural_earth
from sekisho.residency.location.model import Claim, Finding, Sighting
from sekisho.residency.location.picture import draw
from sekisho.residency.model import SiteEvidence
from sekisho.residency.policy.bundle import load_bundle
from sekisho.residency.policy.engine import CedarPolicy
from sekisho.residency.table import RouteSet

HONEST, IMPOSTOR, PATIENT, THIEF = "osaka", "impostor", "patient", "thief"
NEAR = "kobe"
LANDMARKS = (NEAR, "tokyo", "fukuoka", "ishikari", "virginia")
# Kobe is 29 km from Osaka; everything else about it is as for Osaka.
_NEAR_RTT_MS = 0.6
_DECLARED = (34.69, 135.50)  # Osaka
_PORTS = {HONEST: 7101, IMPOSTOR: 7102, PATIENT: 7103, THIEF: 7104}
_STANDS = {HONEST: "osaka", IMPOSTOR: "us-west", PATIENT: "us-west", THIEF: "us-west"}
# the thief is taken for the honest site
_ASKED_AS = {HONEST: HONEST, IMPOSTOR: IMPOSTOR, PATIENT: PATIENT, THIEF: HONEST}
# From Virginia to Osaka light needs 74 ms there and back; US West answers after 60.
_HELD_MS = {PATIENT: 40.0}
_VALIDITY_S = 3600.0
_MODEL = "m"


def topology() -> Topology:
    """The laboratory's places, and a landmark in Kobe."""
    lines = tuple(
        Line(a=NEAR, b=peer, rtt_ms=_NEAR_RTT_MS if peer == "osaka" else JAPAN.line("osaka", peer).rtt_ms)
        for peer in ("osaka", "tokyo", "us-west")
    )
    kobe = Place(id=NEAR, name="神戸 Kobe", country="JP", latitude=34.69, longitude=135.18)
    return Topology(sites=(*JAPAN.sites, kobe), lines=(*JAPAN.lines, *lines))


def run(folder: Path, *, questions: int = 16) -> Report:
    """`questions` in each burst of each landmark to each of the four."""
    folder.mkdir(parents=True, exist_ok=True)
    own = {name: Ed25519PrivateKey.generate() for name in (HONEST, IMPOSTOR, PATIENT)}
    site_keys = {**own, THIEF: own[HONEST]}
    marks = {name: Ed25519PrivateKey.generate() for name in LANDMARKS}
    with Lab(topology()) as lab:
        for who, key in site_keys.items():
            _answer(lab, folder, who, key)
        sightings = {
            who: [
                _sighting(lab, folder, mark=mark, mark_key=marks[mark], who=who, key=key, questions=questions)
                for mark in LANDMARKS
            ]
            for who, key in site_keys.items()
        }
    now = time.time()
    land = natural_earth()
    findings = {
        who: decide(
            Claim(site=_ASKED_AS[who], country="JP", latitude=_DECLARED[0], longitude=_DECLARED[1]),
            seen,
            land,
            now=now,
            validity_s=_VALIDITY_S,
        )
        for who, seen in sightings.items()
    }
    for who, finding in findings.items():
        (folder / f"{who}.en.svg").write_text(draw(finding, land, "en"), "utf-8")
        (folder / f"{who}.ja.svg").write_text(draw(finding, land, "ja"), "utf-8")
    return _report(findings, now=now)


def _answer(lab: Lab, folder: Path, who: str, key: Ed25519PrivateKey) -> None:
    spec = AnswerSpec(
        site=_ASKED_AS[who],
        key=key.private_bytes_raw().hex(),
        host=lab.address(_STANDS[who]),
        port=_PORTS[who],
        held_ms=_HELD_MS.get(who, 0.0),
    )
    process = lab.python(
        _STANDS[who], "sekisho.lab.prove", "answer", _secret(folder / f"{who}.json", spec), stdout=subprocess.PIPE
    )
    if process.stdout is None or process.stdout.readline() != b"listening\n":
        raise LabFailed(f"{who} does not answer challenges", hint="its own words stand above")


def _sighting(
    lab: Lab,
    folder: Path,
    *,
    mark: str,
    mark_key: Ed25519PrivateKey,
    who: str,
    key: Ed25519PrivateKey,
    questions: int,
) -> Sighting:
    """One landmark's measurement, its signatures checked as a verifier elsewhere would."""
    place = lab.topology.site(mark)
    spec = MeasureSpec(
        landmark=mark,
        latitude=place.latitude,
        longitude=place.longitude,
        landmark_key=mark_key.private_bytes_raw().hex(),
        site=_ASKED_AS[who],
        site_key=key.public_key().public_bytes_raw().hex(),
        host=lab.address(_STANDS[who]),
        port=_PORTS[who],
        questions=questions,
    )
    output = lab.result(mark, "sekisho.lab.prove", "measure", _secret(folder / f"{mark}-{who}.json", spec))
    measured = msgspec.json.decode(output, type=Measured)
    if measured.signed is None:
        raise LabFailed(f"{mark} got no answer of {who}: {measured.unanswered}", hint="repeat it")
    register: dict[str, Landmark] = {
        mark: landmark_of(
            mark, latitude=place.latitude, longitude=place.longitude, position_error_km=1.0, key=mark_key
        )
    }
    found = check_measurement(measured.signed, landmarks=register, site=_ASKED_AS[who], site_keys=(spki(key),))
    if isinstance(found, MeasurementRefused):
        raise LabFailed(f"the measurement of {mark} about {who} is refused: {found.what}", hint=found.mend)
    return Sighting(
        landmark=mark,
        latitude=found.latitude,
        longitude=found.longitude,
        position_error_km=found.position_error_km,
        rtt_ms=found.rtt_ns / 1e6,
        at=found.at,
        digest=measured.signed.digest,
    )


def _secret(file: Path, spec: msgspec.Struct) -> str:
    file.unlink(missing_ok=True)
    file.touch(mode=0o600)
    file.write_bytes(msgspec.json.encode(spec))
    return str(file)


def serving(evidence: dict[str, SiteEvidence], *, now: float, data_class: DataClass) -> set[str]:
    """The sites that a request of this class may be sent to under the default policy, when all have enrolled."""
    sites = (HONEST, IMPOSTOR, PATIENT)
    federation = Federation(
        operators=tuple(Operator(id=f"op-{id}", name=id, country="JP", law="JP") for id in sites),
        sites=tuple(
            Site(
                id=id,
                operator=f"op-{id}",
                name=id,
                country="JP",
                prefecture=27,
                latitude=_DECLARED[0],
                longitude=_DECLARED[1],
                enrolled=True,
                declaration=Declaration(law="JP"),
            )
            for id in sites
        ),
        endpoints=tuple(Endpoint(id=id, site=id, url=f"http://{id}.test/v1", models=(_MODEL,)) for id in sites),
        tenants=(Tenant(id="ministry", name="ministry", floor=DataClass.PUBLIC),),
        keys=(),
        aliases={},
    )
    table = compile_table(
        federation,
        CedarPolicy(load_bundle(None), jurisdiction="JP"),
        version=1,
        now=now,
        jurisdiction="JP",
        evidence_validity_s=_VALIDITY_S,
        salts={"ministry": secrets.token_bytes(16)},
        evidence=evidence,
    )
    found: set[str] = set()
    routes = table.profiles[table.tenants[0].profile].routes[data_class.label]
    route = table.routes[routes[_MODEL]]
    if isinstance(route, RouteSet):
        found = {table.endpoints[index].site for index in route.endpoints}
    return found


def _report(findings: dict[str, Finding], *, now: float) -> Report:
    told = {who: SiteEvidence(location=facts(finding)) for who, finding in findings.items()}
    # just enrolled, between two proofs: nothing is measured of the impostors yet
    entering = serving({HONEST: told[HONEST]}, now=now, data_class=DataClass.CONFIDENTIAL)
    alive = serving({HONEST: told[HONEST]}, now=now, data_class=DataClass.PUBLIC)
    measured = {who: told[who] for who in (HONEST, IMPOSTOR, PATIENT)}
    caught = serving(measured, now=now, data_class=DataClass.CONFIDENTIAL)
    stolen = serving({HONEST: told[THIEF]}, now=now, data_class=DataClass.CONFIDENTIAL)
    later = serving(measured, now=now + _VALIDITY_S, data_class=DataClass.CONFIDENTIAL)
    return Report(
        scenario="impostor",
        title_en="An impostor overseas that declares Osaka",
        title_ja="大阪にあると申告する、国外のなりすまし",
        checks=(
            Check(
                en="the honest site's answers to Kobe prove that it is in Japan",
                ja="正直な拠点は、神戸への応答により、日本国内にあることが証明される",
                held=findings[HONEST].verdict == "proven",
                figures=_figures(findings[HONEST]),
            ),
            Check(
                en="the impostor's answers contradict it",
                ja="なりすましの応答は、申告と矛盾する",
                held=findings[IMPOSTOR].verdict == "contradicted",
                figures=_figures(findings[IMPOSTOR]),
            ),
            Check(
                en="one that holds its answers back is consistent with Osaka, and never proven",
                ja="応答をわざと遅らせるなりすましは大阪と矛盾しないが、証明されることもない",
                held=findings[PATIENT].verdict == "consistent",
                figures=_figures(findings[PATIENT]),
            ),
            Check(
                en="the thief's answers contradict it too, though their signatures are genuine",
                ja="盗んだ鍵による署名は本物でも、やはり矛盾する",
                held=findings[THIEF].verdict == "contradicted",
                figures=_figures(findings[THIEF]),
            ),
            Check(
                en="an impostor that enters between two proofs with a declared place alone gets public work, and no "
                "confidential work",
                ja="二つの証明の合間に申告だけで参加したなりすましには、公開の処理は渡るが、機密の処理は渡らない",
                held=entering == {HONEST} and {IMPOSTOR, PATIENT} <= alive,
                figures=f"confidential routes lead to {sorted(entering)}, public ones to {sorted(alive)}",
            ),
            Check(
                en="once measured neither of them gets any, and the thief closes the site that it plays",
                ja="測定の後も、どちらのなりすましにも渡らず、鍵を盗まれた拠点の経路は閉じる",
                held=caught == {HONEST} and not stolen,
                figures=f"confidential routes lead to {sorted(caught)}; with the stolen key to {sorted(stolen)}",
            ),
            Check(
                en="a proof that ran out opens nothing",
                ja="期限の切れた証明では、どの経路も開かない",
                held=not later,
                figures=f"after {_VALIDITY_S:g} s confidential routes lead to {sorted(later)}",
            ),
        ),
        figures={
            "findings": {who: msgspec.to_builtins(finding) for who, finding in findings.items()},
        },
        files=tuple(f"{who}.{language}.svg" for who in findings for language in ("en", "ja")),
    )


def _figures(finding: Finding) -> str:
    trips = ", ".join(f"{disc.landmark} {disc.rtt_ms:.1f} ms" for disc in finding.discs)
    outside = f", {finding.outside_km:.0f} km outside" if finding.outside_km > 0 else ""
    return f"{finding.verdict}: {finding.why}{outside} ({trips})"
