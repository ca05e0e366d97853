"""A name or key is no place for an e-mail address or a phone number; what only has many digits is none."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from segment_svc.schemas import NewDefinition

PLAIN = [
    "Black Friday 2026-11-27", "Spent 1000 - 20000", "SKU 1234567890", "Postcodes 80331 - 81929", "27.11.2026 - 30.11.2026",
    "27/11/2026", "2026-11-27 10:00 - 2026-11-30 23:59", "01-12-2026", "2026-11-27/2026-11-30", "20261127-20261130",
    "Spent 1 000 000 - 2 000 000", "EAN 4006381333931", "ISBN 978-3-16-148410-0", "00770 and 12E3", "Order 2026-000123456",
    "Spent +1000 - 20000", "0900 - 1700", "8:00-20:00", "Orders 100-200 in 2026", "a @ b", "@handle", "Top 10000000",
]  # fmt: skip
PERSONAL = [
    "ann@example.com", "for ann.b@shop.co.uk only", "+49 89 1234567", "call +491711234567", "+49 (0)171 123 45 67",
    "+1 555-123-4567", "0049 171 1234567", "00491711234567", "(089) 1234567", "089/1234567", "0171 1234567", "0171-1234567",
    "0171 123 45 67", "(555) 223-4567", "555-223-4567", "Ann 555.223.4567",
]  # fmt: skip


def made(name: str = "n", key: str = "k") -> NewDefinition:
    return NewDefinition(name=name, key=key, condition={})


class TestNames:
    @pytest.mark.parametrize("name", PLAIN)
    def test_dates_ranges_amounts_and_codes_are_names(self, name: str) -> None:
        assert made(name).name == name

    @pytest.mark.parametrize("name", PERSONAL)
    def test_what_is_clearly_of_a_person_is_none(self, name: str) -> None:
        with pytest.raises(ValidationError, match="personal data"):
            made(name)

    def test_so_it_is_with_keys(self) -> None:
        for key in ("sale-2026-11-27", "spent-1000-20000", "sku-1234567890"):
            assert made(key=key).key == key
        for key in ("ann-0171-1234567", "ann-00491711234567"):
            with pytest.raises(ValidationError, match="personal data"):
                made(key=key)
