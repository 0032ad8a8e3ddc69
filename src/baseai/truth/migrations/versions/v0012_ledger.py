"""The ledger at full strength: the chart, limits that hold beside any number of writers, closed months, checkpoints.

Whatever a transfer must satisfy against other rows is held here and not by whoever writes: `keep_books` runs once for
each statement that inserts transfers, over all of its rows. Who may write decides nothing: the chart, the accounts and
their running sums cannot be written by the service role at all.
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

MOVES = {"period": {("open", "closing"), ("closing", "closed")}}

# What finance/chart.csv says; a test holds the two equal.
CHART = (
    ("tenant:{tenant}:receivable", "asset", "any", "none"),
    ("tenant:{tenant}:prepaid", "liability", "any", "debits"),
    ("asset:bank:{bank}", "asset", "any", "none"),
    ("asset:cash", "asset", "any", "none"),
    ("asset:accelerators", "asset", "any", "none"),
    ("asset:accumulated_depreciation", "asset", "any", "none"),
    ("payable:energy", "liability", "any", "none"),
    ("payable:colocation", "liability", "any", "none"),
    ("payable:{nature}", "liability", "any", "none"),
    ("tax:{tax}", "liability", "any", "none"),
    ("revenue:on_demand", "revenue", "any", "none"),
    ("revenue:reserved", "revenue", "any", "none"),
    ("revenue:spot", "revenue", "any", "none"),
    ("revenue:research", "revenue", "any", "none"),
    ("revenue:job", "revenue", "any", "none"),
    ("revenue:period", "revenue", "any", "none"),
    ("revenue:commitment", "revenue", "any", "none"),
    ("revenue:minimum", "revenue", "any", "none"),
    ("revenue:credit", "revenue", "any", "none"),
    ("revenue:{meter}", "revenue", "any", "none"),
    ("cost:depreciation", "cost", "any", "none"),
    ("cost:energy", "cost", "any", "none"),
    ("cost:colocation", "cost", "any", "none"),
    ("cost:{nature}", "cost", "any", "none"),
    ("rounding:{currency}", "cost", "own", "none"),
    ("conversion:{source}", "asset", "any", "none"),
    ("round:{round}:capital", "equity", "any", "none"),
    ("round:{round}:distributable", "liability", "any", "debits"),
    ("round:{round}:fees", "cost", "any", "none"),
    ("equity:opening", "equity", "any", "none"),
)

TABLES = """
ALTER TABLE transfers ADD COLUMN period text, ADD COLUMN timeout_at timestamptz,
  ADD COLUMN reverses_id text, ADD COLUMN customer_id text, ADD COLUMN contract_id text,
  ADD COLUMN price_id text, ADD COLUMN round_id text, ADD COLUMN fx_rate numeric, ADD COLUMN fx_source text,
  ADD COLUMN fx_on date;
ALTER TABLE transfers DISABLE TRIGGER transfers_fixed;
UPDATE transfers SET period = to_char(effective_at AT TIME ZONE 'America/Sao_Paulo', 'YYYY-MM');
ALTER TABLE transfers ENABLE TRIGGER transfers_fixed;
ALTER TABLE transfers ALTER COLUMN period SET NOT NULL,
  DROP CONSTRAINT transfers_kind_check, DROP CONSTRAINT transfers_check1,
  -- What costs a look-up or a regular expression for each row is asked once for each statement, by keep_books.
  DROP CONSTRAINT transfers_currency_check, DROP CONSTRAINT transfers_pending_id_fkey,
  ADD CONSTRAINT transfers_kind CHECK (kind IN ('posted', 'pending', 'post', 'void', 'timeout')),
  ADD CONSTRAINT transfers_resolving CHECK ((kind IN ('post', 'void', 'timeout')) = (pending_id IS NOT NULL)),
  ADD CONSTRAINT transfers_timeout CHECK (timeout_at IS NULL OR kind = 'pending' AND timeout_at > effective_at),
  ADD CONSTRAINT transfers_reversal CHECK (reverses_id IS NULL OR kind = 'posted'),
  ADD CONSTRAINT transfers_exchange CHECK (num_nulls(fx_rate, fx_source, fx_on) IN (0, 3));
CREATE UNIQUE INDEX transfers_reverse_once ON transfers (reverses_id) WHERE reverses_id IS NOT NULL;
-- Hours that were charged by the list, before lines were rated: they are not charged again.
CREATE INDEX transfers_listed ON transfers (run_id, accelerator_no, hour)
  WHERE credit_account = 'revenue:on_demand' AND hour IS NOT NULL;
