"""Every file operation of a switch, each failing in each way, over a real directory (promise P8).

After whatever happened, what the launcher decides is a whole version that has proven itself (or is on its
trial), and everything can go on.
"""

from __future__ import annotations

import errno
import json
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from daemon_core.updates import pointer as deciding
from daemon_core.updates import profiles
from daemon_core.updates.errors import TrialGoneError
from daemon_core.updates.files import Lock
from daemon_core.updates.launcher import Choice, choose, choose_for_daemon
from daemon_core.updates.pointer import Own, Pointer, Trial
from daemon_core.updates.versions import Store, is_newer, is_whole
from tests.updates.faulty_files import ERRORS, MEMORY, POWER, Fault, FaultyFiles, PowerCutError
from tests.updates.payloads import write_payload

SEED, NEXT = "1.0", "1.1"


@pytest.fixture
def disk() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="switch", dir=MEMORY) as name:
        yield Path(name)


class Machine:
    """One installation on a disk."""

    def __init__(self, root: Path, seed: str = SEED) -> None:
        self.root = root
        self.environ = {"OSTLER_HOME": str(root / "o")}
        self.seed_dir = write_payload(root / "seed" / seed, seed, small=True)
        (root / "o" / "data").mkdir(parents=True)
        (root / "o" / "state").mkdir()

    def store(self, files: FaultyFiles | None = None) -> Store:
        return Store(self.root / "o" / "data" / "app", str(self.seed_dir), files or FaultyFiles())

    def made(self, version: str) -> Path:
        """A payload as the updater unpacks it, elsewhere."""
        place = self.root / "made" / version
        return place if place.exists() else write_payload(place, version, small=True)

    def put(self, store: Store, version: str) -> None:
        """Bring a version to the versions, as the updater does."""
        with store.staging() as staging:
            store._copy(str(self.made(version)), staging.path, last="manifest.json")
            staging.publish(version)

    def start(self, store: Store, profile: str = "default") -> Choice:
        return choose_for_daemon(store, profile, self.environ)


def trial_of(version: str, **more: object) -> Trial:
    return Trial(version=version, id=f"trial-{version}", **more)  # type: ignore[arg-type]


Step = Callable[[Machine, Store], object]

STEPS: dict[str, tuple[list[str], Step]] = {
    "install_seed": ([], lambda machine, store: store.install_seed()),
    "first_start": ([], lambda machine, store: machine.start(store)),
    "put": (["first_start"], lambda machine, store: machine.put(store, NEXT)),
    "write_trial": (["first_start", "put"], lambda machine, store: store.begin_trial(trial_of(NEXT))),
    "count_start": (["first_start", "put", "write_trial"], lambda machine, store: machine.start(store)),
    "healthy": (
        ["first_start", "put", "write_trial", "count_start"],
        lambda machine, store: store.of_trial(f"trial-{NEXT}", deciding.healthy),
    ),
    "commit": (
        ["first_start", "put", "write_trial", "count_start", "healthy"],
        lambda machine, store: store.of_trial(f"trial-{NEXT}", deciding.committed),
    ),
    "revert": (
        ["first_start", "put", "write_trial", "count_start"],
        lambda machine, store: store.of_trial(
            f"trial-{NEXT}", lambda pointer: deciding.reverted(pointer, deciding.CRASHED)
        ),
    ),
    "remove_unused": (
        ["first_start", "put", "write_trial", "count_start", "revert"],
        lambda machine, store: store.remove_unused(),
    ),
}
AFTER_COMMIT = ["work_first", "first_start", "put", "write_trial", "count_start", "healthy", "commit"]
OWN_STEPS: dict[str, tuple[list[str], Step]] = {
    "own_start": (AFTER_COMMIT, lambda machine, store: machine.start(store, "work")),
    "own_commit": ([*AFTER_COMMIT, "own_start"], lambda machine, store: own(store, deciding.committed)),
    "own_revert": (
        [*AFTER_COMMIT, "own_start"],
        lambda machine, store: own(store, lambda pointer: deciding.reverted(pointer, deciding.CRASHED)),
    ),
}
"""Of another profile's daemon, which has to try by itself what the first one has committed."""
FIRST: dict[str, tuple[list[str], Step]] = {
    "work_first": ([], lambda machine, store: machine.start(store, "work"))
}
NEW_VERSION_AFTER = {"commit"}
ON_TRIAL = {"write_trial", "count_start", "healthy", "commit", "revert"}


