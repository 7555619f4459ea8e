"""Journals from other machines: complete, once, in order, whatever is sent and whoever dies; then pruned."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from litestar import Litestar
from litestar.testing import TestClient

from sekisho.assembly.plane import ControlPlane
from sekisho.assembly.schema import migrate
from sekisho.ledger.journal import read_records
from sekisho.ledger.model import encode_record
from sekisho.ledger.projection import Projection
from sekisho.ledger.prune import prune
from sekisho.ledger.sequencer import JournalSource, Sequencer
from sekisho.ledger.shipping import Inbox, ShipmentGap, ShipmentRefused, Shipper
from sekisho.ledger.tlog.index import LogIndex
from sekisho.ledger.tlog.keys import NoteSigner
from sekisho.ledger.tlog.log import LogWriter
from sekisho.runtime.database import Database, sqlite_url
from support.control import app_of, decision, frame, new_plane, write_segment

FRAMES = [frame(encode_record(decision(number))) for number in range(6)]
ORIGIN = "sekisho.test/log/2026"
SIGNER = NoteSigner(ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes(32)))


def shipper(source: Path, inbox: Inbox) -> Shipper:
    return Shipper(
        source / "journal",
        arrived=lambda worker: inbox.arrived("osaka-1", worker),
        post=lambda worker, segment, offset, data: inbox.take("osaka-1", worker, segment, offset, data).offset,
    )


def payloads(root: Path) -> list[bytes]:
    return [payload for path in sorted(root.rglob("*.journal")) for _, payload in read_records(path)]


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_everything_arrives_once_and_in_order(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Records are written, parts are sent, sender and receiver die, files are torn."""
    home = tmp_path_factory.mktemp("ship")
    here, there = home / "here", home / "there"
    inbox = Inbox(there)
    sender = shipper(here, inbox)
    written: list[bytes] = []
    segment = 1
    for number in range(data.draw(st.integers(1, 15))):
        match data.draw(st.sampled_from(["write", "send", "sender dies", "receiver dies", "torn"])):
            case "write":
                record = decision(number)
                path = here / "journal" / "w0" / f"{segment:08d}.journal"
                if not path.exists() or data.draw(st.booleans()):
                    segment += path.exists()
                    write_segment(here, 0, segment, [record])
                else:
                    path.write_bytes(path.read_bytes().rstrip(b"\0") + frame(encode_record(record)) + bytes(64))
                written.append(encode_record(record))
            case "send":
                sender.step()
            case "sender dies":
                sender = shipper(here, inbox)
            case "receiver dies":
                inbox = Inbox(there)
                sender = shipper(here, inbox)
            case "torn":
                for path in sorted((there).rglob("*.journal"))[-1:]:
                    path.write_bytes(path.read_bytes() + b"\x40\0\0\0torn")
                inbox = Inbox(there)
                sender = shipper(here, inbox)
    sender.step()
    assert payloads(there) == written
    assert sender.step() == 0


