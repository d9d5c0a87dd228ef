"""``current.json``, the pointer to what runs, and every decision about it. No I/O: given facts, an answer.

``version`` has always proven itself (or came with the installer). A version that is new is on *trial*: only
starts of the daemon of one profile run it, each is counted before it happens, and when it has not committed
in time (the guard) or in ``most_starts`` starts (the launcher) it is *bad*, with a reason, and ``version``
runs on. What has proven itself with one profile has a trial of its own with each other one (``profiles``).
No wall clock decides anything here: times are written down to be shown.

Standard library only, and little of it: this is frozen into the launcher.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

FORMAT = 1
BAD_KEPT = 20
"""How many failed versions are remembered."""
OWN_KEPT = 50
"""Of how many profiles is remembered how they get on."""
DETAIL_CHARS = 400
_VERSION = re.compile(r"[0-9][0-9A-Za-z.+_-]{0,63}")
_PARTS = re.compile(r"(\d+(?:\.\d+)*)(?:[._-]?(dev|a|alpha|b|beta|c|rc|pre|preview|post|rev|r)[._-]?(\d*))?")
_STAGES = {"dev": -4, "a": -3, "alpha": -3, "b": -2, "beta": -2, "c": -1, "rc": -1, "pre": -1, "preview": -1}

CRASHED = "crashed"
HUNG = "hung"
UNHEALTHY = "unhealthy"
STARTS = "starts"
FILES = "files"
ASKED = "asked"
REASONS = (CRASHED, HUNG, UNHEALTHY, STARTS, FILES, ASKED)
"""Why a version is not tried again by itself: it died, it did not come up in time, it found itself not to be
well, it was started too often, its files are damaged, the user wanted the one before."""


class Bad(NamedTuple):
    """A version that is not tried again by itself."""

    reason: str
    detail: str = ""
    at: str = ""


class Trial(NamedTuple):
    """A version that is to prove itself."""

    version: str
    id: str
    profile: str = "default"
    """Only starts of this profile's daemon take part."""
    starts: int = 0
    """Starts that did not end in an orderly stop."""
    most_starts: int = 3
    start: str = ""
    """The last start: its guard has nothing to say about another one."""
    boot_id: str = ""
    """The boot of the last start."""
    healthy: bool = False
    """The last start has shown that it works."""
    stopped: bool = False
    """The last start was stopped by somebody; nothing is known against it."""
    asked: bool = False
    """The user wants this older version; if it works, the newer one is put aside."""
    healthy_s: float = 40.0
    settle_s: float = 30.0
    slack_s: float = 10.0
    """How much later than due the commit may come."""
    revive_s: float = 3.0
    """How long the guard waits for somebody else to start a daemon again."""
    beat_s: float = 0.0
    """From when it is healthy the start shows at least so often that it lives; 0: it does not."""
    began_at: str = ""


class Own(NamedTuple):
    """How one profile's daemon gets on with the versions."""

    version: str = ""
    """The last one that has proven itself with it (or the first that it ever ran)."""
    trial: Trial | None = None
    """Of the pointer's version, which has proven itself elsewhere."""
    bad: Mapping[str, Bad] = {}
    """What does not work with this profile."""


class Pointer(NamedTuple):
    """Content of ``current.json``."""

    version: str = ""
    previous: str | None = None
    trial: Trial | None = None
    bad: Mapping[str, Bad] = {}
    seed: str = ""
    """The installer's payload that was last looked at: while it is the same there is nothing to adopt."""
    own: Mapping[str, Own] = {}
    """By profile."""


class Facts(NamedTuple):
    """What is there."""

    complete: tuple[str, ...] = ()
    """Versions that are here whole."""
    seed: str | None = None
    """The installer's own payload, if it is whole."""


class DamagedError(Exception):
    """This is no pointer that can be used."""


# --- versions ---------------------------------------------------------------------------------------------


def is_version(text: object) -> bool:
    """Whether this can be the name of a version, and of a directory."""
    return isinstance(text, str) and _VERSION.fullmatch(text) is not None and ".." not in text


