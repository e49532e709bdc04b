"""Write the schema's next step: `python -m tests.support.migration "what it does"`.

With --first instead of words, the one and only step is written anew: right as long as no installation has run it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from alembic import command
from sqlalchemy import create_engine

from orchestrator.store.migrations import config_on, migrate
from orchestrator.store.migrations import versions as steps
from tests.support.cluster import running_cluster

VERSIONS = Path(steps.__file__).parent


def write(message: str) -> None:
    """From the difference between an empty database brought up to date and the tables."""
    first = message == "--first"
    if first:
        for old in VERSIONS.glob("0001_*.py"):
            old.unlink()
        message = "The whole schema"
    number = f"{len(list(VERSIONS.glob('[0-9]*.py'))) + 1:04d}"
    with running_cluster() as cluster, cluster.database() as name:
        engine = create_engine(cluster.url(name))
        if not first:
            migrate(engine)
        with engine.begin() as connection:
            config = config_on(connection)
            config.set_main_option("file_template", "%%(rev)s_%%(slug)s" if not first else "%%(rev)s_initial")
            command.revision(config, message, autogenerate=True, rev_id=number)
        engine.dispose()
    made = next(VERSIONS.glob(f"{number}_*.py"))
    made.write_text("".join(line for line in made.read_text().splitlines(True) if "# ###" not in line))
    for order in (["format", "-q"], ["check", "--fix", "-q"]):
        subprocess.run([sys.executable, "-m", "ruff", *order, str(made)], check=True)
    sys.stdout.write(f"wrote {made}: read it before it is committed\n")


if __name__ == "__main__":
    write(sys.argv[1])
