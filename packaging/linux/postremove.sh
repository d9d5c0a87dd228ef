#!/bin/sh
# After the files have gone: say what is left, since it is each user's own and may be at work.
set -e
if @IF_REMOVED@; then :; else exit 0; fi
echo "Ostler was removed. What belongs to its users was left as it is: tasks that are running go on, and"
echo "~/.config/ostler, ~/.local/share/ostler, ~/.local/state/ostler and ~/.cache/ostler remain."
echo "Whoever does not need them any more can delete them."
exit 0
