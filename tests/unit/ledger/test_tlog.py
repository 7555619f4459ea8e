"""The log on disk against the definition of its tree, and against those who would fork or damage it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from test_verify import consistency_of, path_of, root_of

from sekisho.ledger.tlog import verify
from sekisho.ledger.tlog.keys import NoteSigner, open_note
from sekisho.ledger.tlog.log import LogDamaged, LogFault, LogFenced, LogReader, LogWriter, Position
from sekisho.ledger.tlog.merkle import Edge, Tree
from sekisho.ledger.tlog.note import Checkpoint
from sekisho.ledger.tlog.tiles import TileName, bundle_path, decode_bundle, encode_bundle, tile_path

ORIGIN = "sekisho.test/log/2026"
SIGNER = NoteSigner(ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes(32)))


def entries(start: int, stop: int) -> list[bytes]:
    return [b"entry %d" % number for number in range(start, stop)]


def writer(root: Path) -> LogWriter:
    return LogWriter(root, SIGNER, origin=ORIGIN)


# -- names and bundles


@pytest.mark.parametrize(
    ("index", "path"),
    [(0, "tile/0/000"), (999, "tile/0/999"), (1000, "tile/0/x001/000"), (1_234_067, "tile/0/x001/x234/067")],
)
def test_a_tile_is_named_as_the_specification_says(index: int, path: str) -> None:
    assert tile_path(0, index) == path
    assert TileName.parse(path) == TileName(level=0, index=index)
    assert TileName.parse(f"{path}.p/7") == TileName(level=0, index=index, width=7)


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/x000/001", "tile/00/001", "tile/64/000", "tile/0/1", "tile/0/000.p/0", "tile/0/000.p/256",
        "tile/-1/000",
        "tile/0/000.p/01", "tile/entries/../../x", "tile/8/0/000", "tile/0/000/", "checkpoint", "tile/0/000.p/999",
    ],
)  # fmt: skip
def test_another_spelling_names_nothing(path: str) -> None:
    assert TileName.parse(path) is None


@given(st.lists(st.binary(max_size=300), max_size=256))
def test_a_bundle_gives_back_its_entries(found: list[bytes]) -> None:
    assert decode_bundle(encode_bundle(found)) == found


@pytest.mark.parametrize("data", [b"\x00", b"\x00\x02a"])
def test_a_bundle_that_ends_early_is_no_bundle(data: bytes) -> None:
    with pytest.raises(ValueError, match="ends within"):
        decode_bundle(data)


# -- the tree


@given(st.lists(st.integers(0, 700), max_size=4))
@settings(max_examples=40, deadline=None)
def test_the_edge_has_the_root_of_the_definition(batches: list[int]) -> None:
    edge, leaves = Edge(), []
    for batch in batches:
        new = entries(len(leaves), len(leaves) + batch)
        edge.extend(map(verify.leaf_hash, new))
        leaves += new
        assert edge.root() == root_of(leaves)
        assert [len(row) // 32 for row in edge.rows if row] == [
            width for level in range(4) if (width := (len(leaves) >> 8 * level) % 256)
        ]


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[LogReader, list[bytes]]:
    root = tmp_path_factory.mktemp("log")
    leaves = entries(0, 1_303)
    log = writer(root)
    for start in range(0, len(leaves), 177):
        log.append(leaves[start : start + 177])
    log.close()
    return LogReader(root), leaves


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_proofs_are_those_of_the_definition(grown: tuple[LogReader, list[bytes]], data: st.DataObject) -> None:
    reader, leaves = grown
    size = data.draw(st.integers(1, len(leaves)))
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(0, size))
    assert reader.root(size) == root_of(leaves[:size])
    assert reader.inclusion_proof(index, size) == path_of(index, leaves[:size])
    assert reader.consistency_proof(old, size) == consistency_of(old, leaves[:size])
    assert reader.entry(index) == leaves[index]


def test_a_tree_of_ten_million_leaves_is_read_by_the_same_rules() -> None:
    """All leaves alike: each level has one hash, so a tree of any size is known without its files."""
    size = 10_000_019
    hashes = [verify.leaf_hash(b"same")]
    for _ in range(63):
        hashes.append(verify.node_hash(hashes[-1], hashes[-1]))

    def read(level: int, index: int) -> bytes:
        return hashes[8 * level] * min(256, (size >> 8 * level) - index * 256)

    tree = Tree(read)
    root = tree.root(size)
    for index in (0, 1, 255, 256, 65_535, 65_536, 5_000_000, size - 1):
        assert verify.verify_inclusion(index, size, hashes[0], tree.inclusion_proof(index, size), root)
    for old in (1, 255, 256, 65_536, 9_999_999, size - 1):
        assert verify.verify_consistency(old, tree.root(old), size, root, tree.consistency_proof(old, size))


# -- the log


@given(batches=st.lists(st.integers(0, 600), max_size=6))
@settings(max_examples=15, deadline=None)
def test_a_log_is_the_same_however_it_was_cut(tmp_path_factory: pytest.TempPathFactory, batches: list[int]) -> None:
    root = tmp_path_factory.mktemp("cut")
    leaves: list[bytes] = []
    for batch in batches:
        log = writer(root)  # each batch by a process of its own
        new = entries(len(leaves), len(leaves) + batch)
        assert log.append(new) == len(leaves)
        leaves += new
        log.close()
    if not batches:
        return
    reader = LogReader(root)
    assert reader.size == len(leaves)
    assert reader.checkpoint().root == root_of(leaves)
    assert [data for _, data in reader.entries()] == leaves
    text = open_note(reader.checkpoint_note(), [SIGNER.verifier]).text
    assert Checkpoint.parse(text).origin == ORIGIN


def test_the_files_are_those_of_the_specification(tmp_path: Path) -> None:
    """A tree of 70,000: 273 full tiles on level 0, one of width 112; one full on level 1, one of 17; one of 1."""
    log = writer(tmp_path)
    log.append(entries(0, 69_000))
    log.append(entries(69_000, 70_000))
    found = {str(path.relative_to(tmp_path)) for path in (tmp_path / "tile").rglob("*") if path.is_file()}
    wanted = {tile_path(0, index) for index in range(273)} | {bundle_path(index) for index in range(273)}
    wanted |= {tile_path(0, 273, 112), bundle_path(273, 112)}
    wanted |= {tile_path(1, 0), tile_path(1, 1, 17), tile_path(2, 0, 1)}
    # Partial tiles of a size that was published stay until the full one is there.
    assert found - wanted == {tile_path(1, 1, 13)}
    assert wanted <= found


def test_a_reader_follows_a_writer(tmp_path: Path) -> None:
    log = writer(tmp_path)
    reader = LogReader(tmp_path)
    leaves: list[bytes] = []
    for step in (1, 3, 250, 2, 1, 256, 700):
        new = entries(len(leaves), len(leaves) + step)
        log.append(new)
        leaves += new
        assert reader.size == len(leaves)
        assert reader.root(len(leaves)) == root_of(leaves)
        assert reader.entry(len(leaves) - 1) == leaves[-1]
        assert reader.inclusion_proof(0, len(leaves)) == path_of(0, leaves)


def test_positions_are_committed_with_the_entries(tmp_path: Path) -> None:
    log = writer(tmp_path)
    log.append(entries(0, 3), positions={"w0/1": Position(17)})
    log.append(entries(3, 4))
    log.close()
    log = writer(tmp_path)
    assert log.state.positions == {"w0/1": Position(17)}
    log.append([], positions={"w0/1": Position(40, finished=True)})
    assert LogReader(tmp_path).state().positions == {"w0/1": Position(40, finished=True)}
    assert LogReader(tmp_path).size == 4


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    log = writer(tmp_path)
    with pytest.raises(LogFenced) as refused:
        writer(tmp_path)
    assert refused.value.code == "log.locked"
    log.close()
    writer(tmp_path).close()


def test_a_writer_whose_lock_was_taken_away_publishes_nothing(tmp_path: Path) -> None:
    """Somebody deletes the lock file: the epoch still tells the first writer that it is not the last one."""
    first = writer(tmp_path)
    first.append(entries(0, 10))
    (tmp_path / "writer" / "lock").unlink()
    second = writer(tmp_path)
    second.append(entries(10, 20))
    note = (tmp_path / "checkpoint").read_bytes()
    with pytest.raises(LogFenced):
        first.append([b"a fork"])
    assert (tmp_path / "checkpoint").read_bytes() == note
    with pytest.raises(LogFault):
        first.append([b"a fork"])
    second.append(entries(20, 300))
    assert [data for _, data in LogReader(tmp_path).entries()] == entries(0, 300)


def test_a_log_whose_state_is_gone_is_not_begun_again(tmp_path: Path) -> None:
    log = writer(tmp_path)
    log.append(entries(0, 10))
    log.close()
    (tmp_path / "writer" / "state").unlink()
    with pytest.raises(LogDamaged):
        writer(tmp_path)


def test_a_changed_tile_at_the_edge_is_not_continued(tmp_path: Path) -> None:
    log = writer(tmp_path)
    log.append(entries(0, 10))
    log.close()
    bundle = tmp_path / bundle_path(0, 10)
    bundle.write_bytes(bundle.read_bytes().replace(b"entry 3", b"entry X"))
    with pytest.raises(LogDamaged):
        writer(tmp_path)


def test_an_entry_that_is_too_long_changes_nothing(tmp_path: Path) -> None:
    log = writer(tmp_path)
    before = sorted(os.walk(tmp_path))
    with pytest.raises(ValueError, match="65,535"):
        log.append([bytes(65_536)])
    assert sorted(os.walk(tmp_path)) == before
    log.append([bytes(65_535)])
    assert LogReader(tmp_path).entry(0) == bytes(65_535)


def test_a_closed_log_takes_nothing(tmp_path: Path) -> None:
    log = writer(tmp_path)
    log.append(entries(0, 10))
    assert log.seal().closed
    with pytest.raises(LogFault) as refused:
        log.append(entries(10, 11))
    assert refused.value.code == "log.closed"
