"""Customers, contracts, price lists, rates of exchange, usage events and rated lines.

Contracts of a tenant never overlap where they cover the same, and prices of one line follow each other: exclusion
constraints hold both, over hashes in int8range, so that any managed PostgreSQL will do. An absent site or project is the
range of everything. What was agreed, said, measured or rated is never edited; a contract is ended, an open price closed.
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

TENANT_OWNED = ("customers", "contracts", "commitments", "usage_events", "rated_lines")
APPEND_ONLY = ("customers", "fx_rates", "usage_events", "rated_lines")
METERS = (
    "accelerator_time",
    "tokens_in",
    "tokens_out",
    "requests",
    "storage",
    "energy",
)  # finance/measure.py's

TABLES = """
CREATE FUNCTION hashed(VARIADIC facts text[]) RETURNS int8range LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN int8range(hashtextextended(array_to_string(facts, E'\\x1f', '-'), 0),
  hashtextextended(array_to_string(facts, E'\\x1f', '-'), 0), '[]');
CREATE FUNCTION hashed_or_all(fact text) RETURNS int8range LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN fact IS NULL THEN int8range(NULL, NULL) ELSE hashed(fact) END;

CREATE TABLE customers (
  customer_id text PRIMARY KEY, tenant_id text NOT NULL UNIQUE REFERENCES tenants, legal_name text NOT NULL,
  country text NOT NULL CHECK (country ~ '^[A-Z]{2}$'), tax_id text NOT NULL,
  currency text NOT NULL CHECK (currency IN ('BRL', 'USD')),
  added_by text NOT NULL, added_at timestamptz NOT NULL DEFAULT now(),
  CHECK (country <> 'BR' OR tax_id ~ '^[A-Z0-9]{12}[0-9]{2}$'), UNIQUE (country, tax_id, tenant_id));

CREATE TABLE contracts (
  contract_id text PRIMARY KEY, name text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
  customer_id text NOT NULL REFERENCES customers, tenant_id text NOT NULL REFERENCES tenants,
  project_id text REFERENCES projects,
  term text NOT NULL CHECK (term IN ('on_demand', 'reserved', 'spot', 'research')),
  currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
  from_at timestamptz NOT NULL, until_at timestamptz, ended_at timestamptz, ended_by text, ended_for text,
  list_id text, discount_ratio numeric NOT NULL DEFAULT 0 CHECK (discount_ratio >= 0 AND discount_ratio < 1),
  minimum_micros bigint CHECK (minimum_micros > 0), promise jsonb,
  made_by text NOT NULL, made_at timestamptz NOT NULL DEFAULT now(),
  during tstzrange NOT NULL GENERATED ALWAYS AS (tstzrange(from_at, LEAST(until_at, ended_at))) STORED,
  CHECK (until_at > from_at), CHECK (ended_at > from_at), CHECK (term <> 'reserved' OR until_at IS NOT NULL),
  CHECK (num_nulls(ended_at, ended_by, ended_for) IN (0, 3)),
  CONSTRAINT one_contract EXCLUDE USING gist
    (hashed(tenant_id, term) WITH &&, hashed_or_all(project_id) WITH &&, during WITH &&) WHERE (term <> 'reserved'));

CREATE TABLE commitments (
  contract_id text NOT NULL REFERENCES contracts, tenant_id text NOT NULL, project_id text, model text NOT NULL,
  site_id text, accelerators integer NOT NULL CHECK (accelerators > 0), during tstzrange NOT NULL,
  CONSTRAINT one_commitment EXCLUDE USING gist (hashed(tenant_id, model) WITH &&, hashed_or_all(project_id) WITH &&,
    hashed_or_all(site_id) WITH &&, during WITH &&));
CREATE INDEX commitments_contract ON commitments (contract_id);

CREATE TABLE price_lists (
  list_id text PRIMARY KEY CHECK (list_id ~ '^[a-z0-9][a-z0-9-]{0,62}$' AND list_id <> 'catalogue'),
  made_by text NOT NULL, made_at timestamptz NOT NULL DEFAULT now());

