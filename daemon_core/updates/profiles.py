"""How the daemon of one profile gets on with a version that has proven itself with another one, or that an
installer has brought. No I/O.

All profiles share the versions and the pointer, but each has a journal and settings of its own, so what works
with one may not come up with another. The first start of a profile's daemon with such a version is therefore
a trial of its own, begun by the launcher, on which nobody else's daemon depends: what ran before is gone back
to if it fails, for this profile alone, until there is another version or the user wants it tried again. Where
nothing is left to go back to there is nothing to try: it runs.

Standard library only: this is frozen into the launcher.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from daemon_core.updates import pointer as deciding
from daemon_core.updates.pointer import Bad, Facts, Own, Pointer, Trial


def find(pointer: Pointer | None, trial_id: str) -> Trial | None:
    """The trial with this id, of all or of one profile; None: it is over."""
    if pointer is None:
        return None
    every = (pointer.trial, *(own.trial for own in pointer.own.values()))
    return next((trial for trial in every if trial is not None and trial.id == trial_id), None)


def taken(pointer: Pointer, trial_id: str, step: Callable[[Pointer], Pointer]) -> Pointer | None:
    """A step (``pointer.healthy``, ``committed``, ``reverted``, …) of the trial with this id; None: it is
    over."""
    if pointer.trial is not None and pointer.trial.id == trial_id:
        return step(pointer)
    for profile, own in pointer.own.items():
        if own.trial is not None and own.trial.id == trial_id:
            return _put(pointer, profile, step(_alone(own)))
    return None


def started(
    pointer: Pointer, facts: Facts, profile: str, start: str, boot_id: str, times: Mapping[str, float]
) -> tuple[Pointer, Trial | None]:
    """``pointer.started``, where the start may also be one of the profile's own trial, which begins with it.

    Args:
        times: How long such a trial has, as ``Trial`` has it.
    """
    pointer, trial = deciding.started(pointer, profile, start, boot_id)
    if trial is not None:
        return pointer, trial
    own = pointer.own.get(profile, Own())
    if own.trial is None:
        if pointer.version in own.bad or own.version == pointer.version:
            return pointer, None
        if not _before(pointer, facts, own):
            return deciding.with_own(pointer, profile, own._replace(version=pointer.version)), None
        begun = Trial(pointer.version, f"own-{start}", profile, began_at=deciding.now_text())
        begun = begun._replace(
            healthy_s=times.get("healthy_s", begun.healthy_s), settle_s=times.get("settle_s", begun.settle_s)
        )
        own = own._replace(trial=begun)
    alone, trial = deciding.started(_alone(own), profile, start, boot_id)
    return _put(pointer, profile, alone), trial


def version_for(pointer: Pointer, facts: Facts, profile: str, *, tried: bool = True) -> str:
    """What a start of a profile's daemon runs that is no start of a trial.

    Args:
        tried: False: not what would have to be tried first, if there is anything else.
    """
    own = pointer.own.get(profile, Own())
    stays = own.version in ("", pointer.version) or tried
    if pointer.version not in own.bad and stays:
        return pointer.version
    return _before(pointer, facts, own) or pointer.version


def bad(pointer: Pointer, profile: str) -> Mapping[str, Bad]:
    """What does not work with a profile."""
    return {**pointer.bad, **pointer.own.get(profile, Own()).bad}


def forgiven(pointer: Pointer, profile: str, version: str) -> Pointer:
    """A version may be tried again with a profile."""
    own = pointer.own.get(profile, Own())
    rest = {name: entry for name, entry in own.bad.items() if name != version}
    return (
        pointer if len(rest) == len(own.bad) else deciding.with_own(pointer, profile, own._replace(bad=rest))
    )


def failed_like(pointer: Pointer, profile: str, detail: str) -> bool:
    """Whether this is why the pointer's version does not work with a profile."""
    entry = pointer.own.get(profile, Own()).bad.get(pointer.version)
    return entry is not None and entry.detail == detail[: deciding.DETAIL_CHARS]


def needed(pointer: Pointer) -> set[str]:
    """What a profile goes back to, or has gone back to."""
    return {
        own.version
        for own in pointer.own.values()
        if own.version and (own.trial is not None or pointer.version in own.bad)
    }


def _before(pointer: Pointer, facts: Facts, own: Own) -> str:
    """What a profile's daemon goes back to; empty: there is nothing."""
    here = {*facts.complete, *([facts.seed] if facts.seed else [])}
    wanted = [own.version, *([pointer.previous] if pointer.previous not in pointer.bad else [])]
    return next(
        (
            version
            for version in wanted
            if version and version in here and version != pointer.version and version not in own.bad
        ),
        "",
    )


def _alone(own: Own) -> Pointer:
    """A profile's own trial as if there were no others."""
    return Pointer(version=own.version, trial=own.trial, bad=own.bad)


def _put(pointer: Pointer, profile: str, alone: Pointer) -> Pointer:
    return deciding.with_own(pointer, profile, Own(alone.version, alone.trial, alone.bad))
