"""What the truth says of leases, in SQL: how far one was observed, whether it is over, which reasons are not billed.

Invariant: every statement about use reads these pieces, so that meter, posting and cost reports mean the same. They
expect the aliases l (leases), a (attempts) and r (runs).
"""

from baseai.workloads.burn import KIND as BURN_IN
from baseai.workloads.reason import VERDICTS
from baseai.workloads.run import ENDED

UNBILLABLE = sorted(reason.value for reason, verdict in VERDICTS.items() if not verdict.billable)
UNBILLED_KINDS = [BURN_IN]  # of runs: those that are our own
RUN_ENDED = sorted(state.value for state in ENDED)

# The end of what was observed inside the lease; LEAST passes over nulls.
SEEN = "LEAST(l.observed_until, l.ends_at, l.released_at)"
LEASE_ENDED = "(l.state = 'released' AND (a.state = 'ended' OR r.state = ANY(%(run_ended)s)))"
