"""The agent's part in location proofs: it answers landmarks, and measures others where its site counts as one."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import ec

from sekisho.assembly.site_control import hand_in_measurements
from sekisho.assembly.site_home import Answers, Enrolment
from sekisho.assembly.sockets import parse_address
from sekisho.federation.challenge import read_spki
from sekisho.federation.landmark import Landmark, SignedMeasurement
from sekisho.federation.prober import Unanswered, measure
from sekisho.federation.report import Target
from sekisho.federation.responder import Responder, ResponderRefused
from sekisho.kernel.clock import SystemClock
from sekisho.kernel.errors import SekishoError

_log = logging.getLogger("sekisho.site")
PORT = 7845


class SiteLocation:
    """Belongs to the agent's event loop."""

    def __init__(self, enrolment: Enrolment, answers: Answers, key: ec.EllipticCurvePrivateKey) -> None:
        self._enrolment = enrolment
        self._answers = answers
        self._responder = Responder(key, site=enrolment.site, clock=SystemClock(), ticks=time.monotonic)
        self._measuring: asyncio.Task[None] | None = None
        self.address = ""

    async def start(self) -> None:
        """Listens. Raises ResponderRefused when the address that agent.toml names can't be had."""
        answers = self._answers
        if answers.listen is not None:
            port = await self._responder.start(*answers.listen)
        else:
            try:
                port = await self._responder.start(answers.near, PORT)
            except ResponderRefused:  # several agents on one machine
                port = await self._responder.start(answers.near, 0)
        host = f"[{answers.host}]" if ":" in answers.host else answers.host
        self.address = f"{host}:{answers.port or port}"
        _log.info("answers location challenges on port %d, reached as %s", port, self.address)

    def use(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._responder.use(key)

    def work(self, landmark: Landmark, targets: tuple[Target, ...], key: ec.EllipticCurvePrivateKey) -> None:
        """Measures these in the background. What comes while it is still at work is left out: control asks again."""
        if self._measuring is None or self._measuring.done():
            self._measuring = asyncio.create_task(self._measure(landmark, targets, key))

    async def stop(self) -> None:
        self._responder.close()
        if self._measuring is not None:
            self._measuring.cancel()
            await asyncio.gather(self._measuring, return_exceptions=True)

    async def _measure(
        self, landmark: Landmark, targets: tuple[Target, ...], key: ec.EllipticCurvePrivateKey
    ) -> None:
        for target in targets:
            try:
                signed = await asyncio.to_thread(measure_target, target, landmark, key)
                if signed is None:
                    continue
                taken = await asyncio.to_thread(
                    hand_in_measurements, self._enrolment.control, (signed,), ca=self._enrolment.ca
                )
                _log.info("measured %s: %s", target.site, taken.verdicts.get(target.site, ""))
            except (SekishoError, OSError) as error:
                _log.warning("nothing came of measuring %s: %s", target.site, error)


def measure_target(
    target: Target,
    landmark: Landmark,
    key: ec.EllipticCurvePrivateKey,
    *,
    nonces: Callable[[int], bytes] = os.urandom,
) -> SignedMeasurement | None:
    """One burst by UDP, or by TCP where UDP does not come through; None when nobody answers. Blocks."""
    site_key = read_spki(target.spki)
    if site_key is None:
        _log.warning("the key of %s is of no kind that answers challenges", target.site)
        return None
    found: SignedMeasurement | Unanswered | None = None
    for transport in ("udp", "tcp"):
        found = measure(
            parse_address(target.address),
            landmark=landmark,
            key=key,
            site=target.site,
            site_key=site_key,
            nonces=nonces,
            chance=random.SystemRandom(),
            transport=transport,
        )
        if isinstance(found, SignedMeasurement):
            return found
        _log.warning("%s gave no valid answer over %s: %s", target.site, transport, found.because)
    return None
