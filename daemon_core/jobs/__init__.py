"""Work that outlasts a turn: background jobs, what agents are told of them, residents.

Each is a child under a shim, as runs are, with rows in the journal. The room knows processes, journal and
settings; how a notice reaches an agent is for ``tasks`` to know, who may ask for what for ``control``.
"""
