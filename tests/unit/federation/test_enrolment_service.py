"""Enrolment: only who was invited, with what the operator signed, once, and not before somebody approved it."""

from __future__ import annotations

import base64
from collections.abc import Callable

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sekisho.federation.declare import DeclarationRefused, SiteDeclaration, encode_signed, read_signed, sign
from sekisho.federation.enrol import MAX_REFUSED
from sekisho.federation.errors import AgentRefused, Conflict, EnrolmentRefused, UnknownName
from sekisho.federation.model import Endpoint, Operator, Pool, Site
from sekisho.federation.report import EndpointReport, Gpu, Inventory
from sekisho.federation.signing import pin_of_spki, spki_of
from sekisho.federation.sites import CLOCK_S
from sekisho.federation.tokens import control_key_of, new_token
from sekisho.kernel.errors import SekishoError
from sekisho.runtime.changes import changes
from sekisho.runtime.database import Database
from support.sites import CONFIGURED, CONTROL, NOW, VALIDITY_S, FakeAgent, Office, operator_hex


@pytest.fixture
def office(database: Database) -> Office:
    return Office(database)


def refused(call: Callable[[], object]) -> str:
    """The code of the refusal; every refusal says what to do next."""
    with pytest.raises(SekishoError) as caught:
        call()
    assert caught.value.hint
    return caught.value.code


def actions(database: Database, subject: str) -> list[str]:
    with database.read() as connection:
        return [change.action for change in reversed(changes(connection, subjects=(subject,)))]


def test_a_site_serves_nobody_before_it_is_approved_and_its_key_is_pinned_then(office: Office) -> None:
    agent = FakeAgent("ishikari-2")
    agent.enrol(office, office.invite().token, office.declare())
    assert office.federation.effective(now=NOW) == office.configured
    assert refused(lambda: office.beat(agent)) == "agent.waiting"

    office.enrolment.approve("ishikari-2", pin=pin_of_spki(agent.spki), now=NOW, actor="test")
    assert office.beat(agent)
    federation = office.federation.effective(now=NOW)
    (site,) = [site for site in federation.sites if site.id == "ishikari-2"]
    (endpoint,) = federation.endpoints
    assert site.declaration.owner_country == "JP"
    assert not site.declaration.operator_can_read
    assert endpoint.tls is not None
    assert endpoint.tls.pins == (pin_of_spki(agent.spki),)
    assert endpoint.tls.client_cert == "/gateway.crt"
    assert actions(office.database, "site/ishikari-2") == [
        "site.invited",
        "site.enrolled",
        "site.approved",
        "site.first_heard",
    ]


def test_a_token_works_once(office: Office) -> None:
    token = office.invite().token
    agent = FakeAgent("ishikari-2")
    agent.enrol(office, token, office.declare())
    # the same request again, and somebody else with the same token
    assert refused(lambda: agent.enrol(office, token, office.declare())) == "enrol.token_used"
    assert refused(lambda: FakeAgent("ishikari-2").enrol(office, token, office.declare())) == "enrol.token_used"
    assert "site.enrolment_refused" in actions(office.database, "site/ishikari-2")


def test_a_token_that_ran_out_or_was_never_given_is_refused(office: Office) -> None:
    token = office.invite(expires_in_s=60.0).token
    late = FakeAgent("ishikari-2")
    assert refused(lambda: late.enrol(office, token, office.declare(), now=NOW + 60)) == "enrol.token_expired"
    unknown = new_token("x" * 43, control=CONTROL)
    assert refused(lambda: late.enrol(office, unknown, office.declare())) == "enrol.token_unknown"
    assert refused(lambda: late.enrol(office, "nonsense", office.declare())) == "enrol.token_unknown"


def test_a_newer_invitation_ends_the_older_one(office: Office) -> None:
    older, newer = office.invite().token, office.invite().token
    agent = FakeAgent("ishikari-2")
    assert refused(lambda: agent.enrol(office, older, office.declare())) == "enrol.token_expired"
    agent.enrol(office, newer, office.declare())


