"""What bodies of merchants may hold, whichever service takes them: the websites that keys are of, and no look-alikes."""

from __future__ import annotations

import hashlib
import json
from types import SimpleNamespace
from typing import Any

import pytest
from chassis.problems import Problem
from content_svc.schemas import DynamicBlock, SlotBody
from fastapi import Request
from gateway.adapters.keys import Keys
from gateway.routes import shop
from msgspec import ValidationError as OddKey
from promo_svc.schemas import CartRule
from pydantic import BaseModel, ValidationError
from segment_svc.schemas import Choice, Definition, Draft

SHOWN = {"schemaVersion": 1, "blocks": [{"id": "a", "type": "text", "props": {"text": "x"}}]}
SOUND: dict[type[BaseModel], dict[str, Any]] = {
    Definition: {"name": "n", "condition": {}, "overrides": [{"profile": "c:x", "include": True, "reason": "r"}]},
    Draft: {"condition": {}},
    DynamicBlock: {"title": "t", "content": {"*": SHOWN}},
    SlotBody: {"title": "t", "default": {"*": SHOWN}},
    CartRule: {"name": "n", "action": {"type": "percent", "value": 10}},
}
FLAGS, NUMBERS = ("no", "off", "true", 0, 1, 1.0, None), ("1800000000000", 1_800_000_000_000.0, True)
TYPED: list[tuple[type[BaseModel], str, tuple[Any, ...]]] = [
    (Definition, "/overrides/0/include", FLAGS), (Definition, "/overrides/0/until", NUMBERS),
    (DynamicBlock, "/priority", ("1", 1.0, True)), (DynamicBlock, "/starts_at", NUMBERS),
    (DynamicBlock, "/content/*/schemaVersion", ("1", 1.0, True)), (SlotBody, "/capacity", ("1", 1.0, True)),
    (CartRule, "/stop", FLAGS), (CartRule, "/all_groups", FLAGS), (CartRule, "/priority", ("1", 1.0, True)),
    (CartRule, "/uses_total", ("1", 1.0, True)), (CartRule, "/action/step", ("1", 1.0, True)), (CartRule, "/ends_at", NUMBERS),
]  # fmt: skip


def key_of(website: str) -> Keys:
    return Keys(
        json.dumps([{"id": "k", "sha256": hashlib.sha256(b"k").hexdigest(), "kind": "secret", "website": website}])
    )


def changed(body: Any, pointer: str, value: Any) -> Any:
    """A copy of the body with the value at the pointer."""
    copy = json.loads(json.dumps(body))
    *way, last = pointer.strip("/").split("/")
    at = copy
    for step in way:
        at = at[int(step)] if isinstance(at, list) else at[step]
    at[last] = value
    return copy


class TestWebsites:
    @pytest.mark.parametrize("website", ["main", "shop.de", "DE", "de_AT-2", "2", "x" * 63])
    def test_what_a_key_can_be_of_can_have_all_that_merchants_make(self, website: str) -> None:
        assert key_of(website).websites == {website}
        for model, body in SOUND.items():
            model.model_validate({**body, "websites": [website]})

    @pytest.mark.parametrize("website", ["", "x" * 64, "a b", "a/b", "é", "main\n"])
    def test_what_no_key_can_be_of_can_have_nothing(self, website: str) -> None:
        with pytest.raises(OddKey):
            key_of(website)
        for model, body in SOUND.items():
            with pytest.raises(ValidationError):
                model.model_validate({**body, "websites": [website]})


class TestTypes:
    @pytest.mark.parametrize(("model", "pointer", "values"), TYPED)
    def test_what_only_looks_like_a_number_or_a_truth_value_is_refused(
        self, model: type[BaseModel], pointer: str, values: tuple[Any, ...]
    ) -> None:
        model.model_validate(SOUND[model])
        for value in values:
            with pytest.raises(ValidationError) as refused:
                model.model_validate(changed(SOUND[model], pointer, value))
            assert "".join(f"/{step}" for step in refused.value.errors()[0]["loc"]) == pointer

    def test_a_choice_is_still_read_by_its_name(self) -> None:
        assert Choice.model_validate({"from": 5}).from_ == 5


@pytest.mark.parametrize("body", [b"[]", b"null", b"7", b'"x"'])
async def test_a_body_that_is_no_object_is_pointed_at(body: bytes) -> None:
    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    scope = {
        "type": "http",
        "method": "POST",
        "headers": [],
        "raw_path": b"/",
        "query_string": b"",
        "client": None,
    }
    deps: Any = SimpleNamespace(reader=SimpleNamespace(address=lambda _: "192.0.2.1"))
    with pytest.raises(Problem) as refused:
        await shop._object_of(Request(scope, receive), deps)
    assert (refused.value.status, [e["pointer"] for e in refused.value.errors]) == (422, [""])
