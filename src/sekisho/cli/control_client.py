"""Calls to the control plane's API, with the token in SEKISHO_ADMIN_TOKEN or this installation's admin token."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec

from sekisho.cli.local import ready
from sekisho.kernel.errors import SekishoError

T = TypeVar("T")
_TIMEOUT_S = 10.0
# An administrator with a token of their own; without it the commands speak as `admin`.
ADMIN_TOKEN = "SEKISHO_ADMIN_TOKEN"  # noqa: S105 - the name of a variable


class ControlRefused(SekishoError):
    """The control plane said no, or could not be asked."""

    code = "control.unreachable"


class _Problem(msgspec.Struct, kw_only=True):
    """RFC 9457 with our `code` and `hint` (see runtime/problems.py)."""

    detail: str = ""
    code: str = "control.answer"
    hint: str = ""
    detail_ja: str = ""
    hint_ja: str = ""


def call(
    root: Path,
    method: str,
    path: str,
    *,
    answer: type[T],
    query: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | None = None,
) -> T:
    """The decoded answer; ControlRefused with the control plane's own words when it refuses."""
    response = _request(root, method, path, query=query, body=body)
    try:
        return msgspec.json.decode(response.content or b"null", type=answer)
    except msgspec.DecodeError as error:
        raise ControlRefused(
            f"the control plane's answer to {method} {path} can't be read: {error}",
            code="control.answer",
            hint="do this command and the running control plane have the same version?",
        ) from None


def fetch(root: Path, path: str, *, query: Mapping[str, str] | None = None) -> tuple[int, bytes]:
    """Status and bytes of what GET answers; ControlRefused when it refuses."""
    response = _request(root, "GET", path, query=query, body=None)
    return response.status_code, response.content


def send(root: Path, path: str, *, body: Mapping[str, Any], timeout_s: float) -> bytes:
    """The bytes of what POST answers; ControlRefused when it refuses. For work that takes long."""
    return _request(root, "POST", path, query=None, body=body, timeout_s=timeout_s).content


def _request(
    root: Path,
    method: str,
    path: str,
    *,
    query: Mapping[str, str] | None,
    body: Mapping[str, Any] | None,
    timeout_s: float = _TIMEOUT_S,
) -> httpx.Response:
    running = ready(root)
    try:
        # trust_env: a proxy of the environment has no business between us and our own loopback
        with httpx.Client(base_url=running.console_url, timeout=timeout_s, trust_env=False) as client:
            response = client.request(
                method,
                path,
                params=dict(query or {}),
                json=body,
                headers={"Authorization": f"Bearer {os.environ.get(ADMIN_TOKEN) or running.admin_token}"},
            )
    except httpx.HTTPError as error:
        raise ControlRefused(
            f"the control plane at {running.console_url} can't be reached: {error}",
            hint="look at `sekisho status`; the gateway goes on without it",
        ) from None
    if response.is_error:
        raise _refusal(response)
    return response


def _refusal(response: httpx.Response) -> ControlRefused:
    try:
        problem = msgspec.json.decode(response.content, type=_Problem)
    except msgspec.DecodeError:
        problem = _Problem()
    fact = problem.detail or f"the control plane answered {response.status_code}"
    return ControlRefused(
        fact, code=problem.code, hint=problem.hint, fact_ja=problem.detail_ja, hint_ja=problem.hint_ja
    )
