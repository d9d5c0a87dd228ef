"""Every text can be read on every ground that it stands on, in every scheme."""

from __future__ import annotations

import pytest

from desktop.theme.tokens import (
    DARK,
    DARK_CONTRAST,
    LIGHT,
    LIGHT_CONTRAST,
    Colours,
    colours,
    contrast_ratio,
)

SCHEMES = {"light": LIGHT, "dark": DARK, "light contrast": LIGHT_CONTRAST, "dark contrast": DARK_CONTRAST}
GROUNDS = ("background", "surface", "raised", "hover", "selected")
TEXTS = ("text", "muted", "accent", "running", "done", "waiting", "failed", "neutral")
BARS = ("background", "surface", "raised")
"""What scroll bars lie on."""


def least(text: str) -> float:
    # Neutral is for glyphs and bars alone.
    return 3.0 if text == "neutral" else 4.5


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("text", TEXTS)
def test_text_on_its_ground(name: str, ground: str, text: str) -> None:
    scheme = SCHEMES[name]
    assert contrast_ratio(getattr(scheme, text), getattr(scheme, ground)) >= least(text)


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("ground", BARS)
def test_the_handle_of_a_scroll_bar_is_seen(name: str, ground: str) -> None:
    scheme = SCHEMES[name]
    assert contrast_ratio(scheme.handle, getattr(scheme, ground)) >= 3.0


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=list(SCHEMES))
def test_text_on_colours(scheme: Colours) -> None:
    assert contrast_ratio(scheme.on_accent, scheme.accent) >= 4.5
    for ground in (scheme.added, scheme.removed):
        assert contrast_ratio(scheme.text, ground) >= 4.5


def test_high_contrast_has_more_of_it() -> None:
    for plain, strong in ((LIGHT, LIGHT_CONTRAST), (DARK, DARK_CONTRAST)):
        for text in TEXTS:
            assert contrast_ratio(getattr(strong, text), strong.surface) > contrast_ratio(
                getattr(plain, text), plain.surface
            )


def test_the_known_ends_of_the_scale() -> None:
    assert contrast_ratio("#000000", "#FFFFFF") == pytest.approx(21.0)
    assert contrast_ratio("#123456", "#123456") == pytest.approx(1.0)


def test_the_scheme_that_is_asked_for() -> None:
    assert colours(dark=False) is LIGHT
    assert colours(dark=True) is DARK
    assert colours(dark=True, contrast=True) is DARK_CONTRAST
