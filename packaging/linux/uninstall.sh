#!/bin/sh
# Removes the Ostler that this lies in: stops it, takes its entries out, and asks about your data.
#   sh uninstall.sh [--keep-data | --remove-data]
# Without a terminal and without an option the data stays. Tasks that are running go on; while any of them
# does, the data stays in any case.
set -eu

data=ask
for option; do
    case $option in
        --keep-data) data=keep ;;
        --remove-data) data=remove ;;
        -h | --help) sed -n '2,5s/^# *//p' "$0"; exit 0 ;;
        *) echo "uninstall.sh: there is no option $option" >&2; exit 2 ;;
    esac
done
fail() { echo "uninstall.sh: $*" >&2; exit 1; }
@STOP@
[ -n "${HOME:-}" ] || fail "HOME is not set"
place=$(cd "$(dirname "$0")" && pwd -P)
[ -x "$place/launcher/ostler" ] && [ -f "$place/install.json" ] || fail "$place is no installed Ostler"
prefix=$(dirname "$(dirname "$place")")

config=${XDG_CONFIG_HOME:-$HOME/.config}
if [ -n "${OSTLER_HOME:-}" ]; then
    case $OSTLER_HOME in
        /*) ;;
        "~") OSTLER_HOME=$HOME ;;
        "~/"*) OSTLER_HOME=$HOME/${OSTLER_HOME#"~/"} ;;
        *) OSTLER_HOME=$(pwd)/$OSTLER_HOME ;;
    esac
    # Directories called "data" and "config" there need not be Ostler's alone.
    if [ ! -f "$OSTLER_HOME/state/daemon.lock" ] || [ "$OSTLER_HOME" -ef "$HOME" ] || [ "$OSTLER_HOME" -ef / ]; then
        [ "$data" != remove ] || fail "$OSTLER_HOME is not for Ostler alone; delete what you do not need yourself"
        data=keep
    fi
    # Not the directory itself: there may be more in it than Ostler's.
    places="$OSTLER_HOME/config
$OSTLER_HOME/data
$OSTLER_HOME/state
$OSTLER_HOME/cache
$OSTLER_HOME/run"
    states=$OSTLER_HOME/state
else
    states=${XDG_STATE_HOME:-$HOME/.local/state}/ostler
    places="$config/ostler
${XDG_DATA_HOME:-$HOME/.local/share}/ostler
$states
${XDG_CACHE_HOME:-$HOME/.cache}/ostler"
fi

# The service, if somebody uses it; then whatever else runs from here.
if command -v systemctl >/dev/null 2>&1; then
    systemctl --user disable --now ostler.service >/dev/null 2>&1 || true
fi
ask_to_end "$place" 300
[ -z "$asked" ] || echo "uninstall.sh: these take long to stop and were left to themselves:$asked" >&2

# Entries at login that start this one.
for entry in "$config"/autostart/ostler.desktop "$config"/autostart/ostler-*.desktop; do
    if [ -f "$entry" ] && grep -qF -e "$prefix/bin/ostler" -e "$place/" "$entry"; then rm -f "$entry"; fi
done
rm -f "$config/systemd/user/default.target.wants/ostler.service"

share=$prefix/share
for program in ostler ostlerd ostler-desktop; do
    link=$prefix/bin/$program
    if [ -L "$link" ] && [ "$(readlink "$link")" = ../lib/ostler/launcher/ostler ]; then rm -f "$link"; fi
done
rm -f "$share/applications/ostler.desktop" "$share/systemd/user/ostler.service" \
    "$share/man/man1/ostler.1.gz" "$share/man/man1/ostlerd.1.gz" "$share/man/man1/ostler-desktop.1.gz" \
    "$share/bash-completion/completions/ostler" "$share/zsh/site-functions/_ostler" \
    "$share/fish/vendor_completions.d/ostler.fish" \
    "$share"/icons/hicolor/*/apps/ostler.png "$share/icons/hicolor/scalable/apps/ostler.svg"
cd /
rm -rf "$place"
echo "Ostler was removed from $place."

# Whoever supervises a run holds a lock on its directory.
running=no
for lock in "$states"/runs/*/lock "$states"/jobs/*/lock "$states"/residents/*/*/lock \
    "$states"/profiles/*/runs/*/lock "$states"/profiles/*/jobs/*/lock \
    "$states"/profiles/*/residents/*/*/lock; do
    [ -f "$lock" ] || continue
    if ! flock -n "$lock" true 2>/dev/null; then running=yes; fi
done
there=
while IFS= read -r directory; do
    [ ! -e "$directory" ] || there="$there $directory"
done <<END
$places
END
if [ -z "$there" ]; then exit 0; fi
if [ "$running" = yes ]; then
    echo "Tasks are still running, so your data stays:$there"
    [ "$data" != remove ] || exit 1
    exit 0
fi
if [ "$data" = ask ]; then
    data=keep
    if [ -t 0 ] && [ -t 1 ]; then
        printf 'Delete your data too (settings, tasks and their directories)?%s [y/N] ' "$there"
        read -r answer || answer=
        case $answer in [yY]*) data=remove ;; esac
    fi
fi
if [ "$data" = remove ]; then
    printf '%s\n' "$places" | while IFS= read -r directory; do rm -rf "$directory"; done
    [ -z "${OSTLER_HOME:-}" ] || rmdir "$OSTLER_HOME" 2>/dev/null || true
    echo "Your data was deleted:$there"
else
    echo "Your data was left:$there"
fi
