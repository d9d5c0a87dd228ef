from daemon_core.settings import installed

installed.begin()

from daemon_core.cli.main import main  # noqa: E402

main()
