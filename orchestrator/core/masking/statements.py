"""The SQL that masks: deterministic, keyed, and without the key in any statement. Pure.

Masks come from HMAC-SHA256 over the method and the clear value. The same value gets the same mask in every
table and every snapshot of an installation, so joins still join and a refresh changes nothing by itself. The
key's two HMAC pads are handed to the session as settings; the functions are temporary and go with it.
"""

from __future__ import annotations

import hashlib

from orchestrator.core.masking.plan import MaskingPlan, PlannedColumn, TypeFamily
from orchestrator.core.masking.rules import Method

INNER_PAD = "mask.inner"
OUTER_PAD = "mask.outer"
CANARY_LENGTH_MIN = 8
CANARY_LENGTH_MAX = 120
CANARIES_PER_COLUMN = 40
# Invented, so that a real name found in the files is a leak and never a coincidence.
NAME_STARTS = [
    "Ba",
    "Cel",
    "Dor",
    "Ela",
    "Fen",
    "Gal",
    "Hes",
    "Ilo",
    "Jun",
    "Kar",
    "Lem",
    "Mir",
    "Nol",
    "Ost",
    "Pel",
    "Quor",
    "Rin",
    "Sab",
    "Tov",
    "Ulm",
    "Ves",
    "Wyn",
    "Yar",
    "Zel",
]
NAME_MIDDLES = ["da", "ri", "mo", "ne", "lu", "vi", "sa", "to"]
FIRST_NAME_ENDS = ["n", "la", "s", "ra", "th", "lin"]
LAST_NAME_ENDS = ["wick", "dell", "mar", "grove", "sten", "ford"]


