"""The Ostler desktop application: a tray icon and a window over the daemon.

Rooms: ``daemon`` (the link to the daemon and its supervision), ``models`` (state and item models; no
widgets), ``tray``, ``windows``, ``notifications``, ``updates``, ``theme``; ``app`` builds everything. It
knows the control API's views and errors, the protocol's types and the directories; nothing else of the
daemon.

Only the Qt thread exists. It never waits: requests are sent and answered by signals.
"""
