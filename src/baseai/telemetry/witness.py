"""A witness is one event about a device or its node, as somebody saw it: a Xid, a kernel line, a word of the BMC.

Invariant: its id was made when it was seen, so that telling it twice is the same as once. What follows from it is
health's to say; nobody changes one once made.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """One event, at an instant by the server's clock."""

    event_id: str
    at: datetime
    kind: str  # xid, sxid, afid, kernel, redfish, device_lost, ...
    key: str | None  # serial of the accelerator it is about; None: the node
    code: int | None
    severity: str  # info, warning or critical
    sentence: str
    payload: Mapping[str, Any] = field(default_factory=dict)
