"""The first shape: tenancy, fleet, leases, runs, events, usage and transfers.

Every tenant-owned row carries tenant_id and project_id and is under forced row-level security. The service
role owns nothing and may not change or delete events, usage lines and transfers. States move only along
`moves`; leases of one accelerator never overlap.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TENANT_OWNED = (
    "projects", "api_keys", "secrets", "files", "runs", "attempts", "leases", "lease_accelerators",
    "run_points", "checkpoints", "events", "usage_lines", "transfers",
)  # fmt: skip
APPEND_ONLY = ("events", "usage_lines", "transfers")

MOVES = {
    "run": {
        ("queued", "starting"), ("queued", "cancelled"),
        ("starting", "running"), ("starting", "queued"), ("starting", "failed"), ("starting", "stopping"),
        ("running", "stopping"), ("running", "recovering"), ("running", "preempted"),
        ("recovering", "running"), ("recovering", "queued"), ("recovering", "failed"), ("recovering", "stopping"),
        ("preempted", "queued"),
        ("stopping", "succeeded"), ("stopping", "failed"), ("stopping", "cancelled"),
    },
    "node": {
        ("onboarding", "burn_in"), ("onboarding", "ready"), ("onboarding", "retired"),
        ("burn_in", "ready"), ("burn_in", "repairing"),
        ("ready", "cordoned"), ("ready", "draining"), ("ready", "quarantined"), ("ready", "retired"),
        ("cordoned", "ready"), ("cordoned", "draining"), ("cordoned", "quarantined"), ("cordoned", "retired"),
        ("draining", "cordoned"), ("draining", "repairing"), ("draining", "quarantined"), ("draining", "retired"),
        ("repairing", "verifying"), ("repairing", "rma"), ("verifying", "ready"), ("verifying", "repairing"),
        ("quarantined", "repairing"), ("quarantined", "rma"), ("quarantined", "retired"), ("rma", "retired"),
    },
    "lease": {
        ("granted", "active"), ("granted", "released"), ("granted", "unconfirmed"),
        ("active", "released"), ("active", "unconfirmed"),
        ("unconfirmed", "active"), ("unconfirmed", "released"),
    },
    "accelerator": {
        ("ordered", "received"), ("received", "installed"), ("installed", "in_service"),
        ("in_service", "failed"), ("failed", "in_service"), ("failed", "rma"), ("rma", "retired"),
        ("in_service", "retired"),
    },
}  # fmt: skip

TABLES = """
CREATE TABLE platform (name text PRIMARY KEY, value jsonb NOT NULL);

CREATE TABLE moves (
  noun text, from_state text, to_state text, PRIMARY KEY (noun, from_state, to_state));

CREATE TABLE tenants (
  tenant_id text PRIMARY KEY, name text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
  created_at timestamptz NOT NULL DEFAULT now());

CREATE TABLE projects (
  project_id text PRIMARY KEY, tenant_id text NOT NULL REFERENCES tenants, name text NOT NULL
    CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
  created_at timestamptz NOT NULL DEFAULT now(), UNIQUE (tenant_id, name));

CREATE TABLE sites (site_id text PRIMARY KEY, kind text NOT NULL DEFAULT 'owned');

CREATE TABLE nodes (
  node_id text PRIMARY KEY, name text NOT NULL UNIQUE, site_id text NOT NULL REFERENCES sites,
  address text NOT NULL, state text NOT NULL, health text NOT NULL DEFAULT 'healthy',
  isolation text NOT NULL CHECK (isolation IN ('none', 'user', 'container')),
  container_runtime text, cores integer NOT NULL, memory_mib integer NOT NULL, disk_mib bigint NOT NULL,
  boot_id text NOT NULL, version text NOT NULL DEFAULT '', protocol integer NOT NULL,
  desired_version bigint NOT NULL DEFAULT 1,
  joined_at timestamptz NOT NULL DEFAULT now(), seen_at timestamptz NOT NULL DEFAULT now(),
  simulated boolean NOT NULL DEFAULT false);

CREATE TABLE api_keys (
  key_id text PRIMARY KEY, tenant_id text REFERENCES tenants, project_id text REFERENCES projects,
  node_id text REFERENCES nodes, name text NOT NULL,
  role text NOT NULL CHECK (role IN ('operator', 'customer', 'finance', 'investor', 'viewer', 'node')),
  hash bytea NOT NULL UNIQUE, created_at timestamptz NOT NULL DEFAULT now(),
  revoked_at timestamptz, last_used_at timestamptz,
  CHECK ((role = 'customer') = (tenant_id IS NOT NULL)), CHECK ((role = 'node') = (node_id IS NOT NULL)));

