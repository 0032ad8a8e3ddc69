"""The calendar: capacity that is reserved ahead, maintenance that is planned, and leases that were extended."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

MOVES = {
    "reservation": {
        ("held", "active"), ("held", "cancelled"),
        ("active", "completed"), ("active", "forfeited"), ("active", "cancelled"),
    },
    "maintenance": {
        ("scheduled", "in_progress"), ("scheduled", "cancelled"), ("in_progress", "verifying"),
        ("verifying", "completed"),
    },
}  # fmt: skip

TABLES = """
CREATE TABLE reservations (
  reservation_id text PRIMARY KEY, tenant_id text NOT NULL REFERENCES tenants,
  project_id text NOT NULL REFERENCES projects,
  name text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
  nodes integer NOT NULL CHECK (nodes > 0), accelerators integer NOT NULL CHECK (accelerators > 0), -- on each node
  model text NOT NULL, site_id text NOT NULL REFERENCES sites,
  from_at timestamptz NOT NULL, until_at timestamptz NOT NULL CHECK (until_at > from_at),
  kind text NOT NULL CHECK (kind IN ('hold', 'take_or_pay')), forfeit_after_s integer CHECK (forfeit_after_s > 0),
  state text NOT NULL, used_at timestamptz, -- when a run of it was first seen on it
  made_by text NOT NULL, made_at timestamptz NOT NULL DEFAULT now(), ended_at timestamptz,
  CHECK ((kind = 'hold') = (forfeit_after_s IS NOT NULL)),
  CHECK ((ended_at IS NULL) = (state IN ('held', 'active'))));
CREATE UNIQUE INDEX reservations_name ON reservations (tenant_id, name) WHERE ended_at IS NULL;
CREATE INDEX reservations_standing ON reservations (from_at) WHERE ended_at IS NULL;

CREATE TABLE maintenances (
  maintenance_id text PRIMARY KEY, site_id text REFERENCES sites, -- NULL where single nodes are meant
  from_at timestamptz NOT NULL, until_at timestamptz NOT NULL CHECK (until_at > from_at),
  notice_s integer NOT NULL CHECK (notice_s >= 0), why text NOT NULL, state text NOT NULL,
  made_by text NOT NULL, made_at timestamptz NOT NULL DEFAULT now(), ended_at timestamptz,
  CHECK ((ended_at IS NULL) = (state IN ('scheduled', 'in_progress', 'verifying'))));
CREATE INDEX maintenances_open ON maintenances (from_at) WHERE ended_at IS NULL;

-- `was`: the state in which the node was drained for the window; NULL: it was not (yet).
CREATE TABLE maintenance_nodes (
  maintenance_id text NOT NULL REFERENCES maintenances, node_id text NOT NULL REFERENCES nodes,
  was text, taken_at timestamptz, returned_at timestamptz, PRIMARY KEY (maintenance_id, node_id),
  CHECK ((was IS NULL) = (taken_at IS NULL)), CHECK (returned_at IS NULL OR taken_at IS NOT NULL));
CREATE INDEX maintenance_nodes_node ON maintenance_nodes (node_id);

-- How often something was added to the calendar: a grant that was decided before the last time is decided again.
INSERT INTO platform VALUES ('calendar', '0');

-- Set where a lease was extended: its first end. What was added makes way for what is booked later.
ALTER TABLE leases ADD COLUMN firm_until timestamptz;

CREATE TRIGGER reservation_moves BEFORE UPDATE OF state ON reservations
  FOR EACH ROW EXECUTE FUNCTION guard_move('reservation');
CREATE TRIGGER maintenance_moves BEFORE UPDATE OF state ON maintenances
  FOR EACH ROW EXECUTE FUNCTION guard_move('maintenance');
CREATE TRIGGER reservations_tick AFTER INSERT OR UPDATE OF state ON reservations
  FOR EACH ROW EXECUTE FUNCTION tell_tick();
CREATE TRIGGER maintenances_tick AFTER INSERT OR UPDATE OF state ON maintenances
  FOR EACH ROW EXECUTE FUNCTION tell_tick();

GRANT SELECT, INSERT, UPDATE ON reservations, maintenances, maintenance_nodes TO baseai_service;
ALTER TABLE reservations ENABLE ROW LEVEL SECURITY;
ALTER TABLE reservations FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON reservations USING (tenant_id = current_setting('baseai.tenant', true)
  OR current_setting('baseai.tenant', true) = '*');
"""


def upgrade() -> None:
    op.execute(TABLES)
    for noun, pairs in MOVES.items():
        for before, after in sorted(pairs):
            op.execute(f"INSERT INTO moves VALUES ('{noun}', '{before}', '{after}')")


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead: history is not thrown away by a command")
