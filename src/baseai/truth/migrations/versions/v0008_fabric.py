"""Where a node hangs: rack and breaker, leaf and pod of the network."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TABLES = r"""
-- One supply and one breaker. `base_watts` is what hosts, switches and fans in it draw while no accelerator works.
CREATE TABLE racks (
  rack_id text PRIMARY KEY CHECK (rack_id ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$'),
  site_id text NOT NULL REFERENCES sites, breaker_watts integer NOT NULL CHECK (breaker_watts > 0),
  derating numeric NOT NULL DEFAULT 0.8 CHECK (derating > 0 AND derating <= 1),
  base_watts integer NOT NULL DEFAULT 0 CHECK (base_watts >= 0),
  placed_at timestamptz NOT NULL DEFAULT now(), UNIQUE (rack_id, site_id));

-- A node hangs in a rack of its own site, or of no known rack; a leaf or pod that is not known is NULL.
ALTER TABLE nodes ADD COLUMN rack text, ADD COLUMN leaf text, ADD COLUMN pod text,
  ADD CONSTRAINT nodes_rack FOREIGN KEY (rack, site_id) REFERENCES racks (rack_id, site_id);
CREATE INDEX nodes_in_rack ON nodes (rack) WHERE rack IS NOT NULL;

CREATE TRIGGER racks_tick AFTER INSERT OR UPDATE OR DELETE ON racks FOR EACH ROW EXECUTE FUNCTION tell_tick();
CREATE TRIGGER nodes_hung AFTER UPDATE OF rack, leaf, pod ON nodes FOR EACH ROW EXECUTE FUNCTION tell_tick();

GRANT SELECT, INSERT, UPDATE, DELETE ON racks TO baseai_service;
"""


def upgrade() -> None:
    op.execute(TABLES)


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead: history is not thrown away by a command")
