"""The common baseline proxy: FastAPI in front, httpx behind, nothing else.

It is what most people write first, kept as good as that design allows: uvloop and httptools, one shared
pool without a limit, raw bytes through. It checks no key, counts nothing, limits nothing.

    python -m sluice_bench.peers.fastapi_proxy UPSTREAM_URL PORT
"""

from __future__ import annotations

import sys

import httpx
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from starlette.background import BackgroundTask


def build_app(upstream: str) -> FastAPI:
    """A proxy for everything under `/v1`, and `GET /health`."""
    app = FastAPI()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    client = httpx.AsyncClient(base_url=upstream, timeout=None, limits=limits)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/v1/{path:path}")
    async def forward(path: str, request: Request) -> Response:
        body = await request.body()
        headers = {"content-type": "application/json"}
        upstream_request = client.build_request("POST", f"/v1/{path}", content=body, headers=headers)
        answer = await client.send(upstream_request, stream=True)
        media_type = answer.headers.get("content-type")
        if not media_type or not media_type.startswith("text/event-stream"):
            return Response(await answer.aread(), answer.status_code, media_type=media_type)
        background = BackgroundTask(answer.aclose)
        return StreamingResponse(
            answer.aiter_raw(), answer.status_code, media_type=media_type, background=background
        )

    return app


if __name__ == "__main__":
    uvicorn.run(build_app(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
