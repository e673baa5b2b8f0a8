"""Links that let a person set a password, and the mails that carry them."""

import logging
import threading
from smtplib import SMTPException

from django.conf import settings
from django.core.mail import EmailMessage
from django.template.loader import render_to_string

from kb.models import User

logger = logging.getLogger(__name__)
# Backends that show a mail to nobody but the log.
SILENT = {
    "django.core.mail.backends.console.EmailBackend",
    "django.core.mail.backends.dummy.EmailBackend",
}


def is_configured() -> bool:
    """Whether this install can send mail to people (EMAIL_URL)."""
    return settings.EMAIL_BACKEND not in SILENT


def password_link(user: User) -> str:
    """Give the address where this person, once and within three days, sets a password."""
    return settings.BASE_URL + user.set_password_path()


def send_invitation(user: User, *, invited_by: User) -> threading.Thread:
    return _send(user, "registration/invitation_email.txt", {"invited_by": invited_by})


def send_password_reset(user: User) -> threading.Thread:
    return _send(user, "registration/password_reset_email.txt", {})


def _send(user: User, template: str, context: dict[str, object]) -> threading.Thread:
    """Send from a thread: a slow mail server must not tell an asker which addresses exist."""
    context |= {"person": user, "link": password_link(user), "base_url": settings.BASE_URL}
    subject, _, body = render_to_string(template, context).partition("\n")
    message = EmailMessage(subject.strip(), body.strip() + "\n", to=[user.email])
    thread = threading.Thread(target=_deliver, args=[message], daemon=True)
    thread.start()
    return thread


def _deliver(message: EmailMessage) -> None:
    try:
        message.send()
    except (SMTPException, OSError):
        logger.exception("the mail “%s” was not sent", message.subject)
