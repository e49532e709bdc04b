"""The supervisor inside a tenant's container: it starts what is listed, and the kernel holds what it starts.

Standard library only, no dataclasses or typing at run time: it starts with every sandbox and stays resident.
"""

VERSION = "1"
