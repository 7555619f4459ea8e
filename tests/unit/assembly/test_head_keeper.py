"""Control's part of the ledger: keys are followed, policies published, and configured witnesses believed."""

from __future__ import annotations

import asyncio
import contextlib
import json
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


async def run_for(keeper: HeadKeeper, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(keeper.run(), seconds)


def test_without_witnesses_the_logs_signature_counts(home: Home) -> None:
    origin = log_origin(home)
    name = origin_of(origin, 2026)
    writer = LogWriter(directory(home.ledger, 2026), log_signer(home, name), origin=name)
    writer.append([decision(0).data])
    keeper = HeadKeeper(home, origin=origin, witnesses=None, clock=FixedClock(NOW_S))
    asyncio.run(run_for(keeper, 0.4))
    head = read_head(directory(home.ledger, 2026))
    assert head is not None
    assert head.checkpoint.size == 1
    policy = TrustPolicy.parse(policy_path(home.ledger, 2026).read_bytes())
    assert policy == keeper.policy(name)
    assert policy.quorum == "none"
    assert policy_path(home.ledger, 2027).exists()  # ready before the year begins
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
    asyncio.run(run_for(keeper, 0.4))
    assert read_head(directory(home.ledger, 2026)) is None
    policy = TrustPolicy.parse(policy_path(home.ledger, 2026).read_bytes())
    assert [group.threshold for group in policy.groups] == [2]
    assert policy.log_keys(name) == (log_signer(home, name).verifier,)
    lags = keeper.witnesses()
    assert [(lag.behind, bool(lag.fault), lag.simulated) for lag in lags] == [(1, True, False)] * 2
    writer.close()


def test_a_retired_key_stays_in_history_and_policy_and_a_revoked_one_leaves(home: Home) -> None:
    origin = log_origin(home)
    keeper = HeadKeeper(home, origin=origin, witnesses=None, clock=FixedClock(NOW_S))
    asyncio.run(run_for(keeper, 0.2))
    old = log_signer(home, origin_of(origin, 2026)).verifier
    home.log_key.unlink()
    ensure_secrets(home)
    later = HeadKeeper(home, origin=origin, witnesses=None, clock=FixedClock(NOW_S + 60))
    asyncio.run(run_for(later, 0.2))
    path = home.ledger / "keys.json"
    history = KeyHistory.parse(path.read_bytes())
    retired = next(known for known in history.keys if known.vkey == old.vkey)
    assert retired.until_s == int(NOW_S) + 60
    assert old in policy_of(history, old.name).log_keys(old.name)
    document = json.loads(path.read_bytes())
    for known in document["keys"]:
        if known["vkey"] == old.vkey:
            known["revoked"] = True
    revoked = KeyHistory.parse(json.dumps(document).encode())
    assert old not in policy_of(revoked, old.name).log_keys(old.name)
