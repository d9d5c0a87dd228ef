"""The local control API: whatever the tray can do, ``ostler`` can do, and both do it through here.

``server`` serves ``/v1`` on the control socket for a ``backend.Backend`` (which the daemon implements),
``changes`` is its event stream, ``loopback`` the guarded application on 127.0.0.1. ``client``, ``views``
and ``errors`` are the other end: standard library and msgspec only, so that a short command stays short.
This room knows ``settings`` and ``protocol``; it knows no server, no agent and no journal.
"""
