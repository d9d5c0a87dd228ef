"""What somebody who is asked for help needs to know, in one file, with nothing secret in it.

``parts`` gathers, ``redact`` takes out, ``archive`` writes. None of it needs a daemon, and none of it reads
what tasks said: contents are counted, never copied.
"""
