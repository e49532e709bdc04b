"""`orchestrator config …`."""

from __future__ import annotations

import typer

from orchestrator.cli import session
from orchestrator.cli.output import Form, FormOption, say, write, write_json

app = typer.Typer(no_args_is_help=True, help="What the configuration files say.")


@app.command()
def check() -> None:
    """Read every configuration file and name the first mistake; nothing is started."""
    from orchestrator.wiring.files import check_files

    for line in check_files(session.settings()):
        say(line)


@app.command()
def show(form: FormOption = Form.TABLE) -> None:
    """The settings in force, defaults included; secrets are hidden."""
    settings = session.settings()
    values = settings.model_dump(mode="json")
    if form is Form.JSON:
        return write_json(values)
    write("\n".join(lines(values)))


def lines(values: dict[str, object], prefix: str = "") -> list[str]:
    """`section.key = value`, sorted as in the file."""
    found: list[str] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        found.extend(lines(value, f"{name}.") if isinstance(value, dict) else [f"{name} = {value}"])
    return found
