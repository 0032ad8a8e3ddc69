"""Burn-in and re-entry tests: which run tested which node, and the figures each accelerator reached."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLES = """
-- The platform's own tenant: its runs test nodes. It is made with the first burn-in and shown as nobody's customer.
ALTER TABLE tenants ADD COLUMN house boolean NOT NULL DEFAULT false;
CREATE UNIQUE INDEX tenants_one_house ON tenants (house) WHERE house;

-- The id of the run is made with the row and before the run, so that a crash between the two is made good.
CREATE TABLE burn_ins (
  run_id text PRIMARY KEY, node_id text NOT NULL REFERENCES nodes, model text NOT NULL,
  occasion text NOT NULL CHECK (occasion IN ('joining', 're_entry', 'asked', 'periodic')),
  profile text NOT NULL CHECK (profile IN ('quick', 'standard', 'soak')),
  stay bigint, asked_by text NOT NULL, asked_at timestamptz NOT NULL DEFAULT now(),
  verdict text CHECK (verdict IN ('passed', 'failed', 'void')), sentence text, judged_at timestamptz,
  CHECK ((verdict IS NULL) = (judged_at IS NULL)));
CREATE INDEX burn_ins_node ON burn_ins (node_id, asked_at DESC);
CREATE INDEX burn_ins_open ON burn_ins (run_id) WHERE verdict IS NULL;

CREATE TABLE figures (
  figure_no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  run_id text NOT NULL REFERENCES burn_ins, node_id text NOT NULL REFERENCES nodes,
  accelerator_no bigint REFERENCES accelerators, model text NOT NULL, test text NOT NULL, variant text NOT NULL,
  size_bytes bigint, value double precision, unit text NOT NULL, state text NOT NULL
    CHECK (state IN ('value', 'unsupported')),
  sentence text, peak double precision, ratio double precision,
  origin text NOT NULL CHECK (origin IN ('measured', 'simulated')), software jsonb NOT NULL DEFAULT '{}',
  at timestamptz NOT NULL, CHECK ((state = 'value') = (value IS NOT NULL)), CHECK ((peak IS NULL) = (ratio IS NULL)),
  UNIQUE NULLS NOT DISTINCT (run_id, accelerator_no, test, variant, size_bytes));
CREATE INDEX figures_newest ON figures (node_id, at DESC);
CREATE INDEX figures_peers ON figures (model, test, variant, at DESC);

-- Whether a node has been idle for a while.
CREATE INDEX leases_node_released ON leases (node_id, released_at);

GRANT SELECT, INSERT, UPDATE ON burn_ins TO baseai_service;
GRANT SELECT, INSERT ON figures TO baseai_service;
"""


def upgrade() -> None:
    if TABLES.strip():
        op.execute(TABLES)


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead: history is not thrown away by a command")
