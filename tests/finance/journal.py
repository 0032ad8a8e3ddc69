"""A sender of transfers in a world that loses replies, repeats, reorders and dies between any two statements.

The sender keeps every group until it is acknowledged and sends it again, in any order. Whatever happens on the way, in
the end the books must hold each group once: their balances are those of all groups, folded.
"""

from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from baseai.finance.books import Books
from baseai.finance.exchange import ExchangeRate, exchange
from baseai.finance.memory import MemoryBooks
from baseai.finance.transfer import Kind, Transfer, reversal_of
from baseai.finance.trial_balance import balances_of, digest_of
from baseai.ground.fault import Conflict
from baseai.truth.session import PLATFORM, Scope, Session, Truth

EVER = datetime(9999, 1, 1, tzinfo=UTC)
START = datetime(2026, 11, 20, 10, tzinfo=UTC)
PREPAID = "tenant:ten_1:prepaid"
PTAX = ExchangeRate(base="USD", quote="BRL", rate=Decimal("5.4321"), source="ptax", on=date(2026, 11, 19))
amounts = st.integers(1, 1_000_000)


class Died(Exception):
    """The process ended here."""


class Fuse:
    """Burns down by one at each statement; at nought the process dies. Wound up again it is another process."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.loses_reply = False

    def burn(self) -> None:
        if self.left is None:
            return
        if self.left == 0:
            self.left = None
            raise Died
        self.left -= 1


class FusedSession:
    """A session whose every statement burns the fuse first."""

    def __init__(self, session: Session, fuse: Fuse) -> None:
        self._session = session
        self._fuse = fuse

    async def execute(self, *given: Any, **more: Any) -> Any:
        self._fuse.burn()
        return await self._session.execute(*given, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


class FusedTruth(Truth):
    """The truth of a process that may die before any statement, before the commit, or after it."""

    def __init__(self, dsn: str, fuse: Fuse) -> None:
        super().__init__(dsn, connections_max=4)
        self._fuse = fuse

    @asynccontextmanager
    async def transaction(self, scope: Scope = PLATFORM, *, snapshot: bool = False) -> AsyncIterator[Session]:
        async with super().transaction(scope, snapshot=snapshot) as session:
            yield FusedSession(session, self._fuse)  # type: ignore[misc]
            self._fuse.burn()  # before the commit
        self._fuse.burn()  # after it: written, and nobody heard


class FusedGroup(Sequence[Transfer]):
    """A group that cannot be read to its end: what memory has in place of statements."""

    def __init__(self, transfers: Sequence[Transfer], fuse: Fuse) -> None:
        self._transfers = transfers
        self._fuse = fuse

    def __len__(self) -> int:
        return len(self._transfers)

    def __getitem__(self, index: Any) -> Any:
        return self._transfers[index]

    def __iter__(self) -> Iterator[Transfer]:
        for transfer in self._transfers:
            self._fuse.burn()
            yield transfer


def at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """The answer of something that never waits."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waited")


