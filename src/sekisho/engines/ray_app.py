"""A replica as a Ray Serve application: an actor that holds an engine's process and passes requests to it.

Runs on the cluster's nodes, where this package and the engine have to be installed. The engine is on the leash of
`processes.py`, tied to the actor: it ends with the actor, with its lease, or when Serve ends it, whichever is first.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
from ray import serve
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from sekisho.capacity.workloads.model import Order
from sekisho.engines.processes import LocalProcesses

_LOOK_EVERY_S = 0.2
# What belongs to one connection and not to the message (RFC 9110 §7.6.1).
_HOP = frozenset({"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host"})


class LeaseOver(Exception):
    """Its window has ended: it is not started again."""


class Served:
    """The deployment of one replica. `command`: the engine's words, with `{port}` for its port."""

    def __init__(self, order: bytes, command: tuple[str, ...]) -> None:
        self._order = msgspec.json.decode(order, type=Order)
        self._root = tempfile.TemporaryDirectory(prefix="sekisho-replica-")
        self._engine = LocalProcesses(
            Path(self._root.name), {self._order.model: lambda _order: command}, tied_to=os.getpid()
        )
        self._client = httpx.AsyncClient(trust_env=False, timeout=None)  # noqa: S113 - a generation may take long
        self._busy = 0
        self._started = False

    async def reconfigure(self, config: dict[str, float]) -> None:
        """`until`: the end of the window, which may have been moved. Serve calls it at the start too."""
        self._order = msgspec.structs.replace(self._order, until=config["until"])
        if time.time() >= self._order.ends_at:
            raise LeaseOver(f"the window of {self._order.replica} has ended")
        if self._started:
            await asyncio.to_thread(self._engine.renew, self._order)
            return
        await asyncio.to_thread(self._engine.start, self._order)
        self._started = True
        while not (status := await asyncio.to_thread(self._engine.status, self._order.replica)).ready:
            if not status.alive:
                raise RuntimeError(f"the engine ended: {status.last_exit}")
            await asyncio.sleep(_LOOK_EVERY_S)

    async def check_health(self) -> None:
        """Serve ends a replica that raises here, and starts another."""
        status = await asyncio.to_thread(self._engine.status, self._order.replica)
        if not status.alive:
            raise RuntimeError(f"the engine ended: {status.last_exit}")
        await asyncio.to_thread(self._engine.renew, self._order)

    async def busy(self) -> int:
        """Requests that are under way."""
        return self._busy

    async def __call__(self, request: Request) -> Response:
        port = (await asyncio.to_thread(self._engine.status, self._order.replica)).port
        path = request.url.path.removeprefix(request.scope.get("root_path", ""))
        self._busy += 1
        try:
            sent = self._client.build_request(
                request.method,
                f"http://127.0.0.1:{port}{path}",
                params=request.query_params,
                headers=[(name, value) for name, value in request.headers.items() if name.lower() not in _HOP],
                content=await request.body(),
            )
            answer = await self._client.send(sent, stream=True)
        except BaseException:
            self._busy -= 1
            raise
        headers = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
        return StreamingResponse(self._relay(answer), status_code=answer.status_code, headers=headers)

    async def _relay(self, answer: httpx.Response) -> AsyncIterator[bytes]:
        try:
            async for chunk in answer.aiter_raw():
                yield chunk
        finally:
            self._busy -= 1
            await answer.aclose()


def application(order: Order, command: tuple[str, ...], *, gpus: float) -> Any:
    """The application of one replica. `gpus`: how many GPUs of the cluster it holds."""
    deployment = serve.deployment(
        Served,
        name=order.replica,
        num_replicas=1,
        max_ongoing_requests=order.parameters.slots,
        ray_actor_options={"num_cpus": 0, "num_gpus": gpus},
        user_config={"until": order.until},
        graceful_shutdown_timeout_s=max(order.grace_s, 0.1),
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=2.0,
        health_check_timeout_s=30.0,
    )
    # The deadline is no argument: a window that is extended changes the configuration of a replica, not the replica.
    fixed = msgspec.structs.replace(order, until=0.0, run=True)
    return deployment.bind(msgspec.json.encode(fixed), command)
