"""Called by the cart and by redemptions. Asks promo-svc on behalf of somebody, by one release; by the next one, when promo-svc
has left that behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import httpx

from gateway.adapters.upstreams import PROMO
from gateway.deps import Deps
from gateway.domain import kills, membership
from gateway.domain.membership import Known
from gateway.domain.release import OF_PROMO, Release
from gateway.domain.targeting import Definitions, epoch_of
from gateway.flows.decide import late_bits
from gateway.flows.people import Who

OTHER_VERSION = 412


@dataclass(frozen=True, slots=True)
class Shopper:
    """Who asks, at which website and instant. `facts` are what is trusted of the request."""

    who: Who
    website: str
    now_ms: int
    facts: Mapping[str, str]
    locale: str = "*"

    def known(self, definitions: Definitions) -> Known:
        """What is known of them by these definitions."""
        return self.who.known(definitions, self.now_ms)


class Said(NamedTuple):
    """What promo-svc answers, by which definitions, and whether all is known of the shopper that it takes."""

    answer: httpx.Response
    membership_version: int
    sure: bool


async def ask(deps: Deps, shopper: Shopper, path: str, body: Mapping[str, Any], **more: Any) -> Said | None:
    """None while it cannot be asked, or says nothing; before the gateway knows what is published and what is killed, too, and
    while it is known that rules may have ended of which it knows nothing.
    """
    known = deps.decider.knowledge
    for _ in range(2):
        release = known.current()
        if not known.is_any or OF_PROMO in release.stale:
            return None
        asked, sure = _asked(deps, release, shopper)
        try:
            answer = await deps.upstreams.send(PROMO, "POST", path, json={**body, **asked}, **more)
        except httpx.HTTPError:
            return None
        if answer.status_code != OTHER_VERSION:
            return Said(answer, release.definitions.version, sure)
        known.outdated.set()
        await known.newer_than(release, deps.decider.budget_s)
    return None


def _asked(deps: Deps, release: Release, shopper: Shopper) -> tuple[dict[str, Any], bool]:
    """Whom promo-svc is asked for, and whether their document says all of the segments that rules name."""
    named, definitions = release.promo["segments"], release.definitions
    who = shopper.known(definitions)
    refs = definitions.of(shopper.website, named)
    seen = who.asking(shopper.facts, {})
    late = late_bits(deps.decider, release, [r for r in refs if r.atom is None], seen, shopper.locale, shopper.now_ms)
    standing = membership.standing(
        refs, definitions.undefined(named, shopper.website), who.seen.atoms, late, epoch=who.epoch
    )
    killed, standing = kills.keys(deps.decider.knowledge.kills, "rule"), membership.for_prices(standing, refs)
    asked = {"website": shopper.website, "at_ms": shopper.now_ms, "killed": killed, **who.asked(standing)}
    asked["version"] = release.versions[OF_PROMO] or None
    return asked, who.epoch >= epoch_of(refs) and not (release.withheld and named)
