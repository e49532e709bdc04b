"""Pure: what the port's values look like on the wire, and back. What comes back is checked field by field."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime

from orchestrator.core.ports.sandboxd import (
    AppSpec,
    AppState,
    AppStatus,
    Check,
    CommandEvent,
    CommandExited,
    CommandOutput,
    CommandStarted,
    DiskUsage,
    KernelGate,
    PathGrant,
    PolicyReport,
    SandboxCommand,
    SandboxdStatus,
    SandboxPolicy,
    StoppedBy,
)
from orchestrator.drivers.sandboxd.connection import Frame, data_of, unreachable

_CHANGED_MAX = 5_000


def policy_frame(policy: SandboxPolicy) -> Frame:
    programs = [
        {"path": program.path, "grants": _grants(program.grants), "starts": list(program.starts)}
        for program in policy.programs
    ]
    return {"type": "policy", "digest": policy.digest, "programs": programs}


def run_frame(command: SandboxCommand) -> Frame:
    limits = command.limits
    return {
        "type": "run",
        "id": command.id,
        "program": command.program,
        "argv": list(command.argv),
        "cwd": command.cwd,
        "environment": dict(command.environment),
        "grants": _grants(command.grants),
        "replace_grants": command.replace_grants,
        "tcp_connect": list(command.tcp_connect),
        "policy_digest": command.policy_digest,
        "stdin_bytes": len(command.stdin),
        "wall_s": limits.wall_s,
        "output_bytes": limits.output_bytes,
        "write_bytes": limits.write_bytes,
        "processes": limits.processes,
        "changed_paths": limits.changed_paths,
    }


def app_frame(spec: AppSpec) -> Frame:
    return {
        "type": "app_start",
        "argv": list(spec.argv),
        "cwd": spec.cwd,
        "port": spec.port,
        "pass_socket": spec.pass_socket,
        "environment": dict(spec.environment),
        "grants": _grants(spec.grants),
        "starts": list(spec.starts),
        "tcp_connect": list(spec.tcp_connect),
        "processes": spec.processes,
        "watch": list(spec.watch),
        "watch_suffixes": list(spec.watch_suffixes),
    }


def _grants(grants: Iterable[PathGrant]) -> list[list[str]]:
    return [[grant.path, grant.access.value] for grant in grants]


def _text(frame: Frame, name: str, *, length_max: int = 100_000) -> str:
    value = frame.get(name)
    return value[:length_max] if isinstance(value, str) else ""


def _texts(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {name: text for name, text in value.items() if isinstance(name, str) and isinstance(text, str)}


def _whole(frame: Frame, name: str) -> int:
    value = frame.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _whole_or_none(frame: Frame, name: str) -> int | None:
    return None if frame.get(name) is None else _whole(frame, name)


def _number(frame: Frame, name: str) -> float:
    value = frame.get(name)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return 0.0


def _time(frame: Frame, name: str) -> datetime | None:
    seconds = _number(frame, name)
    return datetime.fromtimestamp(seconds, UTC) if 0 < seconds < 1e11 else None


def status_of(frame: Frame) -> SandboxdStatus:
    """Raises SandboxdUnreachable when the other side is not a sandboxd that can be understood."""
    raw_checks = frame.get("checks")
    if frame["type"] != "status" or not isinstance(raw_checks, list):
        raise unreachable("its answer is not a status")
    checks = [
        Check(_text(raw, "name"), raw.get("ok") is True, raw.get("waivable") is True, _text(raw, "evidence"))
        for raw in raw_checks[:64]
        if isinstance(raw, dict)
    ]
    gate = _text(frame, "kernel_gate")
    raw_app = frame.get("app")
    return SandboxdStatus(
        version=_text(frame, "version", length_max=64),
        landlock_abi=_whole(frame, "landlock_abi"),
        # Whatever cannot be understood is not a boundary.
        kernel_gate=KernelGate(gate) if gate in set(KernelGate) else KernelGate.BROKEN,
        checks=tuple(checks),
        policy_digest=_text(frame, "policy_digest") or None,
        commands=_whole(frame, "commands"),
        app=app_of(raw_app if isinstance(raw_app, dict) else {}),
        started_at=_time(frame, "started_at") or datetime.fromtimestamp(0, UTC),
    )


def app_of(frame: Frame) -> AppStatus:
    state = _text(frame, "state")
    return AppStatus(
        state=AppState(state) if state in set(AppState) else AppState.STOPPED,
        pid=_whole_or_none(frame, "pid"),
        restarts=_whole(frame, "restarts"),
        started_at=_time(frame, "started_at"),
        exit_code=_whole_or_none(frame, "exit_code"),
        error=_text(frame, "error"),
    )


def policy_report_of(frame: Frame) -> PolicyReport:
    return PolicyReport(_text(frame, "digest"), _texts(frame.get("programs")), _texts(frame.get("refused")))


def event_of(frame: Frame) -> CommandEvent:
    kind = frame["type"]
    if kind == "started":
        return CommandStarted(_whole(frame, "pid"))
    if kind == "output":
        stream = "stderr" if frame.get("stream") == "stderr" else "stdout"
        return CommandOutput(stream, data_of(frame))
    if kind != "exited":
        raise unreachable("its answer is no event")
    stopped_by = _text(frame, "stopped_by")
    changed = frame.get("changed")
    return CommandExited(
        exit_code=_whole_or_none(frame, "exit_code"),
        signal=_whole_or_none(frame, "signal"),
        stopped_by=StoppedBy(stopped_by) if stopped_by in set(StoppedBy) else None,
        start_error=_text(frame, "start_error") or None,
        truncated=frame.get("truncated") is True,
        duration_s=_number(frame, "duration_s"),
        cpu_s=_number(frame, "cpu_s"),
        memory_peak_bytes=_whole(frame, "memory_peak_bytes"),
        output_bytes=_whole(frame, "output_bytes"),
        written_bytes=_whole(frame, "written_bytes"),
        changed=tuple(str(path) for path in changed[:_CHANGED_MAX]) if isinstance(changed, list) else (),
        changed_complete=frame.get("changed_complete") is True,
    )


def disk_usage_of(frame: Frame) -> tuple[DiskUsage, ...]:
    usage = frame.get("usage")
    if not isinstance(usage, list):
        raise unreachable("its answer is not a disk usage")
    return tuple(
        DiskUsage(
            path=_text(raw, "path", length_max=4096),
            used_bytes=_whole(raw, "used_bytes"),
            files=_whole(raw, "files"),
            complete=raw.get("complete") is True,
            file_system_bytes=_whole(raw, "file_system_bytes"),
            free_bytes=_whole(raw, "free_bytes"),
        )
        for raw in usage[:64]
        if isinstance(raw, dict)
    )
