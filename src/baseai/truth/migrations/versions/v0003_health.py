"""Health: what was witnessed, the evidence it came to, verdicts, repairs, and how far everything was judged.

Evidence is never deleted: it ends, and says by what. A repair moves only along `moves`, as a node does.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

MOVES = {
    "node": {("verifying", "quarantined")},
    "repair": {
        ("proposed", "approved"), ("proposed", "dismissed"),
        ("approved", "ordered"), ("approved", "done"), ("approved", "failed"), ("approved", "dismissed"),
        ("ordered", "done"), ("ordered", "failed"),
    },
}  # fmt: skip

TABLES = """
-- What a node's agent may carry out by itself. Until somebody says otherwise a chassis counts as shared.
ALTER TABLE nodes ADD COLUMN repair_steps text[] NOT NULL DEFAULT '{}',
  ADD COLUMN chassis_shared boolean NOT NULL DEFAULT true;
ALTER TABLE accelerators ADD COLUMN health text NOT NULL DEFAULT 'healthy'
  CHECK (health IN ('healthy', 'suspect', 'faulty'));
ALTER TABLE nodes ADD CONSTRAINT nodes_health CHECK (health IN ('healthy', 'suspect', 'faulty'));

CREATE TABLE witnesses (
  event_id text PRIMARY KEY, witness_no bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
  node_id text NOT NULL REFERENCES nodes, serial text, at timestamptz NOT NULL, kind text NOT NULL, code integer,
  severity text NOT NULL CHECK (severity IN ('info', 'warning', 'critical')), sentence text NOT NULL DEFAULT '',
  payload jsonb NOT NULL DEFAULT '{}', judged boolean NOT NULL DEFAULT false,
  recorded_at timestamptz NOT NULL DEFAULT now());
CREATE INDEX witnesses_new ON witnesses (witness_no) WHERE NOT judged;
CREATE INDEX witnesses_node ON witnesses (node_id, at DESC);

CREATE TABLE evidence (
  evidence_id text PRIMARY KEY, rule_id text NOT NULL, node_id text NOT NULL REFERENCES nodes, serial text, part text,
  at timestamptz NOT NULL, last_at timestamptz NOT NULL CHECK (last_at >= at), witnesses text[] NOT NULL,
  sentence text NOT NULL, code integer, before double precision, after double precision,
  held_by text, -- the tenant whose lease the accelerator was under
  ended_at timestamptz, ended_by text, acknowledged_by text, recorded_at timestamptz NOT NULL DEFAULT now(),
  CHECK ((ended_at IS NULL) = (ended_by IS NULL)));
CREATE INDEX evidence_standing ON evidence (node_id) WHERE ended_at IS NULL;
CREATE INDEX evidence_ended ON evidence (node_id, ended_at DESC) WHERE ended_at IS NOT NULL;

CREATE TABLE repairs (
  repair_id text PRIMARY KEY, node_id text NOT NULL REFERENCES nodes, serials text[] NOT NULL DEFAULT '{}',
  step text NOT NULL CHECK (step IN ('fabric', 'reset', 'reboot', 'power_cycle', 'reseat', 'inspect', 'rma')),
  state text NOT NULL CHECK (state IN ('proposed', 'approved', 'ordered', 'done', 'failed', 'dismissed')),
  by_agent boolean NOT NULL, needs_approval boolean NOT NULL, drains boolean NOT NULL, rule_id text NOT NULL,
  sentence text NOT NULL, instructions text NOT NULL, evidence_ids text[] NOT NULL DEFAULT '{}',
  before jsonb NOT NULL DEFAULT '{}', after jsonb, -- raw counters of its accelerators
  opened_at timestamptz NOT NULL DEFAULT now(), approved_by text, approved_at timestamptz, ordered_at timestamptz,
  ended_at timestamptz, ended_by text, outcome text,
  CHECK ((ended_at IS NULL) = (state IN ('proposed', 'approved', 'ordered'))));
CREATE INDEX repairs_open ON repairs (node_id) WHERE ended_at IS NULL;
CREATE INDEX repairs_ended ON repairs (node_id, ended_at DESC) WHERE ended_at IS NOT NULL;
-- One repair at a time takes a node out, whatever two controllers believe.
CREATE UNIQUE INDEX repairs_one_taking ON repairs (node_id) WHERE ended_at IS NULL AND drains;

CREATE TABLE node_health (
  node_id text PRIMARY KEY REFERENCES nodes, since timestamptz NOT NULL DEFAULT now(), sentence text, held text);

CREATE TABLE judgements (
  name text PRIMARY KEY, judged_at timestamptz, unjudged text, deaths_until timestamptz NOT NULL DEFAULT now(),
  tests_until bigint NOT NULL DEFAULT 0); -- the number of the last event about a failed test that was read
INSERT INTO judgements (name) VALUES ('health');

CREATE TRIGGER repair_moves BEFORE UPDATE OF state ON repairs FOR EACH ROW EXECUTE FUNCTION guard_move('repair');

GRANT SELECT, INSERT, UPDATE ON witnesses, evidence, repairs, node_health, judgements TO baseai_service;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO baseai_service;
"""


def upgrade() -> None:
    op.execute(TABLES)
    for noun, pairs in MOVES.items():
        for before, after in sorted(pairs):
            op.execute(f"INSERT INTO moves VALUES ('{noun}', '{before}', '{after}')")


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead: history is not thrown away by a command")
