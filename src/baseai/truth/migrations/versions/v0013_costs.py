"""Costs: every assumption in versions, and prices that were suggested, by whom they were applied or turned down.

A version of an assumption is never edited; the next one has a later `valid_from`. A suggestion changes nothing by itself.
"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

MOVES = {"suggestion": {("proposed", "applied"), ("proposed", "declined"), ("proposed", "superseded")}}

TABLES = """
CREATE TABLE assumptions (
  assumption_id text PRIMARY KEY, subject text NOT NULL CHECK (subject = 'all' OR subject LIKE '%_:_%'),
  name text NOT NULL, low numeric NOT NULL, usual numeric NOT NULL, high numeric NOT NULL, unit text NOT NULL,
  currency text CHECK (currency ~ '^[A-Z]{3}$'), source text NOT NULL CHECK (source <> ''), source_on date NOT NULL,
  mark text NOT NULL CHECK (mark IN ('A', 'B', 'C', 'measured')), valid_from timestamptz NOT NULL,
  recorded_by text NOT NULL, recorded_at timestamptz NOT NULL DEFAULT now(),
  CHECK (low <= usual AND usual <= high), CONSTRAINT one_version UNIQUE (subject, name, valid_from));
CREATE TRIGGER assumptions_fixed BEFORE UPDATE OR DELETE ON assumptions FOR EACH ROW EXECUTE FUNCTION append_only();

CREATE TABLE suggestions (
  suggestion_id text PRIMARY KEY, model text NOT NULL, site_id text REFERENCES sites,
  term text NOT NULL CHECK (term IN ('on_demand', 'reserved', 'spot', 'research')),
  currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'), now_rate numeric NOT NULL CHECK (now_rate >= 0),
  rate numeric NOT NULL CHECK (rate > 0), floor_rate numeric NOT NULL CHECK (floor_rate >= 0), rule text NOT NULL,
  facts jsonb NOT NULL, sentence text NOT NULL, made_at timestamptz NOT NULL DEFAULT now(),
  state text NOT NULL DEFAULT 'proposed' CHECK (state IN ('proposed', 'applied', 'declined', 'superseded')),
  settled_at timestamptz, settled_by text, price_id text REFERENCES prices, list_id text,
  CHECK ((state = 'proposed') = (settled_at IS NULL)), CHECK ((state = 'applied') = (price_id IS NOT NULL)));
CREATE UNIQUE INDEX suggestions_one ON suggestions (model, COALESCE(site_id, ''), term) WHERE state = 'proposed';
CREATE TRIGGER suggestion_moves BEFORE UPDATE OF state ON suggestions
  FOR EACH ROW EXECUTE FUNCTION guard_move('suggestion');

-- The time of an hour that no run has, as it stands in the books.
CREATE INDEX transfers_standing ON transfers (hour, accelerator_no) WHERE run_id IS NULL AND hour IS NOT NULL;
-- Lines come nearly in the order of time, so that a summary of each stretch of them finds an hour.
CREATE INDEX usage_lines_hours ON usage_lines USING brin (hour) WITH (pages_per_range = 32);

GRANT SELECT, INSERT ON assumptions TO baseai_service;
GRANT SELECT, INSERT ON suggestions TO baseai_service;
GRANT UPDATE (state, settled_at, settled_by, price_id, list_id) ON suggestions TO baseai_service;
"""


def upgrade() -> None:
    op.execute(TABLES)
    for noun, pairs in MOVES.items():
        for before, after in sorted(pairs):
            op.execute(f"INSERT INTO moves VALUES ('{noun}', '{before}', '{after}')")


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead: history is not thrown away by a command")
