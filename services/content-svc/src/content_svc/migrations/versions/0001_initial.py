"""First shape of the content schema."""

from alembic import op
from chassis.documents import DOCUMENTS_DDL
from chassis.outbox import OUTBOX_DDL

from content_svc.kills import KILLS_DDL

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create every table."""
    for statement in (*DOCUMENTS_DDL, *OUTBOX_DDL, *KILLS_DDL):
        op.execute(statement)