-- Months are written one after the other, so that a month's rows lie together.
CREATE INDEX transfers_period ON transfers USING brin (period);
CREATE INDEX transfers_timing_out ON transfers (timeout_at) WHERE timeout_at IS NOT NULL;

-- The same for usage lines: whose lease and accelerator is asked for all lines of a statement at once.
ALTER TABLE usage_lines DROP CONSTRAINT usage_lines_lease_id_fkey, DROP CONSTRAINT usage_lines_accelerator_no_fkey;
CREATE FUNCTION keep_usage() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  wrong record;
BEGIN
  SELECT s.lease_id, s.accelerator_no INTO wrong
    FROM (SELECT lease_id, accelerator_no FROM fresh GROUP BY 1, 2) s
    LEFT JOIN leases l USING (lease_id) LEFT JOIN accelerators a USING (accelerator_no)
    WHERE l.lease_id IS NULL OR a.accelerator_no IS NULL LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'usage of lease % on accelerator %: one of them does not exist', wrong.lease_id, wrong.accelerator_no
      USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'usage_of_lease';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER usage_kept AFTER INSERT ON usage_lines REFERENCING NEW TABLE AS fresh
  FOR EACH STATEMENT EXECUTE FUNCTION keep_usage();
CREATE INDEX usage_lines_lease ON usage_lines (lease_id);
CREATE FUNCTION keep_used() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  IF TG_TABLE_NAME = 'leases' AND EXISTS (SELECT FROM usage_lines WHERE lease_id = OLD.lease_id) THEN
    RAISE EXCEPTION 'lease % has usage', OLD.lease_id USING ERRCODE = 'foreign_key_violation';
  END IF;
  RETURN OLD;
END $$;
CREATE TRIGGER leases_used BEFORE DELETE ON leases FOR EACH ROW EXECUTE FUNCTION keep_used();

CREATE TABLE chart (
  pattern text PRIMARY KEY, nature text NOT NULL, currency text NOT NULL CHECK (currency IN ('any', 'own')),
  bound text NOT NULL CHECK (bound IN ('none', 'debits', 'credits')), matcher text NOT NULL GENERATED ALWAYS AS
    ('^' || regexp_replace(pattern, '[{][a-z]+[}]', '[^:]+', 'g') || '$') STORED,
  literal integer NOT NULL GENERATED ALWAYS AS (length(regexp_replace(pattern, '[{][a-z]+[}]', '', 'g'))) STORED);

-- Each account that was ever used, with its line; opened by its first transfer.
CREATE TABLE accounts (
  account text PRIMARY KEY, pattern text NOT NULL REFERENCES chart, currency text NOT NULL, bound text NOT NULL,
  opened_at timestamptz NOT NULL DEFAULT now());

-- Running sums of accounts with a limit, and of no others: whoever moves one of them holds its row.
CREATE TABLE limited_sums (
  account text NOT NULL REFERENCES accounts, currency text NOT NULL, bound text NOT NULL,
  debits bigint NOT NULL DEFAULT 0, credits bigint NOT NULL DEFAULT 0,
  pending_debits bigint NOT NULL DEFAULT 0, pending_credits bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (account, currency));

CREATE TABLE periods (
  period text PRIMARY KEY CHECK (period ~ '^[0-9]{4}-(0[1-9]|1[0-2])$'),
  state text NOT NULL CHECK (state IN ('open', 'closing', 'closed')),
  began_at timestamptz, began_by text, closed_at timestamptz, closed_by text,
  CHECK ((state = 'closed') = (closed_at IS NOT NULL)));
CREATE UNIQUE INDEX periods_one_closing ON periods (state) WHERE state = 'closing';
CREATE TRIGGER period_moves BEFORE UPDATE OF state ON periods FOR EACH ROW EXECUTE FUNCTION guard_move('period');

CREATE TABLE book_checkpoints (
  period text PRIMARY KEY REFERENCES periods, digest text NOT NULL CHECK (digest ~ '^[0-9a-f]{64}$'),
  transfers bigint NOT NULL, balances jsonb NOT NULL, taken_at timestamptz NOT NULL DEFAULT now());
CREATE TRIGGER checkpoints_fixed BEFORE UPDATE OR DELETE ON book_checkpoints
  FOR EACH ROW EXECUTE FUNCTION append_only();

