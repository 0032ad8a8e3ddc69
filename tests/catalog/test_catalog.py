"""The shipped catalogue: complete, sourced, and true to what Base A.I has published."""

import pickle
from dataclasses import fields
from datetime import UTC, datetime

import pytest

from baseai.catalog import load_catalog
from baseai.catalog.accelerator import CPU_SLOT, Placement
from baseai.catalog.server import servers_taking
from baseai.catalog.sheet import shipped_data
from baseai.catalog.source import Mark
from baseai.ground.fault import NotFound

CATALOG = load_catalog()
BARE = {"model", "name", "aliases", "placement", "published", "why", "evidence", "partner_id", "sites"}


def test_every_model_is_here() -> None:
    assert [accelerator.model for accelerator in CATALOG.accelerators] == [
        *("H100-SXM", "H100-PCIe", "A100-40GB", "A100-80GB", "L40S"),
        *("MI300X", "TPU-v5e", "H200", "MI350X", "cpu-slot"),
    ]
    assert [server.model for server in CATALOG.servers] == ["XE9680", "SYS-821GE-TNHR", "AS-8125GS-TNMR2"]
    assert [site.site_id for site in CATALOG.partners[0].sites] == ["SP4", "SP5", "RJ2", "MI1", "DC2", "DC6"]
    assert all(site.site_id.startswith("scala-") for site in CATALOG.partners[1].sites)


def test_every_fact_has_a_source() -> None:
    for thing in (*CATALOG.accelerators, *CATALOG.servers, *CATALOG.partners):
        sourced = dict(thing.evidence)
        for field in fields(thing):
            absent = getattr(thing, field.name) is None
            assert field.name in BARE or absent or field.name in sourced, f"{thing}: {field.name}"
        if thing.published is not None:
            claims = dict(thing.published.evidence)
            assert claims, thing
            assert {source.source_id for source in claims.values()} == {"baseai-published"}
    for site in (site for partner in CATALOG.partners for site in partner.sites):
        assert set(dict(site.evidence)) == {"metro", "role"}


def test_every_source_is_used() -> None:
    for file in shipped_data().iterdir():
        text = file.read_text(encoding="utf-8")
        listed = text.split("[sources]")[1].split("\n[")[0]
        for line in filter(None, listed.strip().splitlines()):
            name = line.split(" = ")[0]
            assert f'"{name}"' in text, f"{file.name} lists {name} and nothing rests on it"


@pytest.mark.parametrize(
    ("models", "memory_gib", "kind", "gb_per_s", "fp32", "int8", "bf16", "low_usd", "high_usd"),
    [
        (("H100-SXM", "H100-PCIe"), (80, 80), "HBM3", 3000, 60, 1000, None, 25_000, 40_000),
        (("A100-40GB", "A100-80GB"), (40, 80), "HBM2e", 1600, 19.5, 624, None, 15_000, 25_000),
        (("L40S",), (48,), "GDDR6", 864, 91.6, 362, None, 8_000, 12_000),
        (("MI300X",), (192,), "HBM3", 5300, 61.3, 1300, None, 20_000, 30_000),
        (("TPU-v5e",), (16,), None, 1600, None, None, 197, None, None),
    ],
)
def test_what_base_ai_has_published(
    models: tuple[str, ...],
    memory_gib: tuple[int, ...],
    kind: str | None,
    gb_per_s: float,
    fp32: float | None,
    int8: float | None,
    bf16: float | None,
    low_usd: int | None,
    high_usd: int | None,
) -> None:
    for model, memory in zip(models, memory_gib, strict=True):
        published = CATALOG.accelerator(model).published
        assert published is not None
        assert (published.memory_gib, published.memory_kind) == (memory, kind)
        assert published.memory_bandwidth_gb_per_s == gb_per_s
        assert (published.fp32_tflops, published.int8_tops, published.bf16_tflops) == (fp32, int8, bf16)
        assert (published.purchase_low_usd, published.purchase_high_usd) == (low_usd, high_usd)
        assert published.ideal_uses


