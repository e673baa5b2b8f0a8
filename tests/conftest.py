"""Fixtures that every test may use."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from asgiref.sync import SyncToAsync
from django.conf import settings
from django.core.files.base import ContentFile
from django.core.mail.utils import DNS_NAME
from django.db import connection, connections, transaction

from kb.models import Collection, Document, Job, User
from tests.model_server import model_server, model_server_process

__all__ = ["model_server", "model_server_process"]

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
PASSWORD = "a password for tests 1"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of open data sets beside the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the open data sets are not beside this checkout (../shared/data)")
    return SHARED_DATA


@pytest.fixture(scope="session", autouse=True)
def hash_passwords_quickly() -> None:
    """Argon2 takes a tenth of a second and 64 MB on purpose; tests make people by the hundred."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(scope="session", autouse=True)
def know_our_own_name() -> None:
    """A message names the machine; without a network, asking for the name takes many seconds."""
    DNS_NAME._fqdn = "localhost"


@pytest.fixture(scope="session", autouse=True)
def close_asynchronous_connections(django_db_setup: None) -> Iterator[None]:
    """Close what asynchronous tests opened in the one thread that asgiref keeps for them."""
    yield
    SyncToAsync.single_thread_executor.submit(connections.close_all).result()


@pytest.fixture
def alice(db: None) -> User:
    """Owns `collection`."""
    return User.objects.create_user("alice", "alice@example.org", PASSWORD)


@pytest.fixture
def bob(db: None) -> User:
    """Reads `collection`."""
    return User.objects.create_user("bob", "bob@example.org", PASSWORD)


@pytest.fixture
def charlie(db: None) -> User:
    """Is a member of nothing."""
    return User.objects.create_user("charlie", "charlie@example.org", PASSWORD)


@pytest.fixture
def collection(alice: User, bob: User) -> Collection:
    made = Collection.objects.create(name="Field notes", created_by=alice)
    made.grant(alice, "owner")
    made.grant(bob, "reader")
    return made


@contextmanager
def tried(subtests: pytest.Subtests, name: str) -> Iterator[None]:
    """Try one thing of many in the same world: it fails alone, and what it wrote is taken back.

    Only where the test runs in a transaction; with committed rows it has to be the only one.
    """
    with subtests.test(name):
        if not connection.in_atomic_block:
            yield
            return
        with transaction.atomic():
            yield
            transaction.set_rollback(True)


def work_off() -> None:
    """Do the waiting ingestion jobs here, as a worker would."""
    from kb import ingestion

    while job := Job.objects.claim(Job.Kind.INGEST):
        ingestion.ingest(job)


AddDocument = Callable[..., Document]


@pytest.fixture
def add_document(collection: Collection, alice: User) -> AddDocument:
    """Return a function that adds a file to a collection and reads it: name, content → Document."""

    def add(
        name: str, content: str | bytes, *, to: Collection | None = None, wait: bool = True
    ) -> Document:
        data = content.encode() if isinstance(content, str) else content
        target = to or collection
        document, _ = target.add_document(ContentFile(data), name=name, added_by=alice)
        if wait:
            work_off()
            document.refresh_from_db()
        return document

    return add
