"""Where installers and package managers put programs.

A daemon that a desktop or a service manager started has not the PATH of a terminal, so these are looked at
after it. ``~`` and ``$NAME`` stand for the user's directory and for variables (a place with one that is not
set is passed over), ``*`` for any name, the newest version first.
"""

from __future__ import annotations

from typing import Final

COMMON_PLACES: Final = (
    "~/.local/bin",
    "~/bin",
    # npm, yarn, pnpm, bun, deno
    "$NPM_CONFIG_PREFIX/bin",
    "~/.npm-global/bin",
    "~/.npm-packages/bin",
    "~/.yarn/bin",
    "~/.config/yarn/global/node_modules/.bin",
    "$PNPM_HOME",
    "~/.local/share/pnpm",
    "~/Library/pnpm",
    "$BUN_INSTALL/bin",
    "~/.bun/bin",
    "~/.deno/bin",
    # version managers: first what is chosen, then what is there
    "$VOLTA_HOME/bin",
    "~/.volta/bin",
    "$MISE_DATA_DIR/shims",
    "~/.local/share/mise/shims",
    "$ASDF_DATA_DIR/shims",
    "~/.asdf/shims",
    "$N_PREFIX/bin",
    "~/n/bin",
    "~/.nodenv/shims",
    "~/.proto/shims",
    "~/.proto/bin",
    "$FNM_DIR/aliases/default/bin",
    "~/.local/share/fnm/aliases/default/bin",
    "~/.fnm/aliases/default/bin",
    "~/Library/Application Support/fnm/aliases/default/bin",
    "$NVM_DIR/versions/node/*/bin",
    "~/.nvm/versions/node/*/bin",
    "~/.config/nvm/versions/node/*/bin",
    "$FNM_DIR/node-versions/*/installation/bin",
    "~/.local/share/fnm/node-versions/*/installation/bin",
    "~/.fnm/node-versions/*/installation/bin",
    "~/Library/Application Support/fnm/node-versions/*/installation/bin",
    "~/.local/share/mise/installs/node/*/bin",
    "~/.asdf/installs/nodejs/*/bin",
    # other languages' installers
    "$CARGO_HOME/bin",
    "~/.cargo/bin",
    "$GOPATH/bin",
    "~/go/bin",
    "~/.pyenv/shims",
    "~/.nix-profile/bin",
    # the system's
    "/opt/homebrew/bin",
    "/home/linuxbrew/.linuxbrew/bin",
    "~/.linuxbrew/bin",
    "/opt/local/bin",
    "/run/current-system/sw/bin",
    "/snap/bin",
    "/usr/local/bin",
    "/usr/bin",
    "/bin",
)
