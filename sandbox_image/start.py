"""What `python3 -I -S /opt/sandboxd` runs in the image: this file is the directory's `__main__`."""

import sys

from sandboxd.main import main

sys.exit(main(sys.argv[1:]))