def own(store: Store, step: Callable[[Pointer], Pointer]) -> object:
    trial = store.pointer().own["work"].trial
    if trial is None:
        raise TrialGoneError("own")
    return store.of_trial(trial.id, step)


def prepared(root: Path, name: str) -> Machine:
    machine = Machine(root)
    every = {**FIRST, **STEPS, **OWN_STEPS}
    for before in every[name][0]:
        every[before][1](machine, machine.store())
    return machine


def check(machine: Machine, allowed: set[str], on_trial: bool) -> None:
    """What runs now is whole and among the allowed; the daemon's start, too."""
    chosen = choose(machine.store())
    assert is_whole(chosen.directory, chosen.version)
    assert chosen.version in allowed
    started = machine.start(machine.store())
    assert is_whole(started.directory, started.version)
    assert started.version in allowed or (on_trial and started.trial is not None)


@pytest.mark.parametrize("name", STEPS)
def test_a_step_that_fails_at_any_operation_leaves_what_runs_and_can_be_done_again(
    name: str, disk: Path
) -> None:
    clean = disk / "clean"
    prepared(clean, name)
    counting = FaultyFiles()
    machine = Machine.__new__(Machine)

    def fresh() -> Machine:
        shutil.rmtree(disk / "work", ignore_errors=True)
        shutil.copytree(clean, disk / "work", symlinks=True)
        machine.root = disk / "work"
        machine.environ = {"OSTLER_HOME": str(machine.root / "o")}
        machine.seed_dir = machine.root / "seed" / SEED
        return machine

    step = STEPS[name][1]
    step(fresh(), machine.store(counting))
    assert counting.count > 0
    for number in range(counting.count):
        for fault in (
            Fault(number, "before"),
            Fault(number, "half", keeps=100),
            Fault(number, "after", keeps=1),
            Fault(number, "ENOSPC", times=1000),
        ):
            files = FaultyFiles(fault)
            try:
                step(fresh(), machine.store(files))
                finished = True
            except (OSError, PowerCutError):
                finished = False
            assert files.struck
            allowed = {SEED, NEXT} if name in NEW_VERSION_AFTER else {SEED}
            if finished and name in NEW_VERSION_AFTER:
                allowed = {NEXT}
            check(machine, allowed, name in ON_TRIAL)
            try:
                step(machine, machine.store())
            except TrialGoneError:
                assert name in ("healthy", "commit", "revert")
            machine.store().remove_unused()
            check(machine, {SEED, NEXT} if name in NEW_VERSION_AFTER else {SEED}, name in ON_TRIAL)
            assert not list((machine.root / "o" / "data" / "app").glob(".current*"))
            assert not list((machine.root / "o" / "data" / "app" / "versions").glob(".new-*"))


