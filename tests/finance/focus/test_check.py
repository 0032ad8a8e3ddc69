"""The checker passes what we write and names the rule that each seeded defect breaks, with file, line and column."""

from collections.abc import Callable, Mapping

import pytest

from baseai.finance.focus.check import SHOWN_MOST, Report, check
from baseai.finance.focus.rule import Dataset, RuleKind, columns_of, condition_of, load_rules, rules_of
from tests.finance.paper import billed, checked, focus, full_month, heading, issue, text_of

CU, CC, ID, BP = (
    Dataset.COST_AND_USAGE,
    Dataset.CONTRACT_COMMITMENT,
    Dataset.INVOICE_DETAIL,
    Dataset.BILLING_PERIOD,
)
Rows = dict[Dataset, list[dict[str, str]]]
Defect = Callable[[Rows], object]


def month() -> Rows:
    lines = billed(full_month(), originals={"rl_old": "A-000000"})
    return focus(issue(lines, currency="USD"), lines)


def charge(rows: Rows, category: str) -> dict[str, str]:
    return next(row for row in rows[CU] if row["x_Category"] == category)


def wrong(dataset: Dataset, place: int, **cells: str) -> Defect:
    return lambda rows: rows[dataset][place].update(cells)


def wrong_charge(category: str, **cells: str) -> Defect:
    return lambda rows: charge(rows, category).update(cells)


DEFECTS: Mapping[str, Defect] = {
    "CU-BilledCost-not_null": wrong_charge("on_demand", BilledCost=""),
    "CU-BilledCost-type": wrong_charge("on_demand", BilledCost="1,234.56"),
    "CU-BillingCurrency-type": wrong_charge("on_demand", BillingCurrency="BTC"),
    "CU-BillingPeriodStart-type": wrong_charge("on_demand", BillingPeriodStart="2026-11-01 03:00:00"),
    "CU-BillingAccountName-type": wrong_charge("on_demand", BillingAccountName="Not Applicable"),
    "CU-ChargeCategory-allowed": wrong_charge("on_demand", ChargeCategory="Refund"),
    "CU-ChargeClass-allowed": wrong_charge("on_demand", ChargeClass="Fix"),
    "CU-ContractedCost-product": wrong_charge("on_demand", ContractedCost="2.18753100000000001"),
    "CU-ListCost-unpriced": wrong_charge("credit", ListCost="0"),
    "CU-EffectiveCost-is_billed": wrong_charge("credit", EffectiveCost="0"),
    "CU-ChargePeriodEnd-within": wrong_charge("on_demand", ChargePeriodEnd="2026-12-01T03:00:01Z"),
    "CU-ChargePeriodStart-order": wrong_charge("spot", ChargePeriodEnd="2026-11-01T02:59:59Z"),
    "CU-CommitmentDiscountStatus-not_null": wrong_charge("reserved", CommitmentDiscountStatus=""),
    "CU-CommitmentDiscountId-is_resource": wrong_charge("commitment", ResourceId="accelerator/SN0001"),
    "CU-ConsumedQuantity-null_unused": wrong_charge(
        "commitment", ConsumedQuantity="7", ConsumedUnit="Accelerator-Hours"
    ),
    "CU-PricingCategory-committed": wrong_charge("reserved", PricingCategory="Standard"),
    "CU-PricingUnit-not_null": wrong_charge("on_demand", PricingUnit=""),
    "CU-ListUnitPrice-non_negative": wrong_charge("on_demand", ListUnitPrice="-1"),
    "CU-SkuPriceId-one_parent": lambda rows: rows[CU].append(
        charge(rows, "on_demand")
        | {"SkuId": "accelerator_time/other", "BilledCost": "0", "EffectiveCost": "0"}
    ),
    "CU-ServiceName-one_parent": wrong_charge("spot", ServiceCategory="Storage"),
    "CU-RegionName-null": wrong_charge("on_demand", RegionId=""),
    "CU-ContractApplied-type": wrong_charge("reserved", ContractApplied='{"Elements": [}'),
    "CU-SkuPriceDetails-type": wrong_charge("on_demand", SkuPriceDetails='{"x_A": 1, "x_A": 2}'),
    "CU-InvoiceId-reference": wrong_charge("on_demand", InvoiceId="A-000999", InvoiceDetailId="A-000999/1"),
    "CU-InvoiceId-sum": wrong_charge("spot", BilledCost="0.73", EffectiveCost="0.73"),
    "CU-InvoiceDetailId-null": wrong_charge("on_demand", InvoiceId=""),
    "CU-BillingPeriodStart-reference": lambda rows: rows[BP].clear(),
    "ID-InvoiceDetailId-unique": lambda rows: rows[ID].append(dict(rows[ID][0])),
    "ID-InvoiceIssueStatus-allowed": wrong(ID, 0, InvoiceIssueStatus="Paid"),
    "ID-InvoiceDetailLastUpdated-order": wrong(ID, 0, InvoiceDetailLastUpdated="2026-11-30T00:00:00Z"),
    "ID-ReferenceInvoiceId-not_null": wrong(ID, 0, ReferenceInvoiceId=""),
    "ID-InvoiceDetailGrain-type": wrong(ID, 0, InvoiceDetailGrain='{"ServiceName": {"nested": 1}}'),
    "BP-BillingPeriodStatus-allowed": wrong(BP, 0, BillingPeriodStatus="Closing"),
    "BP-BillingPeriodStart-before": wrong(BP, 0, BillingPeriodEnd="2026-11-01T03:00:00Z"),
    "CC-ContractCommitmentId-unique": lambda rows: rows[CC].append(dict(rows[CC][0])),
    "CC-ContractCommitmentDiscountPercentage-null": wrong(CC, 0, ContractCommitmentDiscountPercentage="0.1"),
    "CC-ContractCommitmentCost-not_null": lambda rows: next(
        row for row in rows[CC] if row["ContractCommitmentCategory"] == "Spend"
    ).update(ContractCommitmentCost=""),
    "CC-ContractCommitmentPaymentUpfrontPercentage-none": wrong(
        CC, 0, ContractCommitmentPaymentUpfrontPercentage="0.5"
    ),
}


