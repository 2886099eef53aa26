"""`/admin/v1/tenants`, `/admin/v1/keys` and `/admin/v1/audit`: the key service over HTTP.

Authentication is the gate's, the rules are the service's; here one is only translated into the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Response

from sluice_gateway.admin import schemas
from sluice_gateway.admin.gate import actor
from sluice_gateway.keys.records import Actor, AuditRecord, KeyRecord, TenantRecord
from sluice_gateway.keys.service import KeyService

_Actor = Annotated[Actor, Depends(actor)]
_KeyId = Annotated[str, Path(pattern=schemas.NAME)]
_TenantId = Annotated[str, Path(pattern=schemas.NAME)]
_Limit = Annotated[int, Query(ge=1, le=1000, description="Entries of one part.")]
_Name = Annotated[str | None, Query(pattern=schemas.NAME)]


def keys_router(service: KeyService) -> APIRouter:
    """The routes, over one service."""
    router = APIRouter(prefix="/admin/v1", dependencies=[Depends(actor)])
    _add_tenants(router, service)
    _add_keys(router, service)
    _add_changes(router, service)
    _add_audit(router, service)
    return router


def _add_tenants(router: APIRouter, service: KeyService) -> None:
    @router.get("/tenants", tags=["tenants"], summary="All tenants.", response_model=schemas.TenantList)
    async def tenants() -> Response:
        return _list(await service.tenants(), has_more=False)

    @router.post(
        "/tenants",
        tags=["tenants"],
        summary="Make a tenant.",
        response_model=schemas.TenantView,
        status_code=201,
    )
    async def create(body: schemas.TenantBody, who: _Actor) -> Response:
        said = body.said()
        return _json(await service.create_tenant(who, said.pop("id"), said), 201)

    @router.get(
        "/tenants/{tenant_id}", tags=["tenants"], summary="One tenant.", response_model=schemas.TenantView
    )
    async def tenant(tenant_id: _TenantId) -> Response:
        return _json(await service.tenant(tenant_id))

    @router.patch(
        "/tenants/{tenant_id}",
        tags=["tenants"],
        summary="Change a tenant.",
        response_model=schemas.TenantView,
    )
    async def update(tenant_id: _TenantId, body: schemas.TenantPatch, who: _Actor) -> Response:
        return _json(await service.update_tenant(who, tenant_id, body.said()))

    @router.delete(
        "/tenants/{tenant_id}",
        tags=["tenants"],
        summary="Delete a tenant with its revoked keys; refused while it has others.",
        status_code=204,
    )
    async def delete(tenant_id: _TenantId, who: _Actor) -> Response:
        await service.delete_tenant(who, tenant_id)
        return Response(status_code=204)


def _add_keys(router: APIRouter, service: KeyService) -> None:
    @router.get("/keys", tags=["keys"], summary="Keys, by id.", response_model=schemas.KeyList)
    async def keys(tenant: _Name = None, after: _Name = None, limit: _Limit = 100) -> Response:
        page = await service.keys(tenant=tenant, after=after, count=limit)
        return _list(page.items, has_more=page.has_more)

    @router.post(
        "/keys", tags=["keys"], summary="Make a key.", response_model=schemas.IssuedKeyView, status_code=201
    )
    async def create(body: schemas.KeyBody, who: _Actor) -> Response:
        said = body.said()
        name, tenant = said.pop("id", None), said.pop("tenant", body.tenant)
        return _json(await service.create_key(who, said, name=name, tenant=tenant), 201)

    @router.get("/keys/{key_id}", tags=["keys"], summary="One key.", response_model=schemas.KeyView)
    async def key(key_id: _KeyId) -> Response:
        return _json(await service.key(key_id))


def _add_changes(router: APIRouter, service: KeyService) -> None:
    @router.patch("/keys/{key_id}", tags=["keys"], summary="Change a key.", response_model=schemas.KeyView)
    async def update(key_id: _KeyId, body: schemas.KeyPatch, who: _Actor) -> Response:
        return _json(await service.update_key(who, key_id, body.said()))

    @router.post(
        "/keys/{key_id}/rotate",
        tags=["keys"],
        summary="A new secret; the old one goes on working for a while.",
        response_model=schemas.IssuedKeyView,
    )
    async def rotate(key_id: _KeyId, who: _Actor, body: schemas.RotationBody | None = None) -> Response:
        overlap_s = (body or schemas.RotationBody()).overlap_s
        return _json(await service.rotate_key(who, key_id, overlap_s))

    @router.post(
        "/keys/{key_id}/revoke",
        tags=["keys"],
        summary="End a key for good, in every process within a second.",
        response_model=schemas.KeyView,
    )
    async def revoke(key_id: _KeyId, who: _Actor) -> Response:
        return _json(await service.revoke_key(who, key_id))


def _add_audit(router: APIRouter, service: KeyService) -> None:
    @router.get(
        "/audit",
        tags=["audit"],
        summary="Administrative actions, newest first.",
        response_model=schemas.AuditList,
    )
    async def audit(
        after: Annotated[int | None, Query(ge=1, le=2**62)] = None, limit: _Limit = 100
    ) -> Response:
        page = await service.audit(after=after, count=limit)
        return _list(page.items, has_more=page.has_more)


def _list(items: Sequence[KeyRecord | TenantRecord | AuditRecord], *, has_more: bool) -> Response:
    last_id = items[-1].id if items else None
    return _json({"object": "list", "data": items, "has_more": has_more, "last_id": last_id})


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value, order="deterministic"), status, media_type="application/json")
