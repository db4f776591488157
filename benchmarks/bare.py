"""The least that could serve this API: Starlette alone, which checks nothing and forgets nothing."""

import secrets
from datetime import UTC, datetime

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

_tasks: dict[str, dict[str, object]] = {}


async def submit(request: Request) -> JSONResponse:
    await request.json()
    task_id = secrets.token_hex(16)
    _tasks[task_id] = {
        "id": task_id,
        "model": "wavespeed-ai/flux-dev-lora",
        "outputs": [],
        "urls": {"get": f"{request.base_url}api/v3/predictions/{task_id}/result"},
        "has_nsfw_contents": [],
        "status": "created",
        "created_at": datetime.now(UTC).isoformat(),
        "error": "",
        "executionTime": 0,
        "timings": {"inference": 0},
    }
    return JSONResponse({"code": 200, "message": "success", "data": _tasks[task_id]})


async def result(request: Request) -> JSONResponse:
    data = _tasks[request.path_params["id"]]
    return JSONResponse({"code": 200, "message": "success", "data": data})


app = Starlette(
    routes=[
        Route("/api/v3/wavespeed-ai/flux-dev-lora", submit, methods=["POST"]),
        Route("/api/v3/predictions/{id}/result", result),
    ]
)