def test_another_operators_signature_is_refused(office: Office) -> None:
    other = Ed25519PrivateKey.generate()
    token = office.invite().token
    agent = FakeAgent("ishikari-2")
    forged = office.declare(key=other)
    assert refused(lambda: agent.enrol(office, token, forged)) == "enrol.signature"
    # … also when it claims the right operator's key
    claimed = msgspec.structs.replace(forged, operator_key=operator_hex(office.operator_key))
    assert refused(lambda: agent.enrol(office, token, claimed)) == "enrol.signature"
    # … and the right key of an operator that was not invited
    office.enrolment.set_operator_key("softbank", operator_hex(other), now=NOW, actor="test")
    theirs = office.declare(key=other, operator="softbank")
    assert refused(lambda: agent.enrol(office, token, theirs)) == "enrol.other_site"
    # a refusal does not use the token up
    agent.enrol(office, token, office.declare())


def test_a_changed_declaration_is_refused(office: Office) -> None:
    token = office.invite().token
    agent = FakeAgent("ishikari-2")
    signed = office.declare()
    changed = msgspec.structs.replace(signed, declaration=msgspec.structs.replace(signed.declaration, country="US"))
    # by who holds the agent's key, and by somebody on the way
    assert refused(lambda: agent.enrol(office, token, changed)) == "enrol.signature"
    proof = agent.proof(token, signed)
    assert refused(lambda: agent.enrol(office, token, changed, proof=proof)) == "enrol.proof"


def test_a_declaration_of_another_site_is_refused(office: Office) -> None:
    token = office.invite().token
    assert refused(lambda: FakeAgent("x").enrol(office, token, office.declare("tokyo-9"))) == "enrol.other_site"


def test_a_declaration_that_ran_out_is_refused(office: Office) -> None:
    token = office.invite().token
    old = office.declare(valid_until=NOW)
    assert refused(lambda: FakeAgent("ishikari-2").enrol(office, token, old)) == "enrol.declaration_expired"


def test_a_key_that_the_agent_does_not_have_is_refused(office: Office) -> None:
    token = office.invite().token
    mine, theirs = FakeAgent("ishikari-2"), FakeAgent("ishikari-2")
    signed = office.declare()
    assert refused(lambda: mine.enrol(office, token, signed, spki=theirs.spki)) == "enrol.proof"
    weak = ec.generate_private_key(ec.SECP384R1())
    assert refused(lambda: mine.enrol(office, token, signed, spki=spki_of(weak.public_key()))) == "enrol.proof"
    for garbage in ("", "====", base64.b64encode(b"\x30\x00").decode(), "é", mine.spki + "\n"):
        assert refused(lambda spki=garbage: mine.enrol(office, token, signed, spki=spki)) == "enrol.proof"


def test_a_second_enrolment_is_refused(office: Office) -> None:
    agent = FakeAgent("ishikari-2")
    agent.enrol(office, office.invite().token, office.declare())
    assert refused(office.invite) == "enrol.second"  # one waits
    office.enrolment.approve("ishikari-2", pin=None, now=NOW, actor="test")
    assert refused(office.invite) == "enrol.second"  # one is there
    assert refused(lambda: office.enrolment.approve("ishikari-2", pin=None, now=NOW, actor="test")) == "name.unknown"


def test_two_invitations_out_at_a_time_enrol_one_agent(office: Office) -> None:
    """The site is taken between the invitation and its use."""
    first = office.invite("ishikari-2")
    with office.database.write() as connection:
        connection.exec_driver_sql("UPDATE site_invitation SET site = 'ishikari-3'")
    second = office.invite("ishikari-2")
    FakeAgent("ishikari-2").enrol(office, second.token, office.declare())
    with office.database.write() as connection:
        connection.exec_driver_sql("UPDATE site_invitation SET site = 'ishikari-2'")
    code = refused(lambda: FakeAgent("ishikari-2").enrol(office, first.token, office.declare()))
    assert code == "enrol.second"


def test_a_site_of_the_configuration_is_never_taken_over(office: Office) -> None:
    assert refused(lambda: office.invite("configured")) == "enrol.site_clash"
    # the configuration gains the id while the invitation is out, while it waits, and after it was approved
    token = office.invite().token
    agent = FakeAgent("ishikari-2")
    clash = msgspec.structs.replace(
        CONFIGURED, sites=(*CONFIGURED.sites, Site(id="ishikari-2", operator="sakura", name="x", country="JP"))
    )
    office.configured = clash
    assert refused(lambda: agent.enrol(office, token, office.declare())) == "enrol.site_clash"
    office.configured = CONFIGURED
    agent.enrol(office, token, office.declare())
    office.configured = clash
    with pytest.raises(Conflict):
        office.enrolment.approve("ishikari-2", pin=None, now=NOW, actor="test")
    office.configured = CONFIGURED
    office.enrolment.approve("ishikari-2", pin=None, now=NOW, actor="test")
    office.beat(agent)
    office.configured = clash
    assert office.federation.effective(now=NOW) == clash


