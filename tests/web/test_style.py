"""The style sheet keeps text readable for people who see little, in light and in dark (WCAG 2.2, 1.4.3 and 1.4.11)."""

import re

import pytest

from tests.web.catalogue import HERE

CSS = (HERE / "static" / "style.css").read_text(encoding="utf-8")
TONES = ("good", "busy", "waiting", "warn", "bad", "plain")


def colours(theme: str) -> dict[str, str]:
    light, dark = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)[:2]
    found = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})", light))
    return found if theme == "light" else found | dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})", dark))


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#fff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_its_ground(theme: str) -> None:
    tokens = colours(theme)
    pairs = [(ink, ground) for ink in ("ink", "soft", "accent") for ground in ("ground", "sheet", "faint")]
    pairs += [(tone, f"{tone}-bg") for tone in TONES] + [("accent-ink", "accent")]
    on_pages = [
        (tone, ground) for tone in ("good", "warn", "busy") for ground in ("ground", "sheet", "faint")
    ]
    on_a_silent_node = [("bad", "sheet"), *((ink, "bad-bg") for ink in ("ink", "soft", "accent"))]
    found = {
        pair: contrast(*(tokens[name] for name in pair)) for pair in (*pairs, *on_pages, *on_a_silent_node)
    }
    assert {pair: round(ratio, 2) for pair, ratio in found.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_curve_and_its_marks_stand_out(theme: str) -> None:
    tokens = colours(theme)
    assert min(contrast(tokens[name], tokens["sheet"]) for name in ("line", "bad", "busy", "soft")) >= 3


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_lines_of_charts_stand_out_and_scales_of_the_map_only_rise(theme: str) -> None:
    tokens = colours(theme)
    assert min(contrast(tokens[f"s{number}"], tokens["sheet"]) for number in range(1, 9)) >= 3
    for scale in ("ramp", "heat"):
        steps = [contrast(tokens[f"{scale}-{number}"], tokens["sheet"]) for number in range(5)]
        assert steps == sorted(steps), scale  # more is always further from the ground
        assert steps[0] > 1.05  # an idle cell is still a cell


def test_no_colour_is_written_outside_the_tokens() -> None:
    rules = re.sub(r":root \{.*?\}", "", CSS, flags=re.DOTALL)
    assert re.findall(r"#[0-9a-f]{3,8}\b|rgba?\(", rules) == []
