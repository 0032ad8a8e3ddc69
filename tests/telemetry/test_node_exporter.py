"""node_exporter's own reference output gives the rows that a person read off it."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from baseai.telemetry.exposition import Parser
from baseai.telemetry.field import NODE, PORT, Origin, State
from baseai.telemetry.node_exporter import CpuTime, Machine, is_node_exporter, machine_of
from baseai.telemetry.sample import Row

ABSENT, UNSUPPORTED, BLANK = State.ABSENT, State.UNSUPPORTED, State.BLANK


def seen(row: Row) -> dict[str, float | State]:
    return {
        name: reading.state if reading.value is None else reading.value
        for name, reading in row.fields.items()
    }


def read(text: str | bytes, *, folder: str = "/", before: CpuTime | None = None) -> Machine:
    return machine_of(Parser().parse(text), at_ms=0, folder=folder, before=before)


def only_of(names: Iterable[str], **said: float | State) -> dict[str, float | State]:
    return {name: said.get(name, ABSENT) for name in names}


UNKNOWN_TO_IT = dict.fromkeys(
    ("power_w", "temp_inlet_c", "psu_ok", "psu_total", "leak", "accel_seen", "accel_expected"), UNSUPPORTED
)
UNKNOWN_OF_INFINIBAND = dict.fromkeys(("retrans", "congestion"), UNSUPPORTED)
UNKNOWN_OF_ETHERNET = dict.fromkeys(("wait_ticks", "symbol_err", "retrans", "congestion"), UNSUPPORTED)


def test_the_reference_output(shared: Path) -> None:
    machine = read((shared / "fixtures" / "exposition" / "node_exporter_linux_e2e.prom").read_bytes())
    assert seen(machine.node) == only_of(
        NODE.names,
        **UNKNOWN_TO_IT,
        mem_used_b=3_831_959_552 - 230_883_328 - 22_568_960 - 953_229_312,
        mem_total_b=3_831_959_552,
        # nvme0n1, sda, sdb, sdc, vda and mmcblk0; dm-* and mmcblk0p* are parts of them, sr0 is none
        disk_read_b=2_377_714_176 + 513_713_216_512 + 4_944_782_848 + 848_782_848 + 16_727_491_584 + 798_720,
        disk_write_b=20_199_236_096 + 258_916_880_384 + 1_010_127_360 + 88_527_360 + 109_382_369_280,
        ib_rx_b=18_527_668,
        ib_tx_b=14_933_760,
        energy_j=240_422.366267,
        temp_cpu_c=55.0,
        fan_pct=pytest.approx(100 * 1998 / 5700),
        load1=0.21,
    )
    assert machine.node.fields["energy_j"].origin is Origin.ESTIMATED
    ports = {port.key: seen(port) for port in machine.ports}
    assert ports == {
        "eth0/1": only_of(PORT.names, **UNKNOWN_OF_ETHERNET, rate_bps=1e9, up=1, link_downed=1),
        "i40iw0/1": only_of(PORT.names, **UNKNOWN_OF_INFINIBAND, rate_bps=10e9, up=1),
        "mlx4_0/1": only_of(
            PORT.names,
            **UNKNOWN_OF_INFINIBAND,
            rx_b=18_527_668,
            tx_b=14_933_760,
            wait_ticks=BLANK,  # 4294967295: it counts no further
            rate_bps=40e9,
            up=1,
            rx_err=0,
            discards=5,
            link_downed=0,
        ),
        "mlx4_0/2": only_of(
            PORT.names, **UNKNOWN_OF_INFINIBAND, rx_b=0, tx_b=0, rate_bps=40e9, up=1, link_downed=0
        ),
    }
    [trouble] = machine.troubles
    assert (trouble.key, trouble.field) == ("mlx4_0/1", "wait_ticks")


CPU = 'node_cpu_seconds_total{{cpu="0",mode="idle"}} {}\nnode_cpu_seconds_total{{cpu="0",mode="user"}} {}\n'


def test_the_use_of_cores_takes_two_scrapes() -> None:
    first = read(CPU.format(100, 50))
    second = read(CPU.format(107, 53), before=first.cpu_time)
    assert first.node.fields["cpu_pct"].state is ABSENT
    assert second.node.fields["cpu_pct"].value == pytest.approx(30)


def test_after_a_start_the_use_of_cores_is_not_known() -> None:
    first = read(CPU.format(100, 50))
    assert read(CPU.format(1, 2), before=first.cpu_time).node.fields["cpu_pct"].state is ABSENT


DISKS = "".join(
    f'node_filesystem_size_bytes{{mountpoint="{mount}"}} {size}\n'
    f'node_filesystem_free_bytes{{mountpoint="{mount}"}} {size - used}\n'
    for mount, size, used in (("/", 100, 10), ("/var", 200, 20), ("/var/lib", 300, 30), ("/variety", 400, 40))
)


@pytest.mark.parametrize(
    ("folder", "total", "used"),
    [
        ("/", 100, 10),
        ("/home/x", 100, 10),
        ("/var", 200, 20),
        ("/var/lib/baseai-node", 300, 30),
        ("/vari", 100, 10),
    ],
)
def test_the_disk_is_the_one_the_folder_stands_on(folder: str, total: float, used: float) -> None:
    fields = read(DISKS, folder=folder).node.fields
    assert (fields["disk_total_b"].value, fields["disk_used_b"].value) == (total, used)


def test_loopback_and_virtual_networks_are_left_out() -> None:
    text = "".join(
        f'node_network_receive_bytes_total{{device="{device}"}} {count}\n'
        for device, count in (
            ("lo", 1),
            ("eth0", 10),
            ("eno1", 20),
            ("veth12", 100),
            ("bond0", 1000),
            ("eth0.5", 5),
        )
    )
    machine = read(text)
    assert machine.node.fields["net_rx_b"].value == 30
    assert [port.key for port in machine.ports] == ["eno1/1", "eth0/1"]


def test_a_speed_that_the_kernel_does_not_know_is_absent() -> None:
    [port] = read('node_network_speed_bytes{device="eth0"} -125000\n').ports
    assert port.fields["rate_bps"].state is ABSENT


def test_a_number_that_cannot_be_is_said() -> None:
    machine = read("node_load1 -1\nnode_memory_MemTotal_bytes 1000\n")
    assert machine.node.fields["load1"].state is BLANK
    assert machine.node.fields["mem_total_b"].value == 1000
    [trouble] = machine.troubles
    assert (trouble.field, trouble.sentence) == ("load1", "-1 cannot be: 0 to 1e+06 can")


def test_saturated_error_counters_are_said_and_not_used() -> None:
    [port] = read('node_infiniband_link_downed_total{device="mlx5_1",port="1"} 255\n').ports
    assert port.fields["link_downed"].state is BLANK


def test_time_since_the_start() -> None:
    fields = read("node_time_seconds 1700000100\nnode_boot_time_seconds 1700000000\n").node.fields
    assert fields["uptime_s"].value == 100


@pytest.mark.parametrize(("text", "is_one"), [("node_load1 1\n", True), ("go_goroutines 1\n", False)])
def test_a_scrape_of_a_node_is_known(text: str, is_one: bool) -> None:
    assert is_node_exporter(Parser().parse(text)) is is_one
