"""The Ostler desktop application (Qt) will live here. It will talk to the daemon through the control API alone.

Nothing of it exists yet; `ostler` without a command says so.
"""
