"""What is told about spending, beyond how the day stands (which is ``views.SpendView``)."""

from __future__ import annotations

import msgspec

from daemon_core.control.views import SpendView, View


class SpendEntry(View, frozen=True, kw_only=True):
    """What one agent of one connection used of one model on one day. ``how``: see ``TaskRow.cost_how``."""

    day: str
    connection: str = ""
    agent: str = ""
    provider: str = ""
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost: float | None = None
    """US dollars; null: not known."""
    how: str = "unknown"


class PriceView(View, frozen=True, kw_only=True):
    """The list price of a model that was used, in US dollars for a million tokens."""

    model: str
    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None
    as_of: str = ""


class SpendReport(View, frozen=True, kw_only=True):
    """Days, newest last."""

    today: SpendView
    entries: list[SpendEntry] = msgspec.field(default_factory=list)
    prices: list[PriceView] = msgspec.field(default_factory=list)
    """Of the models in ``entries`` that have one."""
    prices_as_of: str = ""
    own_prices: int = 0
    """Models whose price the user has given."""
    unknown_models: list[str] = msgspec.field(default_factory=list)
    """Models in ``entries`` without a known price whose agents do not state what they cost."""
