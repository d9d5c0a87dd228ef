"""The pool of places for concurrent runs (promise P5): as many as there are slots, and no more than the
limits of providers and models allow.

A slot is taken before a claim, since a claimed task that waits for a slot would time out at its server. It
has a number, which the run keeps over restarts: a re-attached run gets its own number back even if there are
fewer slots now.

Who waits for another task lends its slot to it. What is lent keeps one place for the two of them, so that one
slot is enough for any depth; towards the limits of provider and model counts who works, not who waits. When
the borrower is done, its lender has its places back before anybody else is asked.

Waiting is first come, first served for each limit: nobody overtakes somebody who came earlier and wants the
same limited provider or model. Who holds a place already (a lender, a borrower, a claimed task that waits for
its model) waits only behind those who lack nothing else than what is waited for. So nothing locks, and nobody
starves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Literal

Limit = tuple[str, str]
"""("group" or "model", its name), ("total", "") for the number of slots, ("loan", "") for the lender's."""

_TOTAL: Limit = ("total", "")
_LOAN: Limit = ("loan", "")


class Slot:
    """One place, held by one task. ``release`` gives it back; twice is once."""

    def __init__(self, pool: Slots, group: str, model: str = "") -> None:
        self._pool: Slots | None = None
        self._home = pool
        self.number = -1
        self.group = group
        self.model = model
        """The model that it counts for; empty: none, or not known yet."""
        self.lent = False
        self.lender: Slot | None = None
        """Whose place this is, while it is borrowed."""
        self.borrower: Slot | None = None
        self.counting = False
        """Whether it counts towards the limits of its provider and model: not while it is lent."""

    @property
    def held(self) -> bool:
        return self._pool is not None

    def release(self) -> None:
        """Give the slot back and wake the next one in line. What is lent stays with the borrower."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            pool._released(self)

    def lend(self) -> None:
        """Its task waits for another one: who borrows it can have its place (``Slots.acquire``)."""
        if self.held and not self.lent:
            self.lent = True
            self.counting = False
            self._home._grant()

    async def resume(self) -> None:
        """Its task goes on: back to what it was, before all others, once the limits have room for it.

        Cancelled, it stays lent.
        """
        if self.held and self.lent:
            await self._home._wait(_Wish(self, "resume"), first=True)

    def take_back(self) -> None:
        """Its task goes on now, whatever the limits say: it works, so it counts. A borrower that is still at
        work has a place of its own from now on, and nothing new begins until there is room again."""
        if not self.lent:
            return
        self.lent = False
        self.counting = self.held
        if self.borrower is not None:
            self.borrower.lender = None
            self.borrower = None
        self._home._grant()


class _Wish:
    """Somebody in the line, and what for."""

    def __init__(
        self, slot: Slot, kind: Literal["new", "borrow", "resume", "model"], model: str = ""
    ) -> None:
        self.slot = slot
        self.kind = kind
        self.model = model
        self.future: asyncio.Future[None] | None = None


class Slots:
    """The pool. ``group`` is what a limit of its own applies to (a provider), and so is ``model``."""

    def __init__(
        self, total: int, limits: Mapping[str, int] | None = None, models: Mapping[str, int] | None = None
    ) -> None:
        self.total = total
        self.limits = dict(limits or {})
        self.models = dict(models or {})
        self._held: list[Slot] = []
        self._line: list[_Wish] = []

    # --- questions -----------------------------------------------------------------------------

    @property
    def used(self) -> int:
        """Places that are taken: a lender and its borrower have one between them."""
        return sum(1 for slot in self._held if slot.lender is None)

    def in_group(self, group: str) -> int:
        return sum(1 for slot in self._held if slot.counting and slot.group == group)

    def with_model(self, model: str) -> int:
        return sum(1 for slot in self._held if slot.counting and slot.model == model)

    def free_for(self, group: str, model: str = "") -> bool:
        """Whether a slot could be had at once."""
        needed = [_TOTAL, ("group", group), *([("model", model)] if model else [])]
        return not any(self._full(limit) for limit in needed) and not (
            set(needed) & {limit for wish in self._line for limit in self._limited(wish)}
        )

    def full_models(self) -> list[str]:
        """Models of which nothing is to be claimed now: their limit is reached, or somebody is in line."""
        return sorted(
            model
            for model in self.models
            if self._full(("model", model)) or any(_model_of(wish) == model for wish in self._line)
        )

    # --- taking --------------------------------------------------------------------------------

    async def acquire(self, group: str, model: str = "", *, lender: Slot | None = None) -> Slot:
        """Wait for a slot. Cancelling gives up the place in line; a slot granted meanwhile goes back.

        Args:
            lender: take the place of this one, as soon as it is lent and nobody has it.
        """
        slot = Slot(self, group, model)
        slot.lender = lender
        await self._wait(_Wish(slot, "new" if lender is None else "borrow"))
        return slot

    async def want_model(self, slot: Slot, model: str) -> None:
        """Wait until the limit of a model has room for somebody who has a slot."""
        if slot.model != model:
            await self._wait(_Wish(slot, "model", model))

    def try_model(self, slot: Slot, model: str) -> bool:
        """Count a slot for a model if that can be had at once."""
        if slot.model != model and model in self.full_models():
            return False
        slot.model = model
        return True

    def adopt(self, number: int, group: str, model: str = "") -> Slot:
        """The slot of a re-attached run, whatever the limits say: the run is there."""
        slot = Slot(self, group, model)
        self._put(slot, number)
        return slot

    def link(self, lender: Slot, borrower: Slot) -> None:
        """Two adopted slots are one place: the first was lent to the second before the restart."""
        if lender.held and borrower.held and lender.borrower is None and borrower.lender is None:
            lender.lent = True
            lender.counting = False
            lender.borrower = borrower
            borrower.lender = lender
            self._grant()

    def resize(self, total: int, limits: Mapping[str, int], models: Mapping[str, int] | None = None) -> None:
        """Change the limits; runs above a lowered limit go on. ``models`` None: as they are."""
        self.total = total
        self.limits = dict(limits)
        self.models = self.models if models is None else dict(models)
        self._grant()

    def assert_valid(self) -> None:
        """The invariants, for tests and for doubt."""
        for slot in self._held:
            assert slot.held
            assert slot.counting or slot.lent, "who does not count has lent its place"
            assert slot.lender is None or (slot.lender.lent and slot.lender.borrower is slot)
            assert slot.borrower is None or (slot.borrower.held and not slot.counting)

    # --- the line ------------------------------------------------------------------------------

    async def _wait(self, wish: _Wish, *, first: bool = False) -> None:
        future = wish.future = asyncio.get_running_loop().create_future()
        self._line.insert(0 if first else len(self._line), wish)
        self._grant()
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                if wish.kind in ("new", "borrow"):
                    wish.slot.release()
                elif wish.kind == "resume":
                    wish.slot.lend()
            raise
        finally:
            if wish in self._line:
                self._line.remove(wish)
                self._grant()

    def _grant(self) -> None:
        while self._pass():
            pass

    def _pass(self) -> bool:
        """Go through the line once, first to last; whether anybody was served."""
        earlier: list[tuple[set[Limit], set[Limit]]] = []
        for wish in list(self._line):
            assert wish.future is not None
            if wish.future.done():
                continue  # given up just now
            wanted, lacks = set(self._limited(wish)), self._lacks(wish)
            if not lacks and not self._held_back(wish, wanted, earlier):
                self._line.remove(wish)
                self._serve(wish)
                wish.future.set_result(None)
                return True
            # Who lacks a place altogether is asked first when there is one, and holds nobody up until then.
            if not lacks & {_TOTAL, _LOAN}:
                earlier.append((wanted, lacks))
        return False

    def _held_back(
        self, wish: _Wish, wanted: set[Limit], earlier: list[tuple[set[Limit], set[Limit]]]
    ) -> bool:
        for theirs, lacking in earlier:
            shared = wanted & theirs
            if wish.kind == "new" and shared:
                return True
            if any(lacking <= {limit} for limit in shared):
                return True
        return False

    def _lacks(self, wish: _Wish) -> set[Limit]:
        lacking = {limit for limit in self._limited(wish) if self._full(limit, wish)}
        if wish.kind == "new" and self.used >= self.total:
            lacking.add(_TOTAL)
        if wish.kind == "borrow":
            lender = wish.slot.lender
            if lender is None or not lender.held or not lender.lent or lender.borrower is not None:
                lacking.add(_LOAN)
        return lacking

    def _limited(self, wish: _Wish) -> list[Limit]:
        """The limits that a wish is subject to, the number of slots apart."""
        if wish.kind == "resume" and wish.slot.counting:
            return []
        model = _model_of(wish)
        wanted: list[Limit] = [("model", model)] if model else []
        if wish.kind != "model":
            wanted.append(("group", wish.slot.group))
        return [limit for limit in wanted if self._limit_of(limit) is not None]

    def _limit_of(self, limit: Limit) -> int | None:
        kind, name = limit
        if kind == "total":
            return self.total
        return (self.limits if kind == "group" else self.models).get(name)

    def _full(self, limit: Limit, wish: _Wish | None = None) -> bool:
        most = self._limit_of(limit)
        if most is None:
            return False
        kind, name = limit
        if kind == "total":
            return self.used >= most
        count = self.in_group(name) if kind == "group" else self.with_model(name)
        if wish is not None and wish.kind == "borrow" and (lender := wish.slot.lender) is not None:
            # It has its places back between two borrowers; the next one has them again.
            count -= lender.counting and name == (lender.group if kind == "group" else lender.model)
        return count >= most

    def _serve(self, wish: _Wish) -> None:
        slot = wish.slot
        match wish.kind:
            case "new":
                number = 0
                taken = {held.number for held in self._held}
                while number in taken:
                    number += 1
                self._put(slot, number)
            case "borrow":
                assert slot.lender is not None
                slot.lender.borrower = slot
                slot.lender.counting = False
                self._put(slot, slot.lender.number)
            case "resume":
                slot.lent = False
                slot.counting = True
            case "model":
                slot.model = wish.model

    def _put(self, slot: Slot, number: int) -> None:
        slot._pool = self
        slot.number = number
        slot.counting = True
        self._held.append(slot)

    def _released(self, slot: Slot) -> None:
        self._held.remove(slot)
        slot.counting = False
        lender, borrower = slot.lender, slot.borrower
        slot.lender = slot.borrower = None
        if borrower is not None:
            borrower.lender = lender  # the one in the middle is gone: the place goes on
        if lender is not None:
            lender.borrower = borrower
            if borrower is None and not self._lacks(_Wish(lender, "resume")):
                lender.counting = True
        self._grant()


def _model_of(wish: _Wish) -> str:
    return wish.model if wish.kind == "model" else wish.slot.model