def test_a_rejected_key_stays_out(office: Office) -> None:
    agent = FakeAgent("ishikari-2")
    agent.enrol(office, office.invite().token, office.declare())
    office.enrolment.reject("ishikari-2", now=NOW, actor="test")
    assert refused(lambda: office.beat(agent)) == "agent.rejected"
    token = office.invite().token
    assert refused(lambda: agent.enrol(office, token, office.declare())) == "enrol.key_used"
    FakeAgent("ishikari-2").enrol(office, token, office.declare())


def test_an_administrator_who_compares_fingerprints_does_not_approve_a_stranger(office: Office) -> None:
    stranger = FakeAgent("ishikari-2")
    stranger.enrol(office, office.invite().token, office.declare())
    mine = FakeAgent("ishikari-2")
    with pytest.raises(Conflict):
        office.enrolment.approve("ishikari-2", pin=pin_of_spki(mine.spki), now=NOW, actor="test")
    assert office.enrolment.waiting()[0].state == "waiting"


def test_a_token_is_not_for_guessing(office: Office) -> None:
    token = office.invite().token
    agent = FakeAgent("ishikari-2")
    for _ in range(MAX_REFUSED):
        refused(lambda: agent.enrol(office, token, office.declare(), proof=b"x"))
    assert refused(lambda: agent.enrol(office, token, office.declare())) == "enrol.token_closed"


def test_an_operator_without_a_key_invites_nobody(office: Office) -> None:
    assert refused(lambda: office.invite(operator="softbank")) == "enrol.operator_key_unknown"
    assert refused(lambda: office.invite(operator="nobody")) == "name.unknown"


def test_an_operator_can_be_recorded_and_its_versions_stay(office: Office) -> None:
    office.enrolment.add_operator(Operator(id="kddi", name="KDDI", country="JP", law="JP"), now=NOW, actor="test")
    office.enrolment.set_operator_key("kddi", operator_hex(office.operator_key), now=NOW, actor="test")
    agent = FakeAgent("tama-1")
    signed = office.declare("tama-1", operator="kddi")
    agent.enrol(office, office.invite("tama-1", operator="kddi").token, signed)
    office.enrolment.approve("tama-1", pin=None, now=NOW, actor="test")
    office.beat(agent)
    federation = office.federation.effective(now=NOW)
    assert "kddi" in {operator.id for operator in federation.operators}
    with pytest.raises(Conflict):
        office.enrolment.add_operator(CONFIGURED.operators[0], now=NOW, actor="test")


def test_replacing_an_agent_pins_the_new_key_and_keeps_what_was_declared_before(office: Office) -> None:
    old = office.enrolled()
    new = FakeAgent("ishikari-2")
    new.enrol(office, office.invite(replace=True).token, office.declare(name="Second hall"))
    office.beat(old)  # serves on until the new one is approved
    office.enrolment.approve("ishikari-2", pin=None, now=NOW + 1, actor="somebody else")
    assert refused(lambda: office.beat(old, now=NOW + 2)) == "agent.signature"
    assert office.beat(new, now=NOW + 2)
    versions = office.enrolment.versions("ishikari-2")
    assert [(version.version, version.actor) for version in versions] == [(2, "somebody else"), (1, "test")]
    assert [each.state for each in office.enrolment.enrolments("ishikari-2")].count("replaced") == 1


# -- requests of agents


def test_a_request_counts_once(office: Office) -> None:
    agent = office.enrolled()
    first, second = agent.request(b"{}", now=NOW), agent.request(b"{}", now=NOW)
    office.sites.authenticate(second, now=NOW)
    assert refused(lambda: office.sites.authenticate(second, now=NOW)) == "agent.replayed"
    assert refused(lambda: office.sites.authenticate(first, now=NOW)) == "agent.replayed"  # overtaken


