#!/bin/sh
# Before the files go: the daemons and desktops of all users that run from here end. Their runs go on; their
# files are nobody's business here.
set -e
if @IF_REMOVED@; then :; else exit 0; fi
@STOP@
ask_to_end /usr/lib/ostler 100
exit 0