CREATE TABLE prices (
  price_id text PRIMARY KEY, list_id text NOT NULL REFERENCES price_lists, meter text NOT NULL, unit text NOT NULL,
  term text NOT NULL CHECK (term IN ('on_demand', 'reserved', 'spot', 'research')),
  model text, site_id text, months integer CHECK (months > 0), currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
  tiers jsonb NOT NULL, peaks jsonb NOT NULL DEFAULT '[]', valid tstzrange NOT NULL
    CHECK (NOT isempty(valid) AND lower_inc(valid) AND NOT upper_inc(valid)),
  source text NOT NULL, added_by text NOT NULL, added_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT one_price EXCLUDE USING gist
    (hashed(list_id, meter, COALESCE(model, ''), COALESCE(site_id, ''), term, COALESCE(months, 0)::text) WITH &&,
     valid WITH &&));

-- A day for which the bank had no bulletin has no rate; a day nobody asked about has no row.
CREATE TABLE fx_rates (
  currency text NOT NULL CHECK (currency = 'USD'), day date NOT NULL, sell numeric CHECK (sell > 0),
  bulletin_at timestamptz, fetched_at timestamptz NOT NULL DEFAULT now(), digest text NOT NULL,
  PRIMARY KEY (currency, day), CHECK ((sell IS NULL) = (bulletin_at IS NULL)));

-- What happened before its meter began is not billed.
CREATE TABLE meters (meter text PRIMARY KEY, began_at timestamptz NOT NULL DEFAULT now());

-- Two clocks: when it was used (from_at, until_at), and when we were told (recorded_at).
CREATE TABLE usage_events (
  usage_id text PRIMARY KEY, source text NOT NULL, event_id text NOT NULL, tenant_id text NOT NULL REFERENCES tenants,
  project_id text NOT NULL REFERENCES projects, meter text NOT NULL REFERENCES meters,
  quantity bigint NOT NULL CHECK (quantity >= 0), unit text NOT NULL, from_at timestamptz NOT NULL,
  until_at timestamptz NOT NULL CHECK (until_at >= from_at), run_id text, model text, site_id text,
  corrects text REFERENCES usage_events, digest text NOT NULL, recorded_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (tenant_id, source, event_id), CHECK (quantity > 0 OR corrects IS NOT NULL));
CREATE UNIQUE INDEX usage_events_corrected_once ON usage_events (corrects) WHERE corrects IS NOT NULL;
CREATE INDEX usage_events_time ON usage_events (tenant_id, meter, from_at);

CREATE TABLE rated_lines (
  rated_id text COLLATE "C" PRIMARY KEY, category text NOT NULL, amount_micros bigint NOT NULL,
  currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'), meter text NOT NULL, quantity bigint NOT NULL,
  unit_price numeric NOT NULL, list_price numeric NOT NULL, period text NOT NULL, effective_from timestamptz NOT NULL,
  effective_until timestamptz NOT NULL CHECK (effective_until >= effective_from),
  recorded_at timestamptz NOT NULL DEFAULT now(), tenant_id text NOT NULL, project_id text, customer_id text,
  contract_id text, price_id text, tier integer NOT NULL, band integer NOT NULL, usage_id text,
  corrects text COLLATE "C" REFERENCES rated_lines, run_id text COLLATE "C", lease_id text, accelerator_no bigint, model text, node_id text,
  site_id text, round_id text, note text);
CREATE UNIQUE INDEX rated_lines_corrected_once ON rated_lines (corrects) WHERE corrects IS NOT NULL;
CREATE INDEX rated_lines_run ON rated_lines (run_id);
CREATE INDEX rated_lines_held ON rated_lines (contract_id, effective_from) WHERE category = 'reserved';
CREATE INDEX rated_lines_bill ON rated_lines (tenant_id, period);

-- What is measured and has no rated line yet, and verdicts that may take lines back; the claim is deleting the row, in the transaction that writes the lines.
CREATE TABLE unrated (usage_id text PRIMARY KEY, kind text NOT NULL CHECK (kind IN ('line', 'event', 'verdict')),
  tried_at timestamptz);
CREATE INDEX unrated_due ON unrated (kind, tried_at);
INSERT INTO unrated SELECT line_id, 'line' FROM usage_lines;
-- How much of each running total is used up, so that a batch goes on where the last one ended.
CREATE TABLE rated_totals (
  payer text NOT NULL, price_id text NOT NULL, month text NOT NULL, tier integer NOT NULL, band integer NOT NULL,
  quantity bigint NOT NULL, PRIMARY KEY (payer, price_id, month, tier, band));
