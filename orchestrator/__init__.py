"""One hardened sandbox per tenant, rebuilt from production, with a reviewed way back."""

__version__ = "0.1.0"
