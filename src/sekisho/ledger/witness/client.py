"""Asking witnesses for their cosignatures, all at once, and living with those that don't answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

import httpx
import msgspec

from sekisho.ledger.tlog.keys import VerifierKey
from sekisho.ledger.tlog.note import Note, NoteRefused, Signature, parse_number, parse_signatures
from sekisho.ledger.tlog.policy import TrustPolicy
from sekisho.ledger.tlog.verify import MAX_SIZE
from sekisho.ledger.witness.http import SIZE_TYPE
from sekisho.ledger.witness.service import AddCheckpoint

TIMEOUT_S = 5.0
# Once a quorum has answered: for the others to answer, too.
GRACE_S = 0.1
# For a witness that is asked when the others have made a quorum: the next checkpoint waits for no longer than this.
LATE_S = 0.5
# Enough for both types of cosignature of a few keys; a witness must not fill our memory.
MAX_ANSWER_BYTES = 64 * 1024
# A witness that was told its own size and still disagrees is not asked a third time for this checkpoint.
_TRIES = 2

# (old size, new size) → hashes
Prove = Callable[[int, int], Sequence[bytes]]
Enough = Callable[[Sequence["WitnessReport"]], bool]


class WitnessEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where a witness is asked (`url` is its submission prefix) and which keys it answers with."""

    name: str
    url: str
    keys: tuple[VerifierKey, ...]


class WitnessReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of asking one witness. `size`: what it remembers now; `fault`: why it did not cosign; `at_s`: when it
    cosigned, Unix seconds by its clock (0: it did not)."""

    name: str
    size: int
    signatures: tuple[Signature, ...] = ()
    fault: str = ""
    at_s: int = 0


def endpoints(policy: TrustPolicy) -> tuple[WitnessEndpoint, ...]:
    """The witnesses that a policy gives an address: one that signs with two keys at one address is asked once."""
    found: dict[tuple[str, str], list[VerifierKey]] = {}
    for witness in policy.witnesses:
        if witness.url:
            found.setdefault((witness.key.name, witness.url), []).append(witness.key)
    return tuple(WitnessEndpoint(name=name, url=url, keys=tuple(keys)) for (name, url), keys in found.items())


async def collect_cosignatures(
    note: bytes,
    *,
    size: int,
    witnesses: Iterable[WitnessEndpoint],
    known_sizes: Mapping[str, int],
    prove: Prove,
    client: httpx.AsyncClient,
    enough: Enough = lambda _: False,
    timeout_s: float = TIMEOUT_S,
) -> tuple[WitnessReport, ...]:
    """Asks every witness at once to cosign the signed checkpoint `note` of `size` leaves.

    `known_sizes`: name → what that witness cosigned last, as far as we know (0 asks it). `prove(old, new)` gives
    consistency proofs. Once `enough(reports)` holds, the others have `GRACE_S` left (`LATE_S` if it held before).
    A witness that is down, slow or hostile costs its own cosignature and nothing else: only signatures that verify
    under its keys come back.
    """
    asked = {
        asyncio.create_task(
            _ask(witness, note, size=size, old=known_sizes.get(witness.name, 0), prove=prove, client=client)
        ): witness.name
        for witness in witnesses
    }
    reports: list[WitnessReport] = []
    loop = asyncio.get_running_loop()
    end = loop.time() + (min(timeout_s, LATE_S) if enough(()) else timeout_s)
    pending = set(asked)
    try:
        while pending and loop.time() < end:
            done, pending = await asyncio.wait(
                pending, timeout=end - loop.time(), return_when=asyncio.FIRST_COMPLETED
            )
            reports += [_report(asked[task], task, known_sizes) for task in done]
            if enough(reports):
                end = min(end, loop.time() + GRACE_S)
    finally:
        for task in pending:
            task.cancel()
    for task in pending:
        name = asked[task]
        reports.append(WitnessReport(name=name, size=known_sizes.get(name, 0), fault="it did not answer in time"))
    return tuple(reports)


def _report(name: str, task: asyncio.Task[WitnessReport], known_sizes: Mapping[str, int]) -> WitnessReport:
    try:
        return task.result()
    except (httpx.HTTPError, httpx.InvalidURL, NoteRefused) as error:
        fault = str(error) or type(error).__name__
        return WitnessReport(name=name, size=known_sizes.get(name, 0), fault=fault)


async def _ask(
    witness: WitnessEndpoint, note: bytes, *, size: int, old: int, prove: Prove, client: httpx.AsyncClient
) -> WitnessReport:
    text = Note.parse(note).text
    for _ in range(_TRIES):
        old = min(old, size)
        proof = tuple(prove(old, size)) if 0 < old < size else ()
        request = AddCheckpoint(old_size=old, proof=proof, note=note)
        status, kind, body = await _post(client, f"{witness.url.rstrip('/')}/add-checkpoint", request.encode())
        if status == 200:
            return _taken(witness, text, size, body)
        if status != 409 or not kind.startswith(SIZE_TYPE):
            fact = body[:200].decode(errors="replace").strip()
            return WitnessReport(name=witness.name, size=old, fault=f"{status}: {fact}")
        remembered = parse_number(body.decode("ascii", "replace").removesuffix("\n"))
        if remembered > size or remembered == old:
            # Ahead of us: a later checkpoint was cosigned meanwhile. The same size: it has another root.
            fault = "it has cosigned a later checkpoint" if remembered > size else "it knows another history"
            return WitnessReport(name=witness.name, size=remembered, fault=fault)
        old = remembered
    return WitnessReport(name=witness.name, size=old, fault="it does not stay with the size that it says")


async def _post(client: httpx.AsyncClient, url: str, body: bytes) -> tuple[int, str, bytes]:
    async with client.stream("POST", url, content=body, headers={"Content-Type": "text/plain"}) as response:
        taken = b""
        async for part in response.aiter_bytes():
            taken += part
            if len(taken) > MAX_ANSWER_BYTES:
                raise NoteRefused("the answer is longer than cosignatures can be")
        return response.status_code, response.headers.get("Content-Type", ""), taken


def _taken(witness: WitnessEndpoint, text: bytes, size: int, body: bytes) -> WitnessReport:
    good, latest = [], 0
    for signature in parse_signatures(body):
        key = next((key for key in witness.keys if key.made(signature)), None)
        # tlog-witness: cosignatures from unknown keys MUST be ignored.
        at_s = None if key is None else key.signed_at(text, signature.data)
        if at_s is not None:
            good.append(signature)
            latest = max(latest, at_s)
    fault = "" if good else "no signature by a key that we know"
    return WitnessReport(
        name=witness.name, size=min(size, MAX_SIZE), signatures=tuple(good), fault=fault, at_s=latest
    )
