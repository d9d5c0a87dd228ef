#!/bin/sh
# Before the files go: ask daemons and desktops that run from here, or from a version below a user's
# directory, to end. Runs have supervisors of their own and go on; their files are nobody's business here.
set -e
if @IF_REMOVED@; then :; else exit 0; fi
asked=
for process in /proc/[0-9]*; do
    program=$(readlink "$process/exe" 2>/dev/null) || continue
    case ${program% (deleted)} in
        /usr/lib/ostler/payload/*/ostlerd | /usr/lib/ostler/payload/*/ostler-desktop \
            | */ostler/app/versions/*/ostlerd | */ostler/app/versions/*/ostler-desktop)
            # A copy that somebody has installed for themselves has a launcher of its own, and stays.
            launcher=$(tr '\0' '\n' <"$process/environ" 2>/dev/null | sed -n 's/^OSTLER_LAUNCHER=//p')
            [ -z "$launcher" ] || [ "$launcher" = /usr/lib/ostler/launcher ] || continue
            if kill -TERM "${process#/proc/}" 2>/dev/null; then asked="$asked ${process#/proc/}"; fi
            ;;
    esac
done
# A daemon closes its books first. One that takes longer is left to itself: it needs none of these files.
tries=0
while [ -n "$asked" ] && [ $tries -lt 100 ]; do
    left=
    for pid in $asked; do
        if kill -0 "$pid" 2>/dev/null && ! grep -q '^State:[[:space:]]*Z' "/proc/$pid/status" 2>/dev/null; then
            left="$left $pid"
        fi
    done
    asked=$left
    [ -z "$asked" ] || sleep 0.1
    tries=$((tries + 1))
done
exit 0
