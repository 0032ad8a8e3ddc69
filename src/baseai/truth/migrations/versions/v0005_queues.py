"""Queues: who may use how much of the fleet, and in which turn.

A queue belongs to a tenant, and may be kept to one of its projects; without a tenant everybody may wait in it. The root
and the `default` that every tenant has of its own have no row. What queues hold and had is read from the leases.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE queues (
  name text PRIMARY KEY CHECK (name ~ '^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$' AND name NOT IN ('default', 'root')),
  parent text REFERENCES queues CHECK (parent <> name),
  weight double precision NOT NULL DEFAULT 1 CHECK (weight > 0 AND weight < 'Infinity'),
  quota jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(quota) = 'object'),
  limits jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(limits) = 'object'),
  half_life_s double precision CHECK (half_life_s > 0 AND half_life_s < 'Infinity'),
  tenant_id text REFERENCES tenants, project_id text REFERENCES projects,
  set_by text NOT NULL, set_at timestamptz NOT NULL DEFAULT now(),
  CHECK (project_id IS NULL OR tenant_id IS NOT NULL));

-- Of the spec, so that queues can be counted. A run of before there were queues is in its tenant's default.
ALTER TABLE runs
  ADD COLUMN queue text NOT NULL GENERATED ALWAYS AS (coalesce(spec->>'queue', 'default')) STORED,
  ADD COLUMN spot boolean NOT NULL GENERATED ALWAYS AS (coalesce(spec->'spot' = 'true', false)) STORED;
CREATE INDEX runs_queue ON runs (queue) WHERE state NOT IN ('succeeded', 'failed', 'cancelled');
-- What ended lately, for what queues had.
CREATE INDEX leases_released ON leases (released_at);

CREATE TRIGGER queues_tick AFTER INSERT OR UPDATE OR DELETE ON queues
  FOR EACH STATEMENT EXECUTE FUNCTION tell_tick();

GRANT SELECT, INSERT, UPDATE, DELETE ON queues TO baseai_service;

-- Everybody's queues are seen by everybody, a tenant's by it alone; the platform sets them.
ALTER TABLE queues ENABLE ROW LEVEL SECURITY;
ALTER TABLE queues FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON queues
  USING (tenant_id IS NULL OR tenant_id = current_setting('baseai.tenant', true)
    OR current_setting('baseai.tenant', true) = '*')
  WITH CHECK (current_setting('baseai.tenant', true) = '*');
"""


def upgrade() -> None:
    op.execute(TABLES)


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead: history is not thrown away by a command")
