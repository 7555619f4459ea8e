"""From journals to the database: every decision once, whatever happens in between. The segments are synthetic."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from sekisho.ledger import projection
from sekisho.ledger.model import Dispatch, encode_record
from sekisho.ledger.projection import Projection
from sekisho.ledger.store import (
    PassageFilter,
    count_passages,
    find_passage,
    insert_decisions,
    list_passages,
    passage,
    passage_count,
    segment_offsets,
)
from sekisho.runtime.database import Database
from support.control import decision, frame, refusal, write_segment


def ids(database: Database, wanted: PassageFilter | None = None, **place: str) -> list[str]:
    with database.read() as connection:
        return [row.id for row in list_passages(connection, wanted or PassageFilter(), limit=1000, **place)]


def counted(database: Database) -> int:
    with database.read() as connection:
        return sum(row.passages for row in count_passages(connection, since_ms=0))


def dispatch(number: int) -> Dispatch:
    made = decision(number)
    return Dispatch(
        id=made.id,
        at_ms=made.at_ms,
        tenant=made.tenant,
        key=made.key,
        data_class=made.data_class,
        model=made.model,
        path=made.path,
        endpoint=made.endpoint,
        site=made.site,
        operator=made.operator,
        country=made.country,
        table=1,
        policy="p",
    )


def test_decisions_of_all_workers_arrive_once_and_dispatches_do_not(tmp_path: Path, database: Database) -> None:
    write_segment(tmp_path, 0, 1, [dispatch(1), decision(1), refusal(2)])
    write_segment(tmp_path, 1, 1, [decision(3)])
    reader = Projection(database, tmp_path / "journal")
    assert reader.step(now=1.0).added == 3
    assert reader.step(now=2.0).added == 0
    assert ids(database) == [decision(3).id, refusal(2).id, decision(1).id]
    assert counted(database) == 3


def test_a_segment_goes_on_where_it_was_left_even_by_another_process(tmp_path: Path, database: Database) -> None:
    path = write_segment(tmp_path, 0, 1, [decision(1)])
    Projection(database, tmp_path / "journal").step(now=1.0)
    data = path.read_bytes()
    path.write_bytes(data.rstrip(b"\0") + frame(encode_record(decision(2))) + bytes(100))
    assert Projection(database, tmp_path / "journal").step(now=2.0).added == 1
    assert ids(database) == [decision(2).id, decision(1).id]


def test_a_half_written_record_is_read_once_it_is_whole(tmp_path: Path, database: Database) -> None:
    path = write_segment(tmp_path, 0, 1, [decision(1)], room=0)
    whole = path.read_bytes() + frame(encode_record(decision(2)))
    path.write_bytes(whole[:-5] + bytes(64))
    reader = Projection(database, tmp_path / "journal")
    assert reader.step(now=1.0).added == 1
    path.write_bytes(whole + bytes(64))
    assert reader.step(now=2.0).added == 1


def test_an_empty_reserved_segment_does_not_end_the_one_before(tmp_path: Path, database: Database) -> None:
    """The writer reserves the next segment ahead of need: only a record in it says that the old one is over."""
    path = write_segment(tmp_path, 0, 1, [decision(1)])
    following = write_segment(tmp_path, 0, 2, [])
    reader = Projection(database, tmp_path / "journal")
    reader.step(now=1.0)
    path.write_bytes(path.read_bytes().rstrip(b"\0") + frame(encode_record(decision(2))) + bytes(100))
    assert reader.step(now=2.0).added == 1
    following.write_bytes(frame(encode_record(decision(3))) + bytes(100))
    assert reader.step(now=3.0).added == 1
    with database.read() as connection:
        finished = {path: done for path, (_, done) in segment_offsets(connection).items()}
    assert finished == {"w0/00000001.journal": True, "w0/00000002.journal": False}


def test_a_record_of_an_unknown_form_is_counted_and_passed_over(tmp_path: Path, database: Database) -> None:
    path = write_segment(tmp_path, 0, 1, [decision(1)], room=0)
    path.write_bytes(path.read_bytes() + frame(b'{"kind":"of-tomorrow"}') + frame(encode_record(decision(2))))
    step = Projection(database, tmp_path / "journal").step(now=1.0)
    assert (step.added, step.unreadable) == (2, 1)


def test_the_newest_rows_are_kept_and_the_counts_stay_true(tmp_path: Path, database: Database) -> None:
    write_segment(tmp_path, 0, 1, [decision(number) for number in range(30)])
    Projection(database, tmp_path / "journal", keep_rows=10).step(now=1_795_000_100.0)
    assert ids(database) == [decision(number).id for number in range(29, 19, -1)]
    assert counted(database) == 30
    assert Projection(database, tmp_path / "journal", keep_rows=10).step(now=1_795_000_100.0).added == 0


def test_a_long_backlog_comes_in_batches(tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "BATCH_RECORDS", 7)
    write_segment(tmp_path, 0, 1, [decision(number) for number in range(20)])
    write_segment(tmp_path, 0, 2, [decision(number) for number in range(20, 23)])
    reader = Projection(database, tmp_path / "journal")
    steps = [reader.step(now=1.0) for _ in range(4)]
    assert [step.added for step in steps] == [7, 7, 9, 0]
    assert [step.behind for step in steps] == [True, True, False, False]


def test_a_removed_segment_is_forgotten(tmp_path: Path, database: Database) -> None:
    path = write_segment(tmp_path, 0, 1, [decision(1)])
    reader = Projection(database, tmp_path / "journal")
    reader.step(now=1.0)
    path.unlink()
    reader.step(now=2.0)
    with database.read() as connection:
        assert segment_offsets(connection) == {}
    assert ids(database) == [decision(1).id]


@given(numbers=st.lists(st.integers(0, 30), max_size=60), cuts=st.lists(st.integers(1, 9), max_size=20))
def test_whatever_the_order_and_the_batches_each_decision_counts_once(
    database: Database, numbers: list[int], cuts: list[int]
) -> None:
    with database.write() as connection:  # one database for all examples: each starts from nothing
        connection.execute(passage.delete())
        connection.execute(passage_count.delete())
    rest = [decision(number) for number in numbers]
    for cut in [*cuts, len(rest)]:
        batch, rest = rest[:cut], rest[cut:]
        with database.write() as connection:
            insert_decisions(connection, "w0", [(each, encode_record(each)) for each in batch])
    assert sorted(ids(database)) == sorted({decision(number).id for number in numbers})
    assert counted(database) == len(set(numbers))


def test_filters_and_pages(tmp_path: Path, database: Database) -> None:
    write_segment(
        tmp_path,
        0,
        1,
        [
            decision(1),
            decision(2, site="softbank-osaka", endpoint="osaka-1"),
            refusal(3, tenant="developer", data_class="public"),
            decision(4, data_class="restricted"),
        ],
    )
    Projection(database, tmp_path / "journal").step(now=1.0)
    one, two, three, four = decision(1).id, decision(2).id, decision(3).id, decision(4).id
    assert ids(database, PassageFilter(site="softbank-osaka")) == [two]
    assert ids(database, PassageFilter(tenant="developer")) == [three]
    assert ids(database, PassageFilter(data_class="restricted")) == [four]
    assert ids(database, PassageFilter(verdict="refused")) == [three]
    assert ids(database, PassageFilter(verdict="allowed")) == [four, two, one]
    assert ids(database, PassageFilter(code="residency.no_eligible_endpoint")) == [three]
    assert ids(database, PassageFilter(since_ms=decision(2).at_ms, until_ms=decision(4).at_ms)) == [three, two]
    assert ids(database, before=three) == [two, one]
    assert ids(database, after=two) == [four, three]
    with database.read() as connection:
        assert [row.id for row in list_passages(connection, PassageFilter(), limit=1, after=one)] == [two]


def test_a_decision_is_found_as_it_was_written(tmp_path: Path, database: Database) -> None:
    write_segment(tmp_path, 3, 1, [refusal(1)])
    Projection(database, tmp_path / "journal").step(now=1.0)
    with database.read() as connection:
        found = find_passage(connection, refusal(1).id)
        assert found is not None
        assert (found.decision, found.worker, found.record) == (refusal(1), "w3", encode_record(refusal(1)))
        assert find_passage(connection, "0" * 32) is None
        assert connection.scalar(sa.select(sa.func.count()).select_from(passage)) == 1
