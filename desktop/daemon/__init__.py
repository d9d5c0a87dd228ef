"""The daemon as the desktop has it: requests (``http``), state and changes (``link``), its process
(``supervisor``)."""
