"""git on the host: only in our own bare repository, always with pinned configuration."""
