"""First shape of the segment schema: the hot tables are keyed by profile so that they can be sharded by it."""

from alembic import op
from chassis.outbox import OUTBOX_DDL

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

STATEMENTS = (
    # Truth about people. `state` is the folded profile (segment_svc.domain.profile), `atoms` the current bitset,
    # `document` what readers see. A merged visitor keeps a row that only says where it went. `not_before`: who could not be
    # evaluated when a flip was due is not looked at until then.
    """CREATE TABLE profile (
        profile text PRIMARY KEY,
        website text NOT NULL,
        kind smallint NOT NULL GENERATED ALWAYS AS ((profile LIKE 'c:%')::int) STORED,
        customer text GENERATED ALWAYS AS (CASE WHEN profile LIKE 'c:%' THEN substr(profile, 3) END) STORED,
        merged_into text,
        version bigint NOT NULL,
        stamp bigint NOT NULL,
        next_flip_at bigint,
        not_before bigint,
        settled_at bigint NOT NULL,
        atoms bytea NOT NULL,
        document bytea,
        state bytea COMPRESSION lz4 NOT NULL
    ) WITH (fillfactor = 70)""",
    "CREATE INDEX profile_due ON profile ((greatest(next_flip_at, not_before))) WHERE next_flip_at IS NOT NULL",
    "CREATE INDEX profile_left_out ON profile (profile) WHERE not_before IS NOT NULL",
    """CREATE TABLE identity (
        profile text NOT NULL,
        identity text NOT NULL,
        since bigint NOT NULL,
        PRIMARY KEY (profile, identity)
    )""",
    "CREATE INDEX identity_identity ON identity (identity)",
    # What people did, for history beyond what a profile keeps: the columns of segment_svc.domain.activity. It is read
    # whole, by backfills, and appending is all a batch does to it: so no index.
    """CREATE TABLE activity (
        profile text NOT NULL,
        received_at bigint NOT NULL,
        occurred_at bigint NOT NULL,
        id_hash bigint NOT NULL,
        type text NOT NULL,
        website text NOT NULL,
        props bytea NOT NULL
    ) PARTITION BY RANGE (received_at)""",
    "CREATE TABLE activity_default PARTITION OF activity DEFAULT",
    """CREATE TABLE membership (
        profile text NOT NULL,
        segment_id int NOT NULL,
        since bigint NOT NULL,
        cause text NOT NULL,
        definition_version int NOT NULL,
        PRIMARY KEY (profile, segment_id)
    )""",
    "CREATE INDEX membership_segment ON membership (segment_id, profile)",
    """CREATE TABLE transition (
        id bigint GENERATED ALWAYS AS IDENTITY,
        profile text NOT NULL,
        segment_id int NOT NULL,
        at bigint NOT NULL,
        entered boolean NOT NULL,
        cause text NOT NULL,
        definition_version int NOT NULL,
        source_event text
    )""",
    "CREATE INDEX transition_profile ON transition (profile, segment_id, at)",
    # `next_offset` may be -2 (the earliest there is). `last_ms`: the time of the record
    # before it, by which a topic that was made anew is known. `halted`: why a worker does not go on.
    """CREATE TABLE position (
        topic text NOT NULL,
        partition int NOT NULL,
        next_offset bigint NOT NULL,
        last_ms bigint,
        halted text,
        PRIMARY KEY (topic, partition)
    )""",
    """CREATE TABLE segment (
        id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        key text NOT NULL UNIQUE,
        version int NOT NULL
    )""",
    """CREATE TABLE segment_version (
        segment_id int NOT NULL REFERENCES segment ON DELETE CASCADE,
        version int NOT NULL,
        body jsonb NOT NULL,
        actor text NOT NULL,
        saved_at bigint NOT NULL,
        websites text[] NOT NULL,
        bytes int NOT NULL,
        PRIMARY KEY (segment_id, version)
    )""",
    # One row: the bits that segments have not had in this epoch. When there are too few, a new one begins with those that are
    # nobody's then: no document of an earlier epoch is asked what they are.
    """CREATE TABLE free_atoms (
        one boolean PRIMARY KEY DEFAULT true CHECK (one),
        epoch int NOT NULL,
        atoms smallint[] NOT NULL
    )""",
    "INSERT INTO free_atoms (epoch, atoms) VALUES (0, '{}')",
    # How a version is computed: which bits of `profile.atoms` are its. A live plan serves; a shadow plan is being
    # backfilled and takes the live one's place at the swap. `cause`: why
    # it is quarantined, if it is: nobody is in a live one, and a shadow one will not serve.
    # `since`: the release it began to serve in. `waiting`: its job has not begun, so nobody goes by it yet (segment_svc.jobs).
    """CREATE TABLE plan (
        id bigserial PRIMARY KEY,
        segment_id int NOT NULL,
        version int NOT NULL,
        atoms smallint[] NOT NULL,
        epoch int NOT NULL,
        live boolean NOT NULL,
        waiting boolean NOT NULL DEFAULT false CHECK (NOT (live AND waiting)),
        since bigint NOT NULL DEFAULT 0,
        cause text,
        FOREIGN KEY (segment_id, version) REFERENCES segment_version ON DELETE CASCADE,
        UNIQUE (segment_id, live)
    )""",
    # One row: the number of the newest release, and how often the database went back.
    """CREATE TABLE release_head (
        one boolean PRIMARY KEY DEFAULT true CHECK (one),
        version bigint NOT NULL, era int NOT NULL DEFAULT 0 CHECK (era BETWEEN 0 AND 65535),
        stamp uuid NOT NULL DEFAULT gen_random_uuid()
    )""",
    "INSERT INTO release_head (version) VALUES (1)",
    # The run of Redis to which documents are handed, and when somebody last reached it.
    """CREATE TABLE home (
        one boolean PRIMARY KEY DEFAULT true CHECK (one), run text NOT NULL, at timestamptz NOT NULL DEFAULT now()
    )""",
    "INSERT INTO home (run) VALUES ('')",
    "CREATE TABLE release (version bigint PRIMARY KEY, tags text[] NOT NULL, at bigint NOT NULL)",
    # `status`: running, waiting, done, or replaced: by a later change of all that it was for.
    """CREATE TABLE backfill (
        id bigserial PRIMARY KEY,
        segments int[] NOT NULL,
        status text NOT NULL,
        cursor text NOT NULL DEFAULT '',
        done bigint NOT NULL DEFAULT 0,
        total bigint NOT NULL DEFAULT 0,
        entered bigint NOT NULL DEFAULT 0,
        exited bigint NOT NULL DEFAULT 0,
        created_at bigint NOT NULL,
        finished_at bigint
    )""",
    "CREATE UNIQUE INDEX backfill_one ON backfill (status) WHERE status IN ('running', 'waiting')",
    # One row: how far time had come (epoch ms) when workers last looked.
    "CREATE TABLE reached (one boolean PRIMARY KEY DEFAULT true CHECK (one), at bigint NOT NULL)",
    "INSERT INTO reached (at) VALUES (0)",
    # What documents in Redis may be of: see segment_svc.handover.
    "CREATE TABLE handed (token bytea PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())",
    "CREATE INDEX handed_at ON handed (at)",
    *OUTBOX_DDL,
)


def upgrade() -> None:
    """Create every table."""
    for statement in STATEMENTS:
        op.execute(statement)
