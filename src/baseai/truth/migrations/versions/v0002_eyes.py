"""What nodes measure: their collectors' health, how devices are known, and what each lease used.

`uses` is append-only: a closed hour that must be counted anew gets rows of a higher revision, and `use_hours` names
the revision that holds and what the accelerator's own counters said beside it: as the samples tell (`counter_mj`), and
as the store's own sum of differences (`store_mj`), which is made another way; `apart` where the two contradict.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLES = """
ALTER TABLE accelerators ADD COLUMN uuid text, ADD COLUMN pci text;
CREATE INDEX accelerators_uuid ON accelerators (uuid) WHERE uuid IS NOT NULL;

CREATE TABLE collectors (
  node_id text NOT NULL REFERENCES nodes, name text NOT NULL,
  state text NOT NULL CHECK (state IN ('ok', 'failing', 'off')), interval_s double precision NOT NULL,
  last_ok_at timestamptz, took_ms double precision, failures integer NOT NULL DEFAULT 0,
  sentence text, troubles jsonb NOT NULL DEFAULT '[]', told_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (node_id, name));

-- One row for each hour of each accelerator: opened when the hour is over, closed when its samples are in. `late` rises
-- when samples come for it afterwards, and `look_at` says when the hour is to be looked at next, if at all.
CREATE TABLE use_hours (
  accelerator_no bigint NOT NULL REFERENCES accelerators, hour timestamptz NOT NULL,
  revision integer NOT NULL DEFAULT 0, final boolean NOT NULL DEFAULT false, late integer NOT NULL DEFAULT 0,
  look_at timestamptz DEFAULT now(), content text NOT NULL DEFAULT '',
  counter_mj bigint NOT NULL DEFAULT 0, attributed_mj bigint NOT NULL DEFAULT 0, closed_at timestamptz,
  store_mj bigint, apart boolean NOT NULL DEFAULT false,
  PRIMARY KEY (accelerator_no, hour),
  CHECK (hour = date_trunc('hour', hour, 'UTC')), CHECK ((revision = 0) = (closed_at IS NULL)));
CREATE INDEX use_hours_due ON use_hours (look_at) WHERE look_at IS NOT NULL;

CREATE TABLE uses (
  use_id text PRIMARY KEY,
  accelerator_no bigint NOT NULL REFERENCES accelerators, node_id text NOT NULL, round_id text,
  hour timestamptz NOT NULL, revision integer NOT NULL,
  lease_id text REFERENCES leases, run_id text, tenant_id text, project_id text,
  from_at timestamptz NOT NULL, to_at timestamptz NOT NULL,
  seen_ms bigint NOT NULL, util_pct double precision, mem_used_max_b double precision,
  energy_mj bigint, energy_origin text CHECK (energy_origin IN ('measured', 'estimated', 'simulated')),
  throttled_ms bigint, method text NOT NULL, recorded_at timestamptz NOT NULL DEFAULT now(),
  CHECK (to_at > from_at AND from_at >= hour AND to_at <= hour + interval '1 hour'),
  CHECK ((lease_id IS NULL) = (tenant_id IS NULL) AND (lease_id IS NULL) = (run_id IS NULL)),
  CHECK ((energy_mj IS NULL) = (energy_origin IS NULL)));
CREATE INDEX uses_hour ON uses (accelerator_no, hour, revision);
CREATE INDEX uses_run ON uses (run_id) WHERE run_id IS NOT NULL;
CREATE INDEX uses_time ON uses (hour);
CREATE TRIGGER uses_fixed BEFORE UPDATE OR DELETE ON uses FOR EACH ROW EXECUTE FUNCTION append_only();
GRANT SELECT, INSERT, UPDATE, DELETE ON collectors, use_hours TO baseai_service;
GRANT SELECT, INSERT ON uses TO baseai_service;

ALTER TABLE uses ENABLE ROW LEVEL SECURITY;
ALTER TABLE uses FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON uses USING (tenant_id = current_setting('baseai.tenant', true)
  OR current_setting('baseai.tenant', true) = '*');
"""


def upgrade() -> None:
    op.execute(TABLES)


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead: history is not thrown away by a command")
