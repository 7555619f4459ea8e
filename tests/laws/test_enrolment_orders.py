"""Whatever happens in whatever order: gateways are pinned to keys that somebody approved, and to no others.

A machine of states drives the real services on a real database (SQLite) and keeps a model of its own beside them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sekisho.assembly.schema import migrate
from sekisho.federation.errors import AgentRefused, Conflict, EnrolmentRefused, UnknownName
from sekisho.federation.signing import pin_of_spki, spki_of
from sekisho.kernel.errors import SekishoError
from sekisho.runtime.database import Database, sqlite_url
from support.background import SOAK
from support.sites import NOW, VALIDITY_S, FakeAgent, Office

SITES = ("ishikari-2", "tokyo-9")
_REFUSED = (EnrolmentRefused, AgentRefused, Conflict, UnknownName)
site_names = st.sampled_from(SITES)


class Enrolment(RuleBasedStateMachine):
    """The model: which pin was approved for each site, which waits, which sites are suspended."""

    @initialize()
    def start(self) -> None:
        self._directory = tempfile.TemporaryDirectory()
        database = Database(sqlite_url(Path(self._directory.name) / "control.sqlite"))
        migrate(database)
        self.office = Office(database)
        self.stranger = Ed25519PrivateKey.generate()
        self.now = NOW
        self.tokens: list[tuple[str, str]] = []
        self.spent: set[str] = set()
        self.agents: list[FakeAgent] = []
        self.waiting: dict[str, str] = {}
        self.approved: dict[str, str] = {}
        self.suspended: set[str] = set()
        self.heard: dict[str, float] = {}

    def teardown(self) -> None:
        if hasattr(self, "office"):
            self.office.database.close()
            self._directory.cleanup()

    def _tried(self, call: Any) -> bool:
        """Whether it was taken; a refusal has a code and a next step."""
        try:
            call()
        except _REFUSED as error:
            refused: SekishoError = error
        else:
            return True
        assert refused.code
        assert refused.hint
        return False

    @rule(site=site_names, replace=st.booleans())
    def invite(self, site: str, replace: bool) -> None:
        def call() -> None:
            self.tokens.append((site, self.office.invite(site, replace=replace, now=self.now).token))

        taken = self._tried(call)
        assert taken == (site not in self.waiting and (site not in self.approved or replace))

    @precondition(lambda self: set(SITES) - set(self.approved) - set(self.waiting))
    @rule()
    def join(self) -> None:
        """The straight way, so that what comes after it is tried often."""
        site = min(set(SITES) - set(self.approved) - set(self.waiting))
        self.invite(site, replace=False)
        self._enrol(*self.tokens[-1], right_operator=True, right_site=True)
        self.approve(site, right_pin=True)

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), wrong=st.sampled_from(["", "", "", "operator", "site"]))
    def enrol(self, data: st.DataObject, wrong: str) -> None:
        site, token = data.draw(st.sampled_from(self.tokens))
        self._enrol(site, token, right_operator=wrong != "operator", right_site=wrong != "site")

    def _enrol(self, site: str, token: str, *, right_operator: bool, right_site: bool) -> None:
        declared = site if right_site else next(name for name in SITES if name != site)
        signed = self.office.declare(declared, key=None if right_operator else self.stranger)
        agent = FakeAgent(site)
        if self._tried(lambda: agent.enrol(self.office, token, signed, now=self.now)):
            assert right_operator
            assert right_site
            assert token not in self.spent
            assert site not in self.waiting
            self.spent.add(token)
            self.agents.append(agent)
            self.waiting[site] = pin_of_spki(agent.spki)

    @rule(site=site_names, right_pin=st.booleans())
    def approve(self, site: str, right_pin: bool) -> None:
        pin = self.waiting.get(site, "sha256:" + "0" * 64) if right_pin else "sha256:" + "f" * 64
        taken = self._tried(lambda: self.office.enrolment.approve(site, pin=pin, now=self.now, actor="law"))
        assert taken == (right_pin and site in self.waiting)
        if taken:
            self.approved[site] = self.waiting.pop(site)
            self.heard.pop(site, None)

    @rule(site=site_names)
    def reject(self, site: str) -> None:
        taken = self._tried(lambda: self.office.enrolment.reject(site, now=self.now, actor="law"))
        assert taken == (site in self.waiting)
        self.waiting.pop(site, None)

    @precondition(lambda self: self.agents)
    @rule(data=st.data(), forward_s=st.sampled_from([0.0, 1.0, 10.0, VALIDITY_S, 200.0]))
    def beat(self, data: st.DataObject, forward_s: float) -> None:
        self.now += forward_s
        agent = data.draw(st.sampled_from(self.agents))
        taken = self._tried(lambda: self.office.beat(agent, now=self.now))
        assert taken == (self.approved.get(agent.site) == pin_of_spki(agent.spki))
        if taken:
            self.heard[agent.site] = self.now

    @precondition(lambda self: self.agents)
    @rule(data=st.data(), old=st.booleans())
    def rotate(self, data: st.DataObject, old: bool) -> None:
        agent = data.draw(st.sampled_from(self.agents))
        new = data.draw(st.sampled_from(self.agents)).key if old else ec.generate_private_key(ec.SECP256R1())
        spki = spki_of(new.public_key())
        proof = agent.rotation(new)

        def call() -> None:
            found = self.office.sites.authenticate(agent.request(b"", now=self.now), now=self.now)
            self.office.sites.rotate(found, spki=spki, proof=proof, now=self.now)

        if self._tried(call):
            assert not old  # a key that was there before never comes back
            assert self.approved[agent.site] == pin_of_spki(agent.spki)
            agent.key = new
            self.approved[agent.site] = pin_of_spki(spki)

    @rule(site=site_names, suspended=st.booleans())
    def suspend(self, site: str, suspended: bool) -> None:
        taken = self._tried(lambda: self.office.sites.set_suspended(site, suspended, now=self.now, actor="law"))
        assert taken == (site in self.approved)
        if taken:
            (self.suspended.add if suspended else self.suspended.discard)(site)

    @invariant()
    def gateways_are_pinned_to_what_was_approved(self) -> None:
        if not hasattr(self, "office"):
            return
        federation = self.office.federation.effective(now=self.now)
        for endpoint in federation.endpoints:
            assert endpoint.tls is not None
            assert endpoint.tls.pins == (self.approved[endpoint.site],)
        for site in federation.sites:
            if site.id in SITES:
                assert site.id in self.approved
                assert site.valid_until is not None
                if site.id in self.heard:
                    assert site.valid_until == self.heard[site.id] + VALIDITY_S
        at_suspended = {each.id for each in federation.endpoints if each.site in self.suspended}
        assert self.office.federation.suspended() == at_suspended


TestEnrolment = Enrolment.TestCase
TestEnrolment.settings = settings(max_examples=200 if SOAK else 30, stateful_step_count=30, deadline=None)
