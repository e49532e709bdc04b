"""Files of a workspace, reached by descriptors from its root down, so that no link can lead out."""
