"""What can go wrong with an update: a code and parameters; the words are made by whoever shows them."""

from __future__ import annotations


class UpdateError(Exception):
    """An update does not go ahead, or not on. Nothing of what ran before has changed.

    Attributes:
        code: What it is. ``not_installed`` (a program run from source has no versions), ``owned`` (a package
            manager updates it), ``version_missing`` (not here, or not whole), ``version_bad`` (it was tried
            and failed; ``reason``), ``nothing_before`` (no version to go back to), ``trial`` (another one is
            on trial), ``busy`` (an update is on its way, or somebody else changes the installation),
            ``claims`` (claims did not come home in time), ``stopping`` (the daemon is about to end),
            ``current`` (it runs already), ``older`` (only the user goes back), ``launcher_missing``,
            ``disk`` (``detail`` is the system's word), ``settings`` (no daemon could read them; ``what``).
        params: What there is to say about it.
    """

    def __init__(self, code: str, **params: str) -> None:
        self.code = code
        self.params = params
        said = ", ".join(f"{name}={value}" for name, value in params.items())
        super().__init__(f"{code} ({said})" if said else code)


class TrialGoneError(UpdateError):
    """The trial that this process belongs to is over: somebody else has decided it."""

    def __init__(self, trial_id: str) -> None:
        super().__init__("trial_gone", trial=trial_id)
