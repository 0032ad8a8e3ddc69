"""Writes docs/alerts/baseai.yml, the alert pack, from the rules of health that ship.

Invariant: the file is a function of the rules alone. Run `python tools/alerts_page.py` after a change.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from baseai.fleet.health.alerts import alert_pack  # noqa: E402
from baseai.fleet.health.rule import shipped_policy  # noqa: E402

FILE = ROOT / "docs" / "alerts" / "baseai.yml"

if __name__ == "__main__":
    FILE.write_text(alert_pack(shipped_policy()), encoding="utf-8")
