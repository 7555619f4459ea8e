"""Statements that come in: only what continues the chain, once, and into the transparency log with it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from litestar.testing import TestClient

from sekisho.cli.main import cli
from sekisho.federation.border import (
    BorderRefused,
    Reading,
    SignedStatement,
    Statement,
    Tally,
    Way,
    from_json,
    sign,
    statement,
    verify_chain,
)
from sekisho.federation.border_service import BorderService
from sekisho.federation.errors import Conflict, UnknownName
from sekisho.ledger import outbox
from sekisho.runtime.database import Database
from support.control import app_of, new_plane

NOW = 1_800_000_000.0
HOUR_MS = 3_600_000
KEY = Ed25519PrivateKey.generate()
PUBLIC = KEY.public_key().public_bytes_raw().hex()
GUARDED = Way(site="osaka", peer="us-west", data_class="confidential")
CANARY = Way(site="tokyo", peer="virginia", data_class="public", canary=True)


def three(packets: int) -> Reading:
    tally = Tally(out_packets=packets, out_bytes=packets * 60)
    return Reading(line=tally, interface=tally, capture=tally)


def chain(
    length: int, *, key: Ed25519PrivateKey = KEY, leak_at: int = -1, name: str = "jp", until: float = NOW
) -> list[SignedStatement]:
    """One an hour, the last ending at `until`."""
    made: list[SignedStatement] = []
    before: dict[Way, Reading] = {}
    for number in range(length):
        leaked = three(1 if 0 <= leak_at <= number else 0)
        after = {GUARDED: leaked, CANARY: three(2 * number + 2)}
        at_ms = int(until * 1000) - (length - 1 - number) * HOUR_MS
        previous: Statement | None = made[-1].statement if made else None
        made.append(
            sign(
                statement(
                    border=name, before=before, after=after, from_ms=at_ms - HOUR_MS, to_ms=at_ms, previous=previous
                ),
                key,
            )
        )
        before = after
    return made


@pytest.fixture
def borders(database: Database) -> BorderService:
    made = BorderService(database)
    made.trust("jp", PUBLIC, now=NOW, actor="test")
    return made


def logged(database: Database) -> list[str]:
    with database.read() as connection:
        return [waiting.entry.kind for waiting in outbox.waiting(connection, limit=1000)]


def test_every_statement_goes_into_the_log_once_however_often_it_is_sent(
    borders: BorderService, database: Database
) -> None:
    given = chain(5)
    assert borders.take("jp", given[:3], now=NOW).taken == 3
    assert borders.take("jp", given[:3], now=NOW).taken == 0
    again = borders.take("jp", given, now=NOW)
    assert (again.taken, again.sequence) == (2, 4)
    assert borders.chain("jp") == given
    assert logged(database) == ["border"] * 5
    (view,) = borders.views()
    assert (view.findings, view.finding, view.statements) == ({"clean": 5}, "clean", 5)
    assert {row.way: row.counted.line.packets for row in view.totals} == {GUARDED: 0, CANARY: 10}


def test_what_does_not_continue_the_chain_is_refused_and_leaves_nothing(
    borders: BorderService, database: Database
) -> None:
    given, other = chain(4), chain(4, key=Ed25519PrivateKey.generate())
    borders.take("jp", given[:1], now=NOW)
    changed = msgspec.structs.replace(
        given[1], statement=msgspec.structs.replace(given[1].statement, to_ms=given[1].statement.to_ms + 1)
    )
    for wrong, code in (
        (given[2:3], "border.gap"),
        ([given[1], given[3]], "border.gap"),
        (other[1:2], "border.refused"),
        ([changed], "border.refused"),
        (chain(2, leak_at=0)[1:2], "border.gap"),  # another past
        (chain(2, name="kr")[1:2], "border.refused"),
    ):
        with pytest.raises(BorderRefused) as refused:
            borders.take("jp", wrong, now=NOW)
        assert refused.value.code == code
        assert refused.value.hint
    with pytest.raises(BorderRefused):
        borders.take("jp", given[1:], now=NOW - 7200)  # ends in the future
    assert borders.chain("jp") == given[:1]
    assert logged(database) == ["border"]
    with pytest.raises(UnknownName):
        borders.take("kr", given, now=NOW)


def test_a_border_keeps_its_key(borders: BorderService) -> None:
    with pytest.raises(Conflict):
        borders.trust("jp", "00" * 32, now=NOW, actor="test")
    for name, key in (("jp 2", PUBLIC), ("jp2", "zz" * 32), ("jp2", PUBLIC[:-2])):
        with pytest.raises(BorderRefused):
            borders.trust(name, key, now=NOW, actor="test")


def test_a_crossing_is_said_and_kept(borders: BorderService) -> None:
    borders.take("jp", chain(3, leak_at=1), now=NOW)
    (view,) = borders.views()
    assert view.findings == {"clean": 2, "crossed": 1}
    assert {row.way: row.counted.capture.packets for row in view.totals}[GUARDED] == 1


def test_over_http_statements_need_no_token_and_reading_them_does(tmp_path: Path) -> None:
    plane = new_plane(tmp_path)
    given = chain(3, until=plane.clock.now())
    with TestClient(app_of(plane)) as client:
        admin = {"Authorization": f"Bearer {plane.admin_token}"}
        body = msgspec.json.encode({"statements": given})
        assert client.post("/agent/v1/borders/jp", content=body).json()["code"] == "name.unknown"
        assert client.post("/api/v1/borders/jp/key", json={"key": PUBLIC}).status_code == 401
        assert client.post("/api/v1/borders/jp/key", json={"key": PUBLIC}, headers=admin).status_code == 200
        taken = client.post("/agent/v1/borders/jp", content=body)
        assert taken.json() == {"taken": 3, "sequence": 2}, taken.text
        assert client.get("/api/v1/borders").status_code == 401
        (view,) = client.get("/api/v1/borders", headers=admin).json()
        assert view["findings"] == {"clean": 3}
        path = "/api/v1/borders/jp/statements"
        found = from_json(client.get(path, headers=admin).content)
        assert len(verify_chain(found, KEY.public_key())) == 3
        table = client.get(path, headers=admin, params={"format": "csv"})
        rows = list(csv.DictReader(table.text.splitlines()))
        assert len(rows) == 6
        assert {row["line_out_packets"] for row in rows if row["canary"] == "false"} == {"0"}  # zeros are said
        for wrong in (b"", b"{}", b'{"statements": []}', b'{"statements": [1]}'):
            assert 400 <= client.post("/agent/v1/borders/jp", content=wrong).status_code < 500


def test_a_post_states_what_its_counters_added_and_anybody_can_check_it(tmp_path: Path) -> None:
    run = CliRunner()
    key, readings, kept = (str(tmp_path / name) for name in ("border.key", "readings.json", "chain.json"))
    public = run.invoke(cli, ["border", "key", "--out", key]).output.strip()
    assert len(bytes.fromhex(public)) == 32
    assert run.invoke(cli, ["border", "key", "--out", key]).output.strip() == public
    command = ["border", "state", "--border", "jp", "--key", key, "--readings", readings, "--chain", kept]
    for canary in (5, 7, 9):
        rows = [{"way": GUARDED, "counted": three(0)}, {"way": CANARY, "counted": three(canary)}]
        Path(readings).write_bytes(msgspec.json.encode(rows))
        done = run.invoke(cli, command)
        assert done.exit_code == 0, done.output
    found = json.loads(Path(kept).read_text())["statements"]
    assert [each["statement"]["sequence"] for each in found] == [0, 1]
    assert [each["statement"]["rows"][1]["counted"]["line"]["out_packets"] for each in found] == [2, 2]
    exported = tmp_path / "border.json"
    exported.write_text(json.dumps(found))
    checked = run.invoke(cli, ["border", "verify", str(exported), "--key", public])
    assert checked.exit_code == 0, checked.output
    found[0]["statement"]["rows"][1]["counted"]["line"]["out_packets"] = 3
    exported.write_text(json.dumps(found))
    assert isinstance(run.invoke(cli, ["border", "verify", str(exported), "--key", public]).exception, BorderRefused)