@pytest.mark.parametrize("name", OWN_STEPS)
def test_a_profile_of_its_own_mind_has_what_works_with_it_whatever_fails(name: str, disk: Path) -> None:
    clean = disk / "clean"
    prepared(clean, name)
    machine = Machine.__new__(Machine)

    def fresh() -> Machine:
        shutil.rmtree(disk / "work", ignore_errors=True)
        shutil.copytree(clean, disk / "work", symlinks=True)
        machine.root = disk / "work"
        machine.environ = {"OSTLER_HOME": str(machine.root / "o")}
        machine.seed_dir = machine.root / "seed" / SEED
        return machine

    step = OWN_STEPS[name][1]
    counting = FaultyFiles()
    step(fresh(), machine.store(counting))
    assert counting.count > 0
    for number in range(counting.count):
        for fault in (
            Fault(number, "before"),
            Fault(number, "after", keeps=1),
            Fault(number, "ENOSPC", times=1000),
        ):
            try:
                chosen = step(fresh(), machine.store(FaultyFiles(fault)))
            except (OSError, PowerCutError, TrialGoneError):
                chosen = None
            if isinstance(chosen, Choice) and chosen.trial is None:
                assert chosen.version == SEED, "what cannot be counted is not tried"
            assert machine.start(machine.store()).version == NEXT, "the first one's own is not touched"
            started = machine.start(machine.store(), "work")
            assert is_whole(started.directory, started.version)
            assert started.version == SEED or started.trial is not None or name == "own_commit"
            assert started.trial is None or started.trial.starts <= 2
            machine.store().remove_unused()
            assert machine.store().is_complete(SEED)


def test_a_way_back_of_one_profile_is_kept_for_as_long_as_it_is_needed(disk: Path) -> None:
    machine = prepared(disk, "own_revert")
    OWN_STEPS["own_revert"][1](machine, machine.store())
    machine.put(machine.store(), "1.2")
    machine.store().begin_trial(trial_of("1.2"))
    machine.start(machine.store())
    machine.store().of_trial("trial-1.2", deciding.committed)
    started = machine.start(machine.store(), "work")
    assert (started.version, started.trial is not None) == ("1.2", True), "another version is tried"
    machine.store().remove_unused()
    assert machine.store().complete() == [SEED, NEXT, "1.2"]
    own(machine.store(), deciding.committed)
    assert machine.store().remove_unused() == [SEED]


def test_what_is_tried_with_one_profile_ends_with_what_all_run(disk: Path) -> None:
    machine = prepared(disk, "own_commit")
    machine.put(machine.store(), "1.2")
    machine.store().begin_trial(trial_of("1.2"))
    machine.start(machine.store())
    machine.store().of_trial("trial-1.2", deciding.committed)
    with pytest.raises(TrialGoneError):
        own(machine.store(), deciding.committed)
    assert machine.start(machine.store(), "work").version == "1.2"


@pytest.mark.parametrize("name", ["write_trial", "commit", "revert", "count_start"])
def test_what_has_returned_survives_a_power_cut(name: str, disk: Path) -> None:
    machine = prepared(disk, name)
    files = FaultyFiles()
    STEPS[name][1](machine, machine.store(files))
    before = machine.store().stored()
    files.cut()
    assert machine.store().stored() == before