def version_key(text: str) -> tuple[tuple[int, ...], int, int, str]:
    """Sorts versions: releases by their numbers, a pre-release before its release."""
    found = _PARTS.match(text)
    if found is None:
        return ((), 0, 0, text)
    numbers = [int(part) for part in found[1].split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    stage = _STAGES.get(found[2], 1) if found[2] else 0
    return (tuple(numbers), stage, int(found[3] or 0), text[found.end() :])


def is_newer(one: str, other: str) -> bool:
    return version_key(one) > version_key(other)


def newest(versions: Iterable[str]) -> str | None:
    return max(versions, key=version_key, default=None)


# --- reading and writing ------------------------------------------------------------------------------------


def encode(pointer: Pointer) -> bytes:
    content = {
        "format": FORMAT,
        "version": pointer.version,
        "previous": pointer.previous,
        **_judged(pointer.trial, pointer.bad),
        "seed": pointer.seed,
        "profiles": {
            profile: {"version": own.version, **_judged(own.trial, own.bad)}
            for profile, own in pointer.own.items()
        },
    }
    return (json.dumps(content, indent=1) + "\n").encode()


def _judged(trial: Trial | None, bad: Mapping[str, Bad]) -> dict[str, object]:
    return {
        "trial": trial._asdict() if trial is not None else None,
        "bad": {version: entry._asdict() for version, entry in bad.items()},
    }


def decode(data: bytes) -> Pointer:
    """Raises ``DamagedError`` unless it is a pointer, of this format, with values that can be used."""
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"not JSON: {error}") from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT or isinstance(raw.get("format"), bool):
        raise DamagedError("another format")
    version, previous, seed = raw.get("version"), raw.get("previous"), raw.get("seed", "")
    if not is_version(version) or not isinstance(version, str):
        raise DamagedError("no version")
    if previous is not None and not is_version(previous):
        raise DamagedError("previous is no version")
    if seed != "" and not is_version(seed):
        raise DamagedError("seed is no version")
    own = raw.get("profiles", {})
    if not isinstance(own, dict):
        raise DamagedError("profiles is no table")
    return Pointer(
        version=version,
        previous=previous,
        trial=_trial(raw.get("trial")),
        bad=_bads(raw.get("bad", {})),
        seed=seed,
        own={profile: _own(entry) for profile, entry in own.items() if profile},
    )


def _own(raw: object) -> Own:
    if not isinstance(raw, dict):
        raise DamagedError("profiles has something else than tables")
    version = raw.get("version", "")
    if version != "" and not is_version(version):
        raise DamagedError("a profile's version is none")
    return Own(version, _trial(raw.get("trial")), _bads(raw.get("bad", {})))


def _bads(raw: object) -> dict[str, Bad]:
    if not isinstance(raw, dict):
        raise DamagedError("bad is no table")
    return {name: _bad(entry) for name, entry in raw.items() if is_version(name)}


def _bad(raw: object) -> Bad:
    if not isinstance(raw, dict):
        raise DamagedError("bad has something else than tables")
    return Bad(*(raw[name] if isinstance(raw.get(name), str) else "" for name in Bad._fields))


def _trial(raw: object) -> Trial | None:
    if raw is None:
        return None
    if not isinstance(raw, dict):
        raise DamagedError("trial is no table")
    values: dict[str, Any] = {}
    usual = Trial(version="", id="")._asdict()
    for name, usually in usual.items():
        value = raw.get(name, usually)
        kinds = (float, int) if isinstance(usually, float) else type(usually)
        if not isinstance(value, kinds) or (isinstance(value, bool) and not isinstance(usually, bool)):
            raise DamagedError(f"trial: {name} is of the wrong kind")
        if isinstance(usually, (int, float)) and not 0 <= value < 1e6:
            raise DamagedError(f"trial: {name} makes no sense")
        values[name] = value
    if not is_version(values["version"]) or not values["id"]:
        raise DamagedError("trial has no version")
    return Trial(**values)


