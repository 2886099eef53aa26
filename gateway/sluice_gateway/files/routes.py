"""`/v1/files`, as in OpenAI's API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Request, Response
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse

from sluice_gateway import body, multipart
from sluice_gateway.answers import Authenticate, Door, json_answer, list_answer
from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.files.service import FileService, Origin
from sluice_gateway.files.storage import Writer
from sluice_gateway.files.tables import StoredFile
from sluice_gateway.files.upload import UploadForm
from sluice_gateway.identity import Key

PURPOSES = ("assistants", "batch", "evals", "fine-tune", "user_data", "vision")
"""What clients may upload files for."""

_SHORTEST_S, _LONGEST_S = 3600, 2_592_000
_FORM_BYTES = 65_536
"""What an upload may have besides its file."""

_UPLOAD_SCHEMA: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": list(PURPOSES)},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {
                            "type": "integer",
                            "minimum": _SHORTEST_S,
                            "maximum": _LONGEST_S,
                        },
                    },
                }
            }
        },
    }
}


def files_router(service: FileService, authenticate: Authenticate, idle_s: float) -> APIRouter:
    """The routes. A client that sends nothing of its upload for `idle_s` seconds gets 408."""
    router, door = APIRouter(tags=["files"]), Door(authenticate)

    @router.post("/v1/files", summary="Upload a file.", openapi_extra=_UPLOAD_SCHEMA)
    async def create(request: Request) -> Response:
        async def work(key: Key) -> Response | Problem:
            made = await _receive(service, request, key, idle_s)
            return made if isinstance(made, Problem) else json_answer(200, made.to_openai())

        return await door.answer(request, work)

    @router.get("/v1/files", summary="The tenant's files.")
    async def page(
        request: Request,
        purpose: Annotated[str | None, Query(pattern="^[a-z_-]{1,64}$")] = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
        order: Literal["asc", "desc"] = "desc",
        after: str | None = None,
    ) -> Response:
        async def work(key: Key) -> Response | Problem:
            return await _page(service, key.tenant, purpose, after, limit, newest_first=order == "desc")

        return await door.answer(request, work)

    @router.get("/v1/files/{file_id}", summary="One file.")
    async def retrieve(request: Request, file_id: str) -> Response:
        async def work(key: Key) -> Response | Problem:
            found = await service.get(file_id, key.tenant)
            return _missing(file_id) if found is None else json_answer(200, found.to_openai())

        return await door.answer(request, work)

    @router.get("/v1/files/{file_id}/content", summary="A file's content.")
    async def content(request: Request, file_id: str) -> Response:
        async def work(key: Key) -> Response | Problem:
            found = await service.get(file_id, key.tenant)
            return _missing(file_id) if found is None else _content(service, found)

        return await door.answer(request, work)

    @router.delete("/v1/files/{file_id}", summary="Delete a file.")
    async def delete(request: Request, file_id: str) -> Response:
        async def work(key: Key) -> Response | Problem:
            if not await service.delete(file_id, key.tenant):
                return _missing(file_id)
            return json_answer(200, {"id": file_id, "object": "file", "deleted": True})

        return await door.answer(request, work)

    return router


async def _page(
    service: FileService,
    tenant: str,
    purpose: str | None,
    after: str | None,
    limit: int,
    *,
    newest_first: bool,
) -> Response | Problem:
    last = None if after is None else await service.get(after, tenant)
    if after is not None and last is None:
        return msgspec.structs.replace(_missing(after), param="after")
    found = await service.page(tenant, purpose=purpose, after=last, limit=limit, newest_first=newest_first)
    return list_answer([file.to_openai() for file in found.files], found.has_more)


def _content(service: FileService, file: StoredFile) -> Response:
    return FileResponse(service.path(file), media_type="application/octet-stream", filename=file.filename)


async def _receive(service: FileService, request: Request, key: Key, idle_s: float) -> StoredFile | Problem:
    """Take an upload in."""
    headers = dict(request.scope["headers"])
    boundary = multipart.boundary_of(headers.get(b"content-type", b""))
    if boundary is None:
        text = "Send the file as 'multipart/form-data' with the fields 'file' and 'purpose'."
        return problem(Failure.BODY_ENCODING, text)
    refused = body.refusal(headers, service.max_bytes + _FORM_BYTES)
    if refused is not None:
        return refused
    form = UploadForm(boundary)
    file_id, writer = service.begin()
    async with writer:
        try:
            found = await _write(form, request, writer, service.max_bytes, idle_s)
        except multipart.MalformedError as error:
            return problem(Failure.INVALID_REQUEST, f"The request body is not valid form data: {error}.")
        origin = found or _origin(form, key)
        if isinstance(origin, Problem):
            return origin
        file = service.describe(file_id, await writer.commit(), origin)
    await service.add(file)
    return file


async def _write(
    form: UploadForm, request: Request, writer: Writer, max_bytes: int, idle_s: float
) -> Problem | None:
    """Have the file written as it comes; what is wrong with the way it comes."""
    chunks = aiter(request.stream())
    size = 0
    try:
        while (chunk := await _next(chunks, idle_s)) is not None:
            size += len(chunk)
            for piece in form.feed(chunk):
                await writer.write(piece)
            if writer.size > max_bytes or size > max_bytes + _FORM_BYTES:
                return body.too_large(max_bytes)
    except TimeoutError:
        return body.too_slow(idle_s)
    except ClientDisconnect:
        return body.GONE
    form.finish()
    return None


async def _next(chunks: AsyncIterator[bytes], idle_s: float) -> bytes | None:
    async with asyncio.timeout(idle_s):
        return await anext(chunks, None)


def _origin(form: UploadForm, key: Key) -> Origin | Problem:
    """What the upload says of its file."""
    purpose = form.fields.get("purpose", "")
    if form.filename is None:
        return _wrong("file", "You must provide 'file'.")
    if purpose not in PURPOSES:
        return _wrong("purpose", f"'purpose' must be one of {', '.join(PURPOSES)}.")
    lifetime_s = _lifetime(form.fields)
    if isinstance(lifetime_s, Problem):
        return lifetime_s
    return Origin(
        tenant=key.tenant, key_id=key.id, filename=form.filename, purpose=purpose, lifetime_s=lifetime_s
    )


def _lifetime(fields: dict[str, str]) -> int | Problem | None:
    """`expires_after`, in seconds."""
    seconds, anchor = fields.get("expires_after[seconds]"), fields.get("expires_after[anchor]")
    if seconds is None and anchor is None:
        return None
    if anchor != "created_at":
        return _wrong("expires_after.anchor", "'expires_after[anchor]' must be 'created_at'.")
    if seconds is None or not seconds.isascii() or not seconds.isdigit() or len(seconds) > 9:
        return _wrong("expires_after.seconds", "'expires_after[seconds]' must be a number of seconds.")
    if not _SHORTEST_S <= int(seconds) <= _LONGEST_S:
        text = f"'expires_after[seconds]' must be from {_SHORTEST_S} to {_LONGEST_S}."
        return _wrong("expires_after.seconds", text)
    return int(seconds)


def _wrong(param: str, message: str) -> Problem:
    return problem(Failure.INVALID_REQUEST, message, param=param)


def _missing(file_id: str) -> Problem:
    return problem(Failure.NOT_FOUND, f"No such file: '{file_id[:64]}'.", param="id")
