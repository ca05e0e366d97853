"""An answer is shared and kept only if it is of the version that is known: replicas learn of a publish one by one."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from chassis.clock import SystemClock
from gateway.domain.kept import Kept
from gateway.flows import decide as flow
from gateway.flows.decide import Decider
from gateway.flows.knowledge import Knowledge
from rigged import DEFAULT, KEYS, asked, decisions, release, slot, stranger_asks

KNOWN = 2


class Service:
    """Answers from replicas of these versions in turn, the last one for good."""

    def __init__(self, *versions: int) -> None:
        self.versions, self.asked, self.more = list(versions), 0, dict[str, Any]()
        self.going: asyncio.Event | None = None  # answers wait for it

    async def ask(self, question: Mapping[str, Any]) -> Any:
        self.asked += 1
        version = self.versions.pop(0) if len(self.versions) > 1 else self.versions[0]
        slots = {} if self.more else {"top": {"fallback": False, "blocks": [f"v{version}"]}}
        messages = [] if self.more else [f"v{version}"]
        if self.going is not None:
            await self.going.wait()
        return {"version": version, "slots": slots, "messages": messages, "tags": ["t"], **self.more}


def publish(knowledge: Knowledge, version: int) -> None:
    knowledge.swap(*release(version, top=slot()))


def shop(content: Service, promo: Service) -> Decider:
    none: Any = None
    asked: tuple[Any, Any] = (content, promo)
    made = Decider(Knowledge(), none, *asked, SystemClock(), ZoneInfo("UTC"), 5.0, 60, Kept(1 << 20))
    publish(made.knowledge, KNOWN)
    return made


async def get(decider: Decider) -> tuple[dict[str, Any], str]:
    """(body, cache-control) of one request."""
    answer = await stranger_asks(decider, "top")
    return flow.decode(answer.body), dict(answer.shared().headers)[b"cache-control"].decode()


async def test_of_what_may_have_ended_nothing_is_shown_from_memory_nor_asked_for() -> None:
    content, promo = Service(KNOWN), Service(KNOWN)
    decider = shop(content, promo)
    body, _ = await get(decider)
    assert (body["slots"]["top"]["blocks"], body["messages"]) == (["v2"], ["v2"])
    decider.knowledge.swap(*release(KNOWN, top=slot()), stale={1})
    asked_before = content.asked
    body, _ = await get(decider)
    assert (body["slots"]["top"]["blocks"], body["messages"]) == (DEFAULT, ["v2"])
    assert (body["degraded"], content.asked) == (["content"], asked_before)
    decider.knowledge.swap(*release(KNOWN, top=slot()), stale={2})
    body, _ = await get(decider)
    assert (body["slots"]["top"]["blocks"], body["messages"], body["degraded"]) == (["v2"], [], ["promotions"])


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "AGAIN_S", 0.0)


async def test_a_replica_that_is_a_moment_behind_is_asked_once_more() -> None:
    content, promo = Service(KNOWN - 1, KNOWN), Service(KNOWN - 1, KNOWN)
    decider = shop(content, promo)
    body, cache = await get(decider)
    assert (body["slots"]["top"]["blocks"], body["messages"]) == (["v2"], ["v2"])
    assert cache.startswith("public")
    await get(decider)
    assert (content.asked, promo.asked) == (2, 2)


@pytest.mark.parametrize(("part", "name"), [(0, "content"), (1, "promotions")])
@pytest.mark.parametrize("other", [KNOWN - 1, KNOWN + 1])
async def test_an_answer_of_another_version_counts_for_nothing(
    monkeypatch: pytest.MonkeyPatch, part: int, name: str, other: int
) -> None:
    services = [Service(KNOWN), Service(KNOWN)]
    services[part].versions = [other]
    decider = shop(*services)
    decider = replace(decider, budget_s=0.05)
    body, _ = await get(decider)
    assert body["degraded"] == [name]
    assert [body["slots"]["top"]["blocks"], body["messages"]][part] == [DEFAULT, []][part]
    assert len(decider.last_good) == 1
    assert decider.knowledge.outdated.is_set() is (other > KNOWN)
    assert len(decider.knowledge.release.answers) == (other < KNOWN), (
        "who left the release behind will not come back to it"
    )


@pytest.mark.parametrize("part", [0, 1])
async def test_a_service_that_left_a_release_behind_is_asked_by_the_next_one(part: int) -> None:
    services = [Service(KNOWN), Service(KNOWN)]
    services[part].versions = [KNOWN + 1]
    decider = shop(*services)
    asking = asyncio.create_task(get(decider))
    await decider.knowledge.outdated.wait()
    services[1 - part].versions = [KNOWN + 1]
    publish(decider.knowledge, KNOWN + 1)
    body, cache = await asking
    assert (body["slots"]["top"]["blocks"], body["messages"]) == (["v3"], ["v3"])
    assert cache.startswith("public")


@pytest.mark.parametrize(("part", "name"), [(0, "content"), (1, "promotions")])
async def test_what_a_service_refuses_is_no_good_answer(part: int, name: str) -> None:
    services = [Service(KNOWN), Service(KNOWN)]
    services[part].more = {"refused": [{"pointer": "/group", "detail": "is too long"}]}
    decider = shop(*services)
    body, cache = await get(decider)
    assert body["degraded"] == [name]
    assert "s-maxage=5, stale-while-revalidate=0, stale-if-error=0" in cache
    assert len(decider.last_good) == 1


async def test_nobody_waits_for_an_answer_that_was_begun_before_a_publish() -> None:
    content = Service(KNOWN)
    decider, content.going = shop(content, Service(KNOWN)), (going := asyncio.Event())
    before = asyncio.create_task(get(decider))
    await asyncio.sleep(0)
    publish(decider.knowledge, KNOWN)
    content.going = None
    assert (await get(decider))[0]["messages"] == ["v2"]
    going.set()
    assert (await before)[0]["messages"] == ["v2"]


def test_queries_of_old_releases_keep_no_plans_of_theirs() -> None:
    decider, key = shop(Service(KNOWN), Service(KNOWN)), KEYS.require(b"k", ("publishable",))
    known, door, refs = decider.knowledge, decisions(decider, KEYS), []
    for version in range(3, 9):
        publish(known, version)
        refs.append(weakref.ref(known.release.plans))
        one = asked(b"slots=top&path=/%d" % version)
        assert door._plan(one, known.release, key) is door._plan(one, known.release, key)
        assert door._plan(asked(b"slots=top"), known.release, key).release == known.release.number
    gc.collect()
    assert [ref() is not None for ref in refs] == [False] * 5 + [True]
