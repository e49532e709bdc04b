"""Row models: what a row must be before anyone reviews it.

Every table has a model derived from its schema; a company adds its own by subclassing `RowModel` and naming the table:

    class Order(RowModel, table="public.orders"):
        status: Literal["open", "paid", "void"]
        total: Decimal = Field(ge=0, le=100_000)
"""

from orchestrator.core.rowmodels.checking import RowViolation, validate_all, validate_row
from orchestrator.core.rowmodels.registry import REGISTRY, RowModel, RowModels

__all__ = ["REGISTRY", "RowModel", "RowModels", "RowViolation", "validate_all", "validate_row"]
