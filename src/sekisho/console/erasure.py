"""`POST /api/v1/tenants/{tenant}/erase-salt`: what was logged of a tenant's contents says nothing any more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec
from litestar import post
from litestar.di import NamedDependency
from litestar.params import PathParameter

from sekisho.console.inject import TheActor

_NAME = r"^[A-Za-z0-9._-]{1,64}$"


class SaltEraser:
    """Destroys a tenant's salt. `assembly` passes in what does it; UnknownName when the tenant has none."""

    def __init__(self, erase: Callable[[str, str], Awaitable[None]]) -> None:
        """`erase(tenant, actor)`."""
        self.erase = erase


class SaltErased(msgspec.Struct, frozen=True, kw_only=True):
    tenant: str


@post(
    "/tenants/{tenant:str}/erase-salt",
    operation_id="eraseSalt",
    summary="Destroy a tenant's salt: its logged commitments mean nothing any more",
    status_code=200,
)
async def erase_salt(
    salt_eraser: NamedDependency[SaltEraser], actor: TheActor, tenant: Annotated[str, PathParameter(pattern=_NAME)]
) -> SaltErased:
    await salt_eraser.erase(tenant, actor)
    return SaltErased(tenant=tenant)
