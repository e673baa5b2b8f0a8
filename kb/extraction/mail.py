"""E-mail (.eml): the headers people read, the text, the names of what is attached."""

import email
import email.contentmanager
import email.generator
import email.headerregistry
import email.iterators
import email.policy
from email.message import EmailMessage
from email.parser import BytesParser
from typing import BinaryIO

from kb.extraction import web, wire
from kb.extraction.decoding import decode
from kb.extraction.limits import Limits
from kb.extraction.unreadable import Unreadable
from kb.extraction.writing import Cleaner, PageWriter, one_page
from kb.pages import BlockKind

HEADERS = ("From", "To", "Cc", "Date", "Subject")
DEEPEST_MESSAGE = 5  # messages inside messages
LEAST_PLAIN = 0.3  # share of the HTML's length: a shorter text part is "please enable HTML"


def read(file: BinaryIO, *, limits: Limits, name: str) -> bytes:
    """Give the packed extraction of an open message."""
    message = BytesParser(policy=email.policy.default).parse(file)
    if not message.keys():
        raise Unreadable("damaged")
    writer = PageWriter(Cleaner())
    subject = _header(message, "Subject")
    _write_message(writer, message, 0)
    return wire.pack(one_page(writer, title=subject), limits)


def _write_message(writer: PageWriter, message: EmailMessage, depth: int) -> None:
    subject = _header(message, "Subject")
    writer.heading(subject, min(depth + 1, 6))
    lines = [f"{name}: {_header(message, name)}" for name in HEADERS if _header(message, name)]
    writer.text("\n".join(lines))
    _write_body(writer, message)
    names, inner = [], []
    for part in _attachments(message):
        if part.get_content_type() == "message/rfc822":
            inner += [m for m in part.iter_parts() if isinstance(m, EmailMessage)]
        elif filename := part.get_filename():
            names.append(str(filename))
    if names:
        writer.text("Attachments:\n" + "\n".join(f"- {name}" for name in names), BlockKind.LIST)
    for message_inside in inner:
        if depth < DEEPEST_MESSAGE:
            _write_message(writer, message_inside, depth + 1)


def _attachments(message: EmailMessage) -> list[EmailMessage]:
    try:
        return [part for part in message.iter_attachments() if isinstance(part, EmailMessage)]
    except (AttributeError, KeyError, ValueError):  # a multipart message that is none
        return []


def _write_body(writer: PageWriter, message: EmailMessage) -> None:
    """Write the plain part, or the HTML part when the plain one is missing or only a stub."""
    plain, html = _part_text(message, "plain"), _part_text(message, "html")
    if html and len(plain) < LEAST_PLAIN * web.visible_length(html):
        web.write_html(writer, html, shift=1)
        return
    for paragraph in writer.clean(plain).split("\n\n"):
        quoted = all(line.startswith(">") for line in paragraph.strip().split("\n"))
        writer.text(paragraph, BlockKind.QUOTE if quoted else BlockKind.TEXT)


def _part_text(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    if part is None:
        return ""
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes):
        return ""
    charset = part.get_content_charset("")
    return decode(data, hint=lambda _: charset)


def _header(message: EmailMessage, name: str) -> str:
    """Give a header on one line; broken ones, which the parser refuses, as they stand."""
    try:
        value = message.get(name)
    except (ValueError, IndexError, AttributeError, TypeError):
        value = dict(message.raw_items()).get(name, "")
    return " ".join(str(value or "").split())
