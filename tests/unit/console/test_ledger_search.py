"""The way from a leaf to the root as the page draws it, and what the search takes from an address."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from sekisho.console.ledger_pages import picture
from sekisho.console.ledger_search import Searched, Wanted, instant_ms, prove, search, way_up
from sekisho.ledger.tlog.index import LogIndex
from sekisho.ledger.tlog.verify import leaf_hash, root_from_inclusion
from support.ledger import NOW_S, LedgerLab, decision


@given(st.integers(1, 1 << 40), st.data())
def test_the_way_ends_at_the_root_that_the_verifier_finds(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    leaf = leaf_hash(b"entry")
    for length in range(64):
        hashes = [leaf_hash(bytes([n])) for n in range(length)]
        root = root_from_inclusion(index, size, leaf, hashes)
        if root is not None:
            steps = way_up(index, size, leaf, hashes)
            assert [step.sibling for step in steps] == [each.hex() for each in hashes]
            assert (steps[-1].made if steps else leaf.hex()) == root.hex()
            nodes = picture(leaf.hex(), steps)
            assert (nodes[0].hash, nodes[-1].hash) == (root.hex(), leaf.hex())
            return
    raise AssertionError("no length of proof fits")


def test_a_page_proves_a_receipt_and_names_who_cosigned(tmp_path: Path) -> None:
    lab = LedgerLab(tmp_path)
    lab.log([decision(n) for n in range(77)])
    lab.publish()
    made = lab.service().receipt(decision(42).id.hex(), None, now_ms=NOW_S * 1000)
    assert isinstance(made, bytes)
    proven = prove(made, lab.policy, now_s=NOW_S)
    assert proven.steps[-1].made == proven.receipt.root.hex()
    assert len(proven.receipt.cosigned) == 3


def test_site_and_class_are_read_within_the_limit_and_the_search_goes_on(tmp_path: Path) -> None:
    lab = LedgerLab(tmp_path)
    lab.log([decision(n) for n in range(77)])
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "2026").symlink_to(lab.root)
    LogIndex(lab.root).close()
    wanted = Wanted(site="elsewhere")
    seen, before = 0, ""
    while True:
        found: Searched = search(tmp_path / "base", Wanted(site=wanted.site, before=before), scan=30)
        assert found.rows == ()
        assert found.read <= 30
        seen, before = seen + found.read, found.before
        if not before:
            break
    assert seen == 77
    assert len(search(tmp_path / "base", Wanted(site="ishikari", data_class="confidential")).rows) == 25


def test_what_makes_no_sense_in_an_address_is_dropped() -> None:
    odd = {"id": "x", "since": "yesterday", "class": "secret", "kind": "a b", "before": "é", "tenant": "<b>"}
    assert Wanted.parse(odd) == Wanted()
    assert instant_ms("2026-01-01T00:00") == 1_767_225_600_000
    assert instant_ms("1960-01-01") is None
