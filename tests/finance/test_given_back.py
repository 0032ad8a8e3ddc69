"""What other keepers of accounts got wrong about prepayments, credits and large invoices, held here to the rule."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from baseai.finance.chart import Overdrawn
from baseai.finance.invoices.billed import Billed
from baseai.finance.invoices.drafting import Bill, Draft, drafts_of
from baseai.finance.invoices.invoice import Kind as Document
from baseai.finance.memory import MemoryBooks
from baseai.finance.rated import RatedLine, taken_back
from baseai.finance.transfer import Kind
from tests.finance.agreed import NOVEMBER
from tests.finance.leased import after, transfer
from tests.finance.paper import ISSUER, MONTH, customer, rated

PREPAID, OWED, REVENUE = "tenant:ten_1:prepaid", "tenant:ten_1:receivable", "revenue:on_demand"


def drafts(lines: Sequence[RatedLine], *, original: str | None = None) -> tuple[Draft, ...]:
    billed = [
        Billed(line=line, serial="GPU-1", run="train", original=original if line.corrects else None) for line in lines
    ]  # fmt: skip
    return drafts_of(Bill(issuer=ISSUER, customer=customer("USD"), period=str(MONTH), billed=billed))


@pytest.mark.anyio
async def test_lago_api_3338_a_prepayment_that_paid_for_use_is_not_charged_with_it_again() -> None:
    """There 7,600 were prepaid and 8,000 used, 400 were asked for, and the wallet was said to stand at -8,000."""
    books = MemoryBooks()
    await books.post(
        [
            transfer("tr_paid", 7_600, debit="asset:cash", credit=PREPAID),
            transfer("tr_hold", 7_600, debit=PREPAID, credit=REVENUE, kind=Kind.PENDING),
        ]
    )
    await books.post(
        [
            transfer("tr_used", 7_600, debit=PREPAID, credit=REVENUE, kind=Kind.POST, pending_id="tr_hold"),
            transfer("tr_rest", 400, debit=OWED, credit=REVENUE),
        ]
    )
    (wallet,) = await books.balance(PREPAID, after(1))
    (owed,) = await books.balance(OWED, after(1))
    assert (wallet.balance_micros(), wallet.pending_debits_micros, owed.balance_micros()) == (0, 0, 400)
    with pytest.raises(Overdrawn):
        await books.post([transfer("tr_more", 1, debit=PREPAID, credit=REVENUE)])


def test_lago_api_4611_a_credit_note_gives_back_all_that_was_asked_for_and_no_more() -> None:
    """There credits that were used up already did not count, and an invoice could be credited beyond its amount."""
    lines = [
        rated(f"{hour}", from_at=NOVEMBER + timedelta(hours=hour), price="2.187531") for hour in range(7)
    ]
    (invoice,) = drafts(lines)
    back = [taken_back(line, period=str(MONTH), recorded_at=NOVEMBER, note="node_lost") for line in lines]
    (note,) = drafts(back, original="A-000001")
    assert note.invoice.kind is Document.CREDIT_NOTE
    assert note.invoice.corrects == "A-000001"
    assert note.invoice.total_cents == -invoice.invoice.total_cents
    with pytest.raises(ValueError, match="rate its use anew"):
        taken_back(back[0], period=str(MONTH), recorded_at=NOVEMBER, note="once more")


def test_killbill_1952_a_line_of_very_many_uses_names_its_runs_and_serials_and_not_each_use() -> None:
    """There an id for each use stood behind a line, and a large invoice became slow."""
    lines = [
        replace(rated(f"{hour}", from_at=NOVEMBER + timedelta(hours=hour)), accelerator_no=1)
        for hour in range(700)
    ]
    (draft,) = drafts(lines)
    (line,) = draft.invoice.lines
    (behind,) = line.behind
    assert (behind.run, behind.serial, behind.quantity) == ("train", "GPU-1", 700)
    assert set(draft.line_nos) == {one.rated_id for one in lines}  # each is still found, beside the document