@pytest.mark.parametrize("rule_id", DEFECTS)
def test_a_defect_is_found_by_its_rule(rule_id: str) -> None:
    rows = month()
    assert checked(rows).findings == ()
    DEFECTS[rule_id](rows)
    report = checked(rows)
    found = [one for one in report.findings if one.rule_id == rule_id]
    assert found, [str(one) for one in report.findings]
    assert not report.passes
    assert found[0].column == rule_id.split("-")[1]


def test_a_finding_names_file_line_column_and_rule() -> None:
    rows = month()
    rows[CU][3]["ChargeCategory"] = "Refund"
    assert any(
        str(one)
        == "CostAndUsage.csv:5 ChargeCategory: 'Refund'; ChargeCategory is one of the values that the standard"
        " knows [CU-ChargeCategory-allowed]"
        for one in checked(rows).findings
    )


def told(rows: Rows, columns: Mapping[Dataset, list[str]]) -> Report:
    return check(
        {
            dataset: text_of(dataset, some, columns.get(dataset)).splitlines(keepends=True)
            for dataset, some in rows.items()
        }
    )


@pytest.mark.parametrize(
    ("left_out", "rule_id"),
    [
        pytest.param("ContractedCost", "CU-ContractedCost-present", id="a mandatory column"),
        pytest.param("ConsumedUnit", "CU-ConsumedUnit-present_with", id="one whose companion is there"),
        pytest.param("ContractApplied", "CU-ContractApplied-present_with", id="one whose dataset is there"),
    ],
)
def test_a_missing_column_is_named(left_out: str, rule_id: str) -> None:
    report = told(month(), {CU: [name for name in heading(CU) if name != left_out]})
    assert [one.rule_id for one in report.findings if one.must] == [rule_id]


