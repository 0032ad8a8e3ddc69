"""The nursery is the process from which a node's workers are forked: it imports, and does nothing else.

Invariant: it has no threads and no device when it forks. A SIGTERM to the whole process group must not end it,
because its end is the workers' end: the launcher decides. It is imported first, before anything slow.
"""

import signal

signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
