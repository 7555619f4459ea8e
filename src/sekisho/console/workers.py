"""What the gateway workers say of themselves, over their admin sockets."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import msgspec

from sekisho.gateway.settings import WorkerSnapshot

TIMEOUT_S = 1.0
MAX_SNAPSHOT_BYTES = 8 << 20
# Pages, metrics and their polls share an answer for this long, so that watching costs the workers little.
REUSE_S = 0.5
_SOCKET = re.compile(r"worker-(\d{1,4})\.sock")
_decode = msgspec.json.Decoder(WorkerSnapshot).decode


class WorkerReport(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that answered (`snapshot`), or one whose socket lies there and does not answer (`fault`)."""

    index: int
    snapshot: WorkerSnapshot | None = None
    fault: str = ""


class Workers:
    """Reads `run/worker-*.sock`."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._lock = asyncio.Lock()
        self._at = float("-inf")
        self._reports: tuple[WorkerReport, ...] = ()

    async def reports(self) -> tuple[WorkerReport, ...]:
        """In the order of their numbers; at most REUSE_S old."""
        async with self._lock:
            if time.monotonic() - self._at > REUSE_S:
                self._reports = await self._ask_all()
                self._at = time.monotonic()
            return self._reports

    async def _ask_all(self) -> tuple[WorkerReport, ...]:
        found = sorted(
            (int(match[1]), path)
            for path in self._run.glob("worker-*.sock")
            if (match := _SOCKET.fullmatch(path.name))
        )
        return tuple(await asyncio.gather(*(_ask(index, path) for index, path in found)))


async def _ask(index: int, path: Path) -> WorkerReport:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(str(path))
            try:
                data = await reader.read(MAX_SNAPSHOT_BYTES)
                while chunk := await reader.read(MAX_SNAPSHOT_BYTES - len(data)):
                    data += chunk
            finally:
                writer.close()
        return WorkerReport(index=index, snapshot=_decode(data))
    except TimeoutError:
        return WorkerReport(index=index, fault=f"no answer within {TIMEOUT_S:.0f} s")
    except OSError as error:
        return WorkerReport(index=index, fault=error.strerror or str(error))
    except msgspec.MsgspecError as error:
        return WorkerReport(index=index, fault=f"an answer that can't be read: {error}")
