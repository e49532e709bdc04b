"""The reflink volume: preparing it, and copying, limiting and deleting trees on it."""
