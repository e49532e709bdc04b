"""From a bare machine to one that can run tenants: checks, and the steps that make them true."""
