"""/admin/v1: the same routes as the services behind it, for people and tools with a key and a role."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import unquote

from chassis.answers import says
from chassis.problems import Problem
from chassis.websites import theirs
from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from gateway.adapters.keys import ApiKey
from gateway.adapters.upstreams import CONTENT, PROMO, SEGMENT
from gateway.deps import Deps
from gateway.domain import kills
from gateway.flows import naming
from gateway.flows.forward import forward
from gateway.flows.kills_seen import kills_seen
from gateway.flows.settle import settle
from gateway.routes.answers import Done, Kills
from gateway.routes.shop import deps_of

OWNERS = {
    "segments": SEGMENT,
    "profiles": SEGMENT,
    "backfills": SEGMENT,
    "blocks": CONTENT,
    "slots": CONTENT,
    "cart-rules": PROMO,
    "positions": SEGMENT,
}
NAMING = ("blocks", "cart-rules")  # for whom something is
PUBLISHED, PREVIEW = (*NAMING, "segments", "slots"), "segments/preview"  # which saves nothing
OPAQUE = ("profiles",)  # what follows is an identity, in which anything may stand
router = APIRouter(prefix="/admin/v1")


Key = Annotated[str | None, Header(alias="x-api-key")]
DepsDep = Annotated[Deps, Depends(deps_of)]


def _role(name: str) -> Any:
    def check(deps: DepsDep, key: Key = None) -> ApiKey:
        return deps.keys.require(key, ("admin",), role=name)

    return Depends(check)


Viewer = Annotated[ApiKey, _role("viewer")]
Marketer = Annotated[ApiKey, _role("marketer")]


class Kill(BaseModel):
    """What to take off everywhere."""

    model_config = ConfigDict(extra="forbid")
    kind: Literal["block", "slot", "rule"]
    key: Annotated[str, Field(pattern=f"^{kills.KEY.pattern}$")]


@router.get("/kills", **says(Kills))
async def list_kills(deps: DepsDep, who: Viewer) -> dict[str, Any]:
    """What nobody is shown or given, by whom and since when; of what the reader may see."""
    return {"kills": await kills_seen(deps, who.actor)}


@router.post("/kills", **says(Done))
async def post_kill(body: Kill, deps: DepsDep, who: Marketer) -> dict[str, Any]:
    """Take a block, slot or rule off everywhere at once. `missing` names whom it has not reached within 2.5 s."""
    theirs(who.actor, ())  # a kill is everybody's
    return (await deps.killer.kill(f"{body.kind}:{body.key}", actor=who.actor)).view()


@router.delete("/kills/{kind}/{name}", status_code=204)
async def lift_kill(kind: str, name: str, deps: DepsDep, who: Marketer) -> None:
    """Let be shown again what is published."""
    theirs(who.actor, ())
    await deps.killer.lift(kills.name_of(kind, name) or "")


@router.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE"], include_in_schema=False)
async def pass_on(
    request: Request,
    deps: DepsDep,
    key: Key = None,
) -> Response:
    """Check the key, then pass the request to the service that owns the noun. Viewers read, marketers change."""
    who = deps.keys.require(key, ("admin",), role="viewer" if request.method == "GET" else "marketer")
    owner, path = _owner(request.scope["raw_path"])
    noun = path.partition("/")[0]
    if noun in NAMING and (raw := await request.body()):
        await naming.check(deps, owner, raw, actor=who.actor)
    answer = await forward(deps, request, owner, f"/v1/{path}", actor=who.actor)
    if request.method != "GET" and answer.status_code < 300 and noun in PUBLISHED and path != PREVIEW:
        await settle(deps, owner)
    return answer


def _owner(raw_path: bytes) -> tuple[str, str]:
    """The service of a path, and the path as it came: what is encoded stays so. Raises Problem 404."""
    path = raw_path.decode("latin-1").removeprefix(f"{router.prefix}/")
    noun, *rest = path.split("/")
    plain = [unquote(part) for part in (noun, *rest)]
    odd = not path.isascii() or any(part in ("", ".", "..") for part in plain)
    if noun not in OWNERS or odd or (noun not in OPAQUE and any("/" in part for part in plain)):
        raise Problem("not-found", 404, "Not found")
    return OWNERS[noun], path
