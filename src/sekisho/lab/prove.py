"""Both sides of a location proof as programs for a site of the laboratory (federation/responder.py and prober.py).

    python -m sekisho.lab.prove answer SPEC_FILE     answers challenges until it is ended
    python -m sekisho.lab.prove measure SPEC_FILE    prints one measurement, or why there is none, as JSON

The keys in the files are 32 bytes of Ed25519 in hexadecimal, made for one run.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from pathlib import Path
from typing import cast

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sekisho.federation.landmark import SignedMeasurement, landmark_of
from sekisho.federation.prober import BurstPlan, Unanswered, measure
from sekisho.federation.responder import Answerer, Responder, ResponderLimits
from sekisho.kernel.clock import SystemClock


class AnswerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Answer as `site`, with this key, at `host:port`. `held_ms`: what a patient impostor waits before each."""

    site: str
    key: str
    host: str
    port: int
    held_ms: float = 0.0


class MeasureSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Measure from a landmark how fast `site`'s key answers at `host:port`."""

    landmark: str
    latitude: float
    longitude: float
    landmark_key: str
    site: str
    site_key: str  # the public one
    host: str
    port: int
    questions: int = 16


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two."""

    signed: SignedMeasurement | None = None
    unanswered: Unanswered | None = None


class Patient(asyncio.DatagramProtocol):
    """Signs what it is asked, and holds the answer back: slower than light can be played, faster can't."""

    def __init__(self, answerer: Answerer, held_ms: float) -> None:
        self._answerer = answerer
        self._held_s = held_ms / 1000

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = self._answerer.answer(data, network=addr[0], now=time.time(), ticks=time.monotonic())
        if isinstance(reply, bytes):
            asyncio.get_running_loop().call_later(self._held_s, self._transport.sendto, reply, addr)


async def answer(spec: AnswerSpec) -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(spec.key))
    if spec.held_ms:
        patient = Patient(Answerer(key, site=spec.site, limits=ResponderLimits()), spec.held_ms)
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: patient, local_addr=(spec.host, spec.port))
    else:
        responder = Responder(key, site=spec.site, clock=SystemClock(), ticks=time.monotonic)
        await responder.start(spec.host, spec.port)
    print("listening", flush=True)  # noqa: T201 - the laboratory waits for it
    await asyncio.Event().wait()


def ask(spec: MeasureSpec) -> Measured:
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(spec.landmark_key))
    found = measure(
        (spec.host, spec.port),
        landmark=landmark_of(
            spec.landmark, latitude=spec.latitude, longitude=spec.longitude, position_error_km=1.0, key=key
        ),
        key=key,
        site=spec.site,
        site_key=Ed25519PublicKey.from_public_bytes(bytes.fromhex(spec.site_key)),
        nonces=os.urandom,
        chance=random.Random(),  # noqa: S311 - pauses between questions; the nonces are from the kernel
        plan=BurstPlan(questions=spec.questions),
    )
    return Measured(signed=found) if isinstance(found, SignedMeasurement) else Measured(unanswered=found)


def main() -> None:
    role, file = sys.argv[1:]
    data = Path(file).read_bytes()
    if role == "answer":
        asyncio.run(answer(msgspec.json.decode(data, type=AnswerSpec)))
    else:
        print(msgspec.json.encode(ask(msgspec.json.decode(data, type=MeasureSpec))).decode())  # noqa: T201


if __name__ == "__main__":
    main()
