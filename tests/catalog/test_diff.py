"""Differences between what Base A.I has published and what stands nearer to the thing."""

from baseai.catalog import load_catalog
from baseai.catalog.diff import UNEXPLAINED, differences

CATALOG = load_catalog()

GOLDEN = """
accelerator H100-SXM memory_bandwidth_gb_per_s 3000.0 | 3350.0
accelerator H100-SXM fp32_tflops 60.0 | 67.0
accelerator H100-SXM int8_tops 1000.0 | 1979.0
accelerator H100-SXM purchase_low_usd 25000 | 28750
accelerator H100-PCIe memory_kind HBM3 | HBM2e
accelerator H100-PCIe memory_bandwidth_gb_per_s 3000.0 | 2000.0
accelerator H100-PCIe fp32_tflops 60.0 | 51.0
accelerator H100-PCIe int8_tops 1000.0 | 1513.0
accelerator H100-PCIe purchase_low_usd 25000 | 22000
accelerator H100-PCIe purchase_high_usd 40000 | 32000
accelerator A100-40GB memory_kind HBM2e | HBM2
accelerator A100-40GB memory_bandwidth_gb_per_s 1600.0 | 1555.0
accelerator A100-40GB purchase_low_usd 15000 | 4000
accelerator A100-40GB purchase_high_usd 25000 | 9000
accelerator A100-80GB memory_bandwidth_gb_per_s 1600.0 | 2039.0
accelerator A100-80GB purchase_low_usd 15000 | 8000
accelerator A100-80GB purchase_high_usd 25000 | 15000
accelerator L40S int8_tops 362.0 | 733.0
accelerator L40S purchase_low_usd 8000 | 7500
accelerator L40S purchase_high_usd 12000 | 9000
accelerator MI300X fp32_tflops 61.3 | 163.4
accelerator MI300X int8_tops 1300.0 | 2614.9
accelerator MI300X purchase_low_usd 20000 | 22500
accelerator MI300X purchase_high_usd 30000 | 32500
accelerator TPU-v5e memory_bandwidth_gb_per_s 1600.0 | 819.0
server XE9680 accelerator_models H100-SXM A100-80GB H200 | H100-SXM A100-80GB H200 MI300X
server XE9680 memory_max_tb 2.0 | 4.0
server XE9680 nvme_max_tb 30.0 | 122.88
server XE9680 network InfiniBand HDR | InfiniBand NDR
server XE9680 network_gbit_per_s 200 | 400
server SYS-821GE-TNHR processors dual AMD EPYC 9004 | dual Intel Xeon
server SYS-821GE-TNHR accelerator_models MI300X | H100-SXM H200
server SYS-821GE-TNHR memory_max_tb 3.0 | 8.0
partner Equinix countries 70 | 33
partner Equinix networks 10000 | 2000
partner Scala Data Centers data_centers_in_brazil 18 | 5
"""


def shown(figure: object) -> str:
    return " ".join(figure) if isinstance(figure, tuple) else str(figure)


def test_the_differences_of_the_shipped_catalogue() -> None:
    lines = [
        f"{row.kind} {row.subject} {row.figure} {shown(row.ours)} | {shown(row.theirs)}"
        for row in CATALOG.differences()
    ]
    assert lines == GOLDEN.strip().splitlines()


def test_every_difference_is_explained_and_has_both_sources() -> None:
    for row in CATALOG.differences():
        assert row.why != UNEXPLAINED, row
        assert row.our_source.source_id == "baseai-published"
        assert row.their_source.source_id != "baseai-published"


def test_no_explanation_outlives_its_difference() -> None:
    differing = {(row.subject, row.figure) for row in CATALOG.differences()}
    explained = {
        *((known.model, figure) for known in CATALOG.accelerators for figure, _ in known.why),
        *((server.model, figure) for server in CATALOG.servers for figure, _ in server.why),
        *((partner.name, figure) for partner in CATALOG.partners for figure, _ in partner.why),
    }
    assert explained == differing


def test_equal_figures_are_no_difference() -> None:
    l40s = CATALOG.accelerator("L40S")
    figures = {row.figure for row in differences([l40s], [], [])}
    assert "memory_bandwidth_gb_per_s" not in figures  # 864 GB/s in both
    assert "fp32_tflops" not in figures  # 91.6 in both


def test_what_nobody_else_states_is_unconfirmed_and_no_difference() -> None:
    alone = [(row.subject, row.figure) for row in CATALOG.unconfirmed()]
    assert alone == [
        ("SYS-821GE-TNHR", "nvme_max_tb"),
        ("Equinix", "availability_percent"),
        ("Equinix", "certifications"),
        ("Scala Data Centers", "availability_percent"),
        ("Scala Data Centers", "certifications"),
    ]
