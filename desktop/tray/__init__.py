"""The tray: what its icon and menu say (``view``, pure), and the icon itself (``icon``)."""
