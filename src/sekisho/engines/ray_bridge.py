"""`python -m sekisho.engines.ray_bridge ADDRESS HTTP_PORT`: speaks to a Ray cluster for a site's agent.

A process of its own: Ray's driver takes hundreds of megabytes and threads, and when the cluster goes it may take its
process with it. One request a line on standard input, one answer a line on standard output, both JSON.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys

import msgspec

from sekisho.capacity.workloads.model import Order


class Deploy(msgspec.Struct, frozen=True, kw_only=True, tag="deploy"):
    """Begins to start a replica, or changes the end of its window."""

    order: Order
    command: tuple[str, ...]


class Look(msgspec.Struct, frozen=True, kw_only=True, tag="look"):
    replica: str


class Delete(msgspec.Struct, frozen=True, kw_only=True, tag="delete"):
    replica: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """`error`: why it was not done. `status`: Serve's word for the application; empty: there is none. `up`: its
    replica answers, also while its configuration changes."""

    error: str = ""
    status: str = ""
    message: str = ""
    up: bool = False
    busy: int | None = None


Asked = Deploy | Look | Delete


def answer(asked: Asked) -> Answer:
    import ray  # noqa: PLC0415 - an extra; nothing but this process needs it
    from ray import serve  # noqa: PLC0415

    from sekisho.engines.ray_app import application  # noqa: PLC0415

    match asked:
        case Deploy(order=order, command=command):
            # A cluster without GPUs (a demonstration, a test) is asked for none.
            gpus = float(order.gpus) if ray.cluster_resources().get("GPU", 0) else 0.0
            target = serve.RunTarget(
                application(order, command, gpus=gpus), name=order.replica, route_prefix=f"/{order.replica}"
            )
            serve.run_many([target], wait_for_applications_running=False)
            return Answer()
        case Look(replica=replica):
            found = serve.status().applications.get(replica)
            if found is None:
                return Answer()
            counts = [each.replica_states for each in found.deployments.values()]
            up = any(each.get("RUNNING", 0) + each.get("UPDATING", 0) for each in counts)
            busy = None
            if up:
                with contextlib.suppress(Exception):  # it may be going at this moment
                    busy = serve.get_app_handle(replica).busy.remote().result(timeout_s=3)
            return Answer(status=str(found.status.value), message=found.message[-300:], up=up, busy=busy)
        case Delete(replica=replica):
            serve.delete(replica, _blocking=False)
            return Answer()


def main() -> None:
    address, http_port = sys.argv[1], int(sys.argv[2])
    # What libraries print goes to the log; standard output carries answers alone.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray  # noqa: PLC0415
    from ray import serve  # noqa: PLC0415

    ray.init(address=address, namespace="sekisho", log_to_driver=False, logging_level=logging.WARNING)
    serve.start(http_options={"host": "127.0.0.1", "port": http_port})
    answers.write(msgspec.json.encode(Answer()) + b"\n")
    for line in sys.stdin.buffer:
        try:
            said = answer(msgspec.json.decode(line, type=Asked))
        except Exception as error:  # whatever Ray raises is told, and asked again
            said = Answer(error=f"{type(error).__name__}: {error}"[:300])
        answers.write(msgspec.json.encode(said) + b"\n")


if __name__ == "__main__":
    main()
