"""Child processes that outlive the daemon.

The room owns the shim (the small program between the daemon and every child), its client, the reading of a
run directory's state, and process trees by identity. It offers `spawn`, `attach`, `Shim`, `read_state`,
`end_survivors` and their types; output is read by the caller from the files ``stdout`` and ``stderr`` of
the run directory, as far as `Shim.watch` says they have grown.

It must not know what runs: no task, no agent, no server, no journal, no settings. It imports no other room.
"""

from .client import (
    MARK_VARIABLE,
    OUTPUT_KEEP_LEAST_BYTES,
    Lost,
    NeverStarted,
    OutputState,
    RunSpec,
    Shim,
    ShimStatus,
    StdinRecord,
    attach,
    begin_standby,
    read_stdin_record,
    shim_command,
    spawn,
)
from .errors import EndedError, LostError, ProcessError, SpawnError, UnreachableError
from .state import ExitStatus, RunPhase, RunState, ShimInfo, read_owner, read_state, remove_secrets
from .tree import Identity, end_survivors

__all__ = [
    "MARK_VARIABLE",
    "OUTPUT_KEEP_LEAST_BYTES",
    "EndedError",
    "ExitStatus",
    "Identity",
    "Lost",
    "LostError",
    "NeverStarted",
    "OutputState",
    "ProcessError",
    "RunPhase",
    "RunSpec",
    "RunState",
    "Shim",
    "ShimInfo",
    "ShimStatus",
    "SpawnError",
    "StdinRecord",
    "UnreachableError",
    "attach",
    "begin_standby",
    "end_survivors",
    "read_owner",
    "read_state",
    "read_stdin_record",
    "remove_secrets",
    "shim_command",
    "spawn",
]
