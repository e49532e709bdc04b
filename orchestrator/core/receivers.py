"""The section `webhooks` of the settings: who is told what happens, and what signs it. Pure."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from orchestrator.core.limits import Seconds
from orchestrator.core.webhooks import Target

_FAR = re.compile(r"https://[^\s@/?#\\]+(?:[/?][!-~]*)?")
_NEAR = re.compile(r"http://(?:[A-Za-z0-9-]+|127\.0\.0\.1|\[::1\])(?::\d{1,5})?(?:[/?][!-~]*)?")


class WebhookTarget(BaseModel):
    """One receiver. Its address is treated as a secret: chats put a token into it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: SecretStr
    kinds: tuple[str, ...] = ("*",)
    secret_file: Path | None = None
    secret_env: str = Field("", pattern=r"^(?:|[A-Za-z_][A-Za-z0-9_]*)$")

    @field_validator("url")
    @classmethod
    def _is_safe(cls, value: SecretStr) -> SecretStr:
        if not any(form.fullmatch(value.get_secret_value()) for form in (_FAR, _NEAR)):
            raise ValueError("use https://HOST/…; http:// only to loopback or a name without dots")
        return value

    @model_validator(mode="after")
    def _signs(self) -> WebhookTarget:
        if (self.secret_file is None) == (not self.secret_env):
            raise ValueError("give either secret_file or secret_env: every notice is signed")
        return self


TargetName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]


class WebhookSection(BaseModel):
    """Everything under `webhooks`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    targets: dict[TargetName, WebhookTarget] = {}
    timeout: Seconds = Field(10.0, ge=0.1, le=120)
    attempts_max: int = Field(24, ge=1, le=300)

    def receivers(self) -> tuple[Target, ...]:
        return tuple(
            Target(name, target.url.get_secret_value(), target.kinds) for name, target in sorted(self.targets.items())
        )
