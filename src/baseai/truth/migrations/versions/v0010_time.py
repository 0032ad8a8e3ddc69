"""The time ledger: every second of every accelerator in one bucket, why it may be counted anew, and whether it adds up.

A row of `time_buckets` never changes: facts that come late give the hour of an accelerator rows of a higher revision,
with the reason, and the older ones are marked as replaced and kept. What late facts touch, triggers write down.
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE time_buckets (
  hour timestamptz NOT NULL CHECK (hour = date_trunc('hour', hour, 'UTC')),
  accelerator_no bigint NOT NULL REFERENCES accelerators,
  bucket text NOT NULL CHECK (bucket IN ('on_demand', 'reserved', 'research', 'spot', 'reserved_unused', 'start_up',
    'lost', 'idle', 'fragmented', 'burn_in', 'maintenance', 'failed', 'rma', 'not_live')),
  micro_seconds bigint NOT NULL CHECK (micro_seconds BETWEEN 1 AND 3600000000),
  revision integer NOT NULL CHECK (revision >= 1), reason text,
  recorded_at timestamptz NOT NULL DEFAULT now(), replaced_at timestamptz,
  PRIMARY KEY (accelerator_no, hour, revision, bucket),
  CHECK (revision = 1 OR reason IS NOT NULL));
CREATE UNIQUE INDEX time_buckets_now ON time_buckets (hour, accelerator_no, bucket) INCLUDE (micro_seconds)
  WHERE replaced_at IS NULL;
CREATE INDEX time_buckets_replaced ON time_buckets (hour, accelerator_no) WHERE replaced_at IS NOT NULL;

CREATE FUNCTION guard_time() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'UPDATE' AND OLD.replaced_at IS NULL AND NEW.replaced_at IS NOT NULL
    AND (NEW.hour, NEW.accelerator_no, NEW.bucket, NEW.micro_seconds, NEW.revision, NEW.recorded_at)
      = (OLD.hour, OLD.accelerator_no, OLD.bucket, OLD.micro_seconds, OLD.revision, OLD.recorded_at)
    AND NEW.reason IS NOT DISTINCT FROM OLD.reason
  THEN RETURN NEW;
  END IF;
  RAISE EXCEPTION 'time_buckets is append-only: write rows of the next revision, with the reason'
    USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER time_fixed BEFORE UPDATE OR DELETE ON time_buckets FOR EACH ROW EXECUTE FUNCTION guard_time();

-- The moves of nodes and accelerators, which a window's hours are reckoned from.
CREATE INDEX events_moves ON events (subject_kind, subject_id, at) WHERE from_state IS NOT NULL
  AND to_state IS NOT NULL AND subject_kind IN ('node', 'accelerator');

-- How far the hours are closed, in one row.
CREATE TABLE time_mark (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  closed_until timestamptz CHECK (closed_until = date_trunc('hour', closed_until, 'UTC')));
INSERT INTO time_mark DEFAULT VALUES;

-- Time whose facts came or changed after its hour was over; gone once it is counted anew.
CREATE TABLE late_facts (
  late_no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, accelerator_no bigint NOT NULL REFERENCES accelerators,
  from_at timestamptz NOT NULL, until_at timestamptz NOT NULL, reason text NOT NULL,
  at timestamptz NOT NULL DEFAULT now());

-- When capacity was free in sum and in no place. `seen_at`: the last cycle that said so.
CREATE TABLE fragmentations (
  fragmentation_no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  model text NOT NULL, site_id text NOT NULL REFERENCES sites, from_at timestamptz NOT NULL,
  seen_at timestamptz NOT NULL, until_at timestamptz, CHECK (seen_at >= from_at AND until_at >= from_at));
CREATE UNIQUE INDEX fragmentations_open ON fragmentations (model, site_id) WHERE until_at IS NULL;
CREATE INDEX fragmentations_time ON fragmentations (from_at);

-- What did not hold, of which hour and site, until when. While a row stands, nobody is shown that hour's figures.
CREATE TABLE checks (
  check_no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, hour timestamptz, site_id text,
  sentence text NOT NULL, failed_at timestamptz NOT NULL DEFAULT now(), passed_at timestamptz);
CREATE UNIQUE INDEX checks_standing ON checks (name, hour, site_id) NULLS NOT DISTINCT WHERE passed_at IS NULL;
CREATE TABLE check_rounds (
  name text PRIMARY KEY, ran_at timestamptz NOT NULL DEFAULT now(), looked_at bigint NOT NULL, failing bigint NOT NULL);
"""

