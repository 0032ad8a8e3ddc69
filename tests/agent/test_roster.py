"""A device is known by every name it is given, and an unknown one is not guessed at."""

import pytest

from baseai.agent.roster import Roster, pci_of
from baseai.api.schemas import Device

ROSTER = Roster(
    [
        Device(serial="S-H100", model="H100-SXM", index=0, uuid="GPU-AA", pci="0000:9b:00.0"),
        Device(serial="S-MI300X", model="MI300X", index=0, pci="0000:c1:00.0"),
        Device(serial="S-TPU", model="TPU-v5e", index=0),
        Device(serial="S-SLOT", model="cpu-slot", index=0),
    ]
)


@pytest.mark.parametrize(
    ("name", "serial"),
    [
        pytest.param("GPU-aa", "S-H100", id="UUID, whatever its case"),
        pytest.param("00000000:9B:00.0", "S-H100", id="bus address of NVML and DCGM"),
        pytest.param("PCI:0000:9b:00", "S-H100", id="bus address of the kernel"),
        pytest.param("0000:c1:00.0", "S-MI300X", id="bus address of sysfs"),
        pytest.param("nvidia/0", "S-H100", id="number among NVIDIA's"),
        pytest.param("amd/0", "S-MI300X", id="the same number among AMD's"),
        pytest.param("tpu/0", "S-TPU", id="number of a chip"),
        pytest.param("cpu/0", "S-SLOT", id="number of a slot"),
        pytest.param("s-h100", "S-H100", id="the serial itself"),
        pytest.param("GPU-bb", None, id="another machine's"),
        pytest.param("0", None, id="a number of nothing"),
    ],
)
def test_a_name_leads_to_one_serial_or_none(name: str, serial: str | None) -> None:
    assert ROSTER.serial_of(name) == serial


def test_the_first_known_of_several_names_counts() -> None:
    assert ROSTER.serial_of("GPU-unheard-of", "0000:c1:00.0") == "S-MI300X"


@pytest.mark.parametrize("text", ["", "N/A", "[N/A]", "9b", "0000:zz:00.0"])
def test_what_is_no_bus_address(text: str) -> None:
    assert pci_of(text) is None
