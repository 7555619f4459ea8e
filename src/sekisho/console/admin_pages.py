"""Under the user menu: the effective configuration, the keys, and the API's reference."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Annotated

from litestar import Response, get, post
from litestar.params import PathParameter

from sekisho.console.docs import DocsView, docs_view
from sekisho.console.gateway import Choices, choices
from sekisho.console.http import frame_of, page, query_of, redirect, signed_in
from sekisho.console.inject import Asked, Form, TheActor, TheControl, TheSessions
from sekisho.console.render import View
from sekisho.console.services import Fault, Setting
from sekisho.console.session import COOKIE
from sekisho.console.sign_in import require_form
from sekisho.federation.views import KeyView, NewKey
from sekisho.kernel.errors import SekishoError

_DAY_S = 86_400.0
SHOWN_KEYS = 200
LIFETIMES: dict[str, float | None] = {"never": None, "30d": 30 * _DAY_S, "90d": 90 * _DAY_S, "365d": 365 * _DAY_S}


class SettingsView(View, frozen=True, kw_only=True):
    """`sections` in the order of the reference; `wanted` filters by a part of name, value or source."""

    sections: tuple[tuple[str, tuple[Setting, ...]], ...]
    wanted: str
    fault: Fault | None
    total: int

    @property
    def template(self) -> str:
        return "settings.html"


class KeysView(View, frozen=True, kw_only=True):
    """`made` is there right after a key was made: the only time that it is seen."""

    keys: tuple[KeyView, ...]  # at most SHOWN_KEYS of those that fit `wanted`
    fitting: int
    total: int
    wanted: str
    made: NewKey | None
    failed: str
    choices: Choices
    lifetimes: tuple[str, ...]
    asking: KeyView | None  # the key whose revocation waits for a yes
    now: float

    @property
    def template(self) -> str:
        return "keys.html"


@get("/settings", include_in_schema=False)
async def settings_page(request: Asked, control: TheControl, sessions: TheSessions) -> Response[bytes]:
    frame = frame_of(request, control, signed_in(request, control, sessions), section="settings")
    settings = control.settings()
    wanted = query_of(request).get("q", "").strip()[:100]
    needle = wanted.lower()
    sections: dict[str, list[Setting]] = {}
    for setting in settings:
        if needle in f"{setting.name} {setting.value} {setting.source}".lower():
            sections.setdefault(setting.name.partition(".")[0], []).append(setting)
    view = SettingsView(
        sections=tuple((name, tuple(rows)) for name, rows in sections.items()),
        wanted=wanted,
        fault=next((fault for fault in control.faults() if fault.code.startswith("config.")), None),
        total=len(settings),
    )
    return page(view, frame)


@get("/keys", include_in_schema=False)
async def keys_page(request: Asked, control: TheControl, sessions: TheSessions) -> Response[bytes]:
    return await _keys(request, control, sessions, asking=query_of(request).get("revoke", ""))


@post("/keys", include_in_schema=False)
async def make_key(
    request: Asked, control: TheControl, sessions: TheSessions, actor: TheActor, data: Form
) -> Response[bytes]:
    require_form(data, request, control, sessions)
    now = control.clock.now()
    lifetime_s = LIFETIMES.get(str(data.get("lifetime", "")))
    try:
        made = await asyncio.to_thread(
            control.federation.create_key,
            tenant=str(data.get("tenant", "")),
            label=str(data.get("label", "")).strip()[:120],
            expires_at=now + lifetime_s if lifetime_s else None,
            now=now,
            actor=actor,
        )
    except SekishoError as error:
        return await _keys(request, control, sessions, failed=str(error))
    with contextlib.suppress(SekishoError):  # kept as a fault; the key is shown either way, it is seen only now
        await control.changed()
    return await _keys(request, control, sessions, made=made)


@post("/keys/{key_id:str}/revoke", include_in_schema=False)
async def revoke_key_form(
    *,
    request: Asked,
    control: TheControl,
    sessions: TheSessions,
    actor: TheActor,
    key_id: Annotated[str, PathParameter(max_length=64)],
    data: Form,
) -> Response[bytes]:
    require_form(data, request, control, sessions)
    try:
        await asyncio.to_thread(control.federation.revoke_key, key_id, now=control.clock.now(), actor=actor)
    except SekishoError as error:
        return await _keys(request, control, sessions, failed=str(error))
    await control.changed()
    return redirect("/keys")


async def _keys(
    request: Asked,
    control: TheControl,
    sessions: TheSessions,
    *,
    made: NewKey | None = None,
    failed: str = "",
    asking: str = "",
) -> Response[bytes]:
    frame = frame_of(request, control, signed_in(request, control, sessions), section="keys")
    keys = tuple(await asyncio.to_thread(control.federation.keys))
    wanted = query_of(request).get("q", "").strip()[:100]
    needle = wanted.lower()
    fitting = [key for key in keys if needle in f"{key.id} {key.tenant} {key.label}".lower()]
    view = KeysView(
        keys=tuple(fitting[:SHOWN_KEYS]),
        fitting=len(fitting),
        total=len(keys),
        wanted=wanted,
        made=made,
        failed=failed,
        choices=choices(control.table()),
        lifetimes=tuple(LIFETIMES),
        asking=next((key for key in keys if key.id == asking and key.live(frame.now)), None),
        now=frame.now,
    )
    return page(view, frame, status=400 if failed else 200)


@get("/api/docs", include_in_schema=False)
async def api_docs(request: Asked, control: TheControl, sessions: TheSessions) -> Response[bytes]:
    """The reference of the API; open to everybody, like the schema itself: it holds no state."""
    session = sessions.open(request.cookies.get(COOKIE, ""), now=control.clock.now())
    view: DocsView = docs_view(request.app.openapi_schema.to_schema())
    return page(view, frame_of(request, control, session, section="docs"))