CREATE TABLE sign_ins (
  hash bytea PRIMARY KEY, kind text NOT NULL CHECK (kind IN ('link', 'session')),
  key_id text NOT NULL REFERENCES api_keys, created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL, used_at timestamptz);

CREATE TABLE join_tokens (
  hash bytea PRIMARY KEY, site_id text NOT NULL, made_by text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(), expires_at timestamptz NOT NULL,
  used_at timestamptz, node_id text REFERENCES nodes);

CREATE TABLE secrets (
  tenant_id text NOT NULL REFERENCES tenants, project_id text NOT NULL REFERENCES projects,
  name text NOT NULL CHECK (name ~ '^[A-Za-z_][A-Za-z0-9_]{0,127}$'), ciphertext bytea NOT NULL,
  updated_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (project_id, name));

CREATE TABLE idempotency (
  key_id text NOT NULL, idempotency_key text NOT NULL, digest bytea NOT NULL, status integer NOT NULL,
  response jsonb NOT NULL, at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (key_id, idempotency_key));

CREATE TABLE files (
  tenant_id text NOT NULL REFERENCES tenants, project_id text NOT NULL REFERENCES projects,
  digest text NOT NULL CHECK (digest ~ '^[0-9a-f]{64}$'), bytes bigint NOT NULL,
  uploaded_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (tenant_id, digest));

CREATE TABLE accelerators (
  accelerator_no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, accelerator_id text NOT NULL UNIQUE,
  node_id text NOT NULL REFERENCES nodes, model text NOT NULL, serial text NOT NULL UNIQUE,
  device_index integer NOT NULL, memory_mib integer NOT NULL DEFAULT 0, state text NOT NULL,
  round_id text, purchase_id text, warranty_until date,
  installed_at timestamptz NOT NULL DEFAULT now());
CREATE INDEX accelerators_node ON accelerators (node_id);

CREATE TABLE runs (
  run_id text PRIMARY KEY, tenant_id text NOT NULL REFERENCES tenants,
  project_id text NOT NULL REFERENCES projects, name text NOT NULL, kind text NOT NULL,
  spec jsonb NOT NULL, files jsonb NOT NULL DEFAULT '[]', priority integer NOT NULL,
  state text NOT NULL, reason text, sentence text,
  attempt_no integer NOT NULL DEFAULT 0, errors integer NOT NULL DEFAULT 0,
  interruptions integer NOT NULL DEFAULT 0, restarts integer NOT NULL DEFAULT 0,
  submitted_by text NOT NULL, submitted_at timestamptz NOT NULL DEFAULT now(),
  enqueued_at timestamptz NOT NULL DEFAULT now(), started_at timestamptz, ended_at timestamptz,
  stop_reason text, wait jsonb, progress jsonb NOT NULL DEFAULT '{}', result jsonb NOT NULL DEFAULT '{}');
CREATE INDEX runs_live ON runs (state) WHERE state NOT IN ('succeeded', 'failed', 'cancelled');
CREATE INDEX runs_name ON runs (tenant_id, name, submitted_at DESC);

CREATE TABLE attempts (
  run_id text NOT NULL REFERENCES runs, attempt_no integer NOT NULL,
  tenant_id text NOT NULL, project_id text NOT NULL, nodes integer NOT NULL,
  rendezvous_port integer NOT NULL, state text NOT NULL CHECK (state IN ('starting', 'running', 'ended')),
  reason text, sentence text, granted_at timestamptz NOT NULL DEFAULT now(), started_at timestamptz,
  ended_at timestamptz, stop boolean NOT NULL DEFAULT false, PRIMARY KEY (run_id, attempt_no));

CREATE TABLE leases (
  lease_id text PRIMARY KEY, tenant_id text NOT NULL, project_id text NOT NULL,
  run_id text NOT NULL, attempt_no integer NOT NULL, node_id text NOT NULL REFERENCES nodes,
  node_rank integer NOT NULL, model text NOT NULL, state text NOT NULL,
  granted_at timestamptz NOT NULL DEFAULT now(), ends_at timestamptz NOT NULL, released_at timestamptz,
  observed_from timestamptz, observed_until timestamptz, pid integer,
  exit_code integer, exit_reason text, exit_sentence text, metered_until timestamptz,
  memory_mib integer NOT NULL DEFAULT 0, disk_mib bigint NOT NULL DEFAULT 0, cores integer NOT NULL DEFAULT 0,
  FOREIGN KEY (run_id, attempt_no) REFERENCES attempts, UNIQUE (run_id, attempt_no, node_rank),
  CHECK (ends_at > granted_at));
