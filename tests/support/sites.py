"""A site for tests: an operator's key, an agent's key, and what they sign."""

from __future__ import annotations

import base64
import time
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sekisho.federation.declare import SignedDeclaration, SiteDeclaration, encode_signed, sign
from sekisho.federation.enrol import EnrolmentService
from sekisho.federation.model import Declaration, Federation, Operator, Site, UpstreamTls
from sekisho.federation.report import EndpointReport, Heartbeat, Inventory
from sekisho.federation.service import FederationService
from sekisho.federation.signing import agent_sign, enrolment_text, request_text, rotation_text, spki_of
from sekisho.federation.sites import SignedRequest, SiteService
from sekisho.federation.tokens import new_token
from sekisho.federation.views import NewInvitation
from sekisho.runtime.database import Database

NOW = 1_795_000_000.0
VALIDITY_S = 60.0
CONTROL = "ab" * 32
HEARTBEAT = "/agent/v1/heartbeat"

CONFIGURED = Federation(
    operators=(
        Operator(id="sakura", name="SAKURA internet", country="JP", law="JP"),
        Operator(id="softbank", name="SoftBank", country="JP", law="JP"),
    ),
    sites=(Site(id="configured", operator="sakura", name="Configured", country="JP"),),
    endpoints=(),
    tenants=(),
    keys=(),
    aliases={},
)


def operator_hex(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes_raw().hex()


class Office:
    """The services of one control plane, on a real database."""

    def __init__(
        self, database: Database, configured: Federation = CONFIGURED, *, placed: frozenset[str] = frozenset()
    ) -> None:
        self.database = database
        self.configured = configured
        self.enrolment = EnrolmentService(database, lambda: self.configured)
        self.sites = SiteService(
            database,
            lambda: self.configured,
            validity_s=lambda: VALIDITY_S,
            tls=UpstreamTls(client_cert="/gateway.crt", client_key="/gateway.key"),
            placed=lambda: placed,
        )
        self.federation = FederationService(database, lambda: self.configured, sites=self.sites)
        self.operator_key = Ed25519PrivateKey.generate()
        self.enrolment.set_operator_key("sakura", operator_hex(self.operator_key), now=NOW, actor="test")
        self._tokens = 0

    def invite(self, site: str = "ishikari-2", **given: Any) -> NewInvitation:
        self._tokens += 1
        usual: dict[str, Any] = {
            "operator": "sakura",
            "expires_in_s": 3600.0,
            "replace": False,
            "now": NOW,
            "actor": "test",
            "token": new_token(f"{self._tokens:043d}", control=CONTROL),
        }
        return self.enrolment.invite(site=site, **{**usual, **given})

    def declare(
        self, site: str = "ishikari-2", key: Ed25519PrivateKey | None = None, **given: Any
    ) -> SignedDeclaration:
        usual: dict[str, Any] = {
            "operator": "sakura",
            "country": "JP",
            "valid_until": NOW + 365 * 86_400,
            "declaration": Declaration(
                law="JP", owner_country="JP", foreign_owned_percent=0, operator_can_read=False
            ),
        }
        return sign(SiteDeclaration(site=site, **{**usual, **given}), key or self.operator_key)

    def enrolled(self, site: str = "ishikari-2") -> FakeAgent:
        """A site that was invited, handed in and approved."""
        agent = FakeAgent(site)
        agent.enrol(self, self.invite(site).token, self.declare(site))
        self.enrolment.approve(site, pin=None, now=NOW, actor="test")
        return agent

    def beat(self, agent: FakeAgent, *, now: float = NOW, **report: Any) -> bool:
        """A heart-beat of this agent; whether it asks for a new route table."""
        body = agent.report(**report)
        found = self.sites.authenticate(agent.request(body, now=now), now=now)
        return self.sites.heartbeat(found, body, now=now).renew


class FakeAgent:
    """FAKE: signs as an agent does, and does nothing else."""

    def __init__(self, site: str) -> None:
        self.site = site
        self.host = ""
        self.key = ec.generate_private_key(ec.SECP256R1())
        self._counter = 0

    @property
    def spki(self) -> str:
        return spki_of(self.key.public_key())

    def proof(self, token: str, signed: SignedDeclaration) -> bytes:
        text = enrolment_text(token=token, spki=self.spki, declaration=signed.declaration.canonical())
        return agent_sign(self.key, text)

    def enrol(self, office: Office, token: str, signed: SignedDeclaration, *, now: float = NOW, **given: Any) -> None:
        usual = {"spki": self.spki, "proof": self.proof(token, signed), "declaration": encode_signed(signed)}
        office.enrolment.enrol(token=token, now=now, **{**usual, **given})

    def report(self, **given: Any) -> bytes:
        endpoint = EndpointReport(id=f"{self.site}-a", url="https://127.0.0.1:9443/v1", models=("m",))
        usual: dict[str, Any] = {"endpoints": (endpoint,), "inventory": Inventory(simulated=True)}
        return msgspec.json.encode(Heartbeat(**{**usual, **given}))

    def request(
        self, body: bytes, *, now: float | None = None, path: str = HEARTBEAT, counter: int | None = None
    ) -> SignedRequest:
        at = int((time.time() if now is None else now) * 1e6)
        self._counter = counter if counter is not None else max(self._counter + 1, at)
        text = request_text(method="POST", path=path, site=self.site, counter=self._counter, body=body)
        signature = base64.b64encode(agent_sign(self.key, text)).decode()
        return SignedRequest(
            method="POST", path=path, site=self.site, counter=self._counter, signature=signature, body=body
        )

    def rotation(self, new: ec.EllipticCurvePrivateKey) -> bytes:
        return agent_sign(new, rotation_text(site=self.site, old=self.spki, new=spki_of(new.public_key())))
