"""All pages, their static files, and what becomes of a fault on a page."""

from __future__ import annotations

from importlib import resources
from typing import Any

from litestar import Request, Response
from litestar.handlers import HTTPRouteHandler
from litestar.router import Router
from litestar.static_files import create_static_files_router

from sekisho.console import (
    admin_pages,
    capacity_pages,
    ledger_pages,
    map_page,
    object_pages,
    pages,
    policy_pages,
    pool_pages,
    receipt_pages,
    reservation_pages,
    sign_in,
    site_pages,
    throughput_pages,
)
from sekisho.console.errors import error_page, signed_out_part
from sekisho.console.http import Elsewhere, SignedOut, language_cookie, redirect
from sekisho.console.services import Control
from sekisho.console.session import Sessions
from sekisho.console.sign_in import WrongForm
from sekisho.runtime.problems import Problem, problem

# What programs ask; everything else is asked by people.
_PROGRAMS = (
    "/api/v1",
    "/api/openapi",
    "/internal/",
    "/agent/",
    "/log/",
    "/.well-known/",
    "/metrics",
    "/healthz",
    "/readyz",
    "/static/",
)


def routes() -> list[HTTPRouteHandler | Router]:
    static = resources.files("sekisho.console") / "static"
    return [
        pages.now_page,
        pages.gateway_page,
        pages.passages_part,
        map_page.map_page,
        map_page.map_part,
        map_page.map_picture,
        pages.why_page,
        pages.dry_run_page,
        object_pages.decision_page,
        object_pages.site_page,
        object_pages.endpoint_page,
        object_pages.suspend_form,
        object_pages.resume_form,
        policy_pages.policies_page,
        policy_pages.edit_page,
        policy_pages.edit_form,
        policy_pages.approve_form,
        policy_pages.apply_form,
        policy_pages.withdraw_form,
        site_pages.evidence_page,
        site_pages.sites_page,
        site_pages.approve_site_form,
        site_pages.reject_site_form,
        site_pages.suspend_site_form,
        site_pages.resume_site_form,
        receipt_pages.receipt_page,
        capacity_pages.capacity_page,
        capacity_pages.find_page,
        capacity_pages.book_form,
        capacity_pages.waitlist_page,
        capacity_pages.leave_form,
        capacity_pages.notices_page,
        throughput_pages.throughput_page,
        reservation_pages.reservation_page,
        reservation_pages.change_form,
        pool_pages.pools_page,
        pool_pages.pools_form,
        pool_pages.pool_page,
        pool_pages.pool_form,
        ledger_pages.ledger_page,
        ledger_pages.fsck_form,
        ledger_pages.pack_page,
        ledger_pages.pack_form,
        ledger_pages.entry_page,
        ledger_pages.entry_receipt,
        admin_pages.settings_page,
        admin_pages.keys_page,
        admin_pages.make_key,
        admin_pages.revoke_key_form,
        admin_pages.api_docs,
        sign_in.sign_in_page,
        sign_in.sign_in,
        sign_in.sign_out,
        create_static_files_router(
            path="/static",
            directories=[str(static)],
            include_in_schema=False,
            # The address carries a hash of the content.
            cache_control=None,
        ),
    ]


def for_people(path: str) -> bool:
    return not path.startswith(_PROGRAMS)


def answer_to(
    request: Request[Any, Any, Any], error: Exception, control: Control, sessions: Sessions, document: Problem
) -> Response[bytes]:
    """The answer to a fault on a page: a redirect, a part, or a page that says fact, code and next step."""
    match error:
        case Elsewhere(location=location, language=language):
            return redirect(location, cookies=[language_cookie(request, language)] if language else [])
        case SignedOut():
            return signed_out_part(request, control)
        case WrongForm():
            document = problem(
                403,
                code="form.stale",
                detail="the form is not from this session",
                hint="go back, reload, try again",
                detail_ja="このフォームは現在のセッションのものではありません",
                hint_ja="前のページに戻り、再読み込みしてからもう一度送信してください",
            )
        case _:
            pass
    try:
        return error_page(request, control, sessions, document)
    except Elsewhere as elsewhere:
        # Even a missing page can be asked for in the other language.
        cookies = [language_cookie(request, elsewhere.language)] if elsewhere.language else []
        return redirect(elsewhere.location, cookies=cookies)
