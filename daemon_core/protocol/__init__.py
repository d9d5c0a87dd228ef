"""The daemon protocol: typed wire structures, error taxonomy, failure reasons. No I/O.

Both ends use these: ``hub`` (the server side) and ``connections`` (the daemon side). Unknown fields are
tolerated on both, absent and null mean the same, and nothing here knows any other room.
"""