def test_an_advised_column_that_is_missing_does_not_fail_a_folder() -> None:
    report = told(month(), {CU: [name for name in heading(CU) if name != "Tags"]})
    assert ([one.rule_id for one in report.findings], report.passes) == (["CU-Tags-present"], True)


def test_a_column_of_nobodys_and_a_torn_row_are_found() -> None:
    rows = month()
    text = text_of(CU, rows[CU]).splitlines(keepends=True)
    text[0] = text[0].replace("x_Category", "Category")
    text.append('"half a row"\r\n')
    found = check({CU: text}).findings
    assert {(one.rule_id, one.line) for one in found} >= {
        ("CU-custom_column", 1),
        ("CU-custom_column", len(text)),
    }


@pytest.mark.parametrize(
    ("line", "torn"),
    [
        pytest.param(3, 'half a row "without an end', id="a quote in a cell"),
        pytest.param(3, '"a quote that never ends', id="a quote that never ends"),
    ],
)
def test_what_is_no_csv_is_found_where_it_begins(line: int, torn: str) -> None:
    text = text_of(CU, month()[CU]).splitlines(keepends=True)
    text[line - 1 :] = [f"{torn}\r\n"]
    found = [one for one in check({CU: text}).findings if one.rule_id == "CU-custom_column"]
    assert [one.line for one in found] == [line]


def test_a_folder_without_charges_fails() -> None:
    assert [one.rule_id for one in check({}).findings] == ["CU-present_file"]


def test_findings_of_one_rule_are_shown_up_to_a_number_and_all_counted() -> None:
    rows = month()
    rows[CU] = [dict(rows[CU][0], ServiceProviderName="") for _ in range(SHOWN_MOST + 5)]
    report = checked(rows)
    shown = [one for one in report.findings if one.rule_id == "CU-ServiceProviderName-not_null"]
    assert (len(shown), report.counts["CU-ServiceProviderName-not_null"]) == (SHOWN_MOST, SHOWN_MOST + 5)


def test_the_table_has_the_columns_of_the_standard() -> None:
    assert [len(columns_of(dataset)) for dataset in (CU, CC, ID, BP)] == [65, 30, 22, 6]
    for dataset in Dataset:
        assert list(columns_of(dataset)) == sorted(columns_of(dataset))
    columns = {(dataset, name) for dataset in Dataset for name in columns_of(dataset)}
    for rule in load_rules():
        assert not rule.column or (rule.dataset, rule.column) in columns, rule.rule_id
        for term in filter(None, rule.when.split(" and ")):
            assert (rule.dataset, term.split(" ")[0]) in columns, rule.rule_id
        if rule.kind in (
            RuleKind.EQUAL,
            RuleKind.AT_LEAST,
            RuleKind.AT_MOST,
            RuleKind.BEFORE,
            RuleKind.ONE_PARENT,
        ):
            assert (rule.dataset, rule.value) in columns, rule.rule_id


@pytest.mark.parametrize(
    ("when", "row", "holds"),
    [
        pytest.param("A is null", {"A": ""}, True, id="nothing is null"),
        pytest.param("A in x|y and B is not null", {"A": "y", "B": "1"}, True, id="both terms"),
        pytest.param("A in x|y and B is not null", {"A": "y", "B": ""}, False, id="one term only"),
        pytest.param("A not in x", {"A": ""}, True, id="nothing is in no list"),
        pytest.param("A equals B", {"A": "1", "B": "2"}, False, id="two columns"),
    ],
)
def test_a_condition_says_in_which_rows_a_rule_holds(when: str, row: dict[str, str], holds: bool) -> None:
    found = condition_of(when)
    assert found is not None
    assert found(row) is holds


@pytest.mark.parametrize("line", ["X,CostAndUsage,A,type,A might be,,must,t", "X,Nothing,A,type,,,must,t"])
def test_a_broken_table_names_its_line(line: str) -> None:
    with pytest.raises(ValueError, match=r"rules\.csv, line 2"):
        rules_of(f"id,dataset,column,kind,when,value,level,text\n{line}\n")
