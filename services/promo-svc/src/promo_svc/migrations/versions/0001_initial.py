"""First shape of the promo schema."""

from alembic import op
from chassis.documents import DOCUMENTS_DDL
from chassis.outbox import OUTBOX_DDL

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

STATEMENTS = (
    *DOCUMENTS_DDL,
    *OUTBOX_DDL,
    # `used` counts reservations that may still be confirmed, and confirmed ones, of a rule: not of its key, which another
    # rule may have had. Whoever changes redemptions of a rule locks its row first.
    "CREATE TABLE coupon_use (rule_id int PRIMARY KEY, used int NOT NULL DEFAULT 0)",
    """CREATE TABLE redemption (
        id uuid PRIMARY KEY,
        website text NOT NULL,
        idempotency_key text NOT NULL,
        request text NOT NULL,
        rule_id int NOT NULL,
        rule text NOT NULL,
        customer text NOT NULL,
        status text NOT NULL,
        expires_at bigint NOT NULL,
        UNIQUE (website, idempotency_key)
    )""",
    "CREATE INDEX redemption_customer ON redemption (rule_id, customer) WHERE status IN ('reserved', 'confirmed')",
    "CREATE INDEX redemption_expiry ON redemption (rule_id, expires_at) WHERE status = 'reserved'",
)


def upgrade() -> None:
    """Create every table."""
    for statement in STATEMENTS:
        op.execute(statement)
