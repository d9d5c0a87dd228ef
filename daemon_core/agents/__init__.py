"""Protocol families: how each kind of agent CLI is started, read, talked to and judged. No I/O here.

Offers:

- ``families.families()``: family name → ``family.Family``.
- ``family``: the contract (``LaunchRequest`` → ``LaunchPlan``; bytes → ``Reader`` → events and ``Outcome``).
- ``events``: what a reader gives.
- ``lines.cut_output``: the cut that a tool's output gets before it goes to a server.

Knows only ``protocol``: no server, no process, no directory, no clock.
"""
