"""Scenario 2: an impostor overseas that declares Osaka is contradicted by how fast it answers; with a stolen key too.

Who answers: the honest site at Osaka; an impostor in US West that declares Osaka and answers with its own key; a
thief there who has the honest site's key, and to whom that site's traffic is led. Landmarks stand in Tokyo, Fukuoka,
Ishikari and Virginia. Slow answers to Japanese landmarks alone prove nothing about Osaka (slow is slow); the answer
that is too *fast* at Virginia does: nobody in Osaka can give it. What the route tables then hold is compiled with the
real policy.
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
from sekisho.residency.compile import compile_table
from sekisho.residency.location.decide import decide, facts
from sekisho.residency.location.land import natural_earth
from sekisho.residency.location.model import Claim, Finding, Sighting
from sekisho.residency.location.picture import draw
from sekisho.residency.model import SiteEvidence
from sekisho.residency.policy.bundle import load_bundle
from sekisho.residency.policy.engine import CedarPolicy
from sekisho.residency.table import RouteSet

HONEST, IMPOSTOR, THIEF = "osaka", "impostor", "thief"
LANDMARKS = ("tokyo", "fukuoka", "ishikari", "virginia")
_DECLARED = (34.69, 135.50)  # Osaka
_PORTS = {HONEST: 7101, IMPOSTOR: 7102, THIEF: 7103}
_STANDS = {HONEST: "osaka", IMPOSTOR: "us-west", THIEF: "us-west"}
_ASKED_AS = {HONEST: HONEST, IMPOSTOR: IMPOSTOR, THIEF: HONEST}  # the thief is taken for the honest site
_VALIDITY_S = 3600.0
_MODEL = "m"


def run(folder: Path, *, questions: int = 16) -> Report:
    """`questions` in each burst of each landmark to each of the three."""
    folder.mkdir(parents=True, exist_ok=True)
    own = {name: Ed25519PrivateKey.generate() for name in (HONEST, IMPOSTOR)}
    site_keys = {HONEST: own[HONEST], IMPOSTOR: own[IMPOSTOR], THIEF: own[HONEST]}
    marks = {name: Ed25519PrivateKey.generate() for name in LANDMARKS}
    with Lab() as lab:
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
        site=_ASKED_AS[who], key=key.private_bytes_raw().hex(), host=lab.address(_STANDS[who]), port=_PORTS[who]
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


def serving(
    evidence: dict[str, SiteEvidence], *, now: float, profiles: tuple[str, ...], data_class: DataClass
) -> set[str]:
    """The sites that a request of this class of a tenant with these policy profiles may be sent to."""
    sites = (HONEST, IMPOSTOR)
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
                declaration=Declaration(law="JP"),
            )
            for id in sites
        ),
        endpoints=tuple(Endpoint(id=id, site=id, url=f"http://{id}.test/v1", models=(_MODEL,)) for id in sites),
        tenants=(Tenant(id="ministry", name="ministry", floor=DataClass.CONFIDENTIAL, profiles=profiles),),
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
    strict = ("gov-cloud",)
    entering = serving({HONEST: told[HONEST]}, now=now, profiles=strict, data_class=DataClass.RESTRICTED)
    caught = serving(
        {HONEST: told[HONEST], IMPOSTOR: told[IMPOSTOR]}, now=now, profiles=(), data_class=DataClass.CONFIDENTIAL
    )
    stolen = serving({HONEST: told[THIEF]}, now=now, profiles=strict, data_class=DataClass.RESTRICTED)
    declared_alone = serving({}, now=now, profiles=(), data_class=DataClass.CONFIDENTIAL)
    return Report(
        scenario="impostor",
        title_en="An impostor overseas that declares Osaka",
        title_ja="大阪にあると申告する、国外のなりすまし",
        checks=(
            Check(
                en="the honest site's answers agree with the place that it declares",
                ja="正直な拠点の応答は、申告した所在と合う",
                held=findings[HONEST].verdict in ("consistent", "proven"),
                figures=_figures(findings[HONEST]),
            ),
            Check(
                en="the impostor's answers contradict it",
                ja="なりすましの応答は、申告と矛盾する",
                held=findings[IMPOSTOR].verdict == "contradicted",
                figures=_figures(findings[IMPOSTOR]),
            ),
            Check(
                en="so do the thief's, whose signatures are genuine",
                ja="盗んだ鍵による署名は本物でも、やはり矛盾する",
                held=findings[THIEF].verdict == "contradicted",
                figures=_figures(findings[THIEF]),
            ),
            Check(
                en="where the policy asks for a measured place (gov-cloud, restricted), an impostor that has just "
                "entered with a declared place alone is in no route",
                ja="測定された所在を求めるポリシー（gov-cloud、restricted）では、申告だけで参加した直後の"
                "なりすましは、どの経路にも入らない",
                held=entering == {HONEST},
                figures=f"routes lead to {sorted(entering)}",
            ),
            Check(
                en="once contradicted it is in none under any policy, and the thief closes the site that it plays",
                ja="矛盾が示されれば、どのポリシーでも経路に入らず、盗まれた鍵の拠点も閉じる",
                held=IMPOSTOR not in caught and HONEST in caught and not stolen,
                figures=f"routes lead to {sorted(caught)}; with the stolen key to {sorted(stolen)}",
            ),
        ),
        figures={
            "findings": {who: msgspec.to_builtins(finding) for who, finding in findings.items()},
            "declared_alone_under_the_default_policy": sorted(declared_alone),
        },
        files=tuple(f"{who}.{language}.svg" for who in findings for language in ("en", "ja")),
    )


def _figures(finding: Finding) -> str:
    trips = ", ".join(f"{disc.landmark} {disc.rtt_ms:.1f} ms" for disc in finding.discs)
    outside = f", {finding.outside_km:.0f} km outside" if finding.outside_km > 0 else ""
    return f"{finding.verdict}: {finding.why}{outside} ({trips})"
