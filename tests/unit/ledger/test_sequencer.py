"""From journals and outbox to the log: every record once, whatever happens in between. The segments are synthetic."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sekisho.ledger import outbox, sequencer
from sekisho.ledger.model import encode_record
from sekisho.ledger.sequencer import JournalSource, OutboxSource, Sequencer
from sekisho.ledger.tlog.entries import read_entry
from sekisho.ledger.tlog.index import LogIndex
from sekisho.ledger.tlog.keys import NoteSigner
from sekisho.ledger.tlog.log import LogReader, LogWriter, Position
from sekisho.runtime.database import Database, sqlite_url
from support.control import decision, frame, refusal, write_segment

ORIGIN = "sekisho.test/log/2026"
SIGNER = NoteSigner(ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes(32)))


class Life:
    """One life of the sequencer's process on a home directory; `end` is its death."""

    def __init__(self, home: Path, database: Database | None = None) -> None:
        self.log = LogWriter(home / "log", SIGNER, origin=ORIGIN)
        self.index = LogIndex(home / "log", writable=True)
        self.index.catch_up(LogReader(home / "log"))
        sources = [JournalSource(home / "journal"), *([OutboxSource(database)] if database else [])]
        self.sequencer = Sequencer(self.log, self.index, sources)

    def end(self) -> None:
        self.log.close()
        self.index.close()


def logged(home: Path) -> list[str]:
    return [read_entry(data).id.hex() for _, data in LogReader(home / "log").entries()]


def test_decisions_of_all_workers_are_logged_once(tmp_path: Path) -> None:
    write_segment(tmp_path, 0, 1, [decision(1), refusal(2)])
    write_segment(tmp_path, 1, 1, [decision(3)])
    life = Life(tmp_path)
    assert life.sequencer.step().added == 3
    assert life.sequencer.step().added == 0
    life.end()
    life = Life(tmp_path)
    assert life.sequencer.step().added == 0
    assert logged(tmp_path) == [decision(1).id, refusal(2).id, decision(3).id]
    assert life.index.find(refusal(2).id) == 1
    assert life.index.find("0" * 32) is None


def test_the_same_decision_twice_is_logged_once(tmp_path: Path) -> None:
    """A writer that leaves a broken segment may write again what the old one has too."""
    write_segment(tmp_path, 0, 1, [decision(1), decision(2)])
    write_segment(tmp_path, 0, 2, [decision(2), decision(3), decision(3)])
    life = Life(tmp_path)
    step = life.sequencer.step()
    assert (step.added, step.known) == (3, 2)
    write_segment(tmp_path, 0, 3, [decision(1), decision(4)])
    step = life.sequencer.step()
    assert (step.added, step.known) == (1, 1)
    assert logged(tmp_path) == [decision(number).id for number in (1, 2, 3, 4)]


