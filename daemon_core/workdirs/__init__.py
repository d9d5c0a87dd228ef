"""Where tasks run: directories that Ostler makes, and directories of the user that a task names.

It owns the validation of user directories, their locks (one task at a time in one directory, also across
profiles, daemons and different paths to one place), what is put into a directory for a task and how it is
taken out again (``environments``, on ``manifest``), and the stamp that clean-up goes by. It knows no server.
"""

from daemon_core.workdirs.directories import (
    DirectoryRefusedError,
    TaskDirectories,
    validate_user_directory,
)
from daemon_core.workdirs.locks import DirectoryLock, DirectoryLocks

__all__ = [
    "DirectoryLock",
    "DirectoryLocks",
    "DirectoryRefusedError",
    "TaskDirectories",
    "validate_user_directory",
]