def test_nothing_of_a_request_can_be_changed(office: Office) -> None:
    agent = office.enrolled()
    other = office.enrolled("tokyo-9")
    request = agent.request(b"{}", now=NOW)
    for changed in (
        {"body": b"[]"},
        {"path": "/agent/v1/rotate"},
        {"method": "PUT"},
        {"counter": request.counter + 1},
        {"site": other.site},
        {"signature": "AAAA"},
        {"signature": "é"},
        {"signature": ""},
    ):
        forged = msgspec.structs.replace(request, **changed)
        assert refused(lambda forged=forged: office.sites.authenticate(forged, now=NOW)) == "agent.signature"
    office.sites.authenticate(request, now=NOW)


def test_an_old_request_is_refused_even_where_nothing_was_seen_since(office: Office) -> None:
    agent = office.enrolled()
    request = agent.request(b"{}", now=NOW)
    assert refused(lambda: office.sites.authenticate(request, now=NOW + CLOCK_S + 1)) == "agent.clock"
    assert refused(lambda: office.sites.authenticate(request, now=NOW - CLOCK_S - 1)) == "agent.clock"


def test_an_agent_that_nobody_enrolled_is_unknown(office: Office) -> None:
    agent = FakeAgent("nowhere")
    assert refused(lambda: office.sites.authenticate(agent.request(b"", now=NOW), now=NOW)) == "agent.unknown"


def test_a_rotated_key_takes_the_place_of_the_old_one(office: Office) -> None:
    agent = office.enrolled()
    new = ec.generate_private_key(ec.SECP256R1())
    found = office.sites.authenticate(agent.request(b"", now=NOW), now=NOW)
    somebody = FakeAgent("ishikari-2")
    assert (
        refused(
            lambda: office.sites.rotate(found, spki=spki_of(new.public_key()), proof=somebody.rotation(new), now=NOW)
        )
        == "agent.rotation"  # the proof names the old key
    )
    office.sites.rotate(found, spki=spki_of(new.public_key()), proof=agent.rotation(new), now=NOW)
    assert refused(lambda: office.beat(agent, now=NOW + 1)) == "agent.signature"
    old, agent.key = agent.key, new
    office.beat(agent, now=NOW + 1)
    (endpoint,) = office.federation.effective(now=NOW).endpoints
    assert endpoint.tls is not None
    assert endpoint.tls.pins == (pin_of_spki(agent.spki),)
    found = office.sites.authenticate(agent.request(b"", now=NOW + 2), now=NOW + 2)
    back = spki_of(old.public_key())
    with pytest.raises(EnrolmentRefused) as caught:
        office.sites.rotate(found, spki=back, proof=agent.rotation(old), now=NOW)
    assert caught.value.code == "enrol.key_used"
    assert "site.key_rotated" in actions(office.database, "site/ishikari-2")


def test_a_key_that_was_changed_to_and_replaced_comes_back_at_no_site(office: Office) -> None:
    """Enrolments have the keys that agents came with; this one is in none."""
    agent, other = office.enrolled(), office.enrolled("tokyo-9")
    new = ec.generate_private_key(ec.SECP256R1())
    found = office.sites.authenticate(agent.request(b"", now=NOW), now=NOW)
    office.sites.rotate(found, spki=spki_of(new.public_key()), proof=agent.rotation(new), now=NOW)
    FakeAgent("ishikari-2").enrol(office, office.invite(replace=True).token, office.declare())
    office.enrolment.approve("ishikari-2", pin=None, now=NOW + 1, actor="test")
    found = office.sites.authenticate(other.request(b"", now=NOW + 2), now=NOW + 2)
    with pytest.raises(EnrolmentRefused) as caught:
        office.sites.rotate(found, spki=spki_of(new.public_key()), proof=other.rotation(new), now=NOW + 2)
    assert caught.value.code == "enrol.key_used"


# -- what a heart-beat does


def test_evidence_ends_with_the_heart_beats(office: Office) -> None:
    agent = office.enrolled()
    office.beat(agent)

    def until() -> float | None:
        return next(site for site in office.federation.effective(now=NOW).sites if site.id == agent.site).valid_until

    assert until() == NOW + VALIDITY_S
    assert not office.beat(agent, now=NOW + 10)  # nothing new: no new table for it
    assert until() == NOW + 10 + VALIDITY_S
    (view,) = [view for view in office.sites.views(now=NOW + 10 + VALIDITY_S) if view.id == agent.site]
    assert view.state == "stale"
    assert office.beat(agent, now=NOW + 1000)  # back again
    assert "site.heard_again" in actions(office.database, "site/ishikari-2")


