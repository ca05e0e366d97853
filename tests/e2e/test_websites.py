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
from devstack.testing import until

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


def _key(text: str) -> dict[str, Any]:
    return {"id": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}


@pytest.fixture(scope="module")
def ask(services: Callable[..., AbstractContextManager[Stack]], state: Path) -> Iterator[Callable[..., httpx.Response]]:
    home = state / "websites"
    home.mkdir()
    keys = json.loads(Secrets.of(home).keys())
    for name, websites in (("boss", []), ("de", ["de"])):
        keys.append({**_key(name), "kind": "admin", "role": "marketer", "websites": websites})
    keys += [{**_key(f"shop-{website}"), "kind": "secret", "website": website} for website in ("de", "at")]
    keys += [{**_key(f"page-{website}"), "kind": "publishable", "website": website} for website in ("de", "at")]
    with (
        services("websites", extra={"gateway": {"KEYS": json.dumps(keys)}}) as stack,
        httpx.Client(base_url=stack.url, timeout=30) as client,
    ):

        def send(who: str, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
            path = path if path.startswith("/v1/") else f"/admin/v1{path}"
            return client.request(method, path, json=body, headers={"x-api-key": who, **headers})

        send.url = stack.url  # type: ignore[attr-defined]
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
        listed, more = ask(who, "GET", f"/{noun}").json().values()
        assert more is None
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
                refused = {"at": 404, "both": 403, "all": 403}.get(key)  # what is hidden is not there
                assert refused == (None if changed.is_success else changed.status_code), (key, method, changed.text)
                if changed.status_code == 403:
                    assert changed.json()["type"].endswith(":not-your-website")
                elif change is not None and changed.is_success:
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


def test_no_condition_asks_for_the_members_of_what_is_hidden(ask: Callable[..., httpx.Response]) -> None:
    for key in ("k-at", "k-nowhere"):
        condition = {"segment": {"op": "in", "keys": [key]}}
        body = {"key": f"in-{key}", "name": "N", "status": "active", "websites": ["de"], "condition": condition}
        saved, tried = (
            ask("de", "POST", "/segments", body),
            ask("de", "POST", "/segments/preview", {"condition": condition}),
        )
        for answer in (saved, tried):
            assert answer.status_code == 422
            assert answer.json()["errors"][0]["detail"].startswith(f"there is no active segment '{key}'")
    assert ask(
        "boss", "POST", "/segments/preview", {"condition": {"segment": {"op": "in", "keys": ["k-at"]}}}
    ).is_success


def test_why_is_explained_to_each_of_his_own_websites(ask: Callable[..., httpx.Response]) -> None:
    def why(who: str, *more: str) -> httpx.Response:
        return ask(who, "GET", "/v1/explain?" + "&".join(("profile=v:a", "slots=k-all", *more)))

    for who, website, status in (
        ("de", "at", 403), ("de", "main", 403), ("de", "de", 200), ("boss", "at", 200), ("shop-at", "de", 403),
        ("shop-at", "at", 200),
    ):  # fmt: skip
        assert why(who, f"website={website}").status_code == status, (who, website)
    rule = {**BODIES["cart-rules"], "label": "AT only", "websites": ["at"]}
    assert ask("boss", "POST", "/cart-rules", {"key": "at-only", **rule}).status_code == 201
    told = lambda *asked: {message["rule"] for message in why(*asked).json()["messages"]}  # noqa: E731
    until(lambda: "at-only" in told("boss", "website=at"))
    assert "at-only" in told("shop-at")
    assert "at-only" not in told("de")


def test_a_redemption_is_of_the_website_it_was_made_at(ask: Callable[..., httpx.Response]) -> None:
    rule = {**BODIES["cart-rules"], "coupon": "BOTH", "uses_per_customer": 1}
    assert ask("boss", "POST", "/cart-rules", {"key": "both-have-it", **rule}).status_code == 201
    wish = {"coupon": "BOTH", "customer": "ann"}
    until(lambda: ask("shop-de", "POST", "/v1/redemptions", wish, **{"idempotency-key": "1"}).status_code == 201)
    mine = ask("shop-de", "POST", "/v1/redemptions", wish, **{"idempotency-key": "1"}).json()
    other = ask("shop-at", "POST", "/v1/redemptions", {**wish, "customer": "bob"}, **{"idempotency-key": "1"}).json()
    assert other["id"] != mine["id"]
    for how in ("confirm", "release"):
        assert ask("shop-at", "POST", f"/v1/redemptions/{mine['id']}/{how}").status_code == 404
    assert ask("shop-de", "POST", f"/v1/redemptions/{mine['id']}/confirm").status_code == 200


def test_no_block_is_put_where_nobody_of_his_can_look(ask: Callable[..., httpx.Response]) -> None:
    for key in ("k-at", "k-nowhere"):
        body = {"key": "elsewhere", **BODIES["blocks"], "websites": ["de"], "slots": ["k-all", key]}
        refused = ask("de", "POST", "/blocks", body)
        assert (refused.status_code, refused.json()["errors"]) == (
            422, [{"pointer": "/slots/1", "detail": "there is no such slot"}],
        )  # fmt: skip


def test_a_block_of_one_website_costs_another_no_copies(ask: Callable[..., httpx.Response]) -> None:
    """A page is keyed by what its own website shows, whatever else stands in its slots."""
    assert ask("boss", "POST", "/slots", {"key": "shared", **BODIES["slots"], "websites": []}).status_code == 201
    body = {
        **BODIES["blocks"],
        "slots": ["shared"],
        "websites": ["de"],
        "audience": {"groups": [f"g{n}" for n in range(40)]},
    }
    assert ask("de", "POST", "/blocks", {"key": "many-groups", **body}).status_code == 201

    def told(website: str) -> httpx.Response:
        cookie = httpx.get(f"{ask.url}/v1/context", headers={"x-api-key": f"page-{website}"}).headers["set-cookie"]  # type: ignore[attr-defined]
        path, sent = "/v1/decisions?slots=shared&aud=", {"cookie": cookie.split(";")[0]}
        return ask(f"page-{website}", "GET", path, **sent)

    until(lambda: "x-aud" not in told("de").headers)
    assert "x-aud" in told("at").headers


def test_what_is_heavy_on_one_website_leaves_another_its_room(ask: Callable[..., httpx.Response]) -> None:
    assert (
        ask("boss", "POST", "/slots", {"key": "room", **BODIES["slots"], "capacity": 2, "display": "all"}).status_code
        == 201
    )
    element = {"id": "a", "type": "text", "props": {"text": "x" * 2000}}
    heavy = {"*": {"schemaVersion": 1, "blocks": [{**element, "id": f"a{n}"} for n in range(50)]}}
    saved = [
        ask(
            "boss",
            "POST",
            "/blocks",
            {**BODIES["blocks"], "key": key, "slots": ["room"], "websites": [where], "content": heavy},
        )
        for key, where in (("h1", "de"), ("h2", "de"), ("h3", "at"), ("h4", "at"))
    ]
    assert [answer.status_code for answer in saved] == [201] * 4


class TestNames:
    """What is hidden is named to nobody: by no refusal, and by no explanation."""

    def test_nobody_says_for_whom_by_a_segment_that_he_cannot_see(self, ask: Callable[..., httpx.Response]) -> None:
        for noun, where in (("blocks", "audience"), ("cart-rules", "segments")):
            own = {where: {"any_of": ["k-both"], "none_of": ["k-all"]}, "websites": ["de"]}
            assert ask("de", "POST", f"/{noun}", {"key": "own", **BODIES[noun], **own}).status_code == 201
            for key, method in (("k-at", "POST"), ("k-nowhere", "POST"), ("k-at", "PUT")):
                whom = {where: {"all_of": ["k-both"], "none_of": ["k-all", key]}, "websites": ["de"]}
                at = {"POST": f"/{noun}", "PUT": f"/{noun}/own"}[method]
                body = {**({"key": "hold"} if method == "POST" else {}), **BODIES[noun], **whom}
                refused = ask("de", method, at, body, **{"if-match": '"1"'})
                assert (refused.status_code, refused.json()["errors"]) == (
                    422, [{"pointer": f"/{where}/none_of/1", "detail": "there is no such segment"}],
                )  # fmt: skip

    def test_what_is_in_use_elsewhere_is_in_use_and_no_more(self, ask: Callable[..., httpx.Response]) -> None:
        segment = {"key": "used", **BODIES["segments"], "websites": ["de"]}
        assert ask("de", "POST", "/segments", segment).status_code == 201
        slot = {"key": "used", **BODIES["slots"], "websites": ["de"]}
        assert ask("de", "POST", "/slots", slot).status_code == 201
        for key, websites in (("by-at", ["at"]), ("by-de", ["de"])):
            block = {**BODIES["blocks"], "slots": ["used"], "audience": {"any_of": ["used"]}, "websites": websites}
            assert ask("boss", "POST", "/blocks", {"key": key, **block}).status_code == 201
        for noun in ("segments", "slots"):
            for who, named in (("de", "something of websites that are not yours"), ("boss", "block by-at")):
                refused = ask(who, "DELETE", f"/{noun}/used", **{"if-match": '"1"'})
                assert refused.status_code == 409
                assert {e["detail"] for e in refused.json()["errors"]} == {"block by-de", named}
        hidden = ask("de", "DELETE", "/slots/k-at", **{"if-match": '"1"'})
        assert (hidden.status_code, hidden.json()["type"]) == (404, "urn:footfall:problem:not-found")

    def test_nor_is_it_taken_from_a_website_of_who_uses_it(self, ask: Callable[..., httpx.Response]) -> None:
        both = {"websites": ["at", "de"]}
        assert ask("boss", "POST", "/segments", {"key": "wide", **BODIES["segments"], **both}).status_code == 201
        inside = {"segment": {"op": "in", "keys": ["wide"]}}
        users = [
            ("segments", "wide-seg", {"condition": inside}), ("blocks", "wide-block", {"audience": {"none_of": ["wide"]}}),
            ("cart-rules", "wide-rule", {"segments": {"any_of": ["wide"]}}),
        ]  # fmt: skip
        for noun, key, whom in users:
            for website in ("at", "de"):
                body = {"key": f"{key}-{website}", **BODIES[noun], **whom, "websites": [website]}
                assert ask("boss", "POST", f"/{noun}", body).status_code == 201
        for to, lost in (("de", "at"), ("at", "de")):
            body = {**BODIES["segments"], "websites": [to]}
            refused = ask("boss", "PUT", "/segments/wide", body, **{"if-match": '"1"'})
            assert (refused.status_code, refused.json()["type"]) == (409, "urn:footfall:problem:segment-in-use")
            named = {f"segment wide-seg-{lost}", f"block wide-block-{lost}", f"cart rule wide-rule-{lost}"}
            assert {e["detail"] for e in refused.json()["errors"]} == named
        wider = ask("boss", "PUT", "/segments/wide", BODIES["segments"], **{"if-match": '"1"'})
        assert wider.status_code == 200

    def test_a_code_that_a_hidden_rule_has_can_be_had_and_nobody_learns_of_it(
        self, ask: Callable[..., httpx.Response]
    ) -> None:
        taken = {**BODIES["cart-rules"], "coupon": "TAKEN"}
        assert ask("boss", "POST", "/cart-rules", {"key": "has-it", **taken, "websites": ["at"]}).status_code == 201
        assert ask("de", "POST", "/cart-rules", {"key": "has-it-too", **taken, "websites": ["de"]}).status_code == 201
        for who, websites, named in (("de", ["de"], "has-it-too"), ("boss", ["at"], "has-it")):
            refused = ask(who, "POST", "/cart-rules", {"key": "wants-it", **taken, "websites": websites})
            assert (refused.status_code, refused.json()["errors"]) == (
                422, [{"pointer": "/coupon", "detail": f"the live rule {named} has this code"}],
            )  # fmt: skip

    def test_explain_names_the_blocks_of_his_websites(self, ask: Callable[..., httpx.Response]) -> None:
        assert ask("boss", "POST", "/slots", {"key": "why", **BODIES["slots"]}).status_code == 201
        for key, websites in (("why-at", ["at"]), ("why-de", ["de"]), ("why-all", [])):
            block = {"key": key, **BODIES["blocks"], "slots": ["why"], "websites": websites}
            assert ask("boss", "POST", "/blocks", block).status_code == 201

        def named(who: str) -> set[str]:
            answer = ask(who, "GET", "/v1/explain?profile=v:a&slots=why&website=de")
            return {why["block"] for why in answer.json()["slots"].get("why", ())}

        until(lambda: named("boss") == {"why-at", "why-de", "why-all"})
        assert named("de") == named("shop-de") == {"why-de", "why-all"}

    def test_explain_names_no_slot_or_segment_of_other_websites(self, ask: Callable[..., httpx.Response]) -> None:
        slot = {"key": "whom", **BODIES["slots"]}
        assert ask("boss", "POST", "/slots", slot).status_code == 201
        block = {"key": "whom", **BODIES["blocks"], "slots": ["whom"], "audience": {"any_of": ["k-at"]}}
        assert ask("boss", "POST", "/blocks", block).status_code == 201

        def told(who: str) -> tuple[list[str], set[str]]:
            answer = ask(who, "GET", "/v1/explain?profile=v:a&slots=whom,k-at,k-nowhere&website=de").json()
            return answer["unknown"], set(answer["slots"])

        until(lambda: told("boss") == (["k-at"], {"whom", "k-at"}))
        assert told("de") == told("shop-de") == ([], {"whom"})

    def test_nor_does_the_list_of_kills(self, ask: Callable[..., httpx.Response]) -> None:
        killed = [(kind, f"k-{key}") for kind in ("block", "rule", "slot") for key in ("at", "both", "nowhere")]
        for kind, key in killed:
            assert ask("boss", "POST", "/kills", {"kind": kind, "key": key}).status_code == 200
        for who, seen in (("boss", killed), ("de", [kill for kill in killed if kill[1] == "k-both"])):
            found = ask(who, "GET", "/kills").json()["kills"]
            assert [(kill["kind"], kill["key"]) for kill in found] == seen
        for kind, key in killed:
            assert ask("boss", "DELETE", f"/kills/{kind}/{key}").status_code == 204