CREATE TABLE book_checks (
  check_no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, ran_at timestamptz NOT NULL DEFAULT now(),
  took_s double precision NOT NULL, transfers bigint NOT NULL, digest text NOT NULL, findings jsonb NOT NULL);
CREATE TRIGGER checks_fixed BEFORE UPDATE OR DELETE ON book_checks FOR EACH ROW EXECUTE FUNCTION append_only();
"""

GUARD = """
-- What so many µs at so much an hour come to in micro-units, half to even: ground.money.charge, digit by digit.
CREATE FUNCTION charge(rate numeric, micro_seconds bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN (div(rate * micro_seconds, 3600) + CASE WHEN mod(rate * micro_seconds, 3600) > 1800
    OR mod(rate * micro_seconds, 3600) = 1800 AND mod(div(rate * micro_seconds, 3600), 2) = 1 THEN 1 ELSE 0 END)::bigint;

CREATE FUNCTION period_lock(period text) RETURNS bigint LANGUAGE sql IMMUTABLE
  RETURN (7365648::bigint << 32) | replace(period, '-', '')::bigint;

CREATE FUNCTION keep_books() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  months text[]; debited text[]; credited text[]; currencies text[]; ids text[];
  names_others boolean; moves_limited boolean;
  wrong record; month text; standing text;
BEGIN
  -- The rows are read once; there are few kinds of them.
  SELECT array_agg(k.period), array_agg(k.debit_account), array_agg(k.credit_account), array_agg(k.currency),
      array_agg(k.transfer_id), bool_or(k.names_others)
    INTO months, debited, credited, currencies, ids, names_others FROM (
      SELECT period, debit_account, credit_account, currency, any_value(transfer_id) AS transfer_id,
        bool_or(pending_id IS NOT NULL OR reverses_id IS NOT NULL) AS names_others
      FROM fresh GROUP BY 1, 2, 3, 4) k;
  IF months IS NULL THEN
    RETURN NULL;
  END IF;

  -- Months. The shared lock is held to the end of the transaction: a close waits for it, and then nobody comes in.
  FOR month IN SELECT DISTINCT m FROM unnest(months) m ORDER BY 1 LOOP
    IF month !~ '^[0-9]{4}-(0[1-9]|1[0-2])$' THEN
      RAISE EXCEPTION '% is no period', month USING ERRCODE = 'check_violation', CONSTRAINT = 'transfers_period';
    END IF;
    PERFORM pg_advisory_xact_lock_shared(period_lock(month));
    SELECT state INTO standing FROM periods WHERE period = month;
    IF month <= (SELECT max(period) FROM periods WHERE state = 'closed') THEN
      SELECT transfer_id INTO wrong FROM fresh WHERE period = month LIMIT 1;
      RAISE EXCEPTION '%: period % is closed', wrong.transfer_id, month
        USING ERRCODE = 'check_violation', CONSTRAINT = 'period_open';
    ELSIF standing = 'closing' THEN
      SELECT transfer_id INTO wrong FROM fresh WHERE period = month
        AND to_char(effective_at AT TIME ZONE 'America/Sao_Paulo', 'YYYY-MM') <> month LIMIT 1;
      IF FOUND THEN
        RAISE EXCEPTION '%: period % is closing and takes its own facts only', wrong.transfer_id, month
          USING ERRCODE = 'check_violation', CONSTRAINT = 'period_open';
      END IF;
    END IF;
  END LOOP;

  -- Accounts. The first transfer opens them, if the chart has a line for them.
  FOR wrong IN
    SELECT u.account, u.transfer_id, c.* FROM (
      SELECT s.account, min(s.transfer_id) AS transfer_id
      FROM (SELECT * FROM unnest(debited, ids) UNION ALL SELECT * FROM unnest(credited, ids)) s (account, transfer_id)
      WHERE NOT EXISTS (SELECT FROM accounts a WHERE a.account = s.account) GROUP BY s.account ORDER BY s.account) u
    LEFT JOIN LATERAL (SELECT * FROM chart WHERE u.account ~ matcher ORDER BY literal DESC, pattern LIMIT 1) c ON true
  LOOP
    IF wrong.pattern IS NULL THEN
      RAISE EXCEPTION '%: the chart of accounts has no account %', wrong.transfer_id, wrong.account
        USING ERRCODE = 'check_violation', CONSTRAINT = 'account_known';
    END IF;
    INSERT INTO accounts (account, pattern, currency, bound)
      VALUES (wrong.account, wrong.pattern, wrong.currency, wrong.bound) ON CONFLICT DO NOTHING;
  END LOOP;
  SELECT s.account, s.currency, s.transfer_id INTO wrong
    FROM (SELECT * FROM unnest(debited, currencies, ids) UNION ALL SELECT * FROM unnest(credited, currencies, ids))
      s (account, currency, transfer_id) JOIN accounts a USING (account)
    WHERE s.currency !~ '^[A-Z]{3}$' OR a.currency = 'own' AND right(a.account, 3) <> s.currency LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION '%: % takes no %', wrong.transfer_id, wrong.account, wrong.currency
      USING ERRCODE = 'check_violation', CONSTRAINT = 'account_currency';
  END IF;

  -- What is resolved or reversed is there; rows are never deleted, so it stays.
  IF names_others THEN
    SELECT f.transfer_id, COALESCE(f.pending_id, f.reverses_id) AS named INTO wrong FROM fresh f
      WHERE COALESCE(f.pending_id, f.reverses_id) IS NOT NULL
        AND NOT EXISTS (SELECT FROM transfers t WHERE t.transfer_id = COALESCE(f.pending_id, f.reverses_id)) LIMIT 1;
    IF FOUND THEN
      RAISE EXCEPTION '% names %, which is no transfer', wrong.transfer_id, wrong.named
        USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'transfers_named';
    END IF;
  END IF;

  -- Limits. Rows are taken in the order of accounts, so two writers wait for each other in turn.
  SELECT EXISTS (SELECT FROM unnest(debited || credited) u (account) JOIN accounts a USING (account)
    WHERE a.bound <> 'none') INTO moves_limited;
  IF moves_limited THEN
    INSERT INTO limited_sums AS held (account, currency, bound, debits, credits, pending_debits, pending_credits)
    SELECT a.account, m.currency, a.bound,
      COALESCE(sum(m.micros) FILTER (WHERE m.side = 1 AND NOT m.pending), 0),
      COALESCE(sum(m.micros) FILTER (WHERE m.side = 2 AND NOT m.pending), 0),
      COALESCE(sum(m.micros) FILTER (WHERE m.side = 1 AND m.pending), 0),
      COALESCE(sum(m.micros) FILTER (WHERE m.side = 2 AND m.pending), 0)
    FROM (
      SELECT f.debit_account, f.credit_account, f.currency, f.amount_micros AS micros, f.kind = 'pending' AS pending,
        s.side FROM fresh f, (VALUES (1), (2)) s (side) WHERE f.kind IN ('posted', 'post', 'pending')
      UNION ALL
      SELECT p.debit_account, p.credit_account, p.currency, -p.amount_micros, true, s.side
        FROM fresh f JOIN transfers p ON p.transfer_id = f.pending_id, (VALUES (1), (2)) s (side)
    ) m JOIN accounts a ON a.account = CASE m.side WHEN 1 THEN m.debit_account ELSE m.credit_account END
    WHERE a.bound <> 'none'
    GROUP BY a.account, m.currency, a.bound ORDER BY a.account, m.currency
    ON CONFLICT (account, currency) DO UPDATE SET debits = held.debits + EXCLUDED.debits,
      credits = held.credits + EXCLUDED.credits, pending_debits = held.pending_debits + EXCLUDED.pending_debits,
      pending_credits = held.pending_credits + EXCLUDED.pending_credits;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER transfers_kept AFTER INSERT ON transfers REFERENCING NEW TABLE AS fresh
  FOR EACH STATEMENT EXECUTE FUNCTION keep_books();

CREATE FUNCTION keep_limit() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  past bigint := CASE NEW.bound WHEN 'debits' THEN NEW.debits + NEW.pending_debits - NEW.credits
    ELSE NEW.credits + NEW.pending_credits - NEW.debits END;
BEGIN
  IF past > 0 THEN
    RAISE EXCEPTION '% would be overdrawn by % micro-%', NEW.account, past, NEW.currency
      USING ERRCODE = 'check_violation', CONSTRAINT = 'account_limit';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER limited_sums_kept AFTER INSERT OR UPDATE ON limited_sums FOR EACH ROW EXECUTE FUNCTION keep_limit();

-- Rated lines that have no transfer yet; the claim is deleting the row, in the transaction that writes the transfer.
CREATE TABLE unposted (rated_id text COLLATE "C" PRIMARY KEY);
CREATE FUNCTION note_unposted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO unposted SELECT rated_id FROM fresh WHERE amount_micros <> 0;
  RETURN NULL;
END $$;
CREATE TRIGGER rated_lines_unposted AFTER INSERT ON rated_lines REFERENCING NEW TABLE AS fresh
  FOR EACH STATEMENT EXECUTE FUNCTION note_unposted();
INSERT INTO unposted SELECT rated_id FROM rated_lines WHERE amount_micros <> 0;

GRANT SELECT, INSERT, UPDATE, DELETE ON unposted TO baseai_service;
GRANT SELECT ON chart, accounts, limited_sums TO baseai_service;
GRANT SELECT, INSERT, UPDATE ON periods TO baseai_service;
GRANT SELECT, INSERT ON book_checkpoints, book_checks TO baseai_service;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO baseai_service;
"""

DOCUMENTS = """
-- A number is taken in the transaction that writes its document, so that a series has no gap and no number twice.
CREATE TABLE invoice_series (
  series text PRIMARY KEY CHECK (series ~ '^[A-Z0-9]{1,5}$'), last_number bigint NOT NULL CHECK (last_number > 0));
CREATE TABLE invoices (
  invoice_id text PRIMARY KEY, series text NOT NULL REFERENCES invoice_series, number bigint NOT NULL,
  kind text NOT NULL CHECK (kind IN ('invoice', 'supplement', 'credit_note')),
  tenant_id text NOT NULL REFERENCES tenants, customer_id text NOT NULL REFERENCES customers, period text NOT NULL,
  currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'), total_cents bigint NOT NULL,
  issued_at timestamptz NOT NULL, issued_by text NOT NULL, due_on date NOT NULL,
  corrects text REFERENCES invoices, document jsonb NOT NULL, digest text NOT NULL CHECK (digest ~ '^[0-9a-f]{64}$'),
  UNIQUE (series, number), CHECK (kind <> 'supplement' OR corrects IS NOT NULL));
CREATE INDEX invoices_customer ON invoices (customer_id, period);
-- Which document asks for a rated line: once, for ever.
CREATE TABLE invoiced_lines (
  rated_id text COLLATE "C" PRIMARY KEY REFERENCES rated_lines, invoice_id text NOT NULL REFERENCES invoices,
  line_no integer NOT NULL CHECK (line_no > 0), tenant_id text NOT NULL);
CREATE INDEX invoiced_lines_invoice ON invoiced_lines (invoice_id);
CREATE FUNCTION keep_series() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.number <> (SELECT last_number FROM invoice_series WHERE series = NEW.series)
    OR NEW.number <> 1 + (SELECT count(*) FROM invoices WHERE series = NEW.series) THEN
    RAISE EXCEPTION '% would leave a gap in series %', NEW.invoice_id, NEW.series
      USING ERRCODE = 'check_violation', CONSTRAINT = 'series_without_gap';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER invoices_series BEFORE INSERT ON invoices FOR EACH ROW EXECUTE FUNCTION keep_series();
CREATE TRIGGER invoices_fixed BEFORE UPDATE OR DELETE ON invoices FOR EACH ROW EXECUTE FUNCTION append_only();
CREATE TRIGGER invoiced_lines_fixed BEFORE UPDATE OR DELETE ON invoiced_lines
  FOR EACH ROW EXECUTE FUNCTION append_only();
GRANT SELECT, INSERT, UPDATE ON invoice_series TO baseai_service;
GRANT SELECT, INSERT ON invoices, invoiced_lines TO baseai_service;
"""


def upgrade() -> None:
    op.execute(TABLES)
    for noun, pairs in MOVES.items():
        for before, after in sorted(pairs):
            op.execute(f"INSERT INTO moves VALUES ('{noun}', '{before}', '{after}')")
    chart = "INSERT INTO chart (pattern, nature, currency, bound) VALUES (%s, %s, %s, %s)"
    op.get_bind().exec_driver_sql(chart, list(CHART))
    op.execute(GUARD)
    op.execute(DOCUMENTS)
    for table in ("invoices", "invoiced_lines"):
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenant ON {table} USING (tenant_id = current_setting('baseai.tenant', true)"
            f" OR current_setting('baseai.tenant', true) = '*')"
        )


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead: history is not thrown away by a command")