def test_evidence_never_outlives_the_declaration(office: Office) -> None:
    agent = FakeAgent("ishikari-2")
    agent.enrol(office, office.invite().token, office.declare(valid_until=NOW + 30))
    office.enrolment.approve("ishikari-2", pin=None, now=NOW, actor="test")
    office.beat(agent)
    site = next(site for site in office.federation.effective(now=NOW).sites if site.id == agent.site)
    assert site.valid_until == NOW + 30


def test_an_endpoint_that_changes_gets_a_new_version_and_one_that_goes_is_retired(office: Office) -> None:
    agent = office.enrolled()
    one = EndpointReport(id="a", url="https://10.0.0.1:9443/v1", models=("m",))
    assert office.beat(agent, endpoints=(one,))
    assert not office.beat(agent, now=NOW + 1, endpoints=(msgspec.structs.replace(one, connections=7),))
    assert office.beat(agent, now=NOW + 2, endpoints=(msgspec.structs.replace(one, slots=16),))
    assert [endpoint.slots for endpoint in office.federation.effective(now=NOW).endpoints] == [16]
    assert office.beat(agent, now=NOW + 3, endpoints=())
    assert office.federation.effective(now=NOW).endpoints == ()
    assert actions(office.database, "endpoint/a") == ["endpoint.reported", "endpoint.reported", "endpoint.retired"]


def test_no_site_reports_an_endpoint_that_is_somebody_elses(office: Office) -> None:
    first, second = office.enrolled("ishikari-2"), office.enrolled("tokyo-9")
    mine = EndpointReport(id="a", url="https://10.0.0.1:9443/v1", models=("m",))
    office.beat(first, endpoints=(mine,))
    assert refused(lambda: office.beat(second, endpoints=(mine,))) == "agent.endpoint_clash"
    office.configured = msgspec.structs.replace(
        CONFIGURED, endpoints=(Endpoint(id="b", site="configured", url="http://127.0.0.1:1/v1", models=("m",)),)
    )
    theirs = msgspec.structs.replace(mine, id="b")
    assert refused(lambda: office.beat(second, now=NOW + 1, endpoints=(theirs,))) == "agent.endpoint_clash"


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1:9443/v1",
        "https://169.254.169.254/v1",
        "https://user:secret@10.0.0.1/v1",
        "https://10.0.0.1/v1/../admin",
        "https://metadata.google.internal/v1",
        "ftp://10.0.0.1/v1",
        "",
    ],
)
def test_no_site_leads_gateways_where_they_must_not_go(office: Office, url: str) -> None:
    agent = office.enrolled()
    endpoint = EndpointReport(id="a", url=url, models=("m",))
    assert refused(lambda: office.beat(agent, endpoints=(endpoint,))) == "agent.report"
    assert office.federation.effective(now=NOW).endpoints == ()


def test_a_report_that_can_not_be_read_is_refused(office: Office) -> None:
    agent = office.enrolled()
    for number, body in enumerate((b"", b"[]", b"{", b"\xff", b'{"endpoints":[{"id":"A b"}]}', b"[" * 50_000)):
        found = office.sites.authenticate(agent.request(body, now=NOW + number), now=NOW + number)
        code = refused(lambda found=found, body=body: office.sites.heartbeat(found, body, now=NOW))
        assert code == "agent.report"


def test_gpus_become_pools(office: Office) -> None:
    agent = office.enrolled()
    gpus = tuple(Gpu(uuid=f"GPU-{n}", name="NVIDIA H200", memory_mib=143_771) for n in range(3))
    office.beat(agent, inventory=Inventory(simulated=True, note="test", gpus=gpus))
    (pool,) = office.federation.effective(now=NOW).pools
    assert (pool.id, pool.site, pool.gpu, pool.count) == ("ishikari-2.nvidia-h200", "ishikari-2", "NVIDIA H200", 3)
    assert pool.simulated


