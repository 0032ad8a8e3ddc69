"""The catalogue is shown without a platform, and weak sources are marked wherever their values are."""

import json

from baseai.catalog.catalog import load_catalog
from baseai.catalog.source import Mark
from tests.cli.conftest import Baseai

NOWHERE: dict[str, str] = {}


def test_every_model_is_listed_without_a_platform(baseai: Baseai) -> None:
    out = baseai("catalog", "list", environ=NOWHERE).out
    items = json.loads(baseai("catalog", "list", "--json", environ=NOWHERE).out)["items"]
    for one in load_catalog().accelerators:
        assert f"\n{one.model} " in out
    assert [item["model"] for item in items] == [one.model for one in load_catalog().accelerators]
    assert all(item["price_per_hour"] for item in items)


def test_a_value_from_an_unread_source_is_never_shown_without_its_mark(baseai: Baseai) -> None:
    weak = [
        one
        for one in load_catalog().accelerators
        if one.bf16_tflops is not None and one.source_of("bf16_tflops").mark is Mark.UNREAD
    ]
    lines = baseai("catalog", "list", environ=NOWHERE).out.splitlines()
    for one in weak:
        [line] = [line for line in lines if line.startswith(f"{one.model} ")]
        assert f"{one.bf16_tflops:,.10g} [C]" in line
        shown = baseai("catalog", "show", one.model, environ=NOWHERE).out
        assert f"{one.bf16_tflops:,.10g} TFLOPS dense [C]" in shown


def test_a_name_as_a_spec_writes_it_finds_its_models(baseai: Baseai) -> None:
    shown = baseai("catalog", "show", "h100", environ=NOWHERE)
    assert shown.out.startswith("H100-SXM")
    assert "published by Base A.I" in shown.out
    assert shown.err == "h100 is H100-PCIe as well\n"
    missing = baseai("catalog", "show", "H1000", environ=NOWHERE)
    assert (missing.status, missing.err) == (1, "baseai: no accelerator model H1000\n")


def test_diff_shows_both_figures_and_why(baseai: Baseai) -> None:
    out = baseai("catalog", "diff", environ=NOWHERE).out
    document = json.loads(baseai("catalog", "diff", "--json", environ=NOWHERE).out)
    assert len(document["items"]) == len(load_catalog().differences())
    for one in document["items"]:
        assert one["why"] in " ".join(out.split())
        assert {"ours", "theirs", "our_source", "their_source"} <= one.keys()
