"""Vendored scripts are exactly what the manifest says."""

import hashlib
import json
from pathlib import Path

VENDOR = Path(__file__).parents[2] / "orchestrator" / "web" / "static" / "vendor"


def test_every_vendored_file_has_its_hash_in_the_manifest() -> None:
    listed = {entry["file"]: entry["sha256"] for entry in json.loads((VENDOR / "MANIFEST.json").read_text())}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in VENDOR.glob("*.js")}
    assert found == listed
