"""When a waiting run was said to start and when it did, and why each attempt started where it did."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TABLES = """
-- Codes and figures as `scheduling.record` writes them; NULL for attempts from before.
ALTER TABLE attempts ADD COLUMN why jsonb;

-- The first thing a run is told each time it waits, which is the one that is held against us.
CREATE TABLE start_estimates (
  run_id text NOT NULL REFERENCES runs, tenant_id text NOT NULL, project_id text NOT NULL,
  models text[] NOT NULL, simulated boolean NOT NULL,
  asked_at timestamptz NOT NULL, earliest_at timestamptz NOT NULL, likely_at timestamptz NOT NULL,
  latest_at timestamptz NOT NULL, fate text CHECK (fate IN ('held', 'early', 'late', 'gone')),
  settled_at timestamptz, started_at timestamptz, PRIMARY KEY (run_id, asked_at),
  CHECK (asked_at <= earliest_at AND earliest_at <= likely_at AND likely_at <= latest_at),
  CHECK ((fate IS NULL) = (settled_at IS NULL)), CHECK (started_at IS NULL OR fate <> 'gone'));
CREATE INDEX start_estimates_open ON start_estimates (run_id) WHERE fate IS NULL;
CREATE INDEX start_estimates_settled ON start_estimates (settled_at) WHERE fate IN ('held', 'early', 'late');
CREATE INDEX attempts_ended ON attempts (ended_at) WHERE state = 'ended';

GRANT SELECT, INSERT, UPDATE ON start_estimates TO baseai_service;
ALTER TABLE start_estimates ENABLE ROW LEVEL SECURITY;
ALTER TABLE start_estimates FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON start_estimates USING (tenant_id = current_setting('baseai.tenant', true)
  OR current_setting('baseai.tenant', true) = '*');
"""


def upgrade() -> None:
    op.execute(TABLES)


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead: history is not thrown away by a command")
