# Asks the daemons and desktops of the Ostler in $1 to end, and waits for them for $2 tenths of a second; those
# that are left are in $asked. None is killed: a daemon closes its books first, and needs none of these files for
# that. Runs have supervisors of their own and go on. Part of preremove.sh and of uninstall.sh.
ask_to_end() {
    asked=
    for process in /proc/[0-9]*; do
        program=$(readlink "$process/exe" 2>/dev/null) || continue
        case ${program% (deleted)} in */ostlerd | */ostler-desktop) ;; *) continue ;; esac
        # The launcher says whose it is, wherever the version lies that it has chosen: a copy that somebody has
        # installed for themselves has one of its own, and stays.
        launcher=$(tr '\0' '\n' <"$process/environ" 2>/dev/null | sed -n 's/^OSTLER_LAUNCHER=//p')
        case $launcher,$program in "$1"/launcher,* | ,"$1"/payload/*) ;; *) continue ;; esac
        if kill -TERM "${process#/proc/}" 2>/dev/null; then asked="$asked ${process#/proc/}"; fi
    done
    tries=0
    while [ -n "$asked" ] && [ $tries -lt "$2" ]; do
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
}
