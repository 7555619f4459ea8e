"""Control's part of the ledger: keys are followed, policies published, and configured witnesses believed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sekisho.assembly.heads import HeadKeeper
from sekisho.assembly.home import Home, create, ensure_secrets
from sekisho.assembly.ledger import log_origin, log_signer
from sekisho.assembly.witness import cosigners
from sekisho.kernel.clock import FixedClock
from sekisho.ledger.heads import read_head
from sekisho.ledger.keys import KeyHistory, policy_of
from sekisho.ledger.receipts_http import policy_path
from sekisho.ledger.tlog.log import LogWriter
from sekisho.ledger.tlog.policy import TrustPolicy
from sekisho.ledger.tlog.years import directory, origin_of
from support.ledger import decision

NOW_S = datetime(2026, 11, 24, tzinfo=UTC).timestamp()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home.at(tmp_path / "home")
    create(made)
    ensure_secrets(made)
    return made


async def run_until(keeper: HeadKeeper, done: Callable[[], object], *, within_s: float = 60.0) -> None:
    """Runs the keeper until `done` says so."""
    running = asyncio.ensure_future(keeper.run())
    deadline = asyncio.get_running_loop().time() + within_s
    while not done():
        assert not running.done()
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.02)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


def test_without_witnesses_the_logs_signature_counts(home: Home) -> None:
    origin = log_origin(home)
    name = origin_of(origin, 2026)
    writer = LogWriter(directory(home.ledger, 2026), log_signer(home, name), origin=name)
    writer.append([decision(0).data])
    keeper = HeadKeeper(home, origin=origin, witnesses=None, clock=FixedClock(NOW_S))
    next_year = policy_path(home.ledger, 2027)  # ready before the year begins
    asyncio.run(run_until(keeper, lambda: next_year.exists() and read_head(directory(home.ledger, 2026)) is not None))
    head = read_head(directory(home.ledger, 2026))
    assert head is not None
    assert head.checkpoint.size == 1
    policy = TrustPolicy.parse(policy_path(home.ledger, 2026).read_bytes())
    assert policy == keeper.policy(name)
    assert policy.quorum == "none"
    writer.close()


def test_configured_witnesses_make_the_policy_and_their_absence_holds_the_head_back(
    home: Home, tmp_path: Path
) -> None:
    origin = log_origin(home)
    name = origin_of(origin, 2026)
    keys = [cosigners(f"w{number}.example", tmp_path / f"w{number}")[0].verifier for number in range(2)]
    file = tmp_path / "witnesses.policy"
    # Nobody listens on port 9 of the loopback.
    lines = [f"witness w{number} {key.vkey} http://127.0.0.1:9" for number, key in enumerate(keys)]
    file.write_text("\n".join([*lines, "group both all w0 w1", "quorum both"]))
    writer = LogWriter(directory(home.ledger, 2026), log_signer(home, name), origin=name)
    writer.append([decision(0).data])
    keeper = HeadKeeper(home, origin=origin, witnesses=file, clock=FixedClock(NOW_S))
    asyncio.run(run_until(keeper, lambda: sum(bool(lag.record.fault) for lag in keeper.witnesses()) == 2))
    assert read_head(directory(home.ledger, 2026)) is None
    policy = TrustPolicy.parse(policy_path(home.ledger, 2026).read_bytes())
    assert [group.threshold for group in policy.groups] == [2]
    assert policy.log_keys(name) == (log_signer(home, name).verifier,)
    lags = keeper.witnesses()
    assert [(lag.behind, bool(lag.record.fault), lag.simulated) for lag in lags] == [(1, True, False)] * 2
    writer.close()


def test_a_retired_key_stays_in_history_and_policy_and_a_revoked_one_leaves(home: Home) -> None:
    origin = log_origin(home)
    keeper = HeadKeeper(home, origin=origin, witnesses=None, clock=FixedClock(NOW_S))
    keys_file = home.ledger / "keys.json"
    asyncio.run(run_until(keeper, keys_file.exists))
    old = log_signer(home, origin_of(origin, 2026)).verifier
    home.log_key.unlink()
    ensure_secrets(home)
    later = HeadKeeper(home, origin=origin, witnesses=None, clock=FixedClock(NOW_S + 60))
    first = keys_file.read_bytes()
    asyncio.run(run_until(later, lambda: keys_file.read_bytes() != first))
    history = KeyHistory.parse(keys_file.read_bytes())
    retired = next(known for known in history.keys if known.vkey == old.vkey)
    assert retired.until_s == int(NOW_S) + 60
    assert old in policy_of(history, old.name).log_keys(old.name)
    document = json.loads(keys_file.read_bytes())
    for known in document["keys"]:
        if known["vkey"] == old.vkey:
            known["revoked"] = True
    revoked = KeyHistory.parse(json.dumps(document).encode())
    assert old not in policy_of(revoked, old.name).log_keys(old.name)
