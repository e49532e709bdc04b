"""A tenant's workspace seen from the host: what stands at a path, copies of it, and what differs between two."""
