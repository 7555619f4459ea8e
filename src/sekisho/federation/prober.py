"""The landmark's side of a location proof: asks in a burst, takes the fastest valid answer, signs what it saw.

Every shortcut here can only make a time longer, never shorter, because a longer time proves less and nothing wrong:
- the clock is read before the question leaves and after the answer is here; kernel time stamps would be closer, but
  they come from CLOCK_REALTIME, which can be set back in between;
- CLOCK_BOOTTIME goes on while the machine sleeps; where CLOCK_REALTIME saw more time pass, that counts;
- an answer counts only when its signature fits the question; one that does not changes nothing.
It blocks (a loop's turn would be counted as distance): call it in a thread.
"""

from __future__ import annotations

import hashlib
import random
import socket
import time
from collections.abc import Callable
from typing import Literal, Protocol

import msgspec

from sekisho.federation.challenge import (
    ANSWER_BYTES,
    NONCE_BYTES,
    PrivateKey,
    PublicKey,
    Question,
    answered,
    is_about,
    landmark_name,
    site_name,
    spki,
    write_question,
)
from sekisho.federation.landmark import Landmark, Measurement, SignedMeasurement, sign_measurement

_SHORTEST_NS = 1


class BurstPlan(msgspec.Struct, frozen=True, kw_only=True):
    """`questions` in a burst, `gap_s` and up to as much again (at random) between them, `timeout_s` for each."""

    questions: int = 16
    gap_s: float = 0.01
    timeout_s: float = 1.0


class Unanswered(msgspec.Struct, frozen=True, kw_only=True):
    """No valid answer came. `invalid`: datagrams about our questions that the site's key had not signed."""

    sent: int
    invalid: int
    because: str


class Ticks(Protocol):
    """Nanoseconds that passed, by the clocks of this machine; a fake one is for tests."""

    def __call__(self) -> tuple[int, int]: ...


def clocks() -> tuple[int, int]:
    """CLOCK_BOOTTIME and CLOCK_REALTIME, ns."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.clock_gettime_ns(time.CLOCK_REALTIME)


def measure(
    address: tuple[str, int],
    *,
    landmark: Landmark,
    key: PrivateKey,
    site: str,
    site_key: PublicKey,
    nonces: Callable[[int], bytes],
    chance: random.Random,
    transport: Literal["udp", "tcp"] = "udp",
    plan: BurstPlan | None = None,
    ticks: Ticks = clocks,
) -> SignedMeasurement | Unanswered:
    """One burst to `address`, measured and signed. `nonces(n)` gives n unpredictable bytes (`os.urandom`)."""
    plan = BurstPlan() if plan is None else plan
    burst = _Burst(landmark=landmark, site=site, site_key=site_key, ticks=ticks)
    because = "no answer came in time"
    try:
        with _connect(address, transport, plan.timeout_s) as link:
            for number in range(plan.questions):
                if number:
                    time.sleep(plan.gap_s * (1 + chance.random()))
                burst.ask(link, transport, nonces(NONCE_BYTES), plan.timeout_s)
    except OSError as error:
        because = error.strerror or str(error)
    if burst.best is None:
        return Unanswered(sent=burst.sent, invalid=burst.invalid, because=because)
    rtt_ns, question, answer = burst.best
    return sign_measurement(
        Measurement(
            landmark=landmark.id,
            latitude=landmark.latitude,
            longitude=landmark.longitude,
            position_error_km=landmark.position_error_km,
            site=site,
            site_spki=spki(site_key),
            transport=transport,
            sent=burst.sent,
            answered=burst.answered,
            rtt_ns=rtt_ns,
            question=question,
            answer=answer,
            exchanges=burst.exchanges.hexdigest(),
            at=ticks()[1] / 1e9,
        ),
        key,
    )


class _Burst:
    """The exchanges so far."""

    def __init__(self, *, landmark: Landmark, site: str, site_key: PublicKey, ticks: Ticks) -> None:
        self._landmark = landmark_name(landmark.spki)
        self._site = site_name(site)
        self._site_key = site_key
        self._ticks = ticks
        self.sent = self.answered = self.invalid = 0
        self.best: tuple[int, bytes, bytes] | None = None
        self.exchanges = hashlib.sha256(b"sekisho/location-burst/v1\n")

    def ask(self, link: socket.socket, transport: Literal["udp", "tcp"], nonce: bytes, timeout_s: float) -> None:
        """One question, and what comes back within `timeout_s`."""
        asked_ms = self._ticks()[1] // 1_000_000
        question = write_question(Question(asked_ms=asked_ms, landmark=self._landmark, site=self._site, nonce=nonce))
        self.sent += 1
        before = self._ticks()
        link.sendall(question)
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            link.settimeout(left)
            try:
                answer = link.recv(ANSWER_BYTES + 1) if transport == "udp" else _exactly(link, ANSWER_BYTES)
            except TimeoutError:
                if transport == "tcp":
                    raise  # half an answer may be on its way: the next one would be read askew
                return
            after = self._ticks()
            if not answer and transport == "tcp":
                raise ConnectionResetError("the connection was closed")
            if not is_about(question, answer):
                continue  # late, or somebody else's
            if not answered(question, answer, self._site_key):
                self.invalid += 1
                continue
            rtt_ns = max(after[0] - before[0], after[1] - before[1], _SHORTEST_NS)
            self.answered += 1
            self.exchanges.update(question + answer + rtt_ns.to_bytes(8, "big"))
            if self.best is None or rtt_ns < self.best[0]:
                self.best = (rtt_ns, question, answer)
            return


def _connect(address: tuple[str, int], transport: Literal["udp", "tcp"], timeout_s: float) -> socket.socket:
    """Connected, also for UDP: the kernel then drops what comes from other addresses."""
    kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
    last: OSError = OSError("the name has no address")
    for family, _, _, _, where in socket.getaddrinfo(*address, type=kind):
        link = socket.socket(family, kind)
        try:
            link.settimeout(timeout_s)
            link.connect(where)
            if transport == "tcp":
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            link.close()
            last = error
        else:
            return link
    raise last


def _exactly(link: socket.socket, count: int) -> bytes:
    """`count` bytes, or what came before the end."""
    data = b""
    while len(data) < count:
        more = link.recv(count - len(data))
        if not more:
            break
        data += more
    return data
