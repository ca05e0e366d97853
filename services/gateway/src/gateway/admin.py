"""/admin/v1: the same routes as the services behind it, for people and tools with a key and a role."""

from __future__ import annotations

from typing import Annotated

import httpx
from chassis.http import read_json
from chassis.problems import Problem
from fastapi import APIRouter, Depends, Header, Request, Response

from gateway.api import deps_of
from gateway.deps import Deps
from gateway.upstreams import CONTENT, PROMO, SEGMENT

OWNERS = {
    "segments": SEGMENT,
    "profiles": SEGMENT,
    "backfills": SEGMENT,
    "blocks": CONTENT,
    "slots": CONTENT,
    "cart-rules": PROMO,
    "redemptions": PROMO,
}
PASSED_ON = ("etag", "content-type")
router = APIRouter(prefix="/admin/v1")


@router.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE"], include_in_schema=False)
async def forward(
    path: str,
    request: Request,
    deps: Annotated[Deps, Depends(deps_of)],
    key: Annotated[str | None, Header(alias="x-api-key")] = None,
) -> Response:
    """Check the key, then pass the request to the service that owns the noun. Viewers read, marketers change."""
    who = deps.keys.require(key, ("admin",), role="viewer" if request.method == "GET" else "marketer")
    parts = path.split("/")
    owner = OWNERS.get(parts[0])
    if owner is None or any(part in ("", ".", "..") for part in parts):
        raise Problem("not-found", 404, "Not found")
    body = await request.body()
    if body:
        read_json(body)
    names = ("content-type", "if-match", "idempotency-key")
    headers = {n: request.headers[n] for n in names if n in request.headers} | {"x-actor": who.id}
    url = httpx.URL(f"/v1/{path}", query=request.url.query.encode())
    try:
        answer = await deps.upstreams.send(owner, request.method, str(url), headers=headers, content=body)
    except httpx.HTTPError:
        raise Problem(
            "service-unavailable", 503, "The service cannot be reached", headers={"retry-after": "2"}
        ) from None
    kept = {n: answer.headers[n] for n in PASSED_ON if n in answer.headers}
    return Response(answer.content, answer.status_code, headers={**kept, "cache-control": "private, no-store"})