def pads(key: bytes) -> tuple[str, str]:
    """The inner and outer HMAC pads of `key`, in hexadecimal."""
    block = (hashlib.sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
    return bytes(byte ^ 0x36 for byte in block).hex(), bytes(byte ^ 0x5C for byte in block).hex()


def functions() -> list[str]:
    """Temporary functions of the masking session."""
    return [
        f"""CREATE FUNCTION pg_temp.mask_digest(method text, value text) RETURNS bytea LANGUAGE sql STABLE STRICT AS $$
            SELECT sha256(decode(current_setting('{OUTER_PAD}'), 'hex') || sha256(
                decode(current_setting('{INNER_PAD}'), 'hex')
                || convert_to(method || chr(31) || value, 'UTF8'))) $$""",
        """CREATE FUNCTION pg_temp.mask_number(method text, value text, salt integer) RETURNS bigint
            LANGUAGE sql STABLE STRICT AS $$
            SELECT ('x' || encode(substr(pg_temp.mask_digest(method, value), 1 + 6 * salt, 6), 'hex'))::bit(48)::bigint
            $$""",
        f"""CREATE FUNCTION pg_temp.mask_name(method text, value text, salt integer, ends text[]) RETURNS text
            LANGUAGE sql STABLE STRICT AS $$
            SELECT ({_array(NAME_STARTS)})[1 + n % {len(NAME_STARTS)}]
                || ({_array(NAME_MIDDLES)})[1 + n / {len(NAME_STARTS)} % {len(NAME_MIDDLES)}]
                || ends[1 + n / {len(NAME_STARTS) * len(NAME_MIDDLES)} % cardinality(ends)]
            FROM (SELECT pg_temp.mask_number(method, value, salt) AS n) AS s $$""",
        """CREATE FUNCTION pg_temp.mask_json(value jsonb, keys text[]) RETURNS jsonb LANGUAGE sql IMMUTABLE STRICT AS $$
            SELECT CASE jsonb_typeof(value)
                WHEN 'object' THEN coalesce((SELECT jsonb_object_agg(k, v) FROM jsonb_each(value) AS e (k, v)
                                             WHERE k = ANY (keys)), '{}')
                WHEN 'array' THEN '[]' ELSE 'null' END $$""",
    ]


def update(table: str, columns: tuple[PlannedColumn, ...], *, is_partitioned: bool) -> str:
    """One UPDATE that masks every column of a table."""
    assignments = ", ".join(f"{quoted(column.fact.name)} = {expression(column)}" for column in columns)
    only = "" if is_partitioned else "ONLY "
    return f"UPDATE {only}{quoted_table(table)} SET {assignments}"


def expression(column: PlannedColumn) -> str:
    """The masked value of a column, NULL where it was NULL (a constant too)."""
    rule, fact = column.rule, column.fact
    own = quoted(fact.name)
    # Another column may be empty where this one is not: its own value then is the seed.
    seed = f"coalesce({quoted(rule.by)}::text, {own}::text)" if rule.by else f"{own}::text"
    method = literal(rule.method)
    first, last = _array(FIRST_NAME_ENDS), _array(LAST_NAME_ENDS)
    digest = f"pg_temp.mask_digest({method}, {seed})"
    number = f"pg_temp.mask_number({method}, {seed}, 0)"
    shift = f"({number} % {2 * rule.days + 1} - {rule.days})::integer"
    masked = {
        Method.NULL: "NULL",
        Method.CONSTANT: f"{literal(rule.value or '')}::{fact.type}",
        Method.EMPTY: ("'{}'" if fact.family in (TypeFamily.ARRAY, TypeFamily.JSON) else "''") + f"::{fact.type}",
        Method.HASH: _hash(fact.family, digest),
        Method.FIRST_NAME: f"pg_temp.mask_name({method}, {seed}, 0, {first})",
        Method.LAST_NAME: f"pg_temp.mask_name({method}, {seed}, 0, {last})",
        Method.FULL_NAME: (
            f"pg_temp.mask_name({method}, {seed}, 0, {first}) || ' ' || pg_temp.mask_name({method}, {seed}, 1, {last})"
        ),
        Method.EMAIL: f"'p' || encode(substr({digest}, 1, 10), 'hex') || '@masked.example'",
        Method.PHONE: f"'+000' || lpad(({number} % 10000000000)::text, 10, '0')",
        Method.REDACT: f"regexp_replace(regexp_replace({own}, '[[:alpha:]]', 'x', 'g'), '[[:digit:]]', '0', 'g')",
        Method.SHIFT_DATE: f"{own} + {shift}"
        if fact.family is TypeFamily.DATE
        else f"{own} + make_interval(days => {shift})",
        Method.NOISE: (
            f"({own} * (1 + ({number} % {20 * rule.percent + 1} - {10 * rule.percent}) / 1000.0))::{fact.base_type}"
        ),
        Method.JSON: f"pg_temp.mask_json({own}::jsonb, {_array(list(rule.keys))})::{fact.base_type}",
    }[rule.method]
    if rule.method is Method.NULL:
        return masked
    if fact.length_max is not None and fact.family is TypeFamily.TEXT:
        masked = f"left({masked}, {fact.length_max})"
    return f"CASE WHEN {own} IS NOT NULL THEN {masked} END"


def canary_query(column: PlannedColumn, *, is_partitioned: bool) -> str | None:
    """Samples of the clear text spread over the table, as bytes in the server's own encoding; None for no text.

    Run before masking. A value that would be masked to itself tells nothing and is left out.
    """
    if not column.rule.is_canary or column.fact.family not in (TypeFamily.TEXT, TypeFamily.JSON):
        return None
    own = quoted(column.fact.name)
    only = "" if is_partitioned else "ONLY "
    if column.fact.family is TypeFamily.JSON:
        kept = _array(list(column.rule.keys))
        return (
            "SELECT DISTINCT convert_to(v, getdatabaseencoding()) FROM ("
            f" SELECT e.v FROM {only}{quoted_table(column.fact.table)}, jsonb_each_text(CASE jsonb_typeof({own}::jsonb)"
            f" WHEN 'object' THEN {own}::jsonb ELSE '{{}}' END) AS e (k, v) WHERE NOT (k = ANY ({kept}))"
            f" AND length(v) BETWEEN {CANARY_LENGTH_MIN} AND {CANARY_LENGTH_MAX} AND v !~ '[\n\r]'"
            f" ORDER BY hashtextextended(v, 0) LIMIT {CANARIES_PER_COLUMN}) AS samples"
        )
    return (
        f"SELECT DISTINCT convert_to({own}::text, getdatabaseencoding()) FROM ("
        f" SELECT {own} FROM {only}{quoted_table(column.fact.table)}"
        f" WHERE length({own}) BETWEEN {CANARY_LENGTH_MIN} AND {CANARY_LENGTH_MAX}"
        f" AND {own} !~ '[\\n\\r]' AND ({expression(column)})::text IS DISTINCT FROM {own}::text"
        f" ORDER BY hashtextextended({own}::text, 0) LIMIT {CANARIES_PER_COLUMN}) AS samples"
    )


def deletion(plan: MaskingPlan, table: str, *, is_partitioned: bool) -> str:
    """Delete the rows of `table` the profile leaves out; a condition that is NULL for a row leaves it out too."""
    only = "" if is_partitioned else "ONLY "
    return f"DELETE FROM {only}{quoted_table(table)} WHERE ({plan.profile.filters[table]}\n) IS NOT TRUE"


def _hash(found: TypeFamily, digest: str) -> str:
    if found is TypeFamily.BYTES:
        return digest
    if found is TypeFamily.UUID:
        return f"encode(substr({digest}, 1, 16), 'hex')::uuid"
    return f"encode({digest}, 'hex')"


def quoted(name: str) -> str:
    """An identifier, quoted."""
    return '"' + name.replace('"', '""') + '"'


def quoted_table(name: str) -> str:
    """`schema.table` as the catalog facts write it, quoted."""
    schema, _, table = name.partition(".")
    return f"{quoted(schema)}.{quoted(table)}"


def literal(text: str) -> str:
    """A string literal, whatever standard_conforming_strings says."""
    escaped = text.replace("'", "''")
    return "E'" + escaped.replace("\\", "\\\\") + "'" if "\\" in escaped else f"'{escaped}'"


def _array(values: list[str]) -> str:
    return f"ARRAY[{', '.join(literal(value) for value in values)}]::text[]"