@pytest.mark.parametrize("name", ["write_trial", "put"])
def test_a_file_that_a_scanner_holds_for_a_moment_is_waited_for(
    name: str, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system refuses to replace what somebody has open, or to rename a directory with it."""
    machine = prepared(disk, name)
    files = FaultyFiles()
    monkeypatch.setattr(files, "locked_patience_s", 30.0)
    held = {"replace": 3, "rename": 3}

    def refusing(step: str) -> Callable[[str, str], None]:
        really = getattr(FaultyFiles, step)

        def refuse(old: str, new: str) -> None:
            held[step] -= 1
            if held[step] >= 0:
                raise PermissionError(errno.EACCES, "used by another process", new)
            really(files, old, new)

        return refuse

    for step in held:
        monkeypatch.setattr(files, step, refusing(step))
    STEPS[name][1](machine, machine.store(files))
    assert min(held.values()) < 0, "it was refused and tried again"
    stored = machine.store().stored()
    assert stored is not None
    assert machine.store().is_complete(NEXT)
    assert (stored.trial is not None) == (name == "write_trial")


def test_a_start_that_cannot_be_counted_is_no_start_of_the_trial(disk: Path) -> None:
    machine = prepared(disk, "count_start")
    files = FaultyFiles(Fault(0, "ENOSPC", times=1000))
    chosen = machine.start(machine.store(files))
    assert (chosen.version, chosen.trial) == (SEED, None)
    again = machine.start(machine.store())
    assert again.version == NEXT
    assert again.trial is not None
    assert again.trial.starts == 1


DAMAGED = [
    b"",
    b"{",
    b"\x00" * 300,
    b"null",
    b"[]",
    b"[" * 100_000,
    b'{"format": 2, "version": "1.1"}',
    b'{"format": true, "version": "1.0"}',
    b'{"format": 1}',
    b'{"format": 1, "version": 7}',
    b'{"format": 1, "version": "../../etc"}',
    b'{"format": 1, "version": "1.0", "previous": []}',
    b'{"format": 1, "version": "1.0", "bad": 3}',
    b'{"format": 1, "version": "1.0", "bad": {"1.1": 3}}',
    b'{"format": 1, "version": "1.0", "profiles": 3}',
    b'{"format": 1, "version": "1.0", "profiles": {"work": 3}}',
    b'{"format": 1, "version": "1.0", "profiles": {"work": {"version": "../.."}}}',
    b'{"format": 1, "version": "1.0", "trial": "1.1"}',
    b'{"format": 1, "version": "1.0", "trial": {"version": "1.1"}}',
    b'{"format": 1, "version": "1.0", "trial": {"version": "1.1", "id": "x", "starts": "one"}}',
    b'{"format": 1, "version": "1.0", "trial": {"version": "1.1", "id": "x", "starts": -1}}',
    b'{"format": 1, "version": "1.0", "trial": {"version": "1.1", "id": "x", "healthy_s": NaN}}',
]


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_pointer_is_told_from_its_copy_and_written_anew(content: bytes, disk: Path) -> None:
    machine = prepared(disk, "remove_unused")
    store = machine.store()
    place = Path(store.app_dir) / "current.json"
    place.write_bytes(content)
    check(machine, {SEED}, on_trial=False)
    assert store.bad(NEXT) is not None, "what failed is remembered"
    store.change(lambda pointer: pointer)
    assert json.loads(place.read_bytes())["version"] == SEED
    place.write_bytes(content)
    place.with_name("current.copy.json").write_bytes(content)
    check(machine, {SEED}, on_trial=False)


def test_a_pointer_to_what_is_not_here_gives_way_to_something_whole(disk: Path) -> None:
    machine = prepared(disk, "remove_unused")
    place = Path(machine.store().app_dir) / "current.json"
    place.write_bytes(b'{"format": 1, "version": "9.9", "seed": "1.0"}')
    check(machine, {SEED, NEXT}, on_trial=False)


def test_without_any_pointer_what_was_never_tried_is_not_run(disk: Path) -> None:
    machine = Machine(disk)
    machine.put(machine.store(), NEXT)
    check(machine, {SEED}, on_trial=False)


@pytest.mark.parametrize("missing", ["current.json", "versions", "leases", "versions/1.0", "."])
def test_something_that_is_gone_is_made_again(missing: str, disk: Path) -> None:
    machine = prepared(disk, "remove_unused")
    place = Path(machine.store().app_dir) / missing
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink()
    check(machine, {SEED}, on_trial=False)
    machine.put(machine.store(), "1.2")
    assert machine.store().is_complete("1.2")


def test_a_version_that_lost_a_file_is_not_run(disk: Path) -> None:
    machine = prepared(disk, "commit")
    STEPS["commit"][1](machine, machine.store())
    library = Path(machine.store().directory(NEXT)) / "_internal" / "library"
    library.write_text("")
    check(machine, {SEED}, on_trial=False)
    machine.put(machine.store(), NEXT)
    assert machine.store().is_complete(NEXT), "a damaged one makes room for a whole one"


def test_a_trial_that_lost_a_file_is_over(disk: Path) -> None:
    machine = prepared(disk, "count_start")
    (Path(machine.store().directory(NEXT)) / "ostlerd").unlink()
    chosen = machine.start(machine.store())
    assert (chosen.version, chosen.trial) == (SEED, None)
    bad = machine.store().bad(NEXT)
    assert bad is not None
    assert bad.reason == deciding.FILES


def test_a_newer_installer_is_taken_up_an_older_one_is_not(disk: Path) -> None:
    machine = prepared(disk, "commit")
    STEPS["commit"][1](machine, machine.store())
    machine.seed_dir = write_payload(disk / "seed" / "0.9", "0.9")
    assert machine.start(machine.store()).version == NEXT
    machine.seed_dir = write_payload(disk / "seed" / "2.0", "2.0")
    assert choose(machine.store()).version == "2.0"
    assert machine.start(machine.store()).version == "2.0"
    assert machine.store().is_complete("2.0"), "copied, so that the package manager may take its own away"
    pointer = machine.store().pointer()
    assert (pointer.version, pointer.previous) == ("2.0", NEXT)
    shutil.rmtree(machine.seed_dir)
    assert choose(machine.store()).version == "2.0"


def test_a_newer_installer_waits_for_the_end_of_a_trial(disk: Path) -> None:
    machine = prepared(disk, "count_start")
    machine.seed_dir = write_payload(disk / "seed" / "2.0", "2.0")
    assert machine.start(machine.store()).version == NEXT
    machine.store().of_trial(f"trial-{NEXT}", deciding.committed)
    assert machine.start(machine.store()).version == "2.0"


def test_a_version_in_use_stays_until_nobody_uses_it(disk: Path) -> None:
    machine = prepared(disk, "remove_unused")
    store = machine.store()
    lease = store.lease(NEXT)
    assert lease is not None
    assert store.in_use(NEXT)
    assert store.remove_unused() == []
    lease.release()
    assert not store.in_use(NEXT)
    assert store.remove_unused() == [NEXT]
    assert store.names() == [SEED]


class Switches(RuleBasedStateMachine):
    """Any order of steps, each with any fault, and damage between them. The model: which versions may run."""

    faults = st.one_of(
        st.none(),
        st.builds(
            Fault,
            at=st.integers(0, 25),
            kind=st.sampled_from([*POWER, *ERRORS]),
            times=st.sampled_from([1, 1000]),
            keeps=st.integers(0, 6),
        ),
    )
    versions = st.sampled_from(["1.1", "1.2", "1.10", "0.9"])

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="switches", dir=MEMORY))
        self.machine = Machine(self.root)
        self.proven = {SEED}
        self.lease: tuple[str, Lock] | None = None
        self.machine.start(self.machine.store())
        self.may_run = {SEED}

    def teardown(self) -> None:
        if hasattr(self, "root"):
            if self.lease is not None:
                self.lease[1].release()
            shutil.rmtree(self.root)

    def do(self, fault: Fault | None, step: Callable[[Store], object]) -> bool:
        """Whether it was done; False: it may or may not have been."""
        try:
            step(self.machine.store(FaultyFiles(fault)))
        except (OSError, PowerCutError):
            return False
        except TrialGoneError:
            return False
        return True

    def allowed(self) -> set[str]:
        """What may run: what was committed last (or may have been), and what the user has installed since."""
        seed = self.machine.store().seed()
        stored = self.machine.store().stored()
        assert seed is not None
        older = stored is not None and is_newer(stored.version, seed.version)
        return self.may_run | (set() if older else {seed.version})

    def pointer(self) -> Pointer:
        return self.machine.store().pointer()

    def trial(self) -> Trial | None:
        """What the next start of the daemon takes part in."""
        pointer = self.pointer()
        return pointer.trial or pointer.own.get("default", Own()).trial

    @rule(fault=faults, version=versions)
    def put(self, fault: Fault | None, version: str) -> None:
        if self.do(fault, lambda store: self.machine.put(store, version)):
            assert self.machine.store().is_complete(version)

    @rule(fault=faults, version=versions, back=st.booleans())
    def begin_trial(self, fault: Fault | None, version: str, back: bool) -> None:
        store = self.machine.store()
        if not store.is_complete(version) or version == self.pointer().version:
            return
        done = self.do(fault, lambda store: store.begin_trial(trial_of(version, asked=back)))
        assert not done or self.pointer().trial is not None

    @rule(fault=faults)
    def start(self, fault: Fault | None) -> None:
        before = self.trial()

        def step(store: Store) -> None:
            chosen = self.machine.start(store)
            assert is_whole(chosen.directory, chosen.version)
            stored = store.stored()
            if chosen.trial is None:
                mine = stored.own["default"].version if stored is not None and stored.own else ""
                assert chosen.version in self.allowed() | {mine}
            else:
                again = before is not None and before.id == chosen.trial.id
                assert chosen.trial.starts == (before.starts + 1 if before is not None and again else 1)
                assert again or chosen.version in self.allowed(), "of what an installer has brought"
                assert chosen.trial.starts <= chosen.trial.most_starts
                assert profiles.find(stored, chosen.trial.id) == chosen.trial, "counted before it is started"

        self.do(fault, step)

    @rule(fault=faults, how=st.sampled_from(["healthy", "committed", "reverted", "stopped", "withdrawn"]))
    def go_on(self, fault: Fault | None, how: str) -> None:
        trial = self.trial()
        if trial is None:
            return

        def step(pointer: Pointer) -> Pointer:
            if how == "reverted":
                return deciding.reverted(pointer, deciding.CRASHED, "x" * 1000)
            found: Pointer = getattr(deciding, how)(pointer)
            return found

        if how == "committed":
            self.may_run = self.may_run | {trial.version}
            self.proven.add(trial.version)  # also if the power goes just after it is written
        if self.do(fault, lambda store: store.of_trial(trial.id, step)):
            pointer = self.machine.store().stored()
            assert pointer is not None
            if how == "committed":
                assert pointer.version == trial.version
                self.may_run = {trial.version}
            if how == "reverted":
                assert trial.version in profiles.bad(pointer, "default")

    @rule(fault=faults)
    def remove_unused(self, fault: Fault | None) -> None:
        if self.do(fault, lambda store: store.remove_unused()) and fault is None:
            names = {path.name for path in Path(self.machine.store().versions_dir).iterdir()}
            assert not any(name.startswith(".new") for name in names)

    @rule(fault=faults, version=st.sampled_from(["0.8", "1.5", "2.0", "3.0"]))
    def install(self, fault: Fault | None, version: str) -> None:
        """The user installs another package; the one before is gone."""
        shutil.rmtree(self.machine.seed_dir)
        self.machine.seed_dir = write_payload(
            self.root / "seed" / f"{version}-{random.random()}", version, small=True
        )
        self.proven.add(version)
        self.do(fault, lambda store: self.machine.start(store))
        self.may_run |= {self.pointer().version}
        assert self.pointer().version in self.proven

    @rule(content=st.sampled_from(DAMAGED))
    def damage(self, content: bytes) -> None:
        place = Path(self.machine.store().app_dir)
        if place.exists():
            (place / "current.json").write_bytes(content)
            self.may_run |= {choose(self.machine.store()).version}

    @precondition(lambda self: self.lease is None)
    @rule(version=versions)
    def use(self, version: str) -> None:
        lease = self.machine.store().lease(version)
        if lease is not None and self.machine.store().is_complete(version):
            self.lease = (version, lease)
        elif lease is not None:
            lease.release()

    @precondition(lambda self: self.lease is not None)
    @rule()
    def leave(self) -> None:
        assert self.lease is not None
        self.lease[1].release()
        self.lease = None

    @invariant()
    def something_whole_runs(self) -> None:
        if not hasattr(self, "machine"):
            return
        store = self.machine.store()
        chosen = choose(store)
        assert is_whole(chosen.directory, chosen.version)
        assert chosen.version in self.allowed()
        if self.lease is not None:
            assert store.is_complete(self.lease[0]), "what is in use is not touched"


TestSwitches = Switches.TestCase
TestSwitches.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
