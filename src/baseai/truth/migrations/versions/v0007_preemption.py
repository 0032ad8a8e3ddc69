"""Preemption: which attempt was asked to make room, for whom, and what that took of its work.

A row is made with the asking and completed once when the attempt is over. A tenant reads its own; whom they made room
for is named through `runs`, which hides what is another tenant's.
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE preemptions (
  run_id text NOT NULL, attempt_no integer NOT NULL, tenant_id text NOT NULL, project_id text NOT NULL,
  for_run text REFERENCES runs, -- NULL: for what is reserved
  decided_accelerator_s double precision CHECK (decided_accelerator_s >= 0),
  asked_at timestamptz NOT NULL DEFAULT now(),
  stopped_at timestamptz, saved_step bigint, saved_at timestamptz,
  lost_accelerator_s double precision CHECK (lost_accelerator_s >= 0),
  PRIMARY KEY (run_id, attempt_no), FOREIGN KEY (run_id, attempt_no) REFERENCES attempts,
  CHECK (for_run <> run_id), CHECK ((stopped_at IS NULL) = (lost_accelerator_s IS NULL)));
-- Whom a run made go, and how often in the last hour.
CREATE INDEX preemptions_for ON preemptions (for_run);
CREATE INDEX preemptions_asked ON preemptions (asked_at);

-- Those that live are few among all that ever were.
CREATE INDEX attempts_live ON attempts (run_id) WHERE state <> 'ended';
-- When a run saved last, and what was written down since.
ALTER TABLE checkpoints ADD COLUMN recorded_at timestamptz NOT NULL DEFAULT now();
CREATE INDEX checkpoints_newest ON checkpoints (run_id, committed_at DESC);
CREATE INDEX checkpoints_recorded ON checkpoints (recorded_at);

GRANT SELECT, INSERT, UPDATE ON preemptions TO baseai_service;

ALTER TABLE preemptions ENABLE ROW LEVEL SECURITY;
ALTER TABLE preemptions FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON preemptions USING (tenant_id = current_setting('baseai.tenant', true)
  OR current_setting('baseai.tenant', true) = '*');
"""


def upgrade() -> None:
    op.execute(TABLES)


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead: history is not thrown away by a command")
