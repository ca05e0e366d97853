"""What a cart must be before anybody is asked, and what it comes to without promotions."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from contracts.currencies import EXPONENTS
from gateway.domain.cart import FIELDS, MOST_AMOUNT, MOST_FAULTS, MOST_LINES, MOST_QUANTITY, MOST_TOTAL, faults, plain
from hypothesis import given
from hypothesis import strategies as st

LINE = {"id": "1", "price": 100}
LINES = st.lists(
    st.tuples(st.integers(0, MOST_AMOUNT), st.integers(1, MOST_QUANTITY)).map(
        lambda drawn: {"id": "x", "price": drawn[0], "quantity": drawn[1], "sku": "s"}
    ),
    max_size=4,
)


class TestFaults:
    @pytest.mark.parametrize(
        ("change", "pointers"),
        [
            ({"lines": None}, ["/lines"]),
            ({"lines": {}}, ["/lines"]),
            ({"lines": [LINE] * (MOST_LINES + 1)}, ["/lines"]),
            ({"lines": [LINE, 7]}, ["/lines/1"]),
            ({"lines": [{}]}, ["/lines/0/id", "/lines/0/price"]),
            ({"lines": [LINE, {**LINE, "id": ""}, {**LINE, "id": 3}]}, ["/lines/1/id", "/lines/2/id"]),
            ({"lines": [{**LINE, "id": "x" * 201}]}, ["/lines/0/id"]),
            *(
                ({"lines": [{**LINE, "price": price}]}, ["/lines/0/price"])
                for price in (-1, 1.0, True, None, "100", MOST_AMOUNT + 1, 10**30, [])
            ),
            *(
                ({"lines": [{**LINE, "quantity": quantity}]}, ["/lines/0/quantity"])
                for quantity in (0, -1, 1.0, True, None, "1", MOST_QUANTITY + 1)
            ),
            *(({"shipping": shipping}, ["/shipping"]) for shipping in (-1, 0.5, True, None, MOST_AMOUNT + 1)),
            *(
                ({"currency": currency}, ["/currency"])
                for currency in ("eur", "EURO", "EUR\n", "", None, 3, ["EUR"], "XXQ", "XXX", "XTS", "XAU")
            ),
            *(({"coupons": coupons}, ["/coupons"]) for coupons in ("TEN", None, [3], ["x"] * 51)),
            ({"lines": [{}], "shipping": -1}, ["/lines/0/id", "/lines/0/price", "/shipping"]),
        ],
    )
    def test_each_is_pointed_at(self, change: dict[str, Any], pointers: list[str]) -> None:
        assert faults({"lines": [LINE], "shipping": 0}, EXPONENTS) == []
        assert [pointer for pointer, _ in faults({"lines": [LINE], **change}, EXPONENTS)] == pointers

    def test_a_cart_of_nothing_but_faults_names_the_first(self) -> None:
        assert len(faults({"lines": [7] * MOST_LINES}, EXPONENTS)) == MOST_FAULTS

    @given(lines=LINES, shipping=st.integers(0, MOST_AMOUNT))
    def test_what_is_taken_can_be_written_and_comes_to_what_its_lines_say(
        self, lines: list[dict[str, Any]], shipping: int
    ) -> None:
        total = sum(line["price"] * line["quantity"] for line in lines) + shipping
        cart = {"lines": lines, "shipping": shipping}
        if total > MOST_TOTAL:
            assert [pointer for pointer, _ in faults(cart, EXPONENTS)] == ["/lines"]
            return
        assert faults(cart, EXPONENTS) == []
        found = msgspec.json.decode(msgspec.json.encode(plain(cart)))
        assert found["grand_total"] == total
        assert found["subtotal"] == total - shipping
        assert [line["final"] for line in found["lines"]] == [line["price"] * line["quantity"] for line in lines]
        assert {line["discount"] for line in found["lines"]} <= {0}
        assert found["discount"] == found["items_discount"] == found["shipping_discount"] == 0

    def test_what_is_not_said_is_one_piece_no_shipping_and_euros(self) -> None:
        found = plain({"lines": [LINE]})
        assert (found["grand_total"], found["currency"], found["lines"][0]["quantity"]) == (100, "EUR", 1)
        assert set(FIELDS) == {"lines", "currency", "shipping", "coupons"}