class Journal(RuleBasedStateMachine):
    """What may happen between a sender and the books."""

    steps = 0  # of all runs, for whoever counts them
    imbalances = 0

    def __init__(self) -> None:
        super().__init__()
        self.fuse = Fuse()
        self.books: Books = self.opened()
        self.facts: list[Transfer] = []
        self.outbox: list[list[Transfer]] = []
        self.reserved: list[Transfer] = []
        self.reversible: list[Transfer] = []
        self.free_micros = 0  # of the prepayment, when everything has arrived
        self.frees: dict[str, int] = {}  # what an answer to a reservation gives back, once it is acknowledged
        self.now = START

    def opened(self) -> Books:
        return MemoryBooks()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return at_once(work)

    # ---- what happens in the world

    def fact(self, debit: str, credit: str, micros: int, **more: Any) -> Transfer:
        type(self).steps += 1
        self.now += timedelta(seconds=1)
        return Transfer(
            transfer_id=f"tr_{len(self.facts)}",
            entry_id=f"entry_{len(self.facts)}",
            debit_account=debit,
            credit_account=credit,
            amount_micros=micros,
            currency=more.pop("currency", "USD"),
            effective_at=self.now,
            tenant_id="ten_1",
            project_id="prj_1",
            run_id="run_1",
            accelerator_no=1,
            site_id="local",
            **more,
        )

    def sent(self, *group: Transfer) -> None:
        self.facts += group
        self.outbox.append(list(group))

    @rule(micros=amounts)
    def use(self, micros: int) -> None:
        charge = self.fact("tenant:ten_1:receivable", "revenue:on_demand", micros)
        cost = replace(
            charge, transfer_id=f"{charge.transfer_id}-energy", debit_account="cost:energy",
            credit_account="payable:energy",
        )  # fmt: skip
        self.sent(charge, cost)
        self.reversible.append(charge)

    @rule(micros=amounts)
    def prepay(self, micros: int) -> None:
        self.sent(self.fact("asset:cash", PREPAID, micros))
        self.free_micros += micros

    @precondition(lambda self: self.free_micros > 0)
    @rule(share=st.floats(0, 1))
    def spend(self, share: float) -> None:
        micros = max(1, int(self.free_micros * share))
        self.sent(self.fact(PREPAID, "revenue:on_demand", micros))
        self.free_micros -= micros

    @precondition(lambda self: self.free_micros > 0)
    @rule(share=st.floats(0, 1))
    def reserve(self, share: float) -> None:
        micros = max(1, int(self.free_micros * share))
        held = self.fact(PREPAID, "revenue:on_demand", micros, kind=Kind.PENDING)
        self.sent(held)
        self.reserved.append(held)
        self.free_micros -= micros

    @precondition(lambda self: self.reserved)
    @rule(share=st.floats(0, 1), number=st.integers(0, 99))
    def resolve(self, share: float, number: int) -> None:
        held = self.reserved.pop(number % len(self.reserved))
        micros = int(held.amount_micros * share)
        kind, freed = Kind.POST, held.amount_micros - micros
        if micros == 0:
            kind, micros = Kind.VOID, held.amount_micros
        answer = self.fact(PREPAID, "revenue:on_demand", micros, kind=kind, pending_id=held.transfer_id)
        self.frees[answer.transfer_id] = freed
        self.sent(answer)

    @precondition(lambda self: self.reversible)
    @rule(number=st.integers(0, 99))
    def reverse(self, number: int) -> None:
        original = self.reversible.pop(number % len(self.reversible))
        stands = self.fact(original.debit_account, original.credit_account, 1)
        back = reversal_of(
            original, transfer_id=stands.transfer_id, effective_at=stands.effective_at, note="a mistake"
        )
        self.sent(back)
        self.reversible.append(back)  # and that may have been one too

    @rule(micros=st.integers(1_000, 1_000_000_000))
    def exchange(self, micros: int) -> None:
        given = self.fact("asset:cash", "asset:bank:any", micros, currency="BRL")
        self.sent(*exchange(given, PTAX, into="tenant:ten_1:receivable"))

    # ---- what the world does to the messages

    @precondition(lambda self: self.outbox)
    @rule(
        number=st.integers(0, 99),
        dies_at=st.none() | st.integers(0, 9),
        again=st.booleans(),
        merged=st.booleans(),
    )
    def deliver(self, number: int, dies_at: int | None, again: bool, merged: bool) -> None:
        """Any group, in any turn, alone or in one piece with another, perhaps twice; the process may die on the way."""
        type(self).steps += 1
        groups = [self.outbox[number % len(self.outbox)]]
        if merged:
            groups.append(self.outbox[(number * 7 + 1) % len(self.outbox)])
        for _ in range(2 if again else 1):
            self.fuse.left = dies_at
            try:
                self.run(self.books.post(self.on_its_way([one for group in groups for one in group])))
                self.fuse.burn()  # the reply is lost
            except Died:
                continue
            except Conflict:
                continue  # it came before what it names or needs; it is sent again
            finally:
                self.fuse.left = None
            self.acknowledged(groups)

    def acknowledged(self, groups: Sequence[Sequence[Transfer]]) -> None:
        self.outbox = [group for group in self.outbox if not any(group is one for one in groups)]
        for group in groups:
            for one in group:
                self.free_micros += self.frees.pop(one.transfer_id, 0)

    def on_its_way(self, transfers: Sequence[Transfer]) -> Sequence[Transfer]:
        return FusedGroup(transfers, self.fuse)

    @precondition(lambda self: self.facts)
    @rule(number=st.integers(0, 99))
    def forge(self, number: int) -> None:
        """Another body under a known id changes nothing, whether the true one has arrived or not."""
        type(self).steps += 1
        true = self.facts[number % len(self.facts)]
        if any(true in group for group in self.outbox):
            return
        try:
            self.run(self.books.post([replace(true, amount_micros=true.amount_micros + 1)]))
        except Conflict:
            return
        raise AssertionError(f"{true.transfer_id} was accepted with another body")

    @invariant()
    def debits_are_credits(self) -> None:
        trial = self.run(self.books.trial_balance(EVER))
        if not trial.is_balanced():
            type(self).imbalances += 1
        assert trial.is_balanced(), trial.difference_micros()
        for row in trial.balances:
            if row.account == PREPAID:
                assert row.debits_micros + row.pending_debits_micros <= row.credits_micros, "overdrawn"

    def teardown(self) -> None:
        """Everything is sent until it is acknowledged; then nothing is missing and nothing is there twice."""
        for _ in range(len(self.outbox) + 1):
            for group in list(self.outbox):
                try:
                    self.run(self.books.post(group))
                except Conflict:
                    continue
                self.outbox = [one for one in self.outbox if one is not group]
        assert self.outbox == []
        held = self.run(self.books.trial_balance(EVER))
        expected = balances_of(self.facts, at=EVER)
        assert held.balances == expected
        assert held.digest() == digest_of(expected)
