"""Each saved scrape gives the rows that a person read off it, and each trap of the vendors is stepped around."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from baseai.telemetry.exposition import Parser
from baseai.telemetry.field import ACCELERATOR, State, Throttle
from baseai.telemetry.mapping import Dialect
from baseai.telemetry.normalise import Identity, Normalised, Normaliser, canonical, dialects_of
from baseai.telemetry.sample import Row
from baseai.telemetry.translation import Remembered

FIXTURES = Path(__file__).parent / "fixtures"
ABSENT, UNSUPPORTED, BLANK, PAUSED = State.ABSENT, State.UNSUPPORTED, State.BLANK, State.PAUSED
MIB = 1024 * 1024

Seen = dict[str, float | State]

# Of what a dialect can never say.
NEVER_AMD: Seen = dict.fromkeys(("power_cap_w", "pcie_rx_bps", "row_remap"), UNSUPPORTED)


def read(text: str | bytes, *, before: Mapping[str, Remembered] | None = None, at_ms: int = 0) -> Normalised:
    return Normaliser().normalise(Parser().parse(text), at_ms=at_ms, before=before)


def fixture(name: str) -> Normalised:
    return read((FIXTURES / name).read_bytes())


def seen(row: Row) -> Seen:
    """Values, and states where there is none."""
    return {
        name: reading.state if reading.value is None else reading.value
        for name, reading in row.fields.items()
    }


def row(**said: float | State) -> Seen:
    """A whole row: what is not named is absent."""
    return {**dict.fromkeys(ACCELERATOR.names, ABSENT), **said}


def told(read: Normalised) -> list[tuple[str | None, str | None, str]]:
    return [(trouble.key, trouble.field, trouble.sentence) for trouble in read.troubles]


def sequence(*texts: str, every_ms: int = 10_000) -> list[Normalised]:
    """Scrapes of one exporter, one after the other."""
    gone: list[Normalised] = []
    for number, text in enumerate(texts):
        before = gone[-1].remembered if gone else None
        gone.append(read(text, before=before, at_ms=number * every_ms))
    return gone


def dcgm(name: str, number: float | str, more: str = "", model: str = "NVIDIA H100 80GB HBM3") -> str:
    return f'DCGM_FI_{name}{{gpu="0",UUID="GPU-1",modelName="{model}"{more}}} {number}\n'


def amd(name: str, number: float | str, more: str = "", model: str = "AMD INSTINCT MI300X") -> str:
    return (
        f'{name}{{gpu_id="0",serial_number="S1",card_model="{model}",gpu_partition_id="0"{more}}} {number}\n'
    )


# The saved scrapes, read by hand.


def test_eight_h100() -> None:
    scrape = fixture("dcgm_h100x8_aicr.prom")
    temperatures = [30, 29, 26, 29, 28, 26, 28, 26]
    watts = [113.611, 68.347, 65.709, 67.316, 68.717, 65.742, 67.328, 66.997]
    for place, (temperature, power) in enumerate(zip(temperatures, watts, strict=True)):
        bandwidth = 0.0 if place < 6 else ABSENT  # the text ends after GPU 5
        expected = row(temp_c=temperature, power_w=power, util_pct=0.0, membw_pct=bandwidth)
        assert seen(scrape.rows[place]) == expected
    assert scrape.identities["GPU-c4529c8d-69c4-b61d-e0bc-7b2460096005"] == Identity(
        key="GPU-c4529c8d-69c4-b61d-e0bc-7b2460096005",
        dialect=Dialect.DCGM,
        uuid="GPU-c4529c8d-69c4-b61d-e0bc-7b2460096005",
        index="0",
        pci="00000000:53:00.0",
        model="NVIDIA H100 80GB HBM3",
        node="gpu-node-1",
    )
    assert told(scrape) == [
        (
            "GPU-e64d69ca-b4b3-59b2-e78c-94f26c4db365",
            "membw_pct",
            "said nothing, while 6 of 8 devices like it did",
        ),
        (
            "GPU-04d228d3-3b5a-3534-f5cf-969706647d56",
            "membw_pct",
            "said nothing, while 6 of 8 devices like it did",
        ),
    ]


def test_an_l40s() -> None:
    scrape = fixture("dcgm_l40s_upcloud.prom")
    [only] = scrape.rows
    assert only.key == "GPU-5b4e07f6-3a86-4340-039d-25f2a83cdc43"
    assert seen(only) == row(
        util_pct=0.0,
        tensor_pct=0.0,
        membw_pct=pytest.approx(0.0131),
        temp_c=32.0,
        temp_mem_c=UNSUPPORTED,  # prints 0 and has no such sensor
        clock_mhz=210.0,
        clock_mem_mhz=405.0,
        mem_used_b=608 * MIB,
        mem_total_b=(45459 + 608) * MIB,
        power_w=35.686,
        energy_j=pytest.approx(5_551_899.58),
        pcie_tx_bps=175_084.0,
        pcie_rx_bps=19_831.0,
        row_remap=0,
    )
    assert scrape.identities[only.key].node == "gpu1-wl8sg"
    assert told(scrape) == []


def test_amds_small_sample_with_its_old_names() -> None:
    scrape = fixture("amd_device_metrics_exporter_mini.prom")
    [only] = scrape.rows
    assert only.key == "692247001282"
    assert seen(only) == row(util_pct=0.0, power_w=41.0, mem_total_b=68_702_000_000.0, **NEVER_AMD)
    assert scrape.identities[only.key].uuid == "6699c0a8-4200-4242-037f-f97e6cae0f09"
    assert scrape.identities[only.key].serial == "692247001282"
    assert told(scrape) == []


def test_amds_page_of_clocks_and_links() -> None:
    """Identities masked by AMD, the last number cut: the rates of its links take a second scrape in any case."""
    scrape = fixture("amd_mi300x_docs_clock_xgmi.prom")
    [only] = scrape.rows
    assert seen(only) == row(clock_mhz=132.0, clock_mem_mhz=900.0, **NEVER_AMD)


def test_two_whole_mi300x() -> None:
    scrape = fixture("amd_mi300x_synthetic.prom")
    expected = row(
        util_pct=87.0,
        compute_pct=62.5,
        tensor_pct=33.25,
        membw_pct=41.0,
        temp_c=71.0,
        temp_mem_c=58.0,
        clock_mhz=2101.0,  # the fastest of eight dies
        clock_mem_mhz=1300.0,
        throttle_bits=Throttle.POWER_CAP | Throttle.MEM_THERMAL,
        throttle_ms=0.0,  # counts from when it is first seen
        mem_used_b=150_000 * MIB,
        mem_total_b=196_592 * MIB,
        power_w=702.0,
        energy_j=12_345_670.0,
        pcie_tx_bps=200_000_000.0,
        ecc_ce=3.0,
        ecc_ue=0.0,
        link_err=1.0,
        **NEVER_AMD,
    )
    assert [(each.key, seen(each)) for each in scrape.rows] == [
        ("692247000000", expected),
        ("692247000001", expected | {"util_pct": 88.0}),
    ]
    assert told(scrape) == []


# CPX.


def test_partitions_of_a_device_are_never_summed() -> None:
    whole, parted = fixture("amd_mi300x_synthetic.prom"), fixture("amd_mi300x_cpx_synthetic.prom")
    assert [seen(each) for each in parted.rows] == [seen(each) for each in whole.rows]
    assert [each.key for each in parted.rows] == ["692247010000", "692247010001"]
    assert parted.identities["692247010001"].index == "8"
    assert parted.identities["692247010001"].parts == ("0", "1", "2", "3", "4", "5", "6", "7")
    assert told(parted) == []


def test_partition_0_with_a_part_of_the_memory_does_not_speak_for_all_of_it() -> None:
    text = amd("gpu_total_vram", 24574, ',gpu_memory_partition_type="nps8"') + amd(
        "gpu_power_usage", 700, ',gpu_memory_partition_type="nps8"'
    )
    [only] = read(text).rows
    assert seen(only) == row(power_w=700.0, **NEVER_AMD)


def test_a_serial_that_two_devices_give_is_none() -> None:
    text = "".join(
        f'gpu_power_usage{{gpu_id="{index}",serial_number="N/A",gpu_partition_id="0"}} {300 + index}\n'
        for index in range(2)
    )
    scrape = read(text)
    assert [(each.key, each.fields["power_w"].value) for each in scrape.rows] == [
        ("N/A/0", 300),
        ("N/A/1", 301),
    ]
    assert [identity.serial for identity in scrape.identities.values()] == ["", ""]
    [(key, _, sentence)] = told(scrape)
    assert (key, sentence) == ("N/A", "GPUs 0, 1 all give the serial N/A: each is kept by its index")


# MIG.


def test_instances_of_mig_become_their_device() -> None:
    parted, partly, whole = fixture("dcgm_h100_mig_synthetic.prom").rows
    assert seen(parted) == row(
        util_pct=pytest.approx(100 * (0.9 * 3 + 0.2 * 3) / 7),
        tensor_pct=pytest.approx(100 * (0.8 * 3 + 0.1 * 3) / 7),
        membw_pct=pytest.approx(100 * (0.5 * 40 + 0.25 * 40) / 80),
        temp_c=61.0,
        temp_mem_c=70.0,
        clock_mhz=1980.0,
        mem_used_b=(30_000 + 100 + 20_000 + 100) * MIB,
        mem_total_b=(30_000 + 10_000 + 100 + 20_000 + 20_000 + 100) * MIB,
        power_w=512.5,  # said by both instances, drawn once
        energy_j=pytest.approx(987_654.321),
    )
    assert "2 instances weighted by compute slices" in parted.fields["util_pct"].source
    assert seen(partly) == row(
        util_pct=pytest.approx(100 / 7),
        tensor_pct=pytest.approx(50 / 7),
        membw_pct=pytest.approx(100 * 0.4 * 10 / 80),
        temp_c=40.0,
        temp_mem_c=45.0,
        clock_mhz=1200.0,
        mem_used_b=4_040 * MIB,
        mem_total_b=ABSENT,  # one instance of 10 GB is not the device
        power_w=120.0,
        energy_j=pytest.approx(123_456.789),
    )
    assert whole.fields["util_pct"].value == pytest.approx(7)


def test_under_mig_utilisation_of_the_old_kind_is_not_used() -> None:
    part = ',GPU_I_PROFILE="3g.40gb",GPU_I_ID="1"'
    [only] = read(dcgm("DEV_GPU_UTIL", 99, part) + dcgm("DEV_POWER_USAGE", 300, part)).rows
    assert seen(only) == row(power_w=300.0)


def test_what_the_device_says_itself_counts_before_its_instances() -> None:
    part = ',GPU_I_PROFILE="3g.40gb",GPU_I_ID="1"'
    [only] = read(dcgm("PROF_GR_ENGINE_ACTIVE", 0.5) + dcgm("PROF_GR_ENGINE_ACTIVE", 1.0, part)).rows
    assert only.fields["util_pct"].value == 50


# Names.


@pytest.mark.parametrize("label", ["Hostname", "hostname", "HOSTNAME"])
def test_labels_match_whatever_their_case(label: str) -> None:
    scrape = read(f'DCGM_FI_DEV_GPU_TEMP{{gpu="0",uuid="GPU-1",{label}="n1"}} 40\n')
    assert (scrape.rows[0].key, scrape.identities["GPU-1"].node) == ("GPU-1", "n1")


def test_links_name_their_device_in_another_label() -> None:
    [only] = read(
        dcgm("DEV_POWER_USAGE", 300)
        + "".join(
            f'DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL{{gpu="0",gpu_uuid="GPU-1",nvlink="{link}"}} {link}\n'
            for link in range(4)
        )
    ).rows
    assert (only.fields["power_w"].value, only.fields["link_err"].value) == (300, 0 + 1 + 2 + 3)


@pytest.mark.parametrize("name", ["gpu_power_usage", "GPU_POWER_USAGE", "amd_gpu_power_usage"])
def test_amds_names_with_and_without_prefix(name: str) -> None:
    [only] = read(amd(name, 650)).rows
    assert only.fields["power_w"].value == 650


def test_points_and_lines_are_the_same_to_a_tpu() -> None:
    name = "tpu.runtime.tensorcore.dutycycle.percent"
    assert canonical(name) == canonical("tpu_runtime_tensorcore_dutycycle_percent")
    [only] = read(f'{name}{{accelerator_id="7"}} 55\n').rows
    assert (only.key, only.fields["util_pct"].value) == ("7", 55)
    assert only.fields["power_w"].state is UNSUPPORTED


def test_several_pods_on_one_device_count_once() -> None:
    text = "".join(dcgm("DEV_FB_USED", 1000, f',pod="p{number}"') for number in range(3))
    [only] = read(text + dcgm("DEV_FB_FREE", 80_000)).rows
    assert (only.fields["mem_used_b"].value, only.fields["mem_total_b"].value) == (1000 * MIB, 81_000 * MIB)


def test_dialects_are_told_apart_in_one_text() -> None:
    scrape = Parser().parse(dcgm("DEV_GPU_TEMP", 40) + amd("gpu_power_usage", 300) + "node_load1 1\n")
    assert dialects_of(scrape) == (Dialect.DCGM, Dialect.AMD_EXPORTER)
    only = Normaliser().normalise(scrape, at_ms=0, dialect=Dialect.AMD_EXPORTER)
    assert [each.key for each in only.rows] == ["S1"]


# What must not be believed.


@pytest.mark.parametrize("number", [9223372036854775792 + step for step in range(4)])
def test_dcgms_sign_for_no_reading_in_64_bits(number: int) -> None:
    [only] = read(dcgm("DEV_MEMORY_TEMP", number)).rows
    assert only.fields["temp_mem_c"].state is BLANK


@pytest.mark.parametrize("number", [2147483632, 2147483633, 2147483634, 2147483635, 2147483647])
def test_dcgms_sign_for_no_reading_in_32_bits(number: int) -> None:
    [only] = read(dcgm("DEV_GPU_TEMP", number)).rows
    assert only.fields["temp_c"].state is BLANK


@pytest.mark.parametrize("number", ["140737488355328", "140737488355328.000000", "140737488355331.0", "NaN"])
def test_dcgms_sign_for_no_reading_in_floats(number: str) -> None:
    scrape = read(dcgm("DEV_POWER_USAGE", number) + dcgm("DEV_TOTAL_ENERGY_CONSUMPTION", number))
    assert seen(scrape.rows[0]) == row(power_w=BLANK, energy_j=BLANK)
    assert told(scrape) == []


@pytest.mark.parametrize("number", [65535, 4294967295, 1.8446744073709552e19])
def test_amds_sign_for_no_reading(number: float) -> None:
    [only] = read(amd("gpu_junction_temperature", number)).rows
    assert only.fields["temp_c"].state is BLANK


def test_a_blank_falls_back_to_the_weaker_name() -> None:
    [only] = read(dcgm("PROF_GR_ENGINE_ACTIVE", "140737488355328") + dcgm("DEV_GPU_UTIL", 12)).rows
    assert only.fields["util_pct"].value == 12


@pytest.mark.parametrize("model", ["NVIDIA L4", "NVIDIA L40S", "Tesla T4", "NVIDIA A10", "NVIDIA RTX A6000"])
def test_memory_at_0_degrees_where_there_is_no_sensor(model: str) -> None:
    scrape = read(dcgm("DEV_MEMORY_TEMP", 0, model=model))
    assert scrape.rows[0].fields["temp_mem_c"].state is UNSUPPORTED
    assert told(scrape) == []


@pytest.mark.parametrize("model", ["NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-40GB", "NVIDIA GH200 480GB"])
def test_memory_at_0_degrees_where_there_is_one(model: str) -> None:
    scrape = read(dcgm("DEV_MEMORY_TEMP", 0, model=model))
    assert scrape.rows[0].fields["temp_mem_c"].state is BLANK
    assert told(scrape) == [("GPU-1", "temp_mem_c", "0 °C is no temperature of memory at work")]


def test_the_last_xid_never_becomes_a_fault_by_itself() -> None:
    first, second = sequence(dcgm("DEV_XID_ERRORS", 0), dcgm("DEV_XID_ERRORS", 79))
    assert [each.rows[0].fields["fault_code"].state for each in (first, second)] == [ABSENT, ABSENT]
    assert second.codes == {}


def xids(**counts: int) -> str:
    """What the exporter counts by code; one line with 0 where there is none."""
    lines = [
        f'DCGM_EXP_XID_ERRORS_COUNT{{gpu="0",UUID="GPU-1",window_size_in_ms="300000",xid="{code[1:]}"}} {count}\n'
        for code, count in counts.items()
    ]
    return "".join(lines) or 'DCGM_EXP_XID_ERRORS_COUNT{gpu="0",UUID="GPU-1"} 0\n'


def test_a_fault_is_a_count_that_rose_since_the_tick_before() -> None:
    told = sequence(
        xids(x79=1), xids(x79=1), xids(x79=1, x48=1, x63=2), xids(x48=1, x63=2), xids(), xids(x79=1)
    )
    values = [each.rows[0].fields["fault_code"].value for each in told]
    assert values == [
        None,
        0,
        63,
        0,
        0,
        79,
    ]  # at first nobody can tell new from old; a window that moves on is none
    assert [each.codes.get("GPU-1", ()) for each in told] == [(), (), (48, 63), (), (), (79,)]


def test_a_scrape_that_was_cut_makes_no_fault_of_what_comes_back() -> None:
    whole = xids(x79=1) + dcgm("DEV_GPU_TEMP", 40)
    cut = dcgm("DEV_GPU_TEMP", 40) + "DCGM_EXP_XID"
    assert [each.codes for each in sequence(whole, cut, whole)] == [{}, {}, {}]


def test_an_afid_that_stays_is_old_news() -> None:
    def afids(*codes: int) -> str:
        return "".join(amd("gpu_afid_errors", code, f',afid_index="{at}"') for at, code in enumerate(codes))

    told = sequence(afids(24), afids(24), afids(24, 30), afids(30))
    assert [each.rows[0].fields["fault_code"].value for each in told] == [None, 0, 30, 0]


PROFILED = dcgm("PROF_GR_ENGINE_ACTIVE", 0.5, model="NVIDIA A100-SXM4-80GB") + dcgm(
    "PROF_PIPE_TENSOR_ACTIVE", 0.4, model="NVIDIA A100-SXM4-80GB"
)


def test_counters_that_a_users_profiler_took_are_paused() -> None:
    without = dcgm("DEV_GPU_UTIL", 90, model="NVIDIA A100-SXM4-80GB")
    first, second, third, fourth = sequence(without, PROFILED, without, PROFILED)
    tensor = [each.rows[0].fields["tensor_pct"] for each in (first, second, third, fourth)]
    assert [reading.state for reading in tensor] == [ABSENT, State.VALUE, PAUSED, State.VALUE]
    assert third.rows[0].fields["util_pct"].value == 90  # the weaker word still holds


def test_after_a_day_they_are_not_paused_but_gone() -> None:
    without = dcgm("DEV_GPU_UTIL", 90, model="NVIDIA A100-SXM4-80GB")
    told = sequence(PROFILED, *[without] * 50, every_ms=1_800_000)
    assert told[47].rows[0].fields["tensor_pct"].state is PAUSED
    assert told[-1].rows[0].fields["tensor_pct"].state is ABSENT


def test_from_hopper_on_two_may_profile_at_once() -> None:
    _, second = sequence(dcgm("PROF_PIPE_TENSOR_ACTIVE", 0.4), dcgm("DEV_GPU_UTIL", 90))
    assert second.rows[0].fields["tensor_pct"].state is ABSENT


def test_what_was_lost_with_half_a_scrape_is_not_paused() -> None:
    _, second = sequence(PROFILED, dcgm("DEV_GPU_UTIL", 90, model="NVIDIA A100-SXM4-80GB") + "DCGM_FI_PRO")
    assert second.rows[0].fields["tensor_pct"].state is ABSENT


def test_amds_zeros_of_pcie_are_no_measurement() -> None:
    [only] = read(
        "".join(
            amd(name, 0, model="AMD INSTINCT MI250X") for name in ("pcie_rx", "pcie_tx", "pcie_bandwidth")
        )
    ).rows
    assert seen(only) == row(**{**NEVER_AMD, "pcie_tx_bps": UNSUPPORTED, "pcie_rx_bps": UNSUPPORTED})


def test_amds_zeros_of_heat_and_power_are_no_measurement() -> None:
    [only] = read(
        amd("gpu_junction_temperature", 0) + amd("gpu_edge_temperature", 41) + amd("gpu_package_power", 0)
    ).rows
    assert seen(only) == row(**{**NEVER_AMD, "temp_c": 41.0, "power_w": UNSUPPORTED})


def test_memory_in_bytes_is_not_taken_for_mib() -> None:
    scrape = read(amd("gpu_total_vram", 206141652992) + amd("gpu_used_vram", 10_485_760))
    assert [scrape.rows[0].fields[name].state for name in ("mem_total_b", "mem_used_b")] == [BLANK, BLANK]
    assert [(key, field) for key, field, _ in told(scrape)] == [("S1", "mem_total_b"), ("S1", "mem_used_b")]


def test_memory_in_decimal_megabytes_is_not_taken_for_mib() -> None:
    """206141 MB are an MI300X with 192 GiB; as many MiB are no part at all."""
    scrape = read(amd("gpu_total_vram", 206141) + amd("gpu_used_vram", 1000))
    assert [scrape.rows[0].fields[name].state for name in ("mem_total_b", "mem_used_b")] == [BLANK, BLANK]
    assert told(scrape)[0] == (
        "S1",
        "mem_total_b",
        "206141 is said to be MiB; no part has that, but one has as many MB of 10^6 bytes",
    )


def test_more_memory_in_use_than_there_is() -> None:
    scrape = read(amd("gpu_total_vram", 196592) + amd("gpu_used_vram", 200000))
    assert scrape.rows[0].fields["mem_used_b"].state is BLANK
    assert scrape.rows[0].fields["mem_total_b"].value == 196592 * MIB


@pytest.mark.parametrize(
    ("line", "field"),
    [
        pytest.param(dcgm("DEV_POWER_USAGE", 700_000), "power_w", id="milliwatts"),
        pytest.param(dcgm("PROF_GR_ENGINE_ACTIVE", 45), "util_pct", id="a percentage for a ratio"),
        pytest.param(dcgm("DEV_GPU_TEMP", -273), "temp_c", id="colder than can be"),
        pytest.param(dcgm("DEV_GPU_TEMP", "+Inf"), "temp_c", id="infinitely hot"),
        pytest.param(dcgm("DEV_TOTAL_ENERGY_CONSUMPTION", -5), "energy_j", id="less than nothing"),
    ],
)
def test_what_cannot_be_is_said_and_not_charted(line: str, field: str) -> None:
    scrape = read(line + dcgm("DEV_SM_CLOCK", 1980))
    assert scrape.rows[0].fields[field].state is BLANK
    assert scrape.rows[0].fields["clock_mhz"].value == 1980
    [(key, named, sentence)] = told(scrape)
    assert (key, named) == ("GPU-1", field)
    assert "cannot be" in sentence


def test_a_ratio_that_is_1_but_for_rounding_is_1() -> None:
    [only] = read(dcgm("PROF_GR_ENGINE_ACTIVE", "1.0000000001")).rows
    assert only.fields["util_pct"].value == 100


# Over time.


def links(*totals: int, name: str = "gpu_xgmi_link_tx") -> str:
    return "".join(amd(name, total, f',link_index="{at}"') for at, total in enumerate(totals))


def test_links_accumulate_kilobytes() -> None:
    told = sequence(links(0, 1000), links(500, 3000), links(500, 10), links(500))
    rates = [each.rows[0].fields["link_tx_bps"].value for each in told]
    assert rates == [None, 2500 * 1000 / 10, None, None]  # a link that began anew, a link that is missing


def test_a_clock_that_stands_still_makes_no_rate() -> None:
    told = sequence(links(0), links(500), every_ms=0)
    assert told[1].rows[0].fields["link_tx_bps"].state is ABSENT


def test_a_counter_that_lost_a_part_does_not_look_like_a_reset() -> None:
    both = dcgm("DEV_THERMAL_VIOLATION", 2e9) + dcgm("DEV_POWER_VIOLATION", 5e9)
    one = dcgm("DEV_THERMAL_VIOLATION", 2e9)
    told = sequence(both, one, both)
    assert [each.rows[0].fields["throttle_ms"].value for each in told] == [7000, None, 7000]


def test_a_sample_with_its_own_instant_keeps_it() -> None:
    told = read('DCGM_FI_DEV_GPU_TEMP{gpu="0",UUID="GPU-1"} 40 1700000000000\n', at_ms=5)
    assert told.rows[0].ts_ms == 1_700_000_000_000


def test_a_text_with_several_instants_is_several_ticks() -> None:
    line = 'DCGM_FI_DEV_GPU_TEMP{{gpu="0",UUID="GPU-1"}} {} {}\n'
    told = read(line.format(40, 2000) + line.format(30, 1000) + line.format(50, 3000))
    assert [(each.ts_ms, each.fields["temp_c"].value) for each in told.rows] == [
        (1000, 30),
        (2000, 40),
        (3000, 50),
    ]


def test_a_device_that_is_gone_is_forgotten_after_an_hour() -> None:
    other = 'DCGM_FI_DEV_GPU_TEMP{gpu="1",UUID="GPU-2"} 30\n'
    told = sequence(dcgm("DEV_GPU_TEMP", 40) + other, *[other] * 9, every_ms=600_000)
    assert set(told[5].remembered) == {"GPU-1", "GPU-2"}
    assert set(told[-1].remembered) == {"GPU-2"}


def test_lines_that_name_no_device_are_nobodys() -> None:
    assert read("DCGM_FI_DEV_GPU_TEMP 40\ngpu_nodes_total 8\nmemory_used 5\n").rows == ()
