"""What the windows and the tray show, without any widget: the state, and item models over it."""
