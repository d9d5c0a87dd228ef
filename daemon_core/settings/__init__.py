"""Directories, settings file, identity, loopback port, the daemon's lock. Knows no other room.

The environment is read here and nowhere else: ``directories.resolve`` and ``file.load`` take a mapping and
give frozen values that are passed on from there. Modules are imported one by one (``settings.directories``,
``settings.file``, …): a short command must not pay for what it does not use.
"""
