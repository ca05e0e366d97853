"""GET /v1/decisions, whichever way it came: `begin` reads a request, `now` answers from memory, `later` asks for the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
from chassis.problems import Problem

from gateway.adapters.keys import ApiKey, Keys
from gateway.adapters.limits import Limiter
from gateway.domain import aud, cors, membership, probing
from gateway.domain.answer import Answer, is_known
from gateway.domain.aud import Aud
from gateway.domain.dimensions import Seen, audience
from gateway.domain.kept import Kept
from gateway.domain.membership import Known
from gateway.domain.release import Release
from gateway.domain.reply import Headers, Reply
from gateway.domain.sharing import BASE, Proof, proof, shareable
from gateway.domain.signing import Rings
from gateway.domain.targeting import MOST_LOCALE, SLOTS, Plan, are_slots
from gateway.flows import people
from gateway.flows.decide import Decider, decided, ready
from gateway.flows.people import Person, Who, look_up
from gateway.flows.probe import Probes
from gateway.lanes.request import Reader, Request

PATH = b"/v1/decisions"
METHODS = ("GET", "HEAD")
SPECIAL = frozenset((b"authorization", b"x-edge-proof", b"x-front-key"))  # by which more is said than by a cookie
MOST_PLANS, MOST_ASKED = 32 << 20, 16 << 20  # bytes
PROOF = (b"x-edge-key", b"x-edge-mask", b"x-edge-aud", b"x-edge-proof", b"x-api-key")
NAMED = aud.PARAMETER.encode() + b"="
# Better than an empty page: edges have copies, and shops their own defaults.
NOTHING_YET = Problem("starting", 503, "It is not known yet what there is", headers={"retry-after": "1"})

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
                {"name": aud.PARAMETER, "in": "query", "schema": {"type": "string"},
                 "description": "For caches that key by the URL alone: what X-Aud said of this URL, or nothing, to be told"},
            ],
            "responses": {"200": {"description": "Blocks per slot, messages, and what was degraded",
                                  "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Decision"}}}},
                          "304": {"description": "As the ETag of If-None-Match"}},
        }
    }
}  # fmt: skip


class Question(NamedTuple):
    """A request that is right as far as it says itself. `proven`: how an edge keys it, if one asks; `identity`: of whom.

    Without a `key` one of us asks, to try an edge: the question is signed. `unread`: their document was asked for, and
    did not come. `plan`: by the release of when it came. `aud`: what the URL says of its audience; `cache`: the key of one that
    says that it keys by the URL.
    """

    request: Request
    key: ApiKey | None
    plan: Plan | None
    proven: Proof | None
    identity: bytes | None
    unread: bool = False
    aud: Aud | None = None
    cache: str = ""

    @property
    def of_a_stranger(self) -> bool:
        """Whether an edge asks for what a stranger sees."""
        return self.proven is not None and self.proven.base


class Usual(msgspec.Struct, frozen=True, gc=False):
    """What is asked with a key of a browser, by a visitor, or by somebody nobody knows. `fields`: see Request."""

    key: ApiKey
    plan: Plan
    identity: bytes | None
    fields: Mapping[bytes, bytes]

    def question(self, query: bytes, client: str, *, unread: bool) -> Question:
        """The same, for who has to do more."""
        request = Request("GET", PATH, query, self.fields, client)
        return Question(request, self.key, self.plan, None, self.identity, unread)


class Asker(NamedTuple):
    """For whom an answer is made, and for whom it may be kept; `by_url`: whoever asks with this URL."""

    known: Known
    seen: Seen
    proven: Proof | None
    by_url: bool = False


class Decisions:
    """It remembers the plan of a query string as long as nothing is published."""

    def __init__(
        self,
        decider: Decider,
        keys: Keys,
        reader: Reader,
        limiter: Limiter,
        *,
        rings: Rings,
        probes: Probes,
    ) -> None:
        self._decider, self._keys, self._reader, self._limiter = decider, keys, reader, limiter
        self._rings, self._probes = rings, probes
        self._plans: Kept[tuple[bytes, str], Plan] = Kept(MOST_PLANS)
        self._asked: Kept[tuple[bytes, bytes | None], tuple[ApiKey, Plan]] = Kept(MOST_ASKED)

    def usual(self, query: bytes, fields: Mapping[bytes, bytes], client: str) -> Usual | None:
        """What is asked once more with a key, by a browser that says of itself only who it is; it is counted. For all else there
        is `begin`. Raises Problem 429.
        """
        found = self._asked.get((query, fields.get(b"x-api-key")))
        if (
            found is None
            or found[1].release != self._decider.knowledge.release.number
            or not SPECIAL.isdisjoint(fields)
        ):
            return None
        identity = self._reader.visitor(fields.get(b"cookie"))
        self._limiter.take(found[0].id, person=identity, address=client)
        return Usual(found[0], found[1], identity, fields)

    def met(self, usual: Usual, person: Person | None) -> Reply | None:
        """The answer for a person who is known, or for nobody, if it was made before."""
        plan, identity, decider, now_ms = usual.plan, usual.identity, self._decider, self._decider.clock.now_ms()
        release = decider.knowledge.current()
        if plan.release != release.number or plan.late:
            return None
        answer = None if person is None else person.last(plan, now_ms)
        if answer is not None:
            decider.knowledge.hits += 1
            return self._private(answer, usual.key, usual.fields)
        if identity is None or person is None:
            known = membership.known_of(release.definitions, None, None, now_ms)
        else:
            known = person.known(release.definitions, identity, now_ms)
        answer = ready(decider, release, plan, known, known.seen, now_ms)
        if answer is None:
            return None
        if person is not None:
            person.answered(answer)
        return self._private(answer, usual.key, usual.fields)

    def begin(self, request: Request) -> Question:
        """Who asks what, and whether he may. Raises Problem 400, 401, 403, 405, 429, and 503 before anything is known."""
        if request.method not in METHODS:
            raise Problem("method-not-allowed", 405, "Method not allowed", headers={"allow": ", ".join(METHODS)})
        known = self._keys.find(request.fields.get(b"x-api-key", b""))
        if known is None or known.kind != "secret":
            self._limiter.take_of(self._reader.address(request))
        proven = self._proof(request)
        identity = None if proven is not None and proven.base else self._reader.identity(request)
        if probing.MARK in request.query:
            return self._by_url(Question(request, None, None, proven, identity))
        key = self._keys.require(request.fields.get(b"x-api-key"), ("publishable", "secret"))
        if not self._decider.knowledge.is_any:
            raise NOTHING_YET
        plan = self._plan(request, self._decider.knowledge.release, key)
        self._limiter.take(key.id, person=None if key.kind == "secret" else identity)
        question = Question(request, key, plan, proven, identity)
        if NAMED in request.query:
            return self._by_url(question)
        if key.kind == "publishable":
            text = request.fields[b"x-api-key"]
            self._asked.put((request.query, text), (key, plan), len(request.query) + len(text) + plan.size)
        return question

    def _by_url(self, question: Question) -> Question:
        request = question.request
        if request.query.count(NAMED) != 1:
            return question
        website, said = "" if question.key is None else question.key.website, request.parameters()
        found = aud.read(self._rings.aud, said.get(aud.PARAMETER, ""), website, now_ms=self._decider.clock.now_ms())
        return question._replace(aud=found, cache=self._reader.cache(request))

    def now(self, question: Question) -> Reply | None:
        """The answer, if everything it takes is in memory."""
        if question.key is None:
            return self._probed(question)
        decider, now_ms, plan = self._decider, self._decider.clock.now_ms(), question.plan
        release = decider.knowledge.current()
        if plan is None or plan.release != release.number:
            plan = self._plan(question.request, release, question.key)
        asker = None if question.aud is None else self._told(question, plan, empty=release.definitions.empty)
        if asker is None:
            who = self._remembered(question)
            if who is None:
                return None
            known = who.known(release.definitions, now_ms)
            asker = Asker(known, self._seen(question, plan, known), question.proven)
        answer = ready(decider, release, plan, asker.known, asker.seen, now_ms)
        return None if answer is None else self._reply(question, release, plan, asker, answer)

    async def later(self, question: Question) -> Reply:
        """The answer, whatever it takes."""
        decider, now_ms, key = self._decider, self._decider.clock.now_ms(), question.key
        assert key is not None  # `now` answers the others
        release = decider.knowledge.current()
        told = self._told(question, self._plan(question.request, release, key), empty=release.definitions.empty)
        who = None if told else self._remembered(question) or await look_up(decider.pipe, question.identity)

        def by(release: Release) -> tuple[Plan, Known, Seen]:
            plan = self._plan(question.request, release, key)
            if who is None:
                assert told is not None
                return plan, told.known, told.seen
            known = who.known(release.definitions, now_ms)
            return plan, known, self._seen(question, plan, known)

        release, plan, known, seen, answer = await decided(decider, by, now_ms)
        if (
            told and self._told(question, plan, empty=release.definitions.empty) != told
        ):  # by this release it says nothing
            return await self.later(question._replace(aud=None))
        return self._reply(question, release, plan, told or Asker(known, seen, question.proven), answer)

    def person(self, identity: bytes | None) -> Person | None:
        """Who is remembered."""
        return None if identity is None else self._decider.pipe.remembered(people.KEY + identity)

    def read(self, identity: bytes, tell: Callable[[Person | None], None]) -> None:
        """Have `tell` called with somebody who is not, or with None. Raises PipeUnavailable."""
        self._decider.pipe.ask(people.KEY + identity, tell)

    def _remembered(self, question: Question) -> Who | None:
        return Who(question.identity) if question.unread else people.remembered(self._decider.pipe, question.identity)

    def _told(self, question: Question, plan: Plan, *, empty: int) -> Asker | None:
        """Who asks as the URL has it, whoever it is; `empty`: the bits of a stranger."""
        seen = None if question.aud is None else aud.seen_by(plan, question.aud, empty)
        if seen is None:
            return None
        keyed = (BASE, "") if question.aud is aud.STRANGERS else (plan.mask, audience(plan.dimensions, seen))
        proven = Proof(*keyed, question.cache) if question.cache else None
        return Asker(Known(seen), seen, proven, by_url=True)

    def _seen(self, question: Question, plan: Plan, known: Known) -> Seen:
        if question.of_a_stranger or not plan.late:
            return known.seen
        return known.asking(self._reader.facts(question.request), self._reader.page(question.request))

    def _reply(self, question: Question, release: Release, plan: Plan, asker: Asker, answer: Answer) -> Reply:
        proven = asker.proven
        share = (
            proven is not None
            and asker.known.epoch >= plan.epoch
            and shareable(plan, asker.seen, proven)
            and self._may_share(release, proven)
        )
        reply = self._said(question, answer, share=share, told=question.aud if asker.by_url else None)
        if share or asker.by_url or NAMED not in question.request.query or question.identity is None:
            return reply
        return reply.marked(self._to_ask_with(release, plan, asker))

    def _said(self, question: Question, answer: Answer, *, share: bool, told: Aud | None) -> Reply:
        if not share:
            return self._private(answer, question.key, question.request.fields)
        origins = () if question.key is None else question.key.origins
        known = question.request.fields.get(b"if-none-match", b"")
        if told is None:
            reply = cors.shared(answer.shared(), origins)
        else:
            reply = cors.by_url(answer.by_url(told.left_s(self._decider.clock.now_ms())), origins)
        return reply.unchanged() if known and is_known(answer.etag, known) else reply

    def _private(self, answer: Answer, key: ApiKey | None, fields: Mapping[bytes, bytes]) -> Reply:
        reply, known = answer.private, fields.get(b"if-none-match")
        if key is not None and key.origins:
            reply = reply.marked(cors.of(key.origins, fields.get(b"origin")))
        return reply.unchanged() if known and is_known(answer.etag, known) else reply

    def _to_ask_with(self, release: Release, plan: Plan, asker: Asker) -> Headers:
        """With which `aud` somebody is to ask for this URL from now on, and until when (epoch seconds)."""
        known = self._decider.knowledge
        if asker.known.epoch < plan.epoch or not known.loaded or release.withheld:
            return []
        steers = any(d.name in release.visible(plan.website).steering for d in plan.dimensions)
        minute = aud.last_minute(self._decider.clock.now_ms(), steering=steers, until_ms=asker.known.until)
        text = None if minute is None else aud.write(self._rings.aud, plan, asker.seen, minute=minute)
        return [] if minute is None or text is None else [
            (b"x-aud", text.encode()), (b"x-aud-until", b"%d" % (minute * 60))
        ]  # fmt: skip

    def _may_share(self, release: Release, proven: Proof) -> bool:
        """Whether an edge may keep an answer: when it is trusted, and this is the newest there is, for certain."""
        known = self._decider.knowledge
        newest = release is known.release and known.is_newest(asyncio.get_running_loop().time())
        return newest and self._probes.trusts(proven.key_id)

    def _probed(self, question: Question) -> Reply:
        """The page by which an edge is tried: by the same law, but before the edge is trusted. Raises Problem 400."""
        request, proven = question.request, question.proven
        name = request.parameters().get("slots", "")
        if not probing.genuine(self._rings.edge, name):
            raise Problem("invalid-request", 400, "The request is not valid")
        plan, told = probing.plan(name), self._told(question, probing.plan(name), empty=0)
        if told is not None:
            seen, proven = told.seen, told.proven
        else:
            asker = probing.who(self._rings.visitor, name, (question.identity or b"").decode().removeprefix("v:"))
            seen = probing.seen(asker, {} if question.of_a_stranger else self._reader.facts(request))
        answer = probing.page(name, seen, proven.key_id if proven else "", now_ms=self._decider.clock.now_ms())
        share = shareable(plan, seen, proven)
        return self._said(question, answer, share=share, told=None if told is None else question.aud)

    def _proof(self, request: Request) -> Proof | None:
        if b"x-edge-proof" not in request.fields:
            return None
        key_id, mask, audience, signature, key = (request.fields.get(name, b"").decode("latin-1") for name in PROOF)
        url = f"{PATH.decode()}?{request.query.decode('latin-1')}"
        return proof(
            self._rings.edge, key_id=key_id, mask=mask, audience=audience, signature=signature, key=key, url=url
        )

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
