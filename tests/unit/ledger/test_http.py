"""The log over HTTP: what a static host would give, with the headers of the specification."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from sekisho.assembly.ledger import log_origin, log_signer, log_verifier
from sekisho.assembly.plane import ControlPlane
from sekisho.ledger.tlog.keys import open_note
from sekisho.ledger.tlog.log import LogFault, LogReader
from sekisho.ledger.tlog.tiles import decode_bundle
from sekisho.ledger.tlog.years import Opened, directory, open_year
from support.control import app_of, new_plane

YEAR = datetime.now(UTC).year


@pytest.fixture
def plane(tmp_path: Path) -> ControlPlane:
    made = new_plane(tmp_path)
    opened = open_year(
        made.home.ledger,
        origin=log_origin(made.home),
        signer=lambda name: log_signer(made.home, name),
        year=YEAR,
        at_ms=1,
        entry_id="0" * 32,
    )
    opened.log.append([b"entry %d" % number for number in range(300)])
    opened.close()
    return made


@pytest.fixture
def client(plane: ControlPlane) -> Iterator[TestClient[Litestar]]:
    with TestClient(app_of(plane)) as made:
        yield made


def test_the_checkpoint_is_open_and_fresh(client: TestClient[Litestar], plane: ControlPlane) -> None:
    answer = client.get(f"/log/{YEAR}/checkpoint")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert open_note(answer.content, [log_verifier(plane.home, YEAR)]).text.split(b"\n")[1] == b"300"
    (listed,) = client.get("/log").json()
    assert listed == {
        "year": YEAR,
        "origin": f"{log_origin(plane.home)}/{YEAR}",
        "size": 300,
        "prefix": f"/log/{YEAR}",
    }


def test_a_tile_may_be_kept_for_ever(client: TestClient[Litestar], plane: ControlPlane) -> None:
    for path in ("tile/0/000", "tile/0/001.p/44", "tile/1/000.p/1"):
        answer = client.get(f"/log/{YEAR}/{path}")
        assert answer.status_code == 200, path
        assert answer.headers["content-type"] == "application/octet-stream"
        assert "immutable" in answer.headers["cache-control"]
        assert answer.content == (directory(plane.home.ledger, YEAR) / path).read_bytes()


def test_entries_need_the_admin_token(client: TestClient[Litestar], plane: ControlPlane) -> None:
    path = f"/log/{YEAR}/tile/entries/001.p/44"
    assert client.get(path).status_code == 401
    assert client.get(path, headers={"Authorization": f"Bearer {plane.gateway_token}"}).status_code == 401
    answer = client.get(path, headers={"Authorization": f"Bearer {plane.admin_token}"})
    assert decode_bundle(answer.content)[-1] == b"entry 299"
    assert "private" in answer.headers["cache-control"]


@pytest.mark.parametrize(
    "path",
    [
        "1999/checkpoint", f"{YEAR}/tile/0/002", f"{YEAR}/tile/0/1", f"{YEAR}/tile/8/0/000",
        f"{YEAR}/tile/0/001.p/45",
        f"{YEAR}/tile/0/..%2f..%2fwriter%2fstate", f"{YEAR}/writer/state", f"{YEAR}/tile/0/000.p/300", "1/checkpoint",
        f"{YEAR}/tile/63/000", "99999999999/checkpoint", "x/checkpoint",
    ],
)  # fmt: skip
def test_what_is_not_published_is_not_there(client: TestClient[Litestar], path: str) -> None:
    answer = client.get(f"/log/{path}")
    assert 400 <= answer.status_code < 500
    assert answer.json()["code"]


def test_a_tile_that_is_not_under_the_checkpoint_yet_is_not_given(
    client: TestClient[Litestar], plane: ControlPlane
) -> None:
    """An uncommitted batch left it: a cache would keep it for ever."""
    (directory(plane.home.ledger, YEAR) / "tile/0/001").write_bytes(bytes(8192))
    assert client.get(f"/log/{YEAR}/tile/0/001").status_code == 404


def test_the_next_year_names_the_last_checkpoint_and_goes_on(plane: ControlPlane) -> None:
    base = plane.home.ledger
    last = LogReader(directory(base, YEAR)).checkpoint()
    for _ in range(2):  # a second opening finds it done
        opened = open_year(
            base,
            origin=log_origin(plane.home),
            signer=lambda name: log_signer(plane.home, name),
            year=YEAR + 1,
            at_ms=5,
            entry_id="1" * 32,
        )
        assert opened.log.size == 1
        assert opened.index.find("1" * 32) == 0
        opened.close()
    first = LogReader(directory(base, YEAR + 1)).entry(0)
    assert last.root.hex().encode() in first
    assert b'"kind":"log.continues"' in first
    assert LogReader(directory(base, YEAR)).state().closed


def test_a_clock_that_is_years_ahead_begins_no_log(plane: ControlPlane) -> None:
    def again(year: int) -> Opened:
        return open_year(
            plane.home.ledger,
            origin=log_origin(plane.home),
            signer=lambda name: log_signer(plane.home, name),
            year=year,
            at_ms=2,
            entry_id="1" * 32,
        )

    with pytest.raises(LogFault) as refused:
        again(YEAR + 2)
    assert refused.value.code == "log.clock"
    assert not directory(plane.home.ledger, YEAR + 2).exists()
    again(YEAR).close()
    # The way out that the message names.
    directory(plane.home.ledger, YEAR + 2).mkdir()
    opened = again(YEAR + 2)
    assert (opened.year, opened.log.size) == (YEAR + 2, 1)
    opened.close()
