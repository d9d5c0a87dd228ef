"""The Ostler desktop application (Qt) will live here; it will know the control API alone.

Nothing of it exists yet; `ostler` without a command says so.
"""
