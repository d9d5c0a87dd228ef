"""Short-lived helpers that need large libraries, told apart by the first argument."""

import os
import sys

from daemon_core.settings import installed

installed.begin()

match sys.argv[1:2]:
    case ["keyring"]:
        from daemon_core.settings.keyring_child import main
    case ["update"]:
        from daemon_core.settings import certificates
        from daemon_core.updates.update_child import main

        if place := certificates.missing():
            os.environ[certificates.VARIABLE] = place
    case _:
        sys.exit("ostler-helper keyring|update: answers one question on standard input; not for people")
del sys.argv[1]
main()
