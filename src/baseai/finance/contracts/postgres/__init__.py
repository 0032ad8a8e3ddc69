"""What was agreed, told and rated, in the truth. Shells: rows become values, and the pure files decide."""

from baseai.finance.contracts.postgres.agreements import Agreements
from baseai.finance.contracts.postgres.bulletins import Bulletins
from baseai.finance.contracts.postgres.events import UsageEvents
from baseai.finance.contracts.postgres.rater import Rater

__all__ = ["Agreements", "Bulletins", "Rater", "UsageEvents"]
