"""Pages of a long list, as links that can be shared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode


@dataclass(frozen=True)
class Page:
    """`number` starts at 1. `path` and `query` make the links; `parameter` names the page in the query."""

    number: int
    total: int
    size: int
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    parameter: str = "page"

    @property
    def count(self) -> int:
        return max(1, -(-self.total // self.size))

    @property
    def offset(self) -> int:
        return (min(self.number, self.count) - 1) * self.size

    def link(self, number: int) -> str:
        kept = {name: value for name, value in self.query.items() if value and name != self.parameter}
        return f"{self.path}?{urlencode({**kept, self.parameter: str(number)})}"