def test_a_suspended_site_takes_all_its_endpoints_with_it(office: Office) -> None:
    agent = office.enrolled()
    office.beat(agent)
    assert office.sites.set_suspended("ishikari-2", True, now=NOW, actor="test")
    assert not office.sites.set_suspended("ishikari-2", True, now=NOW, actor="test")
    assert office.federation.suspended() == {"ishikari-2-a"}
    office.beat(agent, now=NOW + 1)  # heart-beats go on, and change nothing of it
    assert office.federation.suspended() == {"ishikari-2-a"}
    assert office.sites.set_suspended("ishikari-2", False, now=NOW, actor="test")
    assert office.federation.suspended() == frozenset()
    with pytest.raises(UnknownName):
        office.sites.set_suspended("nowhere", True, now=NOW, actor="test")


# -- declarations


def test_a_declaration_says_only_what_can_be_so(office: Office) -> None:
    for changed in (
        {"country": "UK"},
        {"operator": "A B"},
        {"prefecture": 13, "country": "US"},
        {"latitude": 1.0},
        {"form": 2},
        {"name": "x\ny"},
    ):
        made = SiteDeclaration(**{"operator": "sakura", "site": "s", "country": "JP", "valid_until": NOW, **changed})
        with pytest.raises(DeclarationRefused) as caught:
            sign(made, office.operator_key)
        assert caught.value.hint


def test_a_declaration_has_one_reading(office: Office) -> None:
    data = encode_signed(office.declare(latitude=43.19, longitude=141.33, prefecture=1))
    assert encode_signed(read_signed(data)) == data
    for broken in (b"", b"{}", data[:-1], data.replace(b'"form":1', b'"form":1,"more":1'), b"\xff", b"[" * 30_000):
        with pytest.raises(DeclarationRefused):
            read_signed(broken)


def test_a_token_names_the_control_plane_to_believe() -> None:
    assert control_key_of(new_token("x" * 43, control=CONTROL)) == CONTROL
    assert control_key_of("x") is None


def test_refusals_of_agents_are_their_own_kind() -> None:
    assert issubclass(AgentRefused, SekishoError)
    assert issubclass(EnrolmentRefused, SekishoError)


def test_configured_gpus_of_a_site_are_not_counted_again(office: Office) -> None:
    agent = office.enrolled()
    made = Pool(id="plan", site="ishikari-2", gpu="NVIDIA H200", count=8, simulated=True)
    office.configured = msgspec.structs.replace(office.configured, pools=(made,))
    gpus = (Gpu(uuid="GPU-1", name="NVIDIA H200", memory_mib=143_771),)
    office.beat(agent, inventory=Inventory(simulated=True, note="test", gpus=gpus))
    assert office.federation.effective(now=NOW).pools == (made,)
    (view,) = (each for each in office.sites.views(now=NOW) if each.id == "ishikari-2")
    assert view.inventory is not None
    assert len(view.inventory.gpus) == 1


def test_a_site_that_is_retired_is_nobody_any_more_and_may_come_back(office: Office) -> None:
    agent = office.enrolled()
    office.beat(agent)
    before = office.federation.effective(now=NOW)
    assert office.enrolment.retire("ishikari-2", now=NOW + 1, actor="test").state == "retired"
    after = office.federation.effective(now=NOW + 1)
    assert {site.id for site in before.sites} - {site.id for site in after.sites} == {"ishikari-2"}
    assert not after.endpoints
    assert refused(lambda: office.beat(agent, now=NOW + 2)) == "agent.unknown"
    assert refused(lambda: office.enrolment.retire("ishikari-2", now=NOW + 2, actor="test")) == "name.unknown"
    assert refused(lambda: office.enrolment.retire("configured", now=NOW + 2, actor="test")) == "name.unknown"
    # nothing is forgotten: neither what was declared nor the key, which stays out
    assert [each.retired for each in office.enrolment.versions("ishikari-2")] == [True, False]
    token = office.invite(now=NOW + 3).token
    assert refused(lambda: agent.enrol(office, token, office.declare(), now=NOW + 3)) == "enrol.key_used"
    again = FakeAgent("ishikari-2")
    again.enrol(office, token, office.declare(), now=NOW + 3)
    office.enrolment.approve("ishikari-2", pin=None, now=NOW + 3, actor="test")
    office.beat(again, now=NOW + 4)
    assert len(office.federation.effective(now=NOW + 4).endpoints) == len(before.endpoints)
