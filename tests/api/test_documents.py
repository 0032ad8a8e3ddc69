"""Documents over REST and at the terminal's check: export, check, invoices; the demo's own runs are in them."""

import io
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from baseai.finance.focus.check import Report, check
from baseai.finance.focus.rule import Dataset
from baseai.finance.period import period_of
from tests.api.platform import Platform

pytestmark = pytest.mark.anyio


def held_to_the_rules(archive: bytes, folder: Path) -> Report:
    with zipfile.ZipFile(io.BytesIO(archive)) as packed:
        packed.extractall(folder)
    return check(
        {
            dataset: (folder / dataset.file).read_text(encoding="utf-8").splitlines(keepends=True)
            for dataset in Dataset
            if (folder / dataset.file).exists()
        }
    )


async def test_an_export_of_a_month_without_anything_passes_the_check(
    platform: Platform, tmp_path: Path
) -> None:
    period = str(period_of(datetime.now(UTC)))
    answer = await platform.ask("GET", "/exports/focus", params={"period": period})
    assert answer.status_code == 200, answer.text
    report = held_to_the_rules(answer.content, tmp_path)
    assert report.findings == ()
