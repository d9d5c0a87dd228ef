"""Random stories of runtimes that are lost, registered, fail to register and are left: the pure part."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from daemon_core.runtimes.schedule import RecoverySchedule

WINDOW_S, RETRY_S = 30.0, 60.0
WORKSPACES = ("a", "b")


class RecoveryStory(RuleBasedStateMachine):
    """Time goes on, losses are told by requests that began at any time before, what is due is tried."""

    @initialize()
    def begin(self) -> None:
        self.now = 1000.0
        self.schedule = RecoverySchedule(WINDOW_S, RETRY_S)
        self.registered = dict.fromkeys(WORKSPACES, float("-inf"))
        self.recovered = dict.fromkeys(WORKSPACES, float("-inf"))
        self.failed = dict.fromkeys(WORKSPACES, float("-inf"))
        self.owed: set[str] = set()
        """Workspaces with a loss that counts and no registration since."""

    @rule(seconds=st.floats(0.001, 45))
    def time_goes_on(self, seconds: float) -> None:
        self.now += seconds

    @rule(workspace=st.sampled_from(WORKSPACES), ago=st.floats(0, 50))
    def a_loss_is_told(self, workspace: str, ago: float) -> None:
        asked_at = self.now - ago
        counts = self.schedule.gone(workspace, asked_at, self.now)
        assert counts is (asked_at > self.registered[workspace])
        if counts:
            self.owed.add(workspace)

    @rule(workspace=st.sampled_from(WORKSPACES))
    def a_sync_registers(self, workspace: str) -> None:
        self.schedule.registered(workspace, self.now)
        self.registered[workspace] = self.now
        self.owed.discard(workspace)

    @precondition(lambda self: self.schedule.due(self.now))
    @rule(works=st.booleans())
    def what_is_due_is_tried(self, works: bool) -> None:
        workspace = self.schedule.due(self.now)[0]
        assert workspace in self.owed
        # Several losses make one recovery a window, and a failed one is not tried again at once.
        assert self.now - self.recovered[workspace] >= WINDOW_S
        assert self.now - self.failed[workspace] >= RETRY_S
        if works:
            self.schedule.registered(workspace, self.now, recovery=True)
            self.registered[workspace] = self.recovered[workspace] = self.now
            self.failed[workspace] = float("-inf")
            self.owed.discard(workspace)
        else:
            self.schedule.failed(workspace, self.now)
            self.failed[workspace] = self.now

    @rule(workspace=st.sampled_from(WORKSPACES))
    def a_workspace_is_left(self, workspace: str) -> None:
        self.schedule.forget(workspace)
        for times in (self.registered, self.recovered, self.failed):
            times[workspace] = float("-inf")
        self.owed.discard(workspace)

    @invariant()
    def what_is_owed_becomes_due_and_nothing_else(self) -> None:
        if not hasattr(self, "schedule"):
            return
        assert {each for each in WORKSPACES if self.schedule.pending(each)} == self.owed
        assert set(self.schedule.due(self.now + max(WINDOW_S, RETRY_S))) == self.owed
        next_at = self.schedule.next_at()
        assert (next_at is None) is (not self.owed)
        if next_at is not None:
            assert bool(self.schedule.due(self.now)) is (next_at <= self.now)


TestRecoveryStory = RecoveryStory.TestCase
TestRecoveryStory.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
