"""GET /v1/decisions, whichever way it came: `begin` reads a request, `now` answers from memory, `later` asks for the rest."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from chassis.problems import Problem

from gateway.adapters.keys import ApiKey, Keys
from gateway.adapters.limits import Limiter
from gateway.domain import cors, membership, probing
from gateway.domain.answer import Answer
from gateway.domain.dimensions import Seen
from gateway.domain.kept import Kept
from gateway.domain.membership import Known
from gateway.domain.release import Release
from gateway.domain.reply import Reply
from gateway.domain.sharing import Proof, proof, shareable
from gateway.domain.signing import Ring
from gateway.domain.targeting import MOST_LOCALE, SLOTS, Plan, are_slots
from gateway.flows import people
from gateway.flows.decide import Decider, decided, look_up, ready
from gateway.flows.probe import Probes
from gateway.lanes.request import Reader, Request

PATH = b"/v1/decisions"
METHODS = ("GET", "HEAD")
MOST_PLANS = 32 << 20  # bytes
PROOF = (b"x-edge-key", b"x-edge-mask", b"x-edge-aud", b"x-edge-proof", b"x-api-key")
NOBODY: dict[str, str] = {}

DESCRIBED: dict[str, Any] = {
    PATH.decode(): {
        "get": {
            "operationId": "get_decisions",
            "summary": "Which blocks for this visitor",
            "description": "Answers for the visitor cookie or the customer token, in the context the other parameters "
            "give, with ETag, tags and a TTL that ends at the next boundary.",
            "security": [{"key": []}, {"key": [], "customer": []}],
            "parameters": [
                {"name": "slots", "in": "query", "required": True, "schema": {"type": "string"},
                 "description": f"{SLOTS}, with commas between"},
                {"name": "locale", "in": "query", "schema": {"type": "string", "default": "*", "maxLength": MOST_LOCALE}},
            ],
            "responses": {"200": {"description": "Blocks per slot, messages, and what was degraded"},
                          "304": {"description": "As the ETag of If-None-Match"}},
        }
    }
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Question:
    """A request that is right as far as it says itself. `proven`: how an edge keys it, if one asks; `identity`: of whom.

    Without a `key` one of us asks, to try an edge: the question is signed. `unread`: their document was asked for, and
    did not come.
    """

    request: Request
    key: ApiKey | None
    proven: Proof | None
    identity: bytes | None
    unread: bool = False

    @property
    def of_a_stranger(self) -> bool:
        """Whether an edge asks for what a stranger sees."""
        return self.proven is not None and self.proven.base


class Decisions:
    """It remembers the plan of a query string as long as nothing is published."""

    def __init__(
        self,
        decider: Decider,
        keys: Keys,
        reader: Reader,
        limiter: Limiter,
        *,
        edges: Ring,
        visitors: Ring,
        probes: Probes,
    ) -> None:
        self._decider, self._keys, self._reader, self._limiter = decider, keys, reader, limiter
        self._edges, self._visitors, self._probes = edges, visitors, probes
        self._plans: Kept[tuple[bytes, str], Plan] = Kept(MOST_PLANS)

    def begin(self, request: Request) -> Question:
        """Who asks what, and whether he may. Raises Problem 400, 401, 403, 405, 429."""
        if request.method not in METHODS:
            raise Problem("method-not-allowed", 405, "Method not allowed", headers={"allow": ", ".join(METHODS)})
        known = self._keys.find(request.fields.get(b"x-api-key", b""))
        if known is None or known.kind != "secret":
            self._limiter.take_of(self._reader.address(request))
        proven = self._proof(request)
        identity = None if proven is not None and proven.base else self._reader.identity(request)
        if probing.MARK in request.query:
            return Question(request, None, proven, identity)
        key = self._keys.require(request.fields.get(b"x-api-key"), ("publishable", "secret"))
        self._plan(request, self._decider.knowledge.release, key)
        self._limiter.take(key.id, person=None if key.kind == "secret" or identity is None else identity.decode())
        return Question(request, key, proven, identity)

    def now(self, question: Question) -> Reply | None:
        """The answer, if everything it takes is in memory."""
        if question.key is None:
            return self._probed(question)
        decider, now_ms = self._decider, self._decider.clock.now_ms()
        release = decider.knowledge.release
        known = self._remembered(question, release, now_ms)
        if known is None:
            return None
        plan = self._plan(question.request, release, question.key)
        seen = self._seen(question, plan, known)
        answer = ready(decider, release, plan, known, seen, now_ms)
        return None if answer is None else self._reply(question, release, plan, known, seen, answer)

    async def later(self, question: Question) -> Reply:
        """The answer, whatever it takes."""
        decider, now_ms, key = self._decider, self._decider.clock.now_ms(), question.key
        assert key is not None  # `now` answers the others
        known = self._remembered(question, decider.knowledge.release, now_ms)
        known = known or await look_up(decider, question.identity, now_ms)
        release, plan, seen, answer = await decided(
            decider,
            lambda release: self._plan(question.request, release, key),
            lambda plan: self._seen(question, plan, known),
            known,
            now_ms,
        )
        return self._reply(question, release, plan, known, seen, answer)

    def document(self, question: Question) -> asyncio.Future[Any] | None:
        """What to wait for when somebody's document is all that is missing, perhaps. Raises PipeUnavailable."""
        pipe, identity = self._decider.pipe, question.identity
        if identity is None or pipe.remembered(people.KEY + identity) is not None:
            return None
        return pipe.get(people.KEY + identity)

    def _remembered(self, question: Question, release: Release, now_ms: int) -> Known | None:
        if question.unread and question.identity is not None:
            return membership.unknown(release.definitions, question.identity)
        return people.remembered(self._decider.pipe, release.definitions, question.identity, now_ms)

    def _seen(self, question: Question, plan: Plan, known: Known) -> Seen:
        if question.of_a_stranger or not plan.late:
            return known.seen(NOBODY, NOBODY)
        return known.seen(self._reader.facts(question.request), self._reader.page(question.request))

    def _reply(
        self, question: Question, release: Release, plan: Plan, known: Known, seen: Seen, answer: Answer
    ) -> Reply:
        proven = question.proven
        share = (
            proven is not None
            and known.epoch >= plan.epoch
            and shareable(plan, seen, proven)
            and self._may_share(release, proven)
        )
        return self._said(question, answer, share=share)

    def _said(self, question: Question, answer: Answer, *, share: bool) -> Reply:
        reply = answer.reply(share=share, known=question.request.fields.get(b"if-none-match", b""))
        origins = () if question.key is None else question.key.origins
        return cors.shown(reply, origins, question.request.fields.get(b"origin"), shared=share)

    def _may_share(self, release: Release, proven: Proof) -> bool:
        """Whether an edge may keep an answer: when it is trusted, and this is the newest there is, for certain."""
        known = self._decider.knowledge
        newest = release is known.release and known.is_newest(asyncio.get_running_loop().time())
        return self._probes.trusts(proven.key_id) and newest

    def _probed(self, question: Question) -> Reply:
        """The page by which an edge is tried: by the same law, but before the edge is trusted. Raises Problem 400."""
        request, proven = question.request, question.proven
        name = request.parameters().get("slots", "")
        if not probing.genuine(self._edges, name):
            raise Problem("invalid-request", 400, "The request is not valid")
        asker = probing.who(self._visitors, name, (question.identity or b"").decode().removeprefix("v:"))
        facts = {} if question.of_a_stranger else self._reader.facts(request)
        share = shareable(probing.plan(name), probing.seen(asker, facts), proven)
        now_ms = self._decider.clock.now_ms()
        answer = probing.page(name, asker, facts, proven.key_id if proven else "", now_ms=now_ms)
        return self._said(question, answer, share=share)

    def _proof(self, request: Request) -> Proof | None:
        if b"x-edge-proof" not in request.fields:
            return None
        key_id, mask, audience, signature, key = (request.fields.get(name, b"").decode("latin-1") for name in PROOF)
        url = f"{PATH.decode()}?{request.query.decode('latin-1')}"
        return proof(self._edges, key_id=key_id, mask=mask, audience=audience, signature=signature, key=key, url=url)

    def _plan(self, request: Request, release: Release, key: ApiKey) -> Plan:
        found = self._plans.get((request.query, key.website))
        if found is not None and found.release == release.number:
            return found
        plan = self._read(request, release, key)
        self._plans.put((request.query, key.website), plan, len(request.query) + plan.size)
        return plan

    def _read(self, request: Request, release: Release, key: ApiKey) -> Plan:
        asked = request.parameters()
        slots = [s for s in asked.get("slots", "").split(",") if s]
        if not slots or not are_slots(slots):
            errors = [{"pointer": "/slots", "detail": SLOTS}]
            raise Problem("invalid-request", 400, "The request is not valid", errors=errors)
        return release.plan(key.website, sorted(set(slots)), asked.get("locale", "*")[:MOST_LOCALE])