@given(st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_decision_once_whatever_dies(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    """Records come, batches are small, and the process ends between steps, with or without its index."""
    monkeypatch.setattr(sequencer, "BATCH_ENTRIES", data.draw(st.integers(1, 5)))
    home = tmp_path_factory.mktemp("home")
    written = 0
    paths: dict[int, Path] = {}
    life = Life(home)
    for _ in range(data.draw(st.integers(1, 12))):
        match data.draw(st.sampled_from(["write", "step", "die", "lose index"])):
            case "write":
                worker = data.draw(st.integers(0, 1))
                written += 1
                if worker not in paths or data.draw(st.booleans()):
                    number = int(paths[worker].stem) + 1 if worker in paths else 1
                    paths[worker] = write_segment(home, worker, number, [decision(written)])
                else:
                    path = paths[worker]
                    body = path.read_bytes().rstrip(b"\0") + frame(encode_record(decision(written)))
                    path.write_bytes(body + bytes(100))
            case "step":
                life.sequencer.step()
            case "die":
                life.end()
                life = Life(home)
            case "lose index":
                life.end()
                for file in (home / "log" / "writer").glob("index*"):
                    file.unlink()
                life = Life(home)
    while life.sequencer.step().more or life.sequencer.step().added:
        pass
    life.end()
    assert sorted(logged(home)) == sorted(decision(number + 1).id for number in range(written))


def test_a_finished_segment_is_known_as_such(tmp_path: Path) -> None:
    write_segment(tmp_path, 0, 1, [decision(1)])
    life = Life(tmp_path)
    life.sequencer.step()
    assert not life.log.state.positions["journal/w0/00000001.journal"].finished
    write_segment(tmp_path, 0, 2, [])
    life.sequencer.step()
    assert not life.log.state.positions["journal/w0/00000001.journal"].finished
    write_segment(tmp_path, 0, 2, [decision(2)])
    life.sequencer.step()
    assert life.log.state.positions["journal/w0/00000001.journal"].finished
    (tmp_path / "journal" / "w0" / "00000001.journal").unlink()
    write_segment(tmp_path, 0, 3, [decision(3)])
    life.sequencer.step()
    assert set(life.log.state.positions) == {"journal/w0/00000002.journal", "journal/w0/00000003.journal"}


def test_what_a_change_wrote_beside_itself_is_logged_once(tmp_path: Path, database: Database) -> None:
    with database.write() as connection:
        first = outbox.append(connection, kind="policy.version", body={"sha256": "ab"}, at_ms=5)
    with suppress(RuntimeError), database.write() as connection:
        outbox.append(connection, kind="policy.version", body={"sha256": "never"})
        raise RuntimeError
    life = Life(tmp_path, database)
    assert life.sequencer.step().added == 1
    with database.read() as connection:
        assert outbox.waiting(connection, limit=10) == []
    # The row comes again, as after a crash between commit and delete.
    with database.write() as connection:
        outbox.append(connection, kind="policy.version", body={"sha256": "ab"}, at_ms=5, entry_id=first)
    step = life.sequencer.step()
    assert (step.added, step.known) == (0, 1)
    with database.read() as connection:
        assert outbox.waiting(connection, limit=10) == []
    entry = json.loads(LogReader(tmp_path / "log").entry(0))
    assert entry == {"at_ms": 5, "body": {"sha256": "ab"}, "id": first, "kind": "policy.version", "v": 1}


def test_a_row_that_nobody_can_read_keeps_nothing_else_waiting(tmp_path: Path, database: Database) -> None:
    with database.write() as connection:
        connection.execute(
            outbox.outbox.insert().values(entry_id="0" * 32, at_ms=1, kind="later", entry=b'{"of a later":"version"}')
        )
        outbox.append(connection, kind="policy", body={"hash": "ab"}, at_ms=2)
    log = LogWriter(tmp_path / "log", SIGNER, origin=ORIGIN)
    index = LogIndex(tmp_path / "log", writable=True)
    assert Sequencer(log, index, [OutboxSource(database)]).step().added == 1
    with database.read() as connection:
        assert connection.execute(outbox.outbox.select()).one().kind == "later"
    index.close()
    log.close()


def test_decisions_do_not_wait_for_the_database(tmp_path: Path) -> None:
    write_segment(tmp_path, 0, 1, [decision(1)])
    life = Life(tmp_path, Database(sqlite_url(tmp_path / "empty.sqlite")))
    assert life.sequencer.step().added == 1


def test_a_record_of_a_later_version_is_counted_and_kept(tmp_path: Path) -> None:
    path = write_segment(tmp_path, 0, 1, [decision(1)])
    path.write_bytes(path.read_bytes().rstrip(b"\0") + frame(b'{"kind":"decision","id":7}') + bytes(10))
    life = Life(tmp_path)
    step = life.sequencer.step()
    assert (step.added, step.unreadable) == (1, 1)


def test_the_index_is_searched_by_tenant_and_time(tmp_path: Path) -> None:
    write_segment(tmp_path, 0, 1, [decision(number, tenant=f"t{number % 2}") for number in range(10)])
    life = Life(tmp_path)
    life.sequencer.step()
    assert life.log.state.positions == {"journal/w0/00000001.journal": Position(life_offset(tmp_path))}
    reader = LogIndex(tmp_path / "log")
    assert [found.index for found in reader.search(tenant="t1")] == [9, 7, 5, 3, 1]
    assert [found.index for found in reader.search(tenant="t1", limit=2, before=decision(7).id)] == [5, 3]
    since, until = decision(3).at_ms, decision(6).at_ms
    assert [found.index for found in reader.search(since_ms=since, until_ms=until)] == [5, 4, 3]
    assert reader.search(tenant="nobody") == []
    assert {found.kind for found in reader.search(kind="decision")} == {"decision"}


def life_offset(home: Path) -> int:
    return len((home / "journal" / "w0" / "00000001.journal").read_bytes().rstrip(b"\0"))


def test_a_damaged_index_is_made_anew(tmp_path: Path) -> None:
    write_segment(tmp_path, 0, 1, [decision(1), decision(2)])
    life = Life(tmp_path)
    life.sequencer.step()
    life.end()
    (tmp_path / "log" / "writer" / "index.sqlite").write_bytes(b"no database" * 1000)
    life = Life(tmp_path)
    assert life.index.find(decision(2).id) == 1
    write_segment(tmp_path, 0, 2, [decision(1), decision(3)])
    assert life.sequencer.step().added == 1
