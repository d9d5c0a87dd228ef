#!/bin/sh
# Installs Ostler @VERSION@ for you alone, without root: sh install.sh [--prefix DIR]. The prefix is ~/.local if
# none is given. Run it again, or that of a newer version, to replace what is there. Nothing is started, and
# nothing starts by itself until you choose so.
set -eu

prefix=
while [ $# -gt 0 ]; do
    case $1 in
        --prefix) prefix=${2:?--prefix wants a directory}; shift 2 ;;
        --prefix=*) prefix=${1#--prefix=}; shift ;;
        -h | --help) sed -n '2,4s/^# //p' "$0"; exit 0 ;;
        *) echo "install.sh: there is no option $1" >&2; exit 2 ;;
    esac
done
fail() { echo "install.sh: $*" >&2; exit 1; }
here=$(cd "$(dirname "$0")" && pwd)
[ -n "${HOME:-}" ] || fail "HOME is not set"
prefix=${prefix:-$HOME/.local}
case $prefix in /*) ;; *) prefix=$(pwd)/$prefix ;; esac

system=$(uname -s)-$(uname -m)
case "$system,@PLATFORM@" in
    Linux-x86_64,linux-x86_64 | Linux-aarch64,linux-arm64) ;;
    *) fail "this is for @PLATFORM@, and here is $system" ;;
esac
glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | sed 's/^glibc //') || glibc=
[ -n "$glibc" ] || fail "Ostler needs the GNU C library, version @GLIBC@ or newer"
oldest=$(printf '%s\n%s\n' "$glibc" "@GLIBC@" | sort -V | head -n 1)
[ "$oldest" = "@GLIBC@" ] || fail "Ostler needs the GNU C library @GLIBC@ or newer; here is $glibc"
[ "$(id -u)" != 0 ] || echo "install.sh: note: this installs for root alone, into $prefix" >&2

for program in ostler ostlerd ostler-desktop; do
    link=$prefix/bin/$program
    if [ -e "$link" ] && [ ! -L "$link" ]; then fail "$link is there and not Ostler's; nothing was installed"; fi
done

# Beside the final place, then two renames: whoever starts Ostler meanwhile finds the old one or the new one.
place=$prefix/lib/ostler
new=$prefix/lib/.ostler-new-$$
old=$prefix/lib/.ostler-old-$$
mkdir -p "$prefix/lib" "$prefix/bin"
trap 'rm -rf "$new"' EXIT
trap 'exit 130' INT TERM HUP
cp -R "$here/lib" "$new"
if [ -e "$place" ]; then mv "$place" "$old"; fi
mv "$new" "$place" || { [ ! -e "$old" ] || mv "$old" "$place"; fail "$place cannot be made"; }
rm -rf "$old"

for program in ostler ostlerd ostler-desktop; do
    link=$prefix/bin/$program
    ln -sf ../lib/ostler/launcher/ostler "$link"
done

# Places that desktop environments and systemd look into for a user; below another prefix they are its own.
share=$prefix/share
mkdir -p "$share/applications" "$share/icons" "$share/man/man1" "$share/systemd/user"
escaped=$(printf '%s' "$prefix" | sed 's/[\\&|]/\\&/g')
sed "s|^Exec=ostler-desktop|Exec=\"$escaped/bin/ostler-desktop\"|; s|^TryExec=.*|TryExec=$escaped/bin/ostler-desktop|" \
    "$here/share/ostler.desktop" >"$share/applications/ostler.desktop"
sed "s|@BIN@|$escaped/bin|" "$here/share/ostler.service" >"$share/systemd/user/ostler.service"
cp -R "$here/share/icons/hicolor" "$share/icons/"
cp -P "$here/share/man/man1/"* "$share/man/man1/"
for directory in bash-completion/completions zsh/site-functions fish/vendor_completions.d; do
    mkdir -p "$share/$directory"
    cp "$here/share/$directory/"* "$share/$directory/"
done
echo "Ostler @VERSION@ is installed in $place."
case :$PATH: in
    *":$prefix/bin:"*) echo "Start it with: ostler-desktop    (without a screen: ostler daemon start)" ;;
    *)
        echo "$prefix/bin is not in your search path. Add it, or start Ostler with $prefix/bin/ostler-desktop"
        ;;
esac
echo "To remove it: sh '$place/uninstall.sh'"
