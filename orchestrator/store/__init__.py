"""What is remembered: the control database."""