"""

GUARDS = """
CREATE FUNCTION note_unrated_lines() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO unrated SELECT line_id, 'line' FROM fresh; RETURN NULL; END $$;
CREATE TRIGGER usage_lines_unrated AFTER INSERT ON usage_lines REFERENCING NEW TABLE AS fresh
  FOR EACH STATEMENT EXECUTE FUNCTION note_unrated_lines();
CREATE FUNCTION note_unrated_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO unrated SELECT usage_id, 'event' FROM fresh; RETURN NULL; END $$;
CREATE TRIGGER usage_events_unrated AFTER INSERT ON usage_events REFERENCING NEW TABLE AS fresh
  FOR EACH STATEMENT EXECUTE FUNCTION note_unrated_events();

CREATE FUNCTION note_verdict() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO unrated VALUES (NEW.run_id || ':' || NEW.attempt_no, 'verdict') ON CONFLICT DO NOTHING;
  RETURN NULL;
END $$;
CREATE TRIGGER attempts_judged AFTER UPDATE OF state, reason ON attempts FOR EACH ROW
  WHEN (NEW.state = 'ended' AND (OLD.state, OLD.reason) IS DISTINCT FROM (NEW.state, NEW.reason))
  EXECUTE FUNCTION note_verdict();

-- A contract is only ever ended, once; a commitment only ever cut with it; a price only ever closed, once.
CREATE FUNCTION contract_ends() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.ended_at IS NOT NULL OR (to_jsonb(NEW) - '{ended_at,ended_by,ended_for,during}'::text[])
    IS DISTINCT FROM (to_jsonb(OLD) - '{ended_at,ended_by,ended_for,during}'::text[])
  THEN RAISE EXCEPTION 'contract % is only ever ended, once', OLD.name USING ERRCODE = 'insufficient_privilege';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER contracts_end BEFORE UPDATE ON contracts FOR EACH ROW EXECUTE FUNCTION contract_ends();
CREATE FUNCTION commitment_ends() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NOT NEW.during <@ OLD.during OR lower(NEW.during) IS DISTINCT FROM lower(OLD.during)
    OR (to_jsonb(NEW) - 'during') IS DISTINCT FROM (to_jsonb(OLD) - 'during')
  THEN RAISE EXCEPTION 'a commitment is only ever cut short' USING ERRCODE = 'insufficient_privilege';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER commitments_end BEFORE UPDATE ON commitments FOR EACH ROW EXECUTE FUNCTION commitment_ends();
CREATE FUNCTION price_closes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NOT upper_inf(OLD.valid) OR upper_inf(NEW.valid) OR lower(NEW.valid) IS DISTINCT FROM lower(OLD.valid)
    OR (to_jsonb(NEW) - 'valid') IS DISTINCT FROM (to_jsonb(OLD) - 'valid')
  THEN RAISE EXCEPTION 'price % is only ever closed, once', OLD.price_id USING ERRCODE = 'insufficient_privilege';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER prices_close BEFORE UPDATE ON prices FOR EACH ROW EXECUTE FUNCTION price_closes();

GRANT SELECT, INSERT ON customers, price_lists, fx_rates, usage_events, rated_lines TO baseai_service;
GRANT SELECT ON meters TO baseai_service;
GRANT SELECT, INSERT ON contracts, commitments, prices TO baseai_service;
GRANT UPDATE (ended_at, ended_by, ended_for) ON contracts TO baseai_service;
GRANT UPDATE (during) ON commitments TO baseai_service;
GRANT UPDATE (valid) ON prices TO baseai_service;
GRANT SELECT, INSERT, DELETE ON unrated TO baseai_service;
GRANT SELECT, INSERT, UPDATE ON rated_totals TO baseai_service;
"""


def upgrade() -> None:
    op.execute(TABLES)
    for meter in METERS:
        op.execute(f"INSERT INTO meters (meter) VALUES ('{meter}')")
    op.execute(GUARDS)
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_fixed BEFORE UPDATE OR DELETE ON {table}"
            " FOR EACH ROW EXECUTE FUNCTION append_only()"
        )
    for table in TENANT_OWNED:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenant ON {table} USING (tenant_id = current_setting('baseai.tenant', true)"
            f" OR current_setting('baseai.tenant', true) = '*')"
        )


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead: history is not thrown away by a command")
