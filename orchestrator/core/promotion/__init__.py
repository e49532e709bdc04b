"""What may be promoted and in which order: pure rules and pure planning."""
