"""Keys of some websites: they see what is of one of these, or of all, and change only what these alone notice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
from devstack.stack import Secrets, Stack

pytestmark = [pytest.mark.servers, pytest.mark.slow]
WEBSITES = {"de": ["de"], "at": ["at"], "both": ["at", "de"], "all": []}
SEEN = {"de": {"de", "both", "all"}, "boss": set(WEBSITES)}
TEXT = {"*": {"schemaVersion": 1, "blocks": [{"id": "a", "type": "heading", "props": {"text": "hi"}}]}}
BODIES: dict[str, dict[str, Any]] = {
    "segments": {
        "name": "N",
        "status": "active",
        "condition": {"orders": {"measure": "count", "op": "gte", "value": 1}},
    },
    "slots": {"title": "T", "default": TEXT},
    "blocks": {"title": "T", "status": "live", "slots": [], "content": TEXT},
    "cart-rules": {"name": "N", "status": "live", "all_groups": True, "action": {"type": "percent", "value": 5}},
}
VIEWS = {
    "segments": ["/versions", "/members", "/members.csv", "/explain?profile=v:a"],
    "blocks": ["/versions"],
    "cart-rules": ["/versions"],
}


@pytest.fixture(scope="module")
def ask(services: Callable[..., AbstractContextManager[Stack]], state: Path) -> Iterator[Callable[..., httpx.Response]]:
    home = state / "websites"
    home.mkdir()
    keys = json.loads(Secrets.of(home).keys())
    for name, websites in (("boss", []), ("de", ["de"])):
        secret = hashlib.sha256(name.encode()).hexdigest()
        keys.append({"id": name, "sha256": secret, "kind": "admin", "role": "marketer", "websites": websites})
    with (
        services("websites", extra={"gateway": {"KEYS": json.dumps(keys)}}) as stack,
        httpx.Client(base_url=f"{stack.url}/admin/v1", timeout=30) as client,
    ):

        def send(who: str, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
            return client.request(method, path, json=body, headers={"x-api-key": who, **headers})

        for noun, body in BODIES.items():
            for key, websites in WEBSITES.items():
                made = send("boss", "POST", f"/{noun}", {"key": f"k-{key}", **body, "websites": websites})
                assert made.status_code == 201, made.text
        yield send


@pytest.mark.parametrize("noun", BODIES)
class TestEachKind:
    @pytest.mark.parametrize("who", SEEN)
    def test_what_is_of_other_websites_is_not_there(
        self, ask: Callable[..., httpx.Response], noun: str, who: str
    ) -> None:
        (listed,) = ask(who, "GET", f"/{noun}").json().values()
        assert {found["key"] for found in listed if found["key"].startswith("k-")} == {f"k-{key}" for key in SEEN[who]}
        nowhere = ask(who, "GET", f"/{noun}/nowhere")
        views = ["", *VIEWS.get(noun, ())]
        for key in WEBSITES:
            for view in views:
                found = ask(who, "GET", f"/{noun}/k-{key}{view}")
                assert (found.status_code == 404) is (key not in SEEN[who]), (key, view, found.text)
                assert found.status_code != 404 or found.content == nowhere.content

    def test_a_key_changes_what_its_websites_alone_notice(self, ask: Callable[..., httpx.Response], noun: str) -> None:
        for key, websites in WEBSITES.items():
            body = {"key": f"n-{key}", **BODIES[noun], "websites": websites}
            made = ask("de", "POST", f"/{noun}", body)
            assert made.status_code == (201 if key == "de" else 403), (key, made.text)
            at = f"/{noun}/k-{key}"
            current = ask("boss", "GET", at).headers["etag"]
            for change in (BODIES[noun] | {"websites": ["de"]}, None):
                method = "DELETE" if change is None else "PUT"
                changed = ask("de", method, at, change, **{"if-match": current})
                assert (changed.status_code == 403) is (key != "de"), (key, method, changed.text)
                if changed.status_code == 403:
                    assert changed.json()["type"].endswith(":not-your-website")
                elif change is not None:
                    current = ask("boss", "GET", at).headers["etag"]

    def test_nor_does_it_give_away_what_is_its_own(self, ask: Callable[..., httpx.Response], noun: str) -> None:
        body = {"key": "g-de", **BODIES[noun], "websites": ["de"]}
        made = ask("de", "POST", f"/{noun}", body)
        assert made.status_code == 201
        del body["key"]
        for websites in ([], ["at"], ["at", "de"]):
            given = ask("de", "PUT", f"/{noun}/g-de", body | {"websites": websites}, **{"if-match": '"1"'})
            assert given.status_code == 403, websites


def test_a_kill_and_the_pipe_are_everybodys(ask: Callable[..., httpx.Response]) -> None:
    kill = {"kind": "block", "key": "k-de"}
    assert ask("de", "POST", "/kills", kill).status_code == 403
    assert ask("de", "DELETE", "/kills/block/k-de").status_code == 403
    assert ask("de", "PUT", "/positions/topic/0", {"from": "earliest"}).status_code == 403
    assert ask("boss", "PUT", "/positions/topic/0", {"from": "earliest"}).status_code == 404


def test_the_segments_of_other_websites_stand_in_no_list(ask: Callable[..., httpx.Response]) -> None:
    for who, hidden in (("boss", False), ("de", True)):
        backfills = ask(who, "GET", "/backfills").json()["backfills"]
        named = {key for backfill in backfills for key in backfill["segments"]}
        assert ("k-at" in named, "k-both" in named) == (not hidden, True)
