"""Ports are read off the folders that the kernel shows, here the saved ones of a node with eight NDR adapters."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from baseai.telemetry.collector import NothingThere
from baseai.telemetry.field import State
from baseai.telemetry.infiniband import Infiniband

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.fixture
def tree(shared: Path, tmp_path: Path) -> Path:
    """A copy of the saved tree, which a test may change."""
    return Path(
        shutil.copytree(shared / "fixtures/infiniband/sys-class-infiniband-h100.0", tmp_path / "infiniband")
    )


def test_words_become_bytes_and_text_a_rate(tree: Path) -> None:
    collected = Infiniband(tree).observe(NOW)
    rows = {row.key: row.fields for row in collected.rows["port"]}
    assert len(rows) == 9
    port = {name: each.value for name, each in rows["mlx5_0/1"].items()}
    assert port["rx_b"] == 230539874932483 * 4
    assert port["tx_b"] == 230442669431839 * 4
    assert port["rate_bps"] == 400e9
    assert (port["up"], port["wait_ticks"], port["rx_err"], port["retrans"]) == (1.0, 2489603687.0, 14.0, 3.0)
    assert rows["mlx5_0/1"]["congestion"].state is State.UNSUPPORTED
    assert rows["mlx5_bond_0/1"]["rate_bps"].value == 200e9
    (node,) = collected.rows["node"]  # the bond is Ethernet and no part of it
    assert node.fields["ib_rx_b"].value == 7_275_631_249_206_520


def test_a_counter_at_its_ceiling_is_blank_and_told(tree: Path) -> None:
    collected = Infiniband(tree).observe(NOW)
    stuck = next(row for row in collected.rows["port"] if row.key == "mlx5_1/1").fields["link_downed"]
    assert stuck.state is State.BLANK
    (trouble,) = collected.troubles
    assert (trouble.key, trouble.field) == ("mlx5_1/1", "link_downed")
    assert "255" in trouble.sentence


def test_a_file_with_garbage_costs_its_field_and_the_sum_it_is_part_of(tree: Path) -> None:
    (tree / "mlx5_4/ports/1/counters/port_rcv_data").write_text("n/a\n")
    collected = Infiniband(tree).observe(NOW)
    rows = {row.key: row.fields for row in collected.rows["port"]}
    assert rows["mlx5_4/1"]["rx_b"].state is State.BLANK
    assert rows["mlx5_4/1"]["tx_b"].value == 230442669431839 * 4
    assert ("mlx5_4/1", "rx_b") in {(each.key, each.field) for each in collected.troubles}
    (node,) = collected.rows["node"]
    assert set(node.fields) == {"ib_tx_b"}


def test_a_link_that_is_down_says_so(tree: Path) -> None:
    (tree / "mlx5_5/ports/1/state").write_text("1: DOWN\n")
    rows = {row.key: row.fields for row in Infiniband(tree).observe(NOW).rows["port"]}
    assert rows["mlx5_5/1"]["up"].value == 0.0


def test_a_node_without_adapters_has_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(NothingThere, match="no adapter"):
        Infiniband(tmp_path).observe(NOW)
