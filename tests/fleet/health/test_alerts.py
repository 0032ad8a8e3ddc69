"""The alert pack is the policy's rules, each of them, in words that a Prometheus reads."""

import re
from pathlib import Path
from typing import Any

import yaml

from baseai.fleet.health.alerts import alert_pack
from baseai.fleet.health.rule import Severity, shipped_policy
from baseai.telemetry.field import FAMILIES
from tests.fleet.health.ward import POLICY

FILE = Path(__file__).resolve().parents[3] / "docs" / "alerts" / "baseai.yml"


def alerts() -> dict[str, dict[str, Any]]:
    read = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return {rule["alert"]: rule for group in read["groups"] for rule in group["rules"]}


def test_the_file_is_the_policy() -> None:
    assert FILE.read_text(encoding="utf-8") == alert_pack(POLICY), "run: python tools/alerts_page.py"


def test_every_rule_that_a_person_should_hear_of_has_an_alert() -> None:
    heard = " ".join(rule["expr"] for rule in alerts().values())
    for rule in POLICY.rules.values():
        told = f'"{rule.rule_id}"' in heard or rule.rule_id.replace(".", "[.]") in heard
        name = "Baseai" + "".join(part.capitalize() for part in rule.rule_id.split("_"))
        assert told or name in alerts() or rule.severity is Severity.INFO, rule.rule_id


def test_a_threshold_is_the_rules() -> None:
    hot = alerts()["BaseaiTempCritical"]
    assert hot["expr"] == 'baseai_accelerator_temp_c{model!="cpu-slot"} > 90'
    assert hot["for"] == "20s"
    assert hot["labels"] == {"severity": "critical", "action": "cordon"}
    own = '[[rule]]\nid = "temp_critical"\nabove = 88.0\n'
    changed = yaml.safe_load(alert_pack(shipped_policy(("health.toml", own))))
    [expr] = [r["expr"] for g in changed["groups"] for r in g["rules"] if r["alert"] == "BaseaiTempCritical"]
    assert expr.endswith("> 88")


def test_every_name_asked_for_is_one_that_is_told() -> None:
    known = {f"baseai_{family}_{field}" for family in FAMILIES for field in FAMILIES[family].names} | {
        "baseai_evidence"
    }
    for rule in alerts().values():
        for name in re.findall(r"\bbaseai_\w+", rule["expr"]):
            assert name in known or name.removesuffix("_total") in known, rule
