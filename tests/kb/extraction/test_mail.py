"""E-mail: headers, the text, attachments by name."""

from email.message import EmailMessage

from tests.kb.extraction.conftest import Extract, blocks_of


def message() -> EmailMessage:
    mail = EmailMessage()
    mail["From"] = "Ada <ada@example.org>"
    mail["To"] = "Bo <bo@example.org>"
    mail["Subject"] = "Das Eis schmilzt – früher"
    mail["Date"] = "Mon, 01 Jan 2024 10:00:00 +0000"
    mail["X-Spam"] = "no"
    mail.set_content("Hello Bo,\n\nthe ice melts.\n\n> Does it?\n> Really?\n")
    return mail


def test_headers_text_and_attachments(extract: Extract) -> None:
    mail = message()
    mail.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="bericht.pdf")
    read = extract(mail.as_bytes(), "a.eml")
    assert read.title == "Das Eis schmilzt – früher"
    blocks = blocks_of(read.pages[0])
    assert blocks[0] == ("heading1", "Das Eis schmilzt – früher")
    assert blocks[1][1].startswith("From: Ada <ada@example.org>\nTo: Bo <bo@example.org>\nDate: ")
    assert ("text", "the ice melts.") in blocks
    assert ("quote", "> Does it?\n> Really?") in blocks
    assert blocks[-1] == ("list", "Attachments:\n- bericht.pdf")
    assert "Spam" not in read.pages[0].text


def test_html_is_read_when_there_is_no_text(extract: Extract) -> None:
    mail = message()
    mail.set_content(
        "<p>Only <b>HTML</b></p><table><tr><td><h1>Big</h1></td></tr></table>", subtype="html"
    )
    blocks = blocks_of(extract(mail.as_bytes(), "a.eml").pages[0])
    assert ("text", "Only HTML") in blocks
    assert ("heading2", "Big") in blocks


def test_a_stub_of_text_gives_way_to_the_html(extract: Extract) -> None:
    mail = message()
    mail.set_content("Please enable HTML.")
    mail.add_alternative("<p>" + "The ice melts in summer. " * 20 + "</p>", subtype="html")
    assert "enable HTML" not in extract(mail.as_bytes(), "a.eml").pages[0].text


def test_a_forwarded_message_is_read_too(extract: Extract) -> None:
    outer = message()
    outer.add_attachment(message())
    assert extract(outer.as_bytes(), "a.eml").pages[0].text.count("the ice melts.") == 2


def test_old_encodings_and_broken_headers(extract: Extract) -> None:
    raw = (
        b"From: a\r\nSubject: =?koi8-r?B?7MXEzsnL?=\r\nDate: not a date\r\n"
        b"Content-Type: text/plain; charset=koi8-r\r\n\r\n"
    ) + "Ледник движется.".encode("koi8-r")
    page = extract(raw, "a.eml").pages[0]
    assert "Ледник движется." in page.text
    assert blocks_of(page)[0] == ("heading1", "Ледник")
