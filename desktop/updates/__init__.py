"""Updates as the user sees them: one quiet row when one is ready, the rest for who looks; and the desktop's
own restart, which the daemon's update asks for."""