CREATE INDEX leases_live ON leases (node_id) WHERE state <> 'released';
CREATE INDEX leases_run ON leases (run_id);
CREATE INDEX leases_unmetered ON leases (lease_id) WHERE observed_until IS NOT NULL
  AND (metered_until IS NULL OR metered_until < LEAST(observed_until, ends_at, released_at));

-- int8range instead of btree_gist, so that any managed PostgreSQL will do.
CREATE TABLE lease_accelerators (
  lease_id text NOT NULL REFERENCES leases, accelerator_no bigint NOT NULL REFERENCES accelerators,
  tenant_id text NOT NULL, project_id text NOT NULL, during tstzrange NOT NULL,
  PRIMARY KEY (lease_id, accelerator_no),
  CONSTRAINT lease_in_time CHECK (NOT isempty(during) AND lower_inc(during) AND NOT upper_inc(during)),
  CONSTRAINT one_lease_at_a_time EXCLUDE USING gist
    (int8range(accelerator_no, accelerator_no, '[]') WITH &&, during WITH &&));

CREATE TABLE observations (
  event_id text PRIMARY KEY, lease_id text NOT NULL REFERENCES leases, node_id text NOT NULL REFERENCES nodes,
  at timestamptz NOT NULL, kind text NOT NULL, body jsonb NOT NULL, recorded_at timestamptz NOT NULL DEFAULT now());

CREATE TABLE run_points (
  event_id text PRIMARY KEY, run_id text NOT NULL REFERENCES runs, tenant_id text NOT NULL,
  project_id text NOT NULL, attempt_no integer NOT NULL, restart integer NOT NULL, step bigint NOT NULL,
  at timestamptz NOT NULL, loss double precision, tokens_per_s double precision, step_ms double precision,
  sync_ratio double precision, goodput_ratio double precision);
CREATE INDEX run_points_run ON run_points (run_id, step);

CREATE TABLE checkpoints (
  event_id text PRIMARY KEY, run_id text NOT NULL REFERENCES runs, tenant_id text NOT NULL,
  project_id text NOT NULL, attempt_no integer NOT NULL, step bigint NOT NULL, path text NOT NULL,
  digest text NOT NULL, bytes bigint NOT NULL, save_s double precision NOT NULL,
  stall_ms double precision NOT NULL, committed_at timestamptz NOT NULL);
CREATE INDEX checkpoints_run ON checkpoints (run_id, step DESC);

CREATE TABLE events (
  event_no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(),
  tenant_id text, project_id text, subject_kind text NOT NULL, subject_id text NOT NULL, event text NOT NULL,
  from_state text, to_state text, reason text, actor text NOT NULL, sentence text);
CREATE INDEX events_subject ON events (subject_id, event_no);

CREATE TABLE usage_lines (
  line_id text PRIMARY KEY, tenant_id text NOT NULL, project_id text NOT NULL,
  lease_id text NOT NULL REFERENCES leases, run_id text NOT NULL, attempt_no integer NOT NULL,
  accelerator_no bigint NOT NULL REFERENCES accelerators, node_id text NOT NULL, site_id text NOT NULL,
  model text NOT NULL, hour timestamptz NOT NULL, from_at timestamptz NOT NULL, to_at timestamptz NOT NULL,
  micro_seconds bigint NOT NULL CHECK (micro_seconds > 0), billable boolean NOT NULL, reason text,
  recorded_at timestamptz NOT NULL DEFAULT now(),
  CHECK (to_at > from_at AND from_at >= hour AND to_at <= hour + interval '1 hour'),
  CONSTRAINT counted_once EXCLUDE USING gist
    (int8range(accelerator_no, accelerator_no, '[]') WITH &&, tstzrange(from_at, to_at) WITH &&));
CREATE INDEX usage_lines_run ON usage_lines (run_id);

CREATE TABLE transfers (
  transfer_id text PRIMARY KEY, entry_id text NOT NULL, tenant_id text, project_id text,
  debit_account text NOT NULL, credit_account text NOT NULL, amount_micros bigint NOT NULL CHECK (amount_micros > 0),
  currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
  kind text NOT NULL DEFAULT 'posted' CHECK (kind IN ('posted', 'pending', 'post', 'void')),
  pending_id text REFERENCES transfers, effective_at timestamptz NOT NULL,
  recorded_at timestamptz NOT NULL DEFAULT now(), run_id text, accelerator_no bigint, node_id text,
  site_id text, model text, hour timestamptz, micro_seconds bigint, unit_price numeric, note text,
  CHECK (debit_account <> credit_account), CHECK ((kind IN ('post', 'void')) = (pending_id IS NOT NULL)));