# Each says which accelerators' time is to be counted anew, from when to when, and why. What concerns the running hour
# alone is not late: that hour is still to be closed.
LATE = """
CREATE FUNCTION note_late(leases text[], since timestamptz, until timestamptz, why text) RETURNS void
LANGUAGE sql AS $$
  INSERT INTO late_facts (accelerator_no, from_at, until_at, reason)
  SELECT accelerator_no, since, until, why FROM lease_accelerators
  WHERE lease_id = ANY(leases) AND since < until ORDER BY accelerator_no
$$;

CREATE FUNCTION late_lease() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM note_late(ARRAY[NEW.lease_id],
    LEAST(COALESCE(OLD.observed_until, OLD.granted_at), COALESCE(NEW.observed_until, now()), NEW.released_at),
    LEAST(now(), NEW.ends_at), 'lease ' || NEW.lease_id || ' was seen later than its hour was over');
  RETURN NULL;
END $$;
CREATE TRIGGER lease_late AFTER UPDATE OF observed_from, observed_until, released_at ON leases FOR EACH ROW
  WHEN (LEAST(COALESCE(OLD.observed_until, OLD.granted_at), NEW.released_at) < date_trunc('hour', now(), 'UTC')
    AND (OLD.observed_from, OLD.observed_until, OLD.released_at)
      IS DISTINCT FROM (NEW.observed_from, NEW.observed_until, NEW.released_at))
  EXECUTE FUNCTION late_lease();

CREATE FUNCTION late_grant() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO late_facts (accelerator_no, from_at, until_at, reason)
  VALUES (NEW.accelerator_no, lower(NEW.during), LEAST(now(), upper(NEW.during)),
    'lease ' || NEW.lease_id || ' was written later than its hour was over');
  RETURN NULL;
END $$;
CREATE TRIGGER grant_late AFTER INSERT ON lease_accelerators FOR EACH ROW
  WHEN (lower(NEW.during) < date_trunc('hour', now(), 'UTC')) EXECUTE FUNCTION late_grant();

CREATE FUNCTION late_verdict() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO late_facts (accelerator_no, from_at, until_at, reason)
  SELECT d.accelerator_no, l.granted_at, now(),
    'attempt ' || NEW.attempt_no || ' of ' || NEW.run_id || ' ended: ' || COALESCE(NEW.reason, 'no reason')
  FROM leases l JOIN lease_accelerators d USING (lease_id)
  WHERE l.run_id = NEW.run_id AND l.attempt_no = NEW.attempt_no AND l.granted_at < date_trunc('hour', now(), 'UTC');
  RETURN NULL;
END $$;
CREATE TRIGGER verdict_late AFTER UPDATE OF state, reason ON attempts FOR EACH ROW
  WHEN (NEW.state = 'ended' AND (OLD.state, OLD.reason) IS DISTINCT FROM (NEW.state, NEW.reason))
  EXECUTE FUNCTION late_verdict();

CREATE FUNCTION late_checkpoint() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM note_late((SELECT array_agg(lease_id) FROM leases WHERE run_id = NEW.run_id AND attempt_no = NEW.attempt_no),
    NEW.committed_at, now(), 'a checkpoint of ' || NEW.run_id || ' was told later than its hour was over');
  RETURN NULL;
END $$;
CREATE TRIGGER checkpoint_late AFTER INSERT ON checkpoints FOR EACH ROW
  WHEN (NEW.committed_at < date_trunc('hour', now(), 'UTC')) EXECUTE FUNCTION late_checkpoint();

CREATE FUNCTION late_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO late_facts (accelerator_no, from_at, until_at, reason)
  SELECT accelerator_no, NEW.at, now(), 'a move of ' || NEW.subject_id || ' was written later than its hour was over'
  FROM accelerators WHERE NEW.subject_kind = 'accelerator' AND serial = NEW.subject_id
    OR NEW.subject_kind = 'node' AND node_id = NEW.subject_id;
  RETURN NULL;
END $$;
CREATE TRIGGER move_late AFTER INSERT ON events FOR EACH ROW
  WHEN (NEW.to_state IS NOT NULL AND NEW.subject_kind IN ('node', 'accelerator')
    AND NEW.at < date_trunc('hour', now(), 'UTC'))
  EXECUTE FUNCTION late_move();

CREATE FUNCTION late_accelerator() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO late_facts (accelerator_no, from_at, until_at, reason)
  VALUES (NEW.accelerator_no, LEAST(NEW.installed_at, CASE WHEN TG_OP = 'UPDATE' THEN OLD.installed_at END), now(),
    NEW.serial || ' was installed at another time than was known');
  RETURN NULL;
END $$;
CREATE TRIGGER accelerator_late AFTER INSERT ON accelerators FOR EACH ROW
  WHEN (NEW.installed_at < date_trunc('hour', now(), 'UTC')) EXECUTE FUNCTION late_accelerator();
CREATE TRIGGER accelerator_moved_in_time AFTER UPDATE OF installed_at ON accelerators FOR EACH ROW
  WHEN (NEW.installed_at IS DISTINCT FROM OLD.installed_at
    AND LEAST(NEW.installed_at, OLD.installed_at) < date_trunc('hour', now(), 'UTC'))
  EXECUTE FUNCTION late_accelerator();
"""

GRANTS = """
GRANT SELECT, INSERT ON time_buckets TO baseai_service;
GRANT UPDATE (replaced_at) ON time_buckets TO baseai_service;
GRANT SELECT, UPDATE ON time_mark TO baseai_service;
GRANT SELECT, INSERT, DELETE ON late_facts TO baseai_service;
GRANT SELECT, INSERT, UPDATE ON fragmentations, checks, check_rounds TO baseai_service;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO baseai_service;
"""


def upgrade() -> None:
    op.execute(TABLES)
    op.execute(LATE)
    op.execute(GRANTS)


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead: history is not thrown away by a command")