def now_text() -> str:
    """The time of day, to be shown; nothing is decided by it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


# --- decisions ----------------------------------------------------------------------------------------------


def settled(pointer: Pointer | None, facts: Facts) -> Pointer:
    """What the pointer has to say, given what is here; the same one where it is right. A newer payload of the
    installer is taken up, after the end of a trial. ``version`` is empty only where nothing at all can run.

    Args:
        pointer: None: there is none, or it is damaged.
    """
    found = pointer or Pointer()
    here = set(facts.complete)
    usable = here | ({facts.seed} if facts.seed else set())
    if found.trial is not None and found.trial.version not in here:
        found = reverted(found, FILES, "it is not whole any more")
    if found.version not in usable:
        found = found._replace(version=_fall_back(found, usable, facts.seed))
    # Another one than was looked at last: the user has installed something. What is newer than that and was
    # never tried is the updater's matter.
    installed = facts.seed if found.trial is None and facts.seed != found.seed else None
    if installed and installed not in found.bad and is_newer(installed, found.version):
        found = found._replace(version=installed, previous=found.version)
    if found.previous is not None and (found.previous not in usable or found.previous == found.version):
        found = found._replace(previous=None)
    if facts.seed and found.seed != facts.seed and found.trial is None:
        found = found._replace(seed=facts.seed)
    if any(own.trial is not None and own.trial.version != found.version for own in found.own.values()):
        # What they try is not what is to run any more.
        found = found._replace(
            own={
                profile: own._replace(trial=None)
                if own.trial is not None and own.trial.version != found.version
                else own
                for profile, own in found.own.items()
            }
        )
    return found


def _fall_back(pointer: Pointer, usable: set[str], seed: str | None) -> str:
    if pointer.previous in usable and pointer.previous is not None:
        return pointer.previous
    on_trial = pointer.trial.version if pointer.trial is not None else None
    good = {version for version in usable if version not in pointer.bad and version != on_trial}
    # A newer one than what ran may have been brought here and never have run: the installer's is preferred.
    known = {version for version in good if pointer.version and not is_newer(version, pointer.version)}
    known |= good & {seed or ""}
    # One that failed is better than nothing at all.
    return newest(known) or newest(good) or newest(usable - {on_trial or ""}) or newest(usable) or ""


def order(pointer: Pointer, facts: Facts) -> list[str]:
    """What to try to run, best first: for a version whose program cannot even be executed."""
    usable = [*facts.complete, *([facts.seed] if facts.seed and facts.seed not in facts.complete else [])]
    on_trial = pointer.trial.version if pointer.trial is not None else None
    rest = sorted(
        (version for version in usable if version != on_trial),
        key=lambda version: (version not in pointer.bad, version_key(version)),
        reverse=True,
    )
    first = [version for version in (pointer.version, pointer.previous) if version in usable]
    return list(dict.fromkeys([version for version in (*first, *rest) if version]))


def started(pointer: Pointer, profile: str, start: str, boot_id: str) -> tuple[Pointer, Trial | None]:
    """The daemon of a profile is about to be started: the pointer that has to be on the disk before, and the
    trial that this start belongs to. ``start`` tells it from every other one."""
    trial = pointer.trial
    if trial is None or trial.profile != profile:
        return pointer, None
    if trial.starts >= trial.most_starts:
        detail = f"it was started {trial.starts} times without coming up"
        return reverted(pointer, STARTS, detail), None
    trial = trial._replace(
        starts=trial.starts + 1, start=start, boot_id=boot_id, healthy=False, stopped=False, beat_s=0.0
    )
    return pointer._replace(trial=trial), trial


def tried(pointer: Pointer, trial: Trial) -> Pointer:
    """A trial is to begin."""
    return pointer._replace(trial=trial)


def healthy(pointer: Pointer, beat_s: float = 0.0) -> Pointer:
    """What is on trial has shown that it works, and goes on to show that it lives every ``beat_s``."""
    assert pointer.trial is not None
    return pointer._replace(trial=pointer.trial._replace(healthy=True, beat_s=beat_s))


def stopped(pointer: Pointer) -> Pointer:
    """What is on trial was stopped by somebody: this start counts neither for nor against it."""
    trial = pointer.trial
    assert trial is not None
    trial = trial._replace(stopped=True, healthy=False, starts=max(0, trial.starts - 1))
    return pointer._replace(trial=trial)


def committed(pointer: Pointer) -> Pointer:
    """What was on trial is what runs from now on."""
    trial = pointer.trial
    assert trial is not None
    bad = _without(pointer.bad, trial.version)
    if trial.asked and pointer.version != trial.version:
        bad = _with(bad, pointer.version, Bad(ASKED, "", now_text()))
    previous = pointer.version if pointer.version != trial.version else pointer.previous
    before = pointer.own.get(trial.profile, Own())
    pointer = with_own(pointer, trial.profile, Own(trial.version, None, _without(before.bad, trial.version)))
    return pointer._replace(version=trial.version, previous=previous, trial=None, bad=bad)


def reverted(pointer: Pointer, reason: str, detail: str = "") -> Pointer:
    """What was on trial has failed."""
    assert pointer.trial is not None
    entry = Bad(reason, detail[:DETAIL_CHARS], now_text())
    return pointer._replace(trial=None, bad=_with(pointer.bad, pointer.trial.version, entry))


def withdrawn(pointer: Pointer) -> Pointer:
    """The trial is called off before it was started; nothing is known against the version."""
    return pointer._replace(trial=None)


def forgiven(pointer: Pointer, version: str) -> Pointer:
    """The user wants a version to be tried again."""
    return pointer._replace(bad=_without(pointer.bad, version))


def with_own(pointer: Pointer, profile: str, own: Own) -> Pointer:
    """This is how a profile's daemon gets on; the last that was told comes last."""
    others = {name: each for name, each in pointer.own.items() if name != profile}
    return pointer._replace(own=dict(list({**others, profile: own}.items())[-OWN_KEPT:]))


def _without(bad: Mapping[str, Bad], version: str) -> dict[str, Bad]:
    return {name: entry for name, entry in bad.items() if name != version}


def _with(bad: Mapping[str, Bad], version: str, entry: Bad) -> dict[str, Bad]:
    kept = _without(bad, version)
    kept[version] = entry
    return dict(list(kept.items())[-BAD_KEPT:])
