"""Who and what a command means: a person, a collection, a data set, by name."""

from django.core.management.base import CommandError

from finetune.models import Dataset
from kb.models import Collection, User


def person(username: str | None) -> User:
    """Give the person; the first administrator unless named. Raises CommandError."""
    if username is None:
        found = User.objects.filter(is_superuser=True, is_active=True).order_by("pk").first()
        if found is None:
            raise CommandError("There is no administrator. Name somebody with --user.")
        return found
    found = User.objects.filter(username=username, is_active=True).first()
    if found is None:
        raise CommandError(f"Nobody is called {username}.")
    return found


def dataset(user: User, collection: str, name: str, *, make: bool = False) -> Dataset:
    """Give the data set that the person curates, made when missing and asked for."""
    curated = Collection.objects.writable_by(user).filter(name=collection).first()
    if curated is None:
        raise CommandError(f"{user.username} curates no collection called {collection}.")
    if make:
        return curated.datasets.get_or_create(name=name, defaults={"created_by": user})[0]
    found = curated.datasets.filter(name=name).first()
    if found is None:
        raise CommandError(f"The collection {collection} has no data set called {name}.")
    return found
