"""One server as the daemon sees it: its HTTP client, its websocket link, its health, its workspaces.

Owns the daemon's end of the protocol's transport: requests and their errors, time-outs, back-off, the
websocket with its keep-alive, token renewal, the list of workspaces, and why a connection does not work.
The embedded hub is one more server here. This room knows ``protocol`` and nothing above it: what a runtime
or a task is, is decided elsewhere; here they are ids.
"""
