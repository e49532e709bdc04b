"""The one place where drivers meet flows."""