CREATE UNIQUE INDEX transfers_resolve_once ON transfers (pending_id) WHERE pending_id IS NOT NULL;
CREATE INDEX transfers_run ON transfers (run_id);
CREATE INDEX transfers_debit ON transfers (debit_account, effective_at);
CREATE INDEX transfers_credit ON transfers (credit_account, effective_at);
"""

GUARDS = """
CREATE FUNCTION guard_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.state IS DISTINCT FROM OLD.state AND NOT EXISTS (
    SELECT FROM moves WHERE noun = TG_ARGV[0] AND from_state = OLD.state AND to_state = NEW.state)
  THEN RAISE EXCEPTION 'a % does not move from % to %', TG_ARGV[0], OLD.state, NEW.state USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER run_moves BEFORE UPDATE OF state ON runs FOR EACH ROW EXECUTE FUNCTION guard_move('run');
CREATE TRIGGER node_moves BEFORE UPDATE OF state ON nodes FOR EACH ROW EXECUTE FUNCTION guard_move('node');
CREATE TRIGGER lease_moves BEFORE UPDATE OF state ON leases FOR EACH ROW EXECUTE FUNCTION guard_move('lease');
CREATE TRIGGER accelerator_moves BEFORE UPDATE OF state ON accelerators
  FOR EACH ROW EXECUTE FUNCTION guard_move('accelerator');

CREATE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only: write a new row that names the old one', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER events_fixed BEFORE UPDATE OR DELETE ON events FOR EACH ROW EXECUTE FUNCTION append_only();
CREATE TRIGGER usage_fixed BEFORE UPDATE OR DELETE ON usage_lines FOR EACH ROW EXECUTE FUNCTION append_only();
CREATE TRIGGER transfers_fixed BEFORE UPDATE OR DELETE ON transfers FOR EACH ROW EXECUTE FUNCTION append_only();

CREATE FUNCTION tell_desired() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_notify('baseai_desired', NEW.node_id); RETURN NULL; END $$;
CREATE TRIGGER nodes_tell AFTER UPDATE OF desired_version ON nodes
  FOR EACH ROW WHEN (NEW.desired_version IS DISTINCT FROM OLD.desired_version) EXECUTE FUNCTION tell_desired();

CREATE FUNCTION tell_run() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_notify('baseai_run', NEW.run_id); RETURN NULL; END $$;
CREATE TRIGGER runs_tell AFTER INSERT OR UPDATE ON runs FOR EACH ROW EXECUTE FUNCTION tell_run();

CREATE FUNCTION tell_tick() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_notify('baseai_tick', ''); RETURN NULL; END $$;
CREATE TRIGGER runs_tick AFTER INSERT OR UPDATE OF state, stop_reason ON runs FOR EACH ROW EXECUTE FUNCTION tell_tick();
CREATE TRIGGER nodes_tick AFTER INSERT OR UPDATE OF state ON nodes FOR EACH ROW EXECUTE FUNCTION tell_tick();
CREATE TRIGGER leases_tick AFTER UPDATE OF state, exit_code, exit_reason ON leases
  FOR EACH ROW EXECUTE FUNCTION tell_tick();
"""

ROLE = """
DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'baseai_service') THEN
    CREATE ROLE baseai_service NOLOGIN NOSUPERUSER NOBYPASSRLS;
  END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$;
GRANT baseai_service TO CURRENT_USER;
GRANT USAGE ON SCHEMA public TO baseai_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO baseai_service;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO baseai_service;
REVOKE INSERT, UPDATE, DELETE ON moves FROM baseai_service;
"""


def upgrade() -> None:
    op.execute(TABLES)
    op.execute(GUARDS)
    for noun, pairs in MOVES.items():
        for before, after in sorted(pairs):
            op.execute(f"INSERT INTO moves VALUES ('{noun}', '{before}', '{after}')")
    op.execute(ROLE)
    for table in APPEND_ONLY:
        op.execute(f"REVOKE UPDATE, DELETE, TRUNCATE ON {table} FROM baseai_service")
    for table in TENANT_OWNED:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenant ON {table} USING (tenant_id = current_setting('baseai.tenant', true)"
            f" OR current_setting('baseai.tenant', true) = '*')"
        )


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead: history is not thrown away by a command")
