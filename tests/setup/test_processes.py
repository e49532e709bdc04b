"""The control plane's processes: found by what they hold, and ended before what they need is deleted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.core.places import Places
from orchestrator.setup import processes
from orchestrator.setup.options import SetupOptions
from orchestrator.setup.plan import remove
from tests.support.interfaces import settings

SERVING = """
import sys, time
from pathlib import Path
from orchestrator.core.places import Places
from orchestrator.setup.processes import only_one
places = Places(Path(sys.argv[1]))
with only_one(places, sys.argv[2]):
    time.sleep(600)
"""


def test_a_process_is_found_by_its_lock_and_not_by_its_number(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    assert processes.pid(chosen.places, "serve") is None
    with processes.only_one(chosen.places, "serve"):
        assert processes.pid(chosen.places, "serve") == os.getpid()
        with pytest.raises(processes.RunsAlready), processes.only_one(chosen.places, "serve"):
            pass
        assert not processes.start(chosen, "serve")
    assert processes.pid(chosen.places, "serve") is None  # the number still stands in the file
    assert (tmp_path / "run" / "serve.pid").read_text().strip() == str(os.getpid())


def test_a_process_that_fails_is_shown_with_the_end_of_its_log(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    log = processes.log_file(chosen.places, "serve")
    log.parent.mkdir(parents=True)
    log.write_text("the port is taken\n")
    with pytest.raises(processes.ProcessFailed, match="the port is taken"):
        processes.wait(chosen.places, "serve", timeout_s=0.01)


def test_ending_what_does_not_run_is_fine(tmp_path: Path) -> None:
    assert not processes.end(settings(tmp_path).places, "serve")


@pytest.mark.engine
@pytest.mark.usefixtures("engine")
def test_they_are_ended_before_an_installation_is_deleted(tmp_path: Path) -> None:
    places = Places(tmp_path / "var")
    places.var.mkdir()
    running = [subprocess.Popen([sys.executable, "-c", SERVING, str(places.var), name]) for name in processes.NAMES]
    try:
        for name in processes.NAMES:
            processes.wait(places, name, timeout_s=60)
        said: list[str] = []
        remove(SetupOptions(places, instance="ended"), said.append, keep_images=True)
        assert said[:2] == ["ended schedule", "ended serve"]
        assert not places.var.exists()
        assert [one.wait(timeout=60) for one in running] == [-15, -15]
    finally:
        for one in running:
            one.kill()
            one.wait()


@pytest.mark.engine
@pytest.mark.usefixtures("engine")
def test_nothing_is_deleted_under_one_that_somebody_else_would_start_again(tmp_path: Path) -> None:
    places = Places(tmp_path / "var")
    places.var.mkdir()
    kept = subprocess.Popen(["unshare", "--mount", sys.executable, "-c", SERVING, str(places.var), "serve"])
    try:
        processes.wait(places, "serve", timeout_s=60)
        with pytest.raises(processes.KeptElsewhere, match="container or unit"):
            remove(SetupOptions(places, instance="ended"), lambda _: None, keep_images=True)
        assert kept.poll() is None
        assert places.var.exists()
    finally:
        kept.kill()
        kept.wait()
