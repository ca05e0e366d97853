"""One event from JSON and from protobuf; bad bytes get a reason; generated code and catalogue agree with the sources."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from contracts import topics
from contracts.codec import MESSAGES, Codec, plausible
from contracts.fields import Implausible, Undecodable
from google.protobuf import json_format

ROOT = Path(__file__).resolve().parents[2]
CODEC = Codec()
NOW = 1_795_514_400_000
EXAMPLES = sorted((ROOT / "proto" / "examples").rglob("*.json"))


def envelope(**more: Any) -> dict[str, Any]:
    base = {"specversion": "1.0", "id": "1", "source": "s", "type": "product_view", "time": "2026-11-24T10:00:00Z"}
    return {**base, "subject": "visitor:a", "data": {"sku": "A"}, **more}


def decode(value: Any) -> Any:
    return CODEC.decode(json.dumps(value).encode() if not isinstance(value, bytes) else value, ())


class TestExamples:
    @pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
    def test_an_example_reads_the_same_from_both_forms(self, path: Path) -> None:
        raw = json.loads(path.read_text())
        event = decode(raw)
        plausible(event, NOW)
        assert topics.TOPIC_OF[raw["type"]] == path.parent.name
        message = json_format.ParseDict(raw["data"], MESSAGES[raw["type"]]())
        headers = [("content-type", b"application/protobuf"), ("ce_website", raw.get("website", "main").encode())]
        headers += [(f"ce_{n}", raw[n].encode()) for n in ("id", "source", "type", "time", "subject")]
        assert CODEC.decode(message.SerializeToString(), headers) == event

    def test_every_type_has_an_example(self) -> None:
        assert {json.loads(p.read_text())["type"] for p in EXAMPLES} == set(MESSAGES)


class TestBadInput:
    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            (b"{", "not-an-event"),
            (b"\xff\xfe", "not-an-event"),
            (b"[" * 100_000, "not-an-event"),
            (b'{"id": NaN}', "not-an-event"),
            (envelope(type="nonsense"), "unknown-type"),
            (envelope(specversion="2.0"), "unknown-version"),
            (envelope(data={"sku": 7}), "wrong-type"),
            (envelope(data={"price": {"amount": 1.5, "currency": "EUR"}}), "wrong-type"),
            (envelope(data={"price": {"amount": "--5", "currency": "EUR"}}), "wrong-type"),
            (envelope(data={"price": {"amount": "٣", "currency": "EUR"}}), "wrong-type"),
            *(
                (envelope(data={"price": {"amount": 1, "currency": code}}), "wrong-type")
                for code in ("euro", "eur", "EURO", "", "XXQ", "XXX", "XTS", "XAU", ["EUR"])
            ),
            (envelope(time="yesterday"), "bad-time"),
            (envelope(time="2026-11-24T10:00:00"), "bad-time"),
            (b"x" * 300_000, "too-large"),
        ],
    )
    def test_it_is_undecodable_with_a_stable_reason(self, value: Any, reason: str) -> None:
        with pytest.raises(Undecodable) as caught:
            decode(value)
        assert caught.value.reason == reason

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            (envelope(time="2036-11-24T10:00:00Z"), "time-ahead"),
            (envelope(time="1970-01-21T10:00:00Z"), "time-long-past"),
            (envelope(subject="a"), "bad-subject"),
            (envelope(subject="visitor:" + "x" * 300), "bad-subject"),
            (envelope(id=""), "bad-id"),
            (envelope(type="login", data={"visitor_id": "字" * 300, "customer_id": "1"}), "bad-subject"),
            (envelope(type="login", subject="customer:1", data={"visitor_id": "v", "customer_id": "2"}), "bad-subject"),
            (envelope(type="identify", subject="customer:1", data={"visitor_id": ""}), "bad-subject"),
            (envelope(type="order_placed", data={"grand_total": {"amount": 1, "currency": "EUR"}}), "missing-field"),
            (envelope(type="refund_issued", data={"order_id": ""}), "missing-field"),
            (envelope(data={"price": {"amount": -1, "currency": "EUR"}}), "negative"),
            (envelope(data={"sku": "a\0b"}), "nul-character"),
            (envelope(data={"sku": "a" * 3000}), "too-long"),
            (envelope(data={"price": {"amount": 2**63, "currency": "EUR"}}), "out-of-range"),
            (envelope(type="custom", data={"name": "x", "props": {"n": 10**26}}), "out-of-range"),
            (envelope(type="custom", data={"name": "x", "props": {"n": [[[[[[[[[]]]]]]]]]}}), "too-large"),
            (envelope(type="custom", data={"name": "x", "props": {"n": [0] * 501}}), "too-large"),
            (envelope(type="custom", data={"name": "x", "props": {"n" * 101: 1}}), "bad-name"),
            (envelope(type="custom", data={"name": "x y"}), "bad-name"),
            (envelope(type="cart_update", data={"items": [{}] * 501}), "too-long"),
            (
                envelope(type="custom", data={"name": "x", "props": {f"k{i}": "x" * 1900 for i in range(9)}}),
                "too-large",
            ),
        ],
    )
    def test_it_is_implausible_with_a_stable_reason(self, value: Any, reason: str) -> None:
        with pytest.raises(Implausible) as caught:
            plausible(decode(value), NOW)
        assert caught.value.reason == reason

    def test_two_currencies_in_one_order_are_refused(self) -> None:
        money = lambda c: {"amount": 1, "currency": c}  # noqa: E731
        with pytest.raises(Implausible, match="mixed-currency"):
            decode(
                envelope(
                    type="order_placed", data={"orderId": "1", "grandTotal": money("EUR"), "subtotal": money("USD")}
                )
            )

    @pytest.mark.parametrize("value", [None, "yes", 1, "true"])
    def test_only_true_or_false_is_said_of_a_purpose(self, value: Any) -> None:
        with pytest.raises(Undecodable, match=r"wrong-type: data\.purposes\.analytics"):
            decode(envelope(type="consent_changed", data={"purposes": {"analytics": value}}))

    def test_fields_nobody_knows_are_dropped_and_counted(self) -> None:
        event = decode(envelope(type="add_to_cart", data={"item": {"sku": "A", "colour": 1}, "extra": {"a": [1]}}))
        assert (event.data, event.dropped) == ({"item": {"sku": "A"}}, 2)


class TestSources:
    def test_the_generated_code_is_what_the_sources_give(self) -> None:
        done = subprocess.run(
            [sys.executable, str(ROOT / "tools/protogen.py"), "--check"], check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    def test_the_asyncapi_document_is_what_the_sources_give(self) -> None:
        done = subprocess.run([sys.executable, str(ROOT / "tools/asyncapi.py"), "--check"], check=False)
        assert done.returncode == 0, "run make proto"

    def test_the_catalogue_and_the_constants_agree(self) -> None:
        catalogue = yaml.safe_load((ROOT / "proto/topics/catalogue.yaml").read_text())
        assert {
            name: tuple(entry["types"]) for name, entry in catalogue.items() if name in topics.INPUT
        } == topics.INPUT
        for name, entry in catalogue.items():
            assert topics.SHAPES[name] == (entry["partitions"], entry["retention_days"])
            assert entry["dead_letter"] == (f"{name}.dlq" if name in topics.INPUT else "none")
        assert set(topics.SHAPES) == set(catalogue) | {f"{topic}.dlq" for topic in topics.INPUT}
        assert all(days < 30 for _, days in topics.SHAPES.values())
