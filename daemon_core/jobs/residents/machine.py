"""What happens next with a resident: a machine without clock, processes or files.

::

    stopped ──start──▶ starting ──spawned──▶ running ──ended──▶ waiting ──its time──▶ starting
       ▲                  │                     │                  │
       │                 stop                  stop               stop    too many ends ──▶ gave_up
       │                  ▼                     ▼                  ▼      not to be restarted ──▶ ended
       └────────────── stopping ◀───────────────┘               stopped
                          │
                          └── ended, and to be started again: a restart

Every end that nobody asked for is remembered for as long as the rules look back. A person's start forgets
them all. Times are seconds since 1970: they have to mean the same to the next daemon.
"""

from __future__ import annotations

import enum

import msgspec

from daemon_core.jobs.residents.files import RestartRules


class Phase(enum.Enum):
    STOPPED = "stopped"
    """By a person, or never started."""
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    WAITING = "waiting"
    """Until it is started again."""
    GAVE_UP = "gave_up"
    """It ended too often."""
    ENDED = "ended"
    """By itself, and its rules do not ask for a restart."""


AT_WORK = frozenset({Phase.STARTING, Phase.RUNNING, Phase.STOPPING, Phase.WAITING})
"""Something is to be done or to be waited for."""


class Machine(msgspec.Struct, kw_only=True):
    """The state, kept in a file as it is. Methods are events; each says what it does with the others."""

    phase: Phase = Phase.STOPPED
    again: bool = False
    """Whether it is started once it has stopped: a restart."""
    ends: list[float] = []
    """When it ended without being asked to, as far back as the rules look."""
    next_at: float = 0.0
    """When it is started again, while it waits."""

    @property
    def at_work(self) -> bool:
        return self.phase in AT_WORK

    def start(self) -> None:
        """A person's wish, or the daemon's start. One that runs already is left alone."""
        if self.phase is Phase.STOPPING:
            self.again = True
        elif self.phase not in (Phase.STARTING, Phase.RUNNING):
            self.phase = Phase.STARTING
            self.next_at = 0.0
            self.ends = []

    def restart(self) -> None:
        """Stopped first where it runs."""
        if self.phase is Phase.RUNNING:
            self.phase = Phase.STOPPING
            self.again = True
            self.ends = []
        else:
            self.start()

    def stop(self) -> None:
        """Nothing is started any more; what runs is to end."""
        self.again = False
        self.next_at = 0.0
        self.ends = []
        if self.phase in (Phase.RUNNING, Phase.STARTING):
            self.phase = Phase.STOPPING
        elif self.phase is not Phase.STOPPING:
            self.phase = Phase.STOPPED

    def spawned(self) -> None:
        """It runs. One that was stopped meanwhile is still to end."""
        if self.phase is Phase.STARTING:
            self.phase = Phase.RUNNING

    def ended(self, rules: RestartRules, now: float, *, success: bool) -> None:
        """It is over, or could not be started (which is no success)."""
        if self.phase is Phase.STOPPING:
            self.phase = Phase.STARTING if self.again else Phase.STOPPED
            self.again = False
            return
        # A clock that was set back must not keep old ends for ever.
        self.ends = [at for at in self.ends if now - rules.within_s < at <= now]
        self.ends.append(now)
        if rules.policy == "never" or (rules.policy == "on-failure" and success):
            self.phase = Phase.ENDED
        elif rules.give_up_after and len(self.ends) >= rules.give_up_after:
            self.phase = Phase.GAVE_UP
        else:
            self.phase = Phase.WAITING
            self.next_at = now + pause_s(rules, len(self.ends))

    def give_up(self) -> None:
        """Another start would go the same way."""
        if self.phase is Phase.STOPPING:
            self.phase = Phase.STARTING if self.again else Phase.STOPPED
            self.again = False
        else:
            self.phase = Phase.GAVE_UP

    def hold(self, until: float) -> None:
        """It cannot be started at present, which is not its fault."""
        if self.phase is Phase.STARTING:
            self.phase = Phase.WAITING
            self.next_at = until
        elif self.phase is Phase.STOPPING:
            self.phase = Phase.WAITING if self.again else Phase.STOPPED
            self.next_at = until if self.again else 0.0
            self.again = False

    def due(self) -> None:
        """The time of the next start has come."""
        if self.phase is Phase.WAITING:
            self.phase = Phase.STARTING
            self.next_at = 0.0


def pause_s(rules: RestartRules, ends: int) -> float:
    """How long to wait after so many ends."""
    # The exponent is bounded before it is used: 2 ** 1000 is no number of seconds.
    return min(rules.last_s, rules.first_s * 2.0 ** min(ends - 1, 40))
