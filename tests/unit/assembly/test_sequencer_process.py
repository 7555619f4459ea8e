"""The sequencer on a disk that becomes full: it says so, makes room, and loses nothing."""

from __future__ import annotations

import asyncio
import os
import struct
import subprocess
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.assembly.database import database_url
from sekisho.assembly.home import Home, create, ensure_secrets
from sekisho.assembly.ledger import log_origin
from sekisho.assembly.schema import migrate
from sekisho.assembly.sequencer import DISK_FULL, SequencerProcess, nearly_full
from sekisho.ledger.model import Decision, encode_record
from sekisho.ledger.projection import Projection
from sekisho.ledger.tlog.log import LogReader
from sekisho.ledger.tlog.years import newest
from sekisho.runtime.database import Database

SEGMENTS, RECORDS = 6, 600


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """32 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", place], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"a tmpfs can't be mounted here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def write_segment(home: Home, number: int, *, records: int = RECORDS) -> None:
    folder = home.root / "journal" / "w0"
    folder.mkdir(parents=True, exist_ok=True)
    made = [
        encode_record(
            Decision(
                id=f"{1_795_000_000_000 + at:012x}{number:020x}", at_ms=1_795_000_000_000 + at, gateway="g/w0",
                outcome="completed", status=200, tenant="hospital", model="m" * 300,
            )
        )
        for at in range(records)
    ]  # fmt: skip
    frames = b"".join(struct.pack("<II", len(record), zlib.crc32(record)) + record for record in made)
    (folder / f"{number:08d}.journal").write_bytes(frames)


def test_a_full_disk_is_said_and_old_journals_make_room(small_disk: Path) -> None:
    home = Home.at(small_disk / "home")
    create(home)
    ensure_secrets(home)
    database = Database(database_url(home, None))
    migrate(database)
    for number in range(1, SEGMENTS + 1):
        write_segment(home, number)
    projection = Projection(database, home.root / "journal")
    while projection.step(now=time.time()).behind:
        pass
    process = SequencerProcess(home, database, origin=log_origin(home), keep_journals_s=7 * 86_400)
    journal = home.root / "journal" / "w0"

    async def turn() -> None:
        while (step := await process._step()) is not None and (step.more or step.added):
            pass

    asyncio.run(turn())
    assert process.status.fault == ""
    assert process.status.size == SEGMENTS * RECORDS
    assert len(list(journal.iterdir())) == SEGMENTS, "a week has not passed"

    write_segment(home, SEGMENTS + 1)
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    assert nearly_full(home.root)
    asyncio.run(turn())
    assert process.status.fault_code == DISK_FULL
    assert "free some space" in process.status.fault_hint
    assert len(list(journal.iterdir())) < SEGMENTS + 1, "what was logged and projected has gone"
    asyncio.run(turn())
    assert process.status.fault == "", "the room is enough to go on by itself"
    assert process.status.size == (SEGMENTS + 1) * RECORDS
    reader = LogReader(newest(home.ledger))
    assert len({data for _, data in reader.entries()}) == (SEGMENTS + 1) * RECORDS
    os.unlink(filler)
    process._close()
    database.close()
