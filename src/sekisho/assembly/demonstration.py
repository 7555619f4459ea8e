"""The demonstration's sites, enrolled like real ones: an agent's key, an operator's signature, an approval.

What people do for a real site a demonstration does by itself, for the sites that its configuration calls simulated
and for no others. Every step leaves the record that it leaves elsewhere, in the name of `demonstration`.
"""

from __future__ import annotations

import logging
import secrets

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sekisho.assembly.home import Home, ensure_operator_key
from sekisho.assembly.site_home import SiteHome, prepare, prepare_next_key, take_next_key
from sekisho.federation.declare import SiteDeclaration, encode_signed, read_signed, sign
from sekisho.federation.enrol import INVITATION_S, EnrolmentService
from sekisho.federation.enrolments import Enrolment
from sekisho.federation.model import Site
from sekisho.federation.signing import agent_sign, enrolment_text, pin_of_spki, spki_of
from sekisho.federation.sites import SiteService
from sekisho.federation.tokens import new_token
from sekisho.federation.views import SiteView

_log = logging.getLogger(__name__)
ACTOR = "demonstration"
DECLARED_S = 365 * 86_400.0
# Signed anew when less than this is left.
_RENEW_S = 30 * 86_400.0


class Demonstration:
    """Keeps what is enrolled in step with the configuration. `control_key`: hex, as invitations name it."""

    def __init__(self, home: Home, *, enrolment: EnrolmentService, sites: SiteService, control_key: str) -> None:
        self._home = home
        self._enrolment = enrolment
        self._sites = sites
        self._control_key = control_key

    def follow(self, wanted: tuple[Site, ...], *, now: float) -> None:
        """Enrols those that are new or declared otherwise, and retires what was enrolled here and is gone."""
        views = {view.id: view for view in self._sites.views(now=now) if view.state in ("approved", "stale")}
        ids = {site.id for site in wanted}
        for name, view in views.items():
            if name not in ids and view.simulated and self._is_ours(name):
                self._enrolment.retire(name, now=now, actor=ACTOR)
        for site in wanted:
            if site.id in views and not self._is_ours(site.id):
                _log.error("site %s was enrolled by people and is not simulated here: choose another id", site.id)
                continue
            self._enrol(site, views.get(site.id), now=now)

    def _is_ours(self, site: str) -> bool:
        found = self._approved(site)
        return found is not None and found.decided_by == ACTOR

    def _approved(self, site: str) -> Enrolment | None:
        return next((each for each in self._enrolment.enrolments(site) if each.state == "approved"), None)

    def _enrol(self, site: Site, view: SiteView | None, *, now: float) -> None:
        place = SiteHome(self._home.site(site.id))
        key = prepare(place)
        operator_key = ensure_operator_key(self._home, site.operator)
        declaration = declared(site, now=now)
        if view is not None and self._stands(view, declaration, pin_of_spki(spki_of(key.public_key())), now=now):
            return
        self._trust(site.operator, operator_key, now=now)
        earlier = self._enrolment.enrolments(site.id)
        if any(each.state == "waiting" for each in earlier):  # ended between two steps
            self._enrolment.reject(site.id, now=now, actor=ACTOR)
        if earlier:  # a key is handed in once
            key = prepare_next_key(place)
            if any(each.pin == pin_of_spki(spki_of(key.public_key())) for each in earlier):
                place.next_key.unlink()
                key = prepare_next_key(place)
        token = new_token(secrets.token_urlsafe(32), control=self._control_key)
        self._enrolment.invite(
            operator=site.operator,
            site=site.id,
            token=token,
            expires_in_s=INVITATION_S,
            replace=True,
            now=now,
            actor=ACTOR,
        )
        spki = spki_of(key.public_key())
        made = self._enrolment.enrol(
            token=token,
            spki=spki,
            proof=agent_sign(key, enrolment_text(token=token, spki=spki, declaration=declaration.canonical())),
            declaration=encode_signed(sign(declaration, operator_key)),
            now=now,
        )
        self._enrolment.approve(site.id, pin=made.pin, now=now, actor=ACTOR)
        take_next_key(place)

    def _stands(self, view: SiteView, declaration: SiteDeclaration, pin: str, *, now: float) -> bool:
        """Whether what was approved is this declaration and the key that lies there."""
        approved = self._approved(view.id)
        if approved is None or view.pin != pin:
            return False
        before = read_signed(approved.declaration.encode()).declaration
        if before.valid_until != declaration.valid_until and before.valid_until < now + _RENEW_S:
            return False
        same = msgspec.structs.replace(declaration, declared_at=before.declared_at, valid_until=before.valid_until)
        return same == before

    def _trust(self, operator: str, key: Ed25519PrivateKey, *, now: float) -> None:
        public = key.public_key().public_bytes_raw().hex()
        self._enrolment.set_operator_key(operator, public, now=now, actor=ACTOR)


def declared(site: Site, *, now: float) -> SiteDeclaration:
    """What its operator would sign, made up like the rest."""
    return SiteDeclaration(
        operator=site.operator,
        site=site.id,
        name=site.name,
        country=site.country,
        prefecture=site.prefecture,
        latitude=site.latitude,
        longitude=site.longitude,
        simulated=True,
        declared_at=now,
        valid_until=now + DECLARED_S if site.valid_until is None else site.valid_until,
        declaration=site.declaration,
    )
