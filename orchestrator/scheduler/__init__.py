"""What makes things happen without being asked: a leader that ticks, and workers that do jobs."""
