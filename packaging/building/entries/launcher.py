"""The launcher takes the bundler's variables out by itself, from what it hands on."""

import sys

from daemon_core.updates.launcher import main

sys.exit(main())
