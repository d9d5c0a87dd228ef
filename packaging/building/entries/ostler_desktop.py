from daemon_core.settings import installed

installed.begin()

from desktop.app import main  # noqa: E402

main()
