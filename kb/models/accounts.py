"""People, what they may do in a collection, and their API tokens."""

import hashlib
import secrets
from datetime import datetime
from typing import ClassVar, Self

from django.contrib.auth.models import AbstractUser, Group, UserManager
from django.contrib.auth.tokens import default_token_generator
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower
from django.urls import reverse
from django.utils import timezone
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode


class PersonManager(UserManager["User"]):
    def invite(self, *, username: str, email: str = "") -> "User":
        """Create a person who has no password yet; hand them `set_password_path()`."""
        user = self.model(username=username, email=self.normalize_email(email))
        user.set_unusable_password()
        user.full_clean(exclude=["password"])
        user.save()
        return user


class User(AbstractUser):
    """A person. A superuser runs the install: reads every collection, manages people."""

    objects: ClassVar[PersonManager] = PersonManager()

    class Meta(AbstractUser.Meta):
        constraints = [
            models.UniqueConstraint(
                Lower("email"), condition=~Q(email=""), name="user_email_unique"
            ),
        ]

    def set_password_path(self) -> str:
        """Give the path of the page where this person, once, sets a password."""
        uid = urlsafe_base64_encode(force_bytes(self.pk))
        token = default_token_generator.make_token(self)
        return reverse("password_reset_confirm", args=[uid, token])

    @property
    def display_name(self) -> str:
        return self.get_full_name() or self.username


class Membership(models.Model):
    """What one person, or every person of a group, may do in a collection."""

    class Role(models.TextChoices):
        READER = "reader", "Reader"
        CURATOR = "curator", "Curator"
        OWNER = "owner", "Owner"

    collection = models.ForeignKey("kb.Collection", models.CASCADE, related_name="memberships")
    user = models.ForeignKey(
        User, models.CASCADE, null=True, blank=True, related_name="memberships"
    )
    group = models.ForeignKey(
        Group, models.CASCADE, null=True, blank=True, related_name="memberships"
    )
    role = models.CharField(max_length=16, choices=Role, default=Role.READER)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(user__isnull=True) ^ Q(group__isnull=True),
                name="membership_of_user_or_group",
            ),
            models.CheckConstraint(
                condition=Q(role__in=["reader", "curator", "owner"]), name="membership_role_known"
            ),
            models.UniqueConstraint(fields=["collection", "user"], name="membership_user_once"),
            models.UniqueConstraint(fields=["collection", "group"], name="membership_group_once"),
        ]

    def __str__(self) -> str:
        return f"{self.user or self.group} · {self.get_role_display()}"


class ApiTokenQuerySet(models.QuerySet["ApiToken"]):
    def usable(self) -> Self:
        """Tokens that are neither revoked nor expired, of people who may still sign in."""
        return self.filter(
            Q(expires_at__isnull=True) | Q(expires_at__gt=timezone.now()),
            revoked_at__isnull=True,
            user__is_active=True,
        )

    def issue(
        self, user: User, *, name: str, scopes: list[str], expires_at: datetime
    ) -> tuple["ApiToken", str]:
        """Make a token; the second value is the secret, which is shown once and not kept."""
        secret = f"tacit_{secrets.token_urlsafe(32)}"
        token = self.create(
            user=user,
            name=name,
            scopes=scopes,
            expires_at=expires_at,
            prefix=secret[:12],
            digest=ApiToken.digest_of(secret),
        )
        return token, secret


class ApiToken(models.Model):
    """A key for programs. Only its SHA-256 is kept: the secret has 256 random bits."""

    class Scope(models.TextChoices):
        READ = "read", "Read and search"
        ASK = "ask", "Ask and rate"
        WRITE = "write", "Add and delete documents"
        MANAGE = "manage", "Manage collections and members"

    user = models.ForeignKey(User, models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=100)
    prefix = models.CharField(max_length=16)
    digest = models.CharField(max_length=64, unique=True)
    scopes = ArrayField(models.CharField(max_length=16, choices=Scope), default=list)
    created_at = models.DateTimeField(default=timezone.now)
    # Empty in tokens of earlier days, which never expire; every new one does.
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    objects = ApiTokenQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"

    @staticmethod
    def digest_of(secret: str) -> str:
        return hashlib.sha256(secret.encode()).hexdigest()
