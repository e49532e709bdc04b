"""The allowlist: what a rule may say, what it matches, what is decided and why. Pure."""
