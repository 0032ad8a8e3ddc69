"""Serving: services, their versions and replicas, what was asked of them, what they answered, models, and keys that end.

`service_demand` is what the last minutes asked for and may be lost with the server; `service_traffic` is kept.
"""

from alembic import op

revision = "0015"
down_revision = "0013"
branch_labels = None
depends_on = None

MOVES = {
    "service": {
        ("idle", "starting"), ("idle", "stopped"), ("starting", "serving"), ("starting", "failing"),
        ("starting", "idle"), ("starting", "stopped"), ("serving", "idle"), ("serving", "starting"),
        ("serving", "failing"), ("serving", "stopped"), ("failing", "starting"), ("failing", "serving"),
        ("failing", "idle"), ("failing", "stopped"),
    },
    "service_version": {
        ("candidate", "current"), ("candidate", "rolled_back"), ("current", "retired"),
        ("candidate", "retired"),
    },
    "replica": {
        ("starting", "ready"), ("starting", "gone"), ("starting", "draining"), ("ready", "draining"),
        ("ready", "starting"), ("ready", "gone"), ("draining", "gone"),
    },
}  # fmt: skip

TENANT_OWNED = ("services", "service_versions", "replicas", "service_traffic", "service_scalings", "models")

TABLES = """
CREATE TABLE services (
  service_id text PRIMARY KEY, tenant_id text NOT NULL REFERENCES tenants,
  project_id text NOT NULL REFERENCES projects, name text NOT NULL, model_name text NOT NULL,
  state text NOT NULL DEFAULT 'idle' CHECK (state IN ('idle', 'starting', 'serving', 'failing', 'stopped')),
  version_no integer NOT NULL DEFAULT 1, candidate_no integer, candidate_share double precision NOT NULL DEFAULT 0,
  step_at timestamptz, wanted integer NOT NULL DEFAULT 0, wanted_why text, sentence text,
  made_by text NOT NULL, made_at timestamptz NOT NULL DEFAULT now(), stopped_at timestamptz,
  CHECK ((state = 'stopped') = (stopped_at IS NOT NULL)), CHECK (candidate_share BETWEEN 0 AND 1));
CREATE UNIQUE INDEX services_name ON services (project_id, name) WHERE state <> 'stopped';

CREATE TABLE service_versions (
  service_id text NOT NULL REFERENCES services, version_no integer NOT NULL, tenant_id text NOT NULL,
  project_id text NOT NULL, spec jsonb NOT NULL, files jsonb NOT NULL DEFAULT '[]', digest text NOT NULL,
  state text NOT NULL CHECK (state IN ('candidate', 'current', 'retired', 'rolled_back')),
  sentence text, made_by text NOT NULL, made_at timestamptz NOT NULL DEFAULT now(), settled_at timestamptz,
  PRIMARY KEY (service_id, version_no));

ALTER TABLE runs ADD COLUMN service_id text REFERENCES services, ADD COLUMN version_no integer,
  ADD CONSTRAINT runs_version CHECK ((service_id IS NULL) = (version_no IS NULL));
CREATE INDEX runs_service ON runs (service_id) WHERE service_id IS NOT NULL;

CREATE TABLE replicas (
  run_id text PRIMARY KEY REFERENCES runs, service_id text NOT NULL REFERENCES services,
  version_no integer NOT NULL, tenant_id text NOT NULL, project_id text NOT NULL,
  state text NOT NULL DEFAULT 'starting' CHECK (state IN ('starting', 'ready', 'draining', 'gone')),
  attempt_no integer NOT NULL DEFAULT 0, address text, port integer, model_digest text,
  made_at timestamptz NOT NULL DEFAULT now(), ready_at timestamptz, draining_at timestamptz, gone_at timestamptz,
  why text, CHECK (state <> 'ready' OR port IS NOT NULL));
CREATE INDEX replicas_live ON replicas (service_id) WHERE state <> 'gone';

CREATE UNLOGGED TABLE service_demand (
  service_id text NOT NULL, gateway text NOT NULL, at timestamptz NOT NULL, concurrency double precision NOT NULL,
  held integer NOT NULL, arrivals integer NOT NULL, PRIMARY KEY (service_id, gateway, at));
CREATE INDEX service_demand_at ON service_demand (at);

-- Stretches of ten seconds of one gateway process: counts, and latencies as counts in buckets (serving/latency.py).
CREATE TABLE service_traffic (
  service_id text NOT NULL REFERENCES services, tenant_id text NOT NULL, project_id text NOT NULL,
  version_no integer NOT NULL, gateway text NOT NULL, from_at timestamptz NOT NULL,
  requests bigint NOT NULL, errors bigint NOT NULL, refused bigint NOT NULL, slow bigint NOT NULL,
  cache_hits bigint NOT NULL, collapsed bigint NOT NULL, retried bigint NOT NULL, lost bigint NOT NULL,
  tokens_in bigint NOT NULL, tokens_out bigint NOT NULL, bytes_in bigint NOT NULL, bytes_out bigint NOT NULL,
  latency integer[] NOT NULL, first_byte integer[] NOT NULL,
  PRIMARY KEY (service_id, version_no, gateway, from_at));
CREATE INDEX service_traffic_at ON service_traffic (service_id, from_at);

-- How far the segments of each gateway process have been taken in, so that none counts twice.
CREATE TABLE gateway_marks (
  gateway text PRIMARY KEY, traffic_no bigint NOT NULL DEFAULT 0, usage_no bigint NOT NULL DEFAULT 0,
  at timestamptz NOT NULL DEFAULT now(), CHECK (usage_no <= traffic_no));

CREATE TABLE service_scalings (
  service_id text NOT NULL REFERENCES services, tenant_id text NOT NULL, project_id text NOT NULL,
  at timestamptz NOT NULL, wanted integer NOT NULL, had integer NOT NULL, ready integer NOT NULL,
  demand double precision NOT NULL, panic boolean NOT NULL, why text NOT NULL, PRIMARY KEY (service_id, at));

CREATE TABLE models (
  model_id text PRIMARY KEY, tenant_id text NOT NULL REFERENCES tenants, project_id text NOT NULL REFERENCES projects,
  name text NOT NULL, digest text NOT NULL, source text NOT NULL, origin_run_id text REFERENCES runs,
  evaluation jsonb NOT NULL DEFAULT '{}', bytes bigint NOT NULL CHECK (bytes >= 0), license text,
  engine text NOT NULL, made_at timestamptz NOT NULL DEFAULT now(), CONSTRAINT one_model UNIQUE (project_id, digest, name));

ALTER TABLE api_keys ADD COLUMN expires_at timestamptz, ADD COLUMN scopes text[],
  ADD COLUMN requests_per_minute integer CHECK (requests_per_minute > 0),
  ADD COLUMN tokens_per_minute integer CHECK (tokens_per_minute > 0);

CREATE FUNCTION tell_serving() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_notify('baseai_serving', ''); RETURN NULL; END $$;
CREATE TRIGGER services_told AFTER INSERT OR UPDATE ON services
  FOR EACH STATEMENT EXECUTE FUNCTION tell_serving();
CREATE TRIGGER service_versions_told AFTER INSERT OR UPDATE ON service_versions
  FOR EACH STATEMENT EXECUTE FUNCTION tell_serving();
CREATE TRIGGER replicas_told AFTER INSERT OR UPDATE ON replicas
  FOR EACH STATEMENT EXECUTE FUNCTION tell_serving();
CREATE TRIGGER service_moves BEFORE UPDATE OF state ON services
  FOR EACH ROW EXECUTE FUNCTION guard_move('service');
CREATE TRIGGER service_version_moves BEFORE UPDATE OF state ON service_versions
  FOR EACH ROW EXECUTE FUNCTION guard_move('service_version');
CREATE TRIGGER replica_moves BEFORE UPDATE OF state ON replicas
  FOR EACH ROW EXECUTE FUNCTION guard_move('replica');

GRANT SELECT, INSERT, UPDATE ON services, service_versions, replicas, models TO baseai_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON service_demand, service_traffic, service_scalings, gateway_marks TO baseai_service;
"""


def upgrade() -> None:
    op.execute(TABLES)
    for noun, pairs in MOVES.items():
        for before, after in sorted(pairs):
            op.execute(f"INSERT INTO moves VALUES ('{noun}', '{before}', '{after}')")
    for table in TENANT_OWNED:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenant ON {table} USING (tenant_id = current_setting('baseai.tenant', true)"
            " OR current_setting('baseai.tenant', true) = '*')"
        )


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead: history is not thrown away by a command")
