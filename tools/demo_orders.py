"""python tools/demo_orders.py SOURCE.csv.gz: cuts the demo shop's orders from a copy of UCI Online Retail.

SOURCE has the columns ts, invoice_no, is_cancellation, customer_id, stock_code, description, quantity, amount_minor.
Kept: the first customers by id that ordered at least three times, their orders with up to four lines each.
"""

from __future__ import annotations

import csv
import gzip
import sys
from collections import defaultdict
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "packages/devstack/src/devstack/shop/data/orders.csv.gz"
CUSTOMERS, LINES = 250, 4


def main(source: str) -> None:
    """Write the extract: customer, order, ts, total_minor, sku, name, quantity, price_minor."""
    orders: dict[str, dict[str, list[dict[str, str]]]] = defaultdict(lambda: defaultdict(list))
    with gzip.open(source, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["is_cancellation"] in ("0", "false", "False") and int(row["amount_minor"]) > 0:
                orders[row["customer_id"]][row["invoice_no"]].append(row)
    chosen = sorted(c for c, found in orders.items() if len(found) >= 3)[:CUSTOMERS]
    with gzip.open(TARGET, "wt", encoding="utf-8", newline="", compresslevel=9) as file:
        out = csv.writer(file)
        out.writerow(["customer", "order", "ts", "total_minor", "sku", "name", "quantity", "price_minor"])
        for customer in chosen:
            for order, lines in orders[customer].items():
                total = sum(int(line["amount_minor"]) for line in lines)
                for line in lines[:LINES]:
                    quantity = int(line["quantity"])
                    price = int(line["amount_minor"]) // quantity
                    out.writerow(
                        [
                            customer,
                            order,
                            line["ts"],
                            total,
                            line["stock_code"],
                            line["description"].strip(),
                            quantity,
                            price,
                        ]
                    )


if __name__ == "__main__":
    main(sys.argv[1])
