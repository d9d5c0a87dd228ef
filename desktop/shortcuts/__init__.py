"""One shortcut from anywhere, where the platform allows it; none until the user has chosen one."""
