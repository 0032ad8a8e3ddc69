"""What witnesses say becomes evidence: which rule an event falls under, and what counts once."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseai.fleet.health.evidence import Finding, finding_of
from tests.fleet.health.ward import NODE_ID, POLICY, finding, gathered, later, witness

XID119 = "NVRM: Xid (PCI:0000:9b:00): 119, pid=2024380, name=nvidia-smi, Timeout after 6s of waiting for RPC"
XID149 = "NVRM: Xid (PCI:0018:01:00): 149, NETIR_LINK_EVT {} XC0 i0 Link 13 (0x004505c6 0x00000000)"
XID154 = "NVRM: Xid (PCI:0000:9b:00): 154, GPU recovery action changed from 0x0 (None) to {}"


@pytest.mark.parametrize(
    ("kind", "code", "sentence", "severity", "rule"),
    [
        ("xid", 119, XID119, "critical", "xid.119"),
        ("xid", 4711, "", "critical", "xid.4711"),
        ("xid", 149, XID149.format("Fatal"), "critical", "xid.149"),
        ("xid", 149, XID149.format("Nonfatal"), "critical", "xid.149.nonfatal"),
        ("xid", 154, XID154.format("0x1 (GPU Reset Required)"), "critical", "recovery.1"),
        ("xid", 154, XID154.format("0x2 (Node Reboot Required)"), "critical", "recovery.2"),
        ("xid", 154, XID154.format("something else"), "critical", "xid.154"),
        ("sxid", 20034, "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 30", "critical", "sxid.20034"),
        ("recovery_action", 4, "", "critical", "recovery.4"),
        ("afid", 30, "", "critical", "afid.fatal"),
        ("afid", 30, "", "warning", "afid.non_fatal_uncorrected"),
        ("afid", 30, "", "info", "afid.non_fatal_corrected"),
        ("kernel", None, "mce: [Hardware Error]: Uncorrected error, CPU 3: bank 7", "critical", "kernel.mce"),
        ("kernel", None, "EDAC MC0: 1 UE memory read error on CPU_SrcID#0_MC#0", "critical", "kernel.mce"),
        ("kernel", None, "pcieport 0000:00:01.0: AER: Uncorrected (Fatal) error received", "critical", "kernel.pcie"),
        ("kernel", None, "nvme nvme3: controller is down; will reset: CSTS=0xffffffff", "critical", "kernel.disk"),
        ("kernel", None, "mlx5_core 0000:17:00.0: device's health compromised - reached miss count", "critical",
         "kernel.nic"),
        ("redfish", None, "Power supply PSU.Slot.2 has failed.", "warning", "bmc.psu"),
        ("redfish", None, "A leak was detected at LeakDetector 1.", "critical", "bmc.leak"),
        ("redfish", None, "DIMM_A3 has an uncorrectable error.", "critical", "bmc.memory"),
        ("redfish", None, "The chassis intrusion switch is broken.", "critical", "bmc.other"),
        ("redfish", None, "The log was cleared.", "info", "bmc.notice"),
        ("test", None, "wrong results in 3 of 4,096 products", "critical", "test_wrong"),
        ("test", None, "gemm bf16 of acc_1: 612 TFLOP/s are 62% of the data sheet's 989", "warning", "test_failed"),
        ("run", None, "run a attempt 1: its processes vanished", "info", "run_died"),
        ("device_lost", None, "", "critical", "device_lost"),
    ],
)  # fmt: skip
def test_the_rule_of_an_event(kind: str, code: int | None, sentence: str, severity: str, rule: str) -> None:
    found = finding_of(POLICY, witness(kind, sentence, code=code, severity=severity), NODE_ID)
    assert found is not None
    assert found.rule_id == rule


def test_a_line_that_no_rule_knows_is_no_evidence() -> None:
    assert finding_of(POLICY, witness("kernel", "usb 1-1: new high-speed USB device"), NODE_ID) is None
    assert finding_of(POLICY, witness("kernel", "mce: [Hardware Error]: corrected error"), NODE_ID) is None


def test_two_witnesses_of_one_incident_count_once_and_are_both_named() -> None:
    [evidence] = gathered([finding("xid.79", 0), finding("xid.79", 9, witness="metrics")])
    assert evidence.witnesses == ("kernel", "metrics")
    assert (evidence.at, evidence.last_at) == (later(0), later(9))


def test_other_devices_codes_and_times_are_other_incidents() -> None:
    found = [
        finding("xid.13", 0), finding("xid.31", 0), finding("xid.13", 0, serial="gpu-1"),
        finding("xid.13", 100, tenant="a"), finding("xid.13", 200, tenant="b"),
    ]  # fmt: skip
    assert len(gathered(found)) == 5


def test_a_storm_of_lines_makes_few_rows() -> None:
    storm = [finding("xid.119", number * 6) for number in range(1000)]
    [evidence] = gathered(storm)
    assert evidence.last_at == later(999 * 6)
    assert len(gathered([finding("xid.13", number * 6, tenant="a") for number in range(1000)])) == 3, (
        "as many as pools count"
    )


def test_what_is_known_grows_and_is_not_made_twice() -> None:
    first = gathered([finding("xid.79", 0)])
    again = gathered([finding("xid.79", 0), finding("xid.79", 30, witness="metrics")], first)
    assert [each.evidence_id for each in again] == [first[0].evidence_id]
    assert again[0].witnesses == ("kernel", "metrics")


findings = st.lists(
    st.builds(
        finding,
        st.sampled_from(["xid.13", "xid.79", "xid.48", "xid.63", "run_died", "temp_critical"]),
        st.integers(0, 400),
        serial=st.sampled_from(["gpu-0", "gpu-1", None]),
        tenant=st.sampled_from(["a", "b", None]),
        witness=st.sampled_from(["kernel", "metrics"]),
    ),
    max_size=25,
)


@given(findings, st.randoms(use_true_random=False))
def test_the_order_of_findings_does_not_matter(found: list[Finding], chance: random.Random) -> None:
    mixed = list(found)
    chance.shuffle(mixed)
    by_id = {each.evidence_id: each for each in gathered(found)}
    assert {each.evidence_id: each for each in gathered(mixed)} == by_id


@given(findings)
def test_taking_findings_up_twice_is_the_same_as_once(found: list[Finding]) -> None:
    once = gathered(found)
    assert gathered(found, once) == once
