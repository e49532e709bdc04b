"""Pure: what is decided. No input, no output, no clock of its own."""
