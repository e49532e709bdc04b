"""Commands, what they printed, and what a disposable one changed."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from orchestrator.store.metadata import METADATA

COMMANDS = Table(
    "commands",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("actor_kind", Text, nullable=False),
    Column("actor_id", Text, nullable=False),
    Column("actor_name", Text, nullable=False),
    Column("on_behalf_of", Text, nullable=False, server_default=""),
    Column("argv", JSONB, nullable=False),
    Column("cwd", Text, nullable=False),
    Column("environment", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("stdin_bytes", Integer, nullable=False, server_default="0"),
    Column("place", Text, nullable=False),
    Column("network", Text, nullable=False),
    Column("timeout_s", Float),
    Column("decision", Text, nullable=False),
    Column("rule", Text, nullable=False, server_default=""),
    Column("reason", Text, nullable=False, server_default=""),
    Column("policy_version", Integer, nullable=False),
    Column("approval_id", Text),
    Column("state", Text, nullable=False),
    Column("exit_code", Integer),
    Column("signal", Integer),
    Column("stopped_by", Text),
    Column("error", Text),
    Column("truncated", Boolean, nullable=False, server_default=text("false")),
    Column("output_bytes", BigInteger, nullable=False, server_default="0"),
    Column("written_bytes", BigInteger, nullable=False, server_default="0"),
    Column("duration_ms", BigInteger),
    Column("changed_paths", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    Column("changed_complete", Boolean, nullable=False, server_default=text("true")),
    Column("applied_at", DateTime(timezone=True)),
    Column("cancel_asked_at", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("finished_at", DateTime(timezone=True)),
    CheckConstraint(
        "state IN ('denied', 'running', 'finished', 'failed', 'cancelled', 'timed_out', 'stopped', 'interrupted')",
        name="state",
    ),
    CheckConstraint("decision IN ('allow', 'approval', 'deny')", name="decision"),
    Index("ix_commands_tenant", "tenant_id", "created_at"),
    Index("ix_commands_created", "created_at"),
    Index("ix_commands_running", "tenant_id", postgresql_where=text("state = 'running'")),
)

COMMAND_OUTPUTS = Table(
    "command_outputs",
    METADATA,
    Column("command_id", Text, ForeignKey("commands.id", ondelete="CASCADE"), primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("stream", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
    CheckConstraint("stream IN ('stdout', 'stderr')", name="stream"),
)

COMMAND_CHANGES = Table(
    "command_changes",
    METADATA,
    Column("command_id", Text, ForeignKey("commands.id", ondelete="CASCADE"), primary_key=True),
    Column("path", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("before_digest", Text, nullable=False, server_default=""),
    Column("after_digest", Text, nullable=False, server_default=""),
    Column("content", LargeBinary),
    Column("link", Text),
    Column("size_bytes", BigInteger, nullable=False, server_default="0"),
    Column("problem", Text, nullable=False, server_default=""),
    CheckConstraint("kind IN ('added', 'modified', 'deleted')", name="kind"),
)
