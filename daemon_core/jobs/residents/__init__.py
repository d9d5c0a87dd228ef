"""Residents: long-lived agent processes that the user describes in files and the daemon keeps up.

A file in ``residents`` of the settings directory is one resident (`files`). Each start is a run under a shim
with a directory of its own, so a resident lives through the death of the daemon and is found again by its
directory. What is to happen next is decided by a machine without side effects (`machine`); `keeper` does it
for one resident, `house` holds all of them and answers what is asked.

It knows processes and settings. Of the daemon around it, it is given what it needs: who owns its tasks, a
gate that holds starts back, the environment, and who is told of changes.
"""
