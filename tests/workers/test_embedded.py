"""The embedded PostgreSQL and Redis."""

import os

import psycopg
import redis


def test_the_test_run_has_a_database_with_vectors():
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        assert connection.execute("SELECT '[1,2]'::vector <-> '[1,3]'").fetchone() == (1.0,)


def test_the_test_run_has_a_redis():
    with redis.from_url(os.environ["REDIS_URL"]) as client:
        assert client.ping()
