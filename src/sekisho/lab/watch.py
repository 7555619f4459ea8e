"""The laboratory's border post: reads three counters of every border line, and makes signed statements of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sekisho.federation.border import Reading, SignedStatement, Tally, Way, sign, statement
from sekisho.lab.network import Capture, Count, Lab

BORDER = "laboratory"
_AGREE_TRIES = 8
_AGREE_PAUSE_S = 0.02
_NOTHING = Count()


class BorderPost:
    """Makes one statement an interval, from `start` to `stop`. `class_of` says what a line (inside, outside) is
    watched for and whether it is the canary's; `deliver` gets each statement as soon as it is made."""

    def __init__(
        self,
        lab: Lab,
        capture: Capture,
        key: Ed25519PrivateKey,
        *,
        class_of: Callable[[str, str], tuple[str, bool]],
        deliver: Callable[[SignedStatement], None] = lambda _: None,
    ) -> None:
        self.lab = lab
        self.capture = capture
        self.statements: list[SignedStatement] = []
        self._key = key
        self._deliver = deliver
        self._ways = []
        for line in lab.topology.border:
            data_class, canary = class_of(line.a, line.b)
            self._ways.append(Way(site=line.a, peer=line.b, data_class=data_class, canary=canary))
        self._before: dict[Way, Reading] = {way: Reading() for way in self._ways}
        self._at_ms = time.time_ns() // 1_000_000
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def start(self, *, interval_s: float = 1.0) -> None:
        self._thread = threading.Thread(target=self._keep, args=(interval_s,), name="border post", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """The last statement, when nothing is on the lines any more. Raises what ended the post before."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
        if self._failure is not None:
            raise self._failure
        self.capture.stop()
        self._state()

    def _keep(self, interval_s: float) -> None:
        try:
            while not self._ending.wait(interval_s):
                self._state()
        except Exception as error:
            self._failure = error

    def _state(self) -> None:
        """The three are read at three moments, and packets are on their way: a few tries find a quiet one. What is
        still different then is said, and levelled by the next statement."""
        for _ in range(_AGREE_TRIES):
            readings = self.read()
            if all(reading.agreed for reading in readings.values()):
                break
            time.sleep(_AGREE_PAUSE_S)
        now_ms = time.time_ns() // 1_000_000
        made = statement(
            border=BORDER,
            before=self._before,
            after=readings,
            from_ms=self._at_ms,
            to_ms=now_ms,
            previous=self.statements[-1].statement if self.statements else None,
        )
        self.statements.append(sign(made, self._key))
        self._before, self._at_ms = readings, now_ms
        self._deliver(self.statements[-1])

    def read(self) -> dict[Way, Reading]:
        """The counters as they are now, seen from the inner end of each line."""
        captured = self.capture.counts()
        lines = self.lab.line_counters()
        interfaces = self.lab.interface_statistics()
        found = {}
        for way in self._ways:
            out, back = lines[way.site, way.peer], lines[way.peer, way.site]
            interface = interfaces[way.site, way.peer]
            seen_out, seen_in = (captured.get(end, _NOTHING) for end in ((way.site, way.peer), (way.peer, way.site)))
            found[way] = Reading(
                line=Tally(
                    out_packets=out.entered_packets,
                    out_bytes=out.entered_bytes,
                    in_packets=back.left_packets,
                    in_bytes=back.left_bytes,
                ),
                interface=Tally(
                    out_packets=interface.sent_packets,
                    out_bytes=interface.sent_bytes,
                    in_packets=interface.received_packets,
                    in_bytes=interface.received_bytes,
                ),
                capture=Tally(
                    out_packets=seen_out.packets,
                    out_bytes=seen_out.bytes,
                    in_packets=seen_in.packets,
                    in_bytes=seen_in.bytes,
                ),
            )
        return found
