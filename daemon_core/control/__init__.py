"""The local control API: whatever the tray can do, ``ostler`` can do, and both do it through here.

``server`` serves ``/v1`` on the control socket for a ``backend.Backend`` (which the daemon implements),
``changes`` is its event stream, ``loopback`` the guarded application on 127.0.0.1. ``client``, ``views``
and ``errors`` are the other end: standard library and msgspec only, so that a short command stays short.
Between them is the ``facade``: the daemon's rooms on one side, on the other what
can be asked, with a class and a module for each kind of thing (``*_desk``).
"""
