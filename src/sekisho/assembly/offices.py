"""Wires what enrolment needs: services on the control plane's database, its key, the gateways' certificate."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sekisho.assembly.home import Home
from sekisho.capacity.workloads.service import WorkloadService
from sekisho.console.agents import AgentDesk, Evidences, Locations
from sekisho.console.federation_api import FederationOffice
from sekisho.console.services import TableState
from sekisho.federation.enrol import EnrolmentService
from sekisho.federation.model import Federation, UpstreamTls
from sekisho.federation.sites import SiteService
from sekisho.kernel.clock import Clock
from sekisho.residency.compile import next_expiry
from sekisho.runtime.database import Database


class Offices(msgspec.Struct, frozen=True, kw_only=True):
    """For administrators, and for agents."""

    admin: FederationOffice
    agents: AgentDesk


def offices(
    home: Home,
    database: Database,
    *,
    key: Ed25519PrivateKey,
    configured: Callable[[], Federation],
    placed: Callable[[], frozenset[str]],
    validity_s: Callable[[], float],
    table: Callable[[], TableState | None],
    changed: Callable[[], Awaitable[None]],
    workloads: WorkloadService,
    clock: Clock,
    locations: Callable[[SiteService], Locations],
    evidence: Evidences | None = None,
) -> Offices:
    enrolment = EnrolmentService(database, configured)
    sites = SiteService(
        database,
        configured,
        validity_s=validity_s,
        tls=UpstreamTls(client_cert=str(home.gateway_certificate), client_key=str(home.gateway_key)),
        placed=placed,
    )
    certificate = home.gateway_certificate.read_text()
    public = key.public_key().public_bytes_raw().hex()

    def expiry() -> float | None:
        made = table()
        return None if made is None else next_expiry(made.table)

    return Offices(
        admin=FederationOffice(enrolment=enrolment, sites=sites, control_key=lambda: public),
        agents=AgentDesk(
            sites=sites,
            enrolment=enrolment,
            evidence=evidence,
            locations=locations(sites),
            key=key,
            gateways=lambda: (certificate,),
            validity_s=validity_s,
            expiry=expiry,
            changed=changed,
            workloads=workloads,
            clock=clock,
        ),
    )
