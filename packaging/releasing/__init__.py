"""Making releases: builds, the signed repository of updates, and what a client makes of it.

Not part of the application. Roles, keys and signatures are TUF's (python-tuf, securesystemslib); what is ours
is in which order things are written, what a target says of itself, and the words towards whoever releases.
"""