def test_what_base_ai_offers_its_servers_as() -> None:
    dell, supermicro = (server.published for server in CATALOG.servers[:2])
    assert dell is not None
    assert supermicro is not None
    assert (dell.processors, dell.accelerators_max, dell.memory_kind) == ("dual Intel Xeon", 8, "DDR5")
    assert (dell.memory_max_tb, dell.nvme_max_tb, dell.network_gbit_per_s) == (2, 30, 200)
    assert (dell.network, dell.accelerator_models) == ("InfiniBand HDR", ("H100-SXM", "A100-80GB", "H200"))
    assert (supermicro.processors, supermicro.accelerator_models) == ("dual AMD EPYC 9004", ("MI300X",))
    assert (supermicro.memory_max_tb, supermicro.nvme_max_tb, supermicro.network_gbit_per_s) == (3, 60, 400)


def test_what_base_ai_says_of_its_partners() -> None:
    equinix, scala = (partner.published for partner in CATALOG.partners)
    assert (equinix.data_centers, equinix.countries, equinix.networks) == (260, 70, 10_000)
    assert (equinix.certifications, equinix.availability_percent) == (
        ("SOC 2", "ISO 27001", "PCI DSS"),
        99.999,
    )
    assert (scala.data_centers_in_brazil, scala.availability_percent) == (18, 99.982)
    assert scala.certifications == ("Tier III", "ISO 27001")
    assert scala.manners == ("LGPD", "support in Portuguese", "prices in R$")
    assert CATALOG.site("RJ2").role == "geographic redundancy"
    assert CATALOG.site("MI1").role == "gateway to Latin America"
    assert {CATALOG.site(site).role for site in ("SP4", "SP5")} == {"low latency in Brazil"}
    assert {CATALOG.site(site).role for site in ("DC2", "DC6")} == {"global hub"}


def test_a_tpu_stands_in_no_server_of_ours() -> None:
    tpu = CATALOG.accelerator("TPU-v5e")
    assert tpu.placement is Placement.LEASE_ONLY
    assert not tpu.may_stand_in_our_servers
    assert servers_taking(tpu, CATALOG.servers) == ()
    assert [known.model for known in CATALOG.accelerators if not known.may_stand_in_our_servers] == [
        "TPU-v5e"
    ]


def test_an_accelerator_is_rated_with_its_share_of_the_server() -> None:
    rated = CATALOG.rated_watts()
    assert rated["H100-SXM"] == 10_200 / 8
    assert set(rated) == {one.model for one in CATALOG.accelerators if one.may_stand_in_our_servers}
    for model, watts in rated.items():
        assert watts >= (CATALOG.accelerator(model).board_power_watts or 1)


def test_only_the_amd_server_and_the_xe9680_take_mi300x() -> None:
    taking = servers_taking(CATALOG.accelerator("MI300X"), CATALOG.servers)
    assert [server.model for server in taking] == ["XE9680", "AS-8125GS-TNMR2"]


def test_peaks_are_dense() -> None:
    for accelerator in CATALOG.accelerators:
        if accelerator.bf16_tflops and accelerator.int8_tops:
            ratio = accelerator.int8_tops / accelerator.bf16_tflops
            assert 1.95 < ratio < 2.05, f"{accelerator.model}: one of the two is with sparsity"


def test_a_format_that_a_device_lacks_is_none() -> None:
    assert CATALOG.accelerator("A100-80GB").fp8_tflops is None
    assert CATALOG.accelerator(CPU_SLOT).bf16_tflops is None


def test_a_primary_source_says_where_it_can_be_read_again() -> None:
    for thing in (*CATALOG.accelerators, *CATALOG.servers, *CATALOG.partners):
        for fact, source in thing.evidence:
            ours = source.title.startswith("Base A.I")
            assert source.mark is not Mark.PRIMARY or ours or source.url, f"{fact}: {source.title}"


def test_the_catalogue_is_read_once_and_travels_between_processes() -> None:
    assert load_catalog() is CATALOG
    assert pickle.loads(pickle.dumps(CATALOG)) == CATALOG


def test_unknown_names_are_not_found() -> None:
    with pytest.raises(NotFound):
        CATALOG.accelerator("B200")
    with pytest.raises(NotFound):
        CATALOG.site("SP99")
    with pytest.raises(NotFound):
        CATALOG.price("B200", datetime(2026, 11, 1, tzinfo=UTC))
