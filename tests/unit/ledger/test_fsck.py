"""fsck names the first difference, whatever was changed; an archive changes nothing of that."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.ledger.model import encode_record
from sekisho.ledger.tlog.archive import ArchiveFault, archive
from sekisho.ledger.tlog.entries import Entry, decision_entry
from sekisho.ledger.tlog.fsck import fsck
from sekisho.ledger.tlog.index import LogIndex
from sekisho.ledger.tlog.keys import NoteSigner
from sekisho.ledger.tlog.log import LogReader, LogWriter
from support.control import decision

ORIGIN = "sekisho.test/log/2026"
SIGNER = NoteSigner(ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes(32)))
SIZE = 700


def entry(number: int) -> Entry:
    made = decision_entry(encode_record(decision(number)))
    assert made is not None
    return made


def make(root: Path) -> Path:
    log = LogWriter(root, SIGNER, origin=ORIGIN)
    index = LogIndex(root, writable=True)
    entries = [entry(number) for number in range(SIZE)]
    log.append([item.data for item in entries[:500]])
    log.append([item.data for item in entries[500:]])
    index.add(0, entries)
    index.close()
    log.close()
    return root


def published(root: Path) -> list[Path]:
    """The files that the checkpoint stands for."""
    whole = ["tile/0/000", "tile/0/001", "tile/entries/000", "tile/entries/001"]
    return [root / name for name in (*whole, "tile/0/002.p/188", "tile/entries/002.p/188", "tile/1/000.p/2")]


def test_a_log_is_sound(tmp_path: Path) -> None:
    checked = fsck(make(tmp_path), SIGNER.verifier, strict=True)
    assert checked.difference is None
    assert (checked.entries, checked.tiles, checked.origin) == (SIZE, 4, ORIGIN)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_changed_byte_is_found(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    root = make(tmp_path_factory.mktemp("log"))
    path = data.draw(st.sampled_from([*published(root), root / "checkpoint"]))
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(content))
    assert fsck(root, SIGNER.verifier).difference is not None


def test_the_first_difference_is_named_with_its_entry(tmp_path: Path) -> None:
    root = make(tmp_path)
    path = root / "tile/0/001"
    content = bytearray(path.read_bytes())
    content[32 * 7] ^= 1
    path.write_bytes(bytes(content))
    (root / "tile/0/002.p/188").unlink()
    difference = fsck(root, SIGNER.verifier).difference
    assert difference is not None
    assert (difference.file, difference.index) == ("tile/0/001", 263)


@pytest.mark.parametrize("name", ["tile/0/000", "tile/entries/001", "tile/1/000.p/2", "checkpoint"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    root = make(tmp_path)
    (root / name).unlink()
    difference = fsck(root, SIGNER.verifier).difference
    assert difference is not None
    assert difference.file == name


def test_another_key_is_a_difference(tmp_path: Path) -> None:
    other = NoteSigner(ORIGIN, Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))
    difference = fsck(make(tmp_path), other.verifier).difference
    assert difference is not None
    assert difference.file == "checkpoint"


def test_an_index_that_lies_is_found(tmp_path: Path) -> None:
    root = make(tmp_path)
    index = LogIndex(root, writable=True)
    index._database.execute("UPDATE entry SET position = 5 WHERE position = 600")
    index.close()
    difference = fsck(root, SIGNER.verifier, strict=True).difference
    assert difference is not None
    assert difference.index == 600


def test_what_is_archived_is_still_there(tmp_path: Path) -> None:
    root = make(tmp_path / "log")
    before = LogReader(root)
    proofs = {at: before.inclusion_proof(at, SIZE) for at in random.Random(1).sample(range(SIZE), 20)}
    moved = archive(root, tmp_path / "archive", keep_entries=300)
    assert moved.minimum_index == 256
    assert moved.files == 2
    assert not (root / "tile/entries/000").exists()
    assert archive(root, tmp_path / "archive", keep_entries=300).files == 0
    after = LogReader(root)
    for at, proof in proofs.items():
        assert after.inclusion_proof(at, SIZE) == proof
        assert after.entry(at) == entry(at).data
    assert fsck(root, SIGNER.verifier, strict=True).difference is None
    log = LogWriter(root, SIGNER, origin=ORIGIN)
    log.append([entry(SIZE).data])
    log.close()
    with pytest.raises(ArchiveFault):
        archive(root, tmp_path / "elsewhere", keep_entries=0)
    archive(root, tmp_path / "archive", keep_entries=0)
    assert fsck(root, SIGNER.verifier).difference is None
    bundle = tmp_path / "archive/tile/entries/000"
    bundle.write_bytes(bundle.read_bytes().replace(b"hospital", b"hospitaX", 1))
    assert fsck(root, SIGNER.verifier).difference is not None
