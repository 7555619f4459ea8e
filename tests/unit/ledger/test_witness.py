"""Witnesses: what they cosign, what they refuse, and what they never forget."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.ledger.heads import HeadPublisher, read_head
from sekisho.ledger.tlog.keys import NoteSigner, open_note
from sekisho.ledger.tlog.log import LogReader, LogWriter
from sekisho.ledger.tlog.note import Checkpoint
from sekisho.ledger.witness.client import WitnessEndpoint, collect_cosignatures
from sekisho.ledger.witness.service import AddCheckpoint, Conflict, Cosigned, Refused, Witness
from sekisho.ledger.witness.state import WitnessRefused, WitnessState
from support.ledger import NAMES, NOW_S, ORIGIN, LedgerLab, decision, seed


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[LedgerLab]:
    made = LedgerLab(tmp_path)
    yield made
    made.close()


def note(lab: LedgerLab) -> bytes:
    return LogReader(lab.root).checkpoint_note()


def request(lab: LedgerLab, old: int) -> bytes:
    reader = LogReader(lab.root)
    proof = tuple(reader.consistency_proof(old, reader.size)) if old else ()
    return AddCheckpoint(old_size=old, proof=proof, note=reader.checkpoint_note()).encode()


def test_a_witness_cosigns_what_continues(lab: LedgerLab) -> None:
    witness = lab.witnesses["ishikari"]
    for first, count in ((0, 3), (3, 5), (8, 300)):
        lab.log([decision(number) for number in range(first, first + count)])
        answer = witness.add_checkpoint(request(lab, first), at_s=NOW_S)
        assert isinstance(answer, Cosigned)
        opened = open_note(note(lab) + answer.lines, witness.keys)
        assert [found.at_s for found in opened.verified] == [NOW_S]
    assert witness.logs()[0].size == 308


def test_the_same_checkpoint_again_is_cosigned_again(lab: LedgerLab) -> None:
    """The answer may have been lost: the log asks again, from the size that the witness now has."""
    witness = lab.witnesses["ishikari"]
    lab.log([decision(0)])
    assert isinstance(witness.add_checkpoint(request(lab, 0), at_s=NOW_S), Cosigned)
    assert witness.add_checkpoint(request(lab, 0), at_s=NOW_S) == Conflict(size=1)
    assert isinstance(witness.add_checkpoint(request(lab, 1), at_s=NOW_S), Cosigned)


def test_an_older_checkpoint_is_refused_after_a_restart_too(lab: LedgerLab) -> None:
    lab.log([decision(0)])
    old = request(lab, 0)
    lab.log([decision(1)])
    assert isinstance(lab.witnesses["osaka"].add_checkpoint(request(lab, 0), at_s=NOW_S), Cosigned)
    lab.restart("osaka")
    assert lab.witnesses["osaka"].add_checkpoint(old, at_s=NOW_S) == Conflict(size=2)


def test_refusals_have_the_status_codes_of_the_specification(lab: LedgerLab) -> None:
    witness = lab.witnesses["ishikari"]
    lab.log([decision(number) for number in range(4)])
    good = request(lab, 0)
    stranger = NoteSigner(ORIGIN, seed("stranger"))
    text = note(lab).split(b"\n\n")[0] + b"\n"
    elsewhere = NoteSigner("other.example/log", seed("log"))
    other = Checkpoint(origin="other.example/log", size=4, root=LogReader(lab.root).root(4)).encode()
    cases = {
        400: [
            b"", b"old 0\n", good[:-1], good.replace(b"old 0", b"old 00"), good.replace(b"old 0", b"old 5"),
            good.replace(b"old 0\n", b"old 0\r\n"), b"old 0\nAA==\n\n" + note(lab), b"\xff" + good,
        ],
        403: [AddCheckpoint(old_size=0, proof=(), note=stranger.sign(text)).encode()],
        404: [AddCheckpoint(old_size=0, proof=(), note=elsewhere.sign(other)).encode()],
        422: [good.replace(b"old 0\n", b"old 0\n" + base64.b64encode(bytes(32)) + b"\n")],
    }  # fmt: skip
    for status, bodies in cases.items():
        for body in bodies:
            answer = witness.add_checkpoint(body, at_s=NOW_S)
            assert isinstance(answer, Refused), body
            assert answer.status == status, body
    assert witness.logs()[0].size == 0


def test_a_second_history_is_refused_and_kept_as_proof(lab: LedgerLab, tmp_path: Path) -> None:
    witness = lab.witnesses["ishikari"]
    lab.log([decision(0), decision(1)])
    assert isinstance(witness.add_checkpoint(request(lab, 0), at_s=NOW_S), Cosigned)
    fork = LogWriter(tmp_path / "fork", lab.signer, origin=ORIGIN)
    fork.append([b"one", b"another"])
    body = AddCheckpoint(old_size=2, proof=(), note=LogReader(tmp_path / "fork").checkpoint_note()).encode()
    for _ in range(2):
        assert witness.add_checkpoint(body, at_s=NOW_S) == Conflict(size=2, fork=True)
    assert witness.logs()[0].forks == 1
    fork.append([b"third"])
    proof = tuple(LogReader(tmp_path / "fork").consistency_proof(2, 3))
    body = AddCheckpoint(old_size=2, proof=proof, note=LogReader(tmp_path / "fork").checkpoint_note()).encode()
    answer = witness.add_checkpoint(body, at_s=NOW_S)
    assert isinstance(answer, Refused)
    assert answer.status == 422
    fork.close()


def test_a_split_view_never_has_two_quorums(tmp_path: Path) -> None:
    """The log shows one history to some and another to the rest, in every division, again and again, the second time
    to everybody: one of them counts."""
    for shown in range(1 << len(NAMES)):
        lab = LedgerLab(tmp_path / str(shown))
        fork_root = lab.folder / "fork"
        fork = LogWriter(fork_root, lab.signer, origin=ORIGIN)
        fork.append([b"what only some should see"])
        lab.log([decision(0)])
        some = {name for bit, name in enumerate(NAMES) if shown >> bit & 1}
        for root, hidden in ((lab.root, some), (fork_root, set(NAMES) - some), (fork_root, set()), (lab.root, set())):
            lab.down = hidden
            lab.publish_from(root)
        assert (read_head(lab.root) is None) != (read_head(fork_root) is None)
        assert (read_head(fork_root) is not None) == (len(some) >= 3)
        fork.close()
        lab.close()


def test_a_quorum_is_enough_and_less_is_not(lab: LedgerLab) -> None:
    lab.log([decision(0)])
    lab.down = {"japaneast", "japanwest", "overseas"}
    step = lab.publish()
    assert (step.size, step.cosigned) == (1, 0)
    assert sorted(report.name[-5:] for report in step.reports if report.fault) == ["neast", "nwest", "rseas"]
    lab.down = {"japaneast", "overseas"}
    assert lab.publish().cosigned == 1
    head = read_head(lab.root)
    assert head is not None
    assert (lab.root / "checkpoint.cosigned").read_bytes() == head.note


def test_a_publisher_that_starts_anew_finds_out_what_the_witnesses_know(lab: LedgerLab) -> None:
    for first in (0, 2, 300):
        lab.log([decision(number) for number in range(first, first + 2)])
        step = lab.publish()
        assert step.cosigned == step.size
        assert [report.fault for report in step.reports] == [""] * 5


def test_one_witness_asked_by_many_at_once_never_goes_back(lab: LedgerLab) -> None:
    witness = lab.witnesses["ishikari"]
    bodies = []
    for number in range(40):
        lab.log([decision(number)])
        bodies.append(request(lab, 0))
        bodies.append(request(lab, number))
    sizes: list[int] = []
    lock = threading.Lock()

    def ask(part: list[bytes]) -> None:
        for body in part:
            if isinstance(witness.add_checkpoint(body, at_s=NOW_S), Cosigned):
                kept = witness._state.last(ORIGIN)
                assert kept is not None
                with lock:
                    sizes.append(kept[0].size)

    threads = [threading.Thread(target=ask, args=(bodies[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sizes
    kept = witness._state.last(ORIGIN)
    assert kept is not None
    assert kept[0].size == max(sizes) == witness.logs()[0].size


def test_two_witnesses_can_not_share_a_memory(tmp_path: Path) -> None:
    state = WitnessState(tmp_path / "w")
    with pytest.raises(WitnessRefused) as refused:
        WitnessState(tmp_path / "w")
    assert refused.value.code == "witness.in_use"
    state.close()


def test_a_damaged_memory_refuses_the_start(lab: LedgerLab) -> None:
    lab.log([decision(0)])
    lab.publish()
    (kept,) = (lab.folder / "witness" / "osaka").glob("*.checkpoint")
    kept.write_bytes(kept.read_bytes()[:40])
    with pytest.raises(WitnessRefused) as refused:
        lab.restart("osaka")
    assert refused.value.code == "witness.state_damaged"


def test_what_can_not_be_remembered_is_not_cosigned(lab: LedgerLab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.log([decision(0)])
    witness = lab.witnesses["osaka"]

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(WitnessRefused, match="No space"):
        witness.add_checkpoint(request(lab, 0), at_s=NOW_S)
    monkeypatch.undo()
    assert witness.logs()[0].size == 0
    assert list((lab.folder / "witness" / "osaka").glob(".new-*")) == []


def test_a_fork_that_can_not_be_kept_is_refused_all_the_same(
    lab: LedgerLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.log([decision(0)])
    lab.publish()
    other = LogWriter(tmp_path / "other", lab.signer, origin=ORIGIN)
    other.append([b"another history"])
    forked = AddCheckpoint(old_size=1, proof=(), note=LogReader(tmp_path / "other").checkpoint_note()).encode()
    other.close()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(WitnessRefused, match="No space"):
        lab.witnesses["osaka"].add_checkpoint(forked, at_s=NOW_S)
    monkeypatch.undo()
    assert lab.witnesses["osaka"].add_checkpoint(forked, at_s=NOW_S) == Conflict(size=1, fork=True)
    assert lab.witnesses["osaka"].logs()[0].forks == 1


def test_a_witness_counts_what_it_answered(lab: LedgerLab) -> None:
    async def speak() -> str:
        async with lab.client() as client:
            url = "http://ishikari/add-checkpoint"
            lab.log([decision(0), decision(1)])
            for body in (request(lab, 0), request(lab, 0), b"nonsense"):
                await client.post(url, content=body)
            return (await client.get("http://ishikari/metrics")).text

    lines = asyncio.run(speak()).splitlines()
    named = 'witness="sekisho.example/w/ishikari"'
    assert f'sekisho_witness_requests_total{{{named},answer="cosigned"}} 1' in lines
    assert f'sekisho_witness_requests_total{{{named},answer="conflict"}} 1' in lines
    assert f'sekisho_witness_requests_total{{{named},answer="refused"}} 1' in lines
    assert f'sekisho_witness_log_entries{{{named},log="{ORIGIN}"}} 2' in lines
    assert f'sekisho_witness_log_forks{{{named},log="{ORIGIN}"}} 0' in lines


def test_a_slow_witness_alone_does_not_hold_up_the_next_checkpoint(lab: LedgerLab) -> None:
    """The others have made a quorum already: it is asked, for a short while."""
    lab.log([decision(0)])
    late = WitnessEndpoint(name="late", url="http://osaka", keys=())

    async def never(_: httpx.Request) -> httpx.Response:
        await asyncio.sleep(60)
        raise AssertionError("nobody waits for this")

    async def collect() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(never)) as client:
            reports = await collect_cosignatures(
                note(lab), size=1, witnesses=[late], known_sizes={}, prove=lambda *_: (), client=client,
                enough=lambda _: True, timeout_s=45,
            )  # fmt: skip
        assert reports[0].fault

    asyncio.run(asyncio.wait_for(collect(), 30))


def test_http_speaks_the_protocol(lab: LedgerLab) -> None:
    async def speak() -> None:
        async with lab.client() as client:
            url = "http://ishikari/add-checkpoint"
            lab.log([decision(0), decision(1)])
            good = await client.post(url, content=request(lab, 0))
            assert good.status_code == 200
            conflict = await client.post(url, content=request(lab, 0))
            assert (conflict.status_code, conflict.text) == (409, "2\n")
            assert conflict.headers["content-type"] == "text/x.tlog.size"
            assert (await client.post(url, content=b"x" * 300_000)).status_code == 413
            assert (await client.get(url)).status_code == 405
            assert (await client.post("http://ishikari/keys")).status_code == 405
            assert (await client.get("http://ishikari/nothing")).status_code == 404
            keys = (await client.get("http://ishikari/keys")).text
            assert keys == f"{lab.cosigners['ishikari'][0].verifier.vkey}\n"
            logs = (await client.get("http://ishikari/logs")).json()
            assert (logs[0]["origin"], logs[0]["size"]) == (ORIGIN, 2)

    asyncio.run(speak())


@pytest.mark.parametrize(
    ("status", "kind", "body"),
    [
        (200, "text/plain", b"\xff"), (200, "text/plain", b"x" * 100_000), (200, "text/plain", b""),
        (409, "text/x.tlog.size", b"99999999999999999999\n"), (409, "text/x.tlog.size", b"7\n"),
        (409, "text/x.tlog.size", b"-1\n"), (409, "text/html", b"<p>"), (500, "text/plain", b"\x00\xff"),
        (302, "x", b""),
    ],
)  # fmt: skip
def test_a_hostile_witness_costs_its_own_cosignature_only(
    lab: LedgerLab, status: int, kind: str, body: bytes
) -> None:
    lab.log([decision(0)])

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(status, content=body, headers={"Content-Type": kind})

    async def collect() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
            reports = await collect_cosignatures(
                note(lab),
                size=1,
                witnesses=[WitnessEndpoint(name="bad", url="http://bad", keys=lab.witnesses["osaka"].keys)],
                known_sizes={},
                prove=LogReader(lab.root).consistency_proof,
                client=client,
            )
        assert reports[0].signatures == ()
        assert reports[0].fault

    asyncio.run(collect())


def test_a_slow_witness_is_not_waited_for(lab: LedgerLab) -> None:
    lab.log([decision(0)])

    async def late(_: httpx.Request) -> httpx.Response:
        await asyncio.sleep(30)
        raise AssertionError("nobody waits for this")

    async def step() -> None:
        async with lab.client() as client:
            client._mounts = {
                pattern: httpx.MockTransport(late) if pattern.matches(httpx.URL("http://osaka")) else transport
                for pattern, transport in client._mounts.items()
            }
            publisher = HeadPublisher(lab.root, policy=lab.policy, signer=lab.signer, client=client)
            done = await publisher.step(now_s=0.0, timeout_s=0.3)
            assert done.cosigned == 1
            assert [report.name for report in done.reports if report.fault] == ["sekisho.example/w/osaka"]
            again = await publisher.step(now_s=0.1)
            assert again.reports == ()  # it is left alone for a while
            assert publisher.witnesses["sekisho.example/w/osaka"].fault
            assert publisher.witnesses["sekisho.example/w/ishikari"].size == 1

    asyncio.run(step())


@given(st.binary(max_size=400))
def test_whatever_comes_is_a_request_or_refused(data: bytes) -> None:
    witness = Witness.__new__(Witness)  # no log is known: nothing is ever opened
    witness._logs = {}
    answer = witness.add_checkpoint(data, at_s=0)
    assert isinstance(answer, Refused)
    assert answer.status in (400, 404)
