"""The nursery is the process from which a node's workers are forked: it imports, and does nothing else.

Invariant: it has no threads and no device when it forks, and it ends with its launcher, by the kernel's hand where
the kernel offers one; its workers end with it in the same way. A SIGTERM to the whole process group must not end
it: the launcher decides. This module is imported first, before anything slow.
"""

import os
import signal

from baseai.workloads.training.worker import end_with_parent

signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
end_with_parent()
if os.getppid() == 1:  # the launcher was gone before we could ask
    os._exit(0)
