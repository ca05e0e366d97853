"""Writes the document that the gateway serves: everything behind the one door, the admin routes of the services included.

docs/api has a link to it. `--check` only says whether it would change.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from content_svc import api as content
from fastapi import APIRouter, FastAPI
from gateway.lanes.decisions import DESCRIBED
from gateway.routes import merchants, shop
from gateway.routes.answers import Decision
from gateway.routes.merchants import OWNERS
from promo_svc import api as promo
from pydantic import TypeAdapter
from segment_svc import api as segment

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "services" / "gateway" / "src" / "gateway" / "routes" / "openapi.json"
PROBLEM = {
    "type": "object",
    "description": "RFC 9457; `type` ends in a stable slug",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}, "code": {"type": "string"}},
            },
        },
    },
}
REFUSED = {
    "description": "Refused",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}


def described(name: str, *routers: APIRouter) -> dict[str, Any]:
    """The OpenAPI document of one service, its schemas prefixed with the service's name."""
    app = FastAPI(
        title="Footfall",
        version="1",
        generate_unique_id_function=lambda route: route.name,
        separate_input_output_schemas=False,
    )
    for router in routers:
        app.include_router(router)
    return json.loads(json.dumps(app.openapi()).replace("#/components/schemas/", f"#/components/schemas/{name}"))


def document() -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    paths: dict[str, Any] = {**DESCRIBED}
    decision = TypeAdapter(Decision).json_schema(ref_template="#/components/schemas/{model}")
    schemas: dict[str, Any] = {"Problem": PROBLEM, **decision.pop("$defs"), "Decision": decision}
    for name, routers in {
        "": (shop.router, merchants.router),
        "Segment": (segment.merchants,),
        "Content": (content.merchants,),
        "Promo": (promo.merchants,),
    }.items():
        one = described(name, *routers)
        for path, item in one["paths"].items():
            if not name:
                paths[path] = item
            elif path.split("/")[2] in OWNERS:
                paths[f"/admin{path}"] = item
        schemas |= {f"{name}{key}": schema for key, schema in one.get("components", {}).get("schemas", {}).items()}
    for path, item in paths.items():
        for operation in item.values():
            operation["tags"] = ["admin" if path.startswith("/admin") else "storefront"]
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = REFUSED
            passed = [p for p in operation.get("parameters", []) if p["name"] != "x-api-key"]
            operation["parameters"] = passed
    names = Counter(operation["operationId"] for item in paths.values() for operation in item.values())
    assert max(names.values()) == 1, names.most_common(3)
    used = json.dumps(paths)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Footfall", "version": "1"},
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": _reachable(schemas, used),
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
                "customer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            },
        },
    }


def _reachable(schemas: dict[str, Any], text: str) -> dict[str, Any]:
    """The schemas that something shown refers to."""
    found: dict[str, Any] = {}
    while new := {k: s for k, s in schemas.items() if k not in found and f'"#/components/schemas/{k}"' in text}:
        found |= new
        text = json.dumps(found)
    return found


def main() -> int:
    """Write or check."""
    text = json.dumps(document(), indent=1, sort_keys=True) + "\n"
    if "--check" in sys.argv:
        return 0 if TARGET.exists() and TARGET.read_text() == text else 1
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
