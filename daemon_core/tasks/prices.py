"""What tokens cost: as the agent states it, else by a dated table that the user can override.

Pure, but for ``load``. An unknown model has no price; nothing is guessed from a name that is only alike.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from daemon_core.protocol.wire import Usage

SHIPPED: Final = Path(__file__).resolve().parents[2] / "resources" / "prices.toml"
MILLION: Final = 1_000_000
SIZE_LIMIT_BYTES: Final = 1024 * 1024

How = Literal["stated", "priced", "partial", "unknown"]
"""``stated`` by the agent; ``priced`` by the table; ``partial``: at least this much, of some of it nothing is
known; ``unknown``: nothing is."""

_DATED: Final = re.compile(r"[-@](?:20\d{6}|20\d{2}-\d{2}-\d{2}|latest)$")
_VARIANT: Final = re.compile(r"\[[^\[\]]{0,100}\]$")


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """US dollars for a million tokens."""

    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None
    as_of: str = ""

    def of(self, usage: Usage) -> float:
        """What these tokens cost."""
        read = self.input if self.cache_read is None else self.cache_read
        written = self.input if self.cache_write is None else self.cache_write
        return (
            usage.input_tokens * self.input
            + usage.output_tokens * self.output
            + usage.cache_read_tokens * read
            + usage.cache_write_tokens * written
        ) / MILLION


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What something cost in US dollars, and how that is known."""

    usd: float = 0.0
    how: How = "stated"


class PricesError(Exception):
    """A file of prices cannot be used."""

    def __init__(self, path: Path, what: str) -> None:
        self.path = path
        self.what = what
        super().__init__(f"{path}: {what}")


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    as_of: str = ""
    currency: Literal["USD"] = "USD"
    models: dict[str, Price] = {}


class Prices:
    """The table. ``own``: how many of its models are the user's."""

    def __init__(self, models: Mapping[str, Price], as_of: str = "", own: int = 0) -> None:
        self.models = dict(models)
        self.as_of = as_of
        self.own = own

    @classmethod
    def load(cls, own: Path | None, shipped: Path = SHIPPED) -> Prices:
        """The shipped table with the user's over it. Reads files; raises ``PricesError``."""
        base = _read(shipped)
        if base is None:
            raise PricesError(shipped, "it is not there")
        mine = (_read(own) if own is not None else None) or _File()
        models = {name: _dated(price, base.as_of) for name, price in base.models.items()}
        models |= {name: _dated(price, mine.as_of) for name, price in mine.models.items()}
        return cls(models, base.as_of, len(mine.models))

    def find(self, model: str) -> Price | None:
        """The price of a model by its name, without date, variant or the name of who sells it."""
        for name in _names(model):
            found = self.models.get(name)
            if found is not None:
                return found
        return None

    def cost(self, usage: Usage) -> Cost:
        """What tokens of one model cost."""
        stated = usage.cost_usd if isinstance(usage.cost_usd, float) else None
        if stated is not None and not usage.cost_partial:
            return Cost(usd=stated, how="stated")
        if not _tokens(usage):
            return Cost(usd=stated or 0.0, how="stated")
        price = self.find(usage.model)
        if price is not None:
            return Cost(usd=max(price.of(usage), stated or 0.0), how="priced")
        if stated is not None:
            return Cost(usd=stated, how="partial")
        return Cost(how="unknown")

    def total(self, usage: Iterable[Usage]) -> Cost | None:
        """What all of it cost; None where nothing was used."""
        return add_costs(self.cost(entry) for entry in usage if _tokens(entry) or entry.cost_usd)


def add_costs(costs: Iterable[Cost]) -> Cost | None:
    """The sum, with how much of it is known; None of nothing."""
    found = list(costs)
    if not found:
        return None
    hows = {cost.how for cost in found}
    usd = sum(cost.usd for cost in found)
    if hows == {"unknown"}:
        return Cost(how="unknown")
    if hows & {"unknown", "partial"}:
        return Cost(usd=usd, how="partial")
    return Cost(usd=usd, how="priced" if "priced" in hows else "stated")


def _names(model: str) -> list[str]:
    name = _VARIANT.sub("", model.strip().lower())
    names = [model, name]
    if "/" in name:
        names.append(name := name.rpartition("/")[2])
    names.append(_DATED.sub("", name))
    return names


def _tokens(usage: Usage) -> int:
    return usage.input_tokens + usage.output_tokens + usage.cache_read_tokens + usage.cache_write_tokens


def _dated(price: Price, as_of: str) -> Price:
    return price if price.as_of else msgspec.structs.replace(price, as_of=as_of)


def _read(path: Path) -> _File | None:
    try:
        with path.open("rb") as file:
            raw = file.read(SIZE_LIMIT_BYTES)
        table: dict[str, Any] = tomllib.loads(raw.decode())
        found = msgspec.convert(table, _File)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:  # no text, no TOML, too deep a one, no prices
        raise PricesError(path, str(error)) from error
    wrong = next((name for name, price in found.models.items() if not _sane(price)), "")
    if wrong:
        raise PricesError(path, f"the prices of {wrong} must be from 0 to 10000")
    return found


def _sane(price: Price) -> bool:
    parts = (price.input, price.output, price.cache_read or 0.0, price.cache_write or 0.0)
    return all(0 <= part <= 10_000 for part in parts)