def test_sent_again_is_taken_once(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    first = b"".join(FRAMES[:2])
    assert inbox.take("g", "w0", 1, 0, first).offset == len(first)
    assert inbox.take("g", "w0", 1, 0, first).offset == len(first)
    longer = b"".join(FRAMES[:4])
    assert inbox.take("g", "w0", 1, 0, longer).offset == len(longer)
    assert len(payloads(tmp_path)) == 4


def test_a_gap_and_what_is_no_frame_are_refused(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    with pytest.raises(ShipmentGap):
        inbox.take("g", "w0", 1, 10, FRAMES[0])
    for data in (FRAMES[0][:-1], b"\0" * 9, b"abc", FRAMES[0] + b"\1"):
        with pytest.raises(ShipmentRefused):
            inbox.take("g", "w0", 1, 0, data)
    for gateway, worker in (("..", "w0"), ("a/b", "w0"), ("g", "w0/.."), ("g", "x"), ("", "w0"), ("g" * 13, "w0")):
        with pytest.raises(ShipmentRefused):
            inbox.take(gateway, worker, 1, 0, FRAMES[0])
    assert payloads(tmp_path) == []


def test_a_sender_does_not_send_again_what_was_logged_and_removed(tmp_path: Path) -> None:
    for segment in range(1, 5):
        write_segment(tmp_path / "here", 0, segment, [decision(segment)])
    inbox = Inbox(tmp_path / "there")
    shipper(tmp_path / "here", inbox).step()
    (tmp_path / "there" / "w0.osaka-1" / "00000001.journal").unlink()
    assert shipper(tmp_path / "here", Inbox(tmp_path / "there")).step() == 0


# -- over HTTP


@pytest.fixture
def plane(tmp_path: Path) -> ControlPlane:
    return new_plane(tmp_path)


@pytest.fixture
def client(plane: ControlPlane) -> Iterator[TestClient[Litestar]]:
    with TestClient(app_of(plane)) as made:
        yield made


def test_a_shipment_over_http(client: TestClient[Litestar], plane: ControlPlane) -> None:
    where = "/internal/v1/journal?gateway=osaka-1&worker=w0"
    assert client.get(where).status_code == 401
    assert client.post(f"{where}&segment=1&offset=0", content=FRAMES[0]).status_code == 401
    client.headers["Authorization"] = f"Bearer {plane.gateway_token}"
    assert client.get(where).json() == []
    answer = client.post(f"{where}&segment=1&offset=0", content=b"".join(FRAMES))
    assert answer.json() == {"segment": 1, "offset": sum(map(len, FRAMES))}
    assert client.get(where).json() == [answer.json()]
    gap = client.post(f"{where}&segment=1&offset=99999999", content=FRAMES[0])
    assert (gap.status_code, gap.json()["code"]) == (409, "journal.gap")
    bad = client.post(f"{where}&segment=2&offset=0", content=b"nonsense")
    assert (bad.status_code, bad.json()["code"]) == (400, "journal.shipment")
    assert client.post(f"{where}&segment=2&offset=0", content=bytes(3 << 20)).status_code == 413


def test_a_salt_is_destroyed_where_it_lies(client: TestClient[Litestar], plane: ControlPlane) -> None:
    with plane.database.read() as connection:
        salt = connection.exec_driver_sql("SELECT salt FROM tenant_salt WHERE tenant = 'hospital'").scalar_one()
    table = plane.publisher.current
    assert table is not None
    assert salt in table.data
    assert any(salt in file.read_bytes() for file in plane.home.root.glob("control.sqlite*"))
    path = "/api/v1/tenants/hospital/erase-salt"
    assert client.post(path).status_code == 401
    client.headers["Authorization"] = f"Bearer {plane.admin_token}"
    assert client.post(path).json() == {"tenant": "hospital"}
    assert client.post("/api/v1/tenants/nobody/erase-salt").status_code == 404
    for file in plane.home.root.glob("control.sqlite*"):
        assert salt not in file.read_bytes(), file.name
    newer = plane.publisher.current
    assert newer is not None
    assert newer.version > table.version
    assert salt not in newer.data
    with plane.database.read() as connection:
        assert connection.exec_driver_sql("SELECT kind FROM ledger_outbox").scalars().all()[-1] == "salt.destroyed"


# -- pruning


def test_only_what_is_logged_and_projected_and_old_is_removed(tmp_path: Path) -> None:
    for segment in range(1, 7):
        path = write_segment(tmp_path, 0, segment, [decision(segment)])
        os.utime(path, (1000 * segment, 1000 * segment))
    root = tmp_path / "journal"
    database = Database(sqlite_url(tmp_path / "control.sqlite"))
    migrate(database)
    log = LogWriter(tmp_path / "log", SIGNER, origin=ORIGIN)
    sequencer = Sequencer(log, LogIndex(tmp_path / "log", writable=True), [JournalSource(root)])
    assert prune(root, log.state.positions, database, older_than=1e12) == []
    sequencer.step()
    assert prune(root, log.state.positions, database, older_than=1e12) == []
    Projection(database, root).step(now=1.0)
    removed = prune(root, log.state.positions, database, older_than=2500.0)
    assert [path.name for path in removed] == ["00000001.journal", "00000002.journal"]
    removed = prune(root, log.state.positions, database, older_than=1e12)
    assert [path.name for path in removed] == ["00000003.journal", "00000004.journal"]
    assert sequencer.step().added == 0
    assert log.size == 6
