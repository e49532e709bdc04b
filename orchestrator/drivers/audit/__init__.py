"""The audit log as JSON lines: one file a day, hash chain, signed head and checkpoints."""
