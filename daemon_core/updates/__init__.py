"""Getting newer versions and becoming them, without costing a task; back again where one does not work.

The installed versions and the pointer to what runs: `versions` (the disk), `pointer` (every decision, pure),
`files` (file operations and locks), `errors`. `launcher` is the program at the fixed place that chooses what
runs, `guard` what it leaves behind beside a version on trial. These are frozen by themselves: they import the
standard library and each other, nothing else. In the daemon, `switching` makes way for the next version and
`trial` proves this one.

The updater: `stages` (states, pure), `updater` (their owner), `policy`, `offers`, `history`; `trust` and
`update_child` ask what is offered, `download`, `fetching`, `staging` and `delta` bring it here.
"""
