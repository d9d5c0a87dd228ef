"""One module a command or group; each is imported when it is used."""
