"""The shared server really is the version we promise to support best."""

import psycopg


def test_a_test_gets_an_empty_database_on_postgres_18(database: str) -> None:
    with psycopg.connect(database) as connection:
        assert connection.info.server_version // 10000 == 18
        assert connection.execute(
            "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        ).fetchone() == (0,)
