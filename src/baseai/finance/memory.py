"""Books held in this process: for the twin, and for tests; they keep the same contract as PostgreSQL's."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from baseai.finance.account import Balance
from baseai.finance.transfer import Transfer, TrialBalance, balances_of, check_resolution
from baseai.ground.fault import Conflict


class MemoryBooks:
    """The transfers of one world, in the order in which they were written."""

    def __init__(self) -> None:
        self._transfers: dict[str, Transfer] = {}
        self._resolved_by: dict[str, str] = {}  # pending transfer → its post or void

    def __iter__(self) -> Iterator[Transfer]:
        return iter(tuple(self._transfers.values()))

    async def post(self, transfers: Sequence[Transfer]) -> int:
        fresh: dict[str, Transfer] = {}
        resolved: dict[str, str] = {}
        for transfer in transfers:
            known = self._transfers.get(transfer.transfer_id) or fresh.get(transfer.transfer_id)
            if known is not None:
                if known != transfer:
                    raise Conflict(f"{transfer.transfer_id} stands in the books with another body")
                continue
            if transfer.pending_id is not None:
                named = transfer.pending_id
                check_resolution(transfer, self._transfers.get(named) or fresh.get(named))
                if named in self._resolved_by or named in resolved:
                    raise Conflict(f"{named} is resolved already; {transfer.transfer_id} comes too late")
                resolved[named] = transfer.transfer_id
            fresh[transfer.transfer_id] = transfer
        self._transfers |= fresh
        self._resolved_by |= resolved
        return len(fresh)

    async def balance(self, account: str, at: datetime) -> tuple[Balance, ...]:
        return tuple(row for row in balances_of(self, at=at) if row.account == account)

    async def trial_balance(self, at: datetime) -> TrialBalance:
        return TrialBalance(at=at, balances=balances_of(self, at=at))
