"""Installers around a payload and a launcher, for each system.

Each module makes the files of one system and says, in words, what could not be made on this machine. What an
installer puts on the disk is the same everywhere (see `layout`): the launcher at a place that never changes,
the first payload, ``install.json``, and the root of trust for updates.
"""
