"""What happens: one file per trip."""
