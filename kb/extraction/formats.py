"""Which files are read, by whom, and whether a file is what its name says."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePath

from kb.extraction.limits import MEBIBYTE, Limits
from kb.extraction.unreadable import DocumentUnreadable, in_words

HEAD = 4096  # bytes looked at from the start
LONGEST_CHARACTER = 4  # bytes, in every encoding that is read
TAIL = 1024 * 1024  # and from the end, where a ZIP lists its files

PACKAGE = "application/vnd.openxmlformats-officedocument"
OPEN_DOCUMENT = "application/vnd.oasis.opendocument"


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of file. `content` is what `sniff` must say of it; `reader` runs in the sandbox."""

    name: str
    media_type: str
    content: str
    reader: str


PDF = Format("PDF", "application/pdf", "pdf", "kb.extraction.pdf:read")
WORD = Format(
    "Word document",
    f"{PACKAGE}.wordprocessingml.document",
    "docx",
    "kb.extraction.word:read",
)
SLIDES = Format(
    "PowerPoint presentation",
    f"{PACKAGE}.presentationml.presentation",
    "pptx",
    "kb.extraction.slides:read",
)
SHEETS = Format(
    "Excel workbook", f"{PACKAGE}.spreadsheetml.sheet", "xlsx", "kb.extraction.sheets:read"
)
OLD_SHEETS = Format(
    "Excel workbook", "application/vnd.ms-excel", "ole", "kb.extraction.sheets:read"
)
OPEN_SHEETS = Format(
    "spreadsheet", f"{OPEN_DOCUMENT}.spreadsheet", "ods", "kb.extraction.sheets:read"
)
OPEN_TEXT = Format("OpenDocument text", f"{OPEN_DOCUMENT}.text", "odt", "kb.extraction.odf:read")
OPEN_SLIDES = Format(
    "OpenDocument presentation",
    f"{OPEN_DOCUMENT}.presentation",
    "odp",
    "kb.extraction.odf:read",
)
EPUB = Format("EPUB book", "application/epub+zip", "epub", "kb.extraction.epub:read")
HTML = Format("web page", "text/html", "text", "kb.extraction.web:read")
MARKDOWN = Format("Markdown file", "text/markdown", "text", "kb.extraction.markdown:read")
TEXT = Format("text file", "text/plain", "text", "kb.extraction.text:read")
ASCIIDOC = Format("AsciiDoc file", "text/asciidoc", "text", "kb.extraction.text:read_asciidoc")
CODE = Format("text file", "text/plain", "text", "kb.extraction.text:read_code")
CSV = Format("CSV file", "text/csv", "text", "kb.extraction.text:read_csv")
JSON = Format("JSON file", "application/json", "text", "kb.extraction.text:read_json")
SUBTITLES = Format("subtitle file", "text/vtt", "text", "kb.extraction.text:read_subtitles")
MAIL = Format("e-mail", "message/rfc822", "text", "kb.extraction.mail:read")

SUPPORTED: dict[str, Format] = {
    ".pdf": PDF,
    **dict.fromkeys((".docx", ".docm", ".dotx", ".dotm"), WORD),
    **dict.fromkeys((".pptx", ".pptm", ".ppsx", ".potx"), SLIDES),
    **dict.fromkeys((".xlsx", ".xlsm", ".xltx", ".xlsb"), SHEETS),
    ".xls": OLD_SHEETS,
    ".ods": OPEN_SHEETS,
    ".odt": OPEN_TEXT,
    ".odp": OPEN_SLIDES,
    ".epub": EPUB,
    **dict.fromkeys((".html", ".htm", ".xhtml"), HTML),
    **dict.fromkeys((".md", ".markdown", ".mdown", ".mkd", ".mdx"), MARKDOWN),
    **dict.fromkeys((".txt", ".text", ".log", ".rst", ".tex", ".org"), TEXT),
    **dict.fromkeys((".adoc", ".asciidoc", ".asc"), ASCIIDOC),
    **dict.fromkeys((".csv", ".tsv", ".tab"), CSV),
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), JSON),
    **dict.fromkeys((".vtt", ".srt"), SUBTITLES),
    ".eml": MAIL,
    **dict.fromkeys(
        (
            *(".py", ".js", ".ts", ".java", ".c", ".h", ".cpp", ".cs", ".go", ".rs", ".rb"),
            *(".php", ".sh", ".sql", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".xml"),
        ),
        CODE,
    ),
}

# Names we know and do not read: what they are, and what to do.
UNSUPPORTED = {
    ".doc": ("Old Word files (.doc)", "Open it in Word, save it as .docx"),
    ".ppt": ("Old PowerPoint files (.ppt)", "Open it in PowerPoint, save it as .pptx"),
    ".rtf": ("RTF files", "Open it in a word processor, save it as .docx"),
    ".msg": ("Outlook messages (.msg)", "Open it in Outlook, save it as .eml"),
    ".pst": ("Outlook archives (.pst)", "Save the messages you need as .eml"),
    ".pages": ("Pages documents", "Export it as .docx"),
    ".numbers": ("Numbers spreadsheets", "Export it as .xlsx"),
    ".key": ("Keynote presentations", "Export it as .pptx"),
    ".mobi": ("Kindle books", "Convert it to .epub"),
    ".zip": ("ZIP archives", "Unpack it, choose the documents in it"),
}
CONTENTS = {
    "pdf": ("a PDF", ".pdf"),
    "docx": ("a Word document", ".docx"),
    "pptx": ("a PowerPoint presentation", ".pptx"),
    "xlsx": ("an Excel workbook", ".xlsx"),
    "odt": ("an OpenDocument text", ".odt"),
    "ods": ("an OpenDocument spreadsheet", ".ods"),
    "odp": ("an OpenDocument presentation", ".odp"),
    "epub": ("an EPUB book", ".epub"),
    "ole": ("an old Office file or an Outlook message", ""),
    "html": ("a web page", ".html"),
    "rtf": ("an RTF document", ""),
    "image": ("a picture", ""),
    "zip": ("a ZIP archive", ""),
    "archive": ("a compressed archive", ""),
    "program": ("a program", ""),
    "media": ("sound or video", ""),
    "text": ("plain text", ".txt"),
}
SIGNATURES = (
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "ole"),
    (b"{\\rtf", "rtf"),
    (b"\x89PNG\r\n\x1a\n", "image"),
    (b"\xff\xd8\xff", "image"),
    (b"GIF8", "image"),
    (b"II*\0", "image"),
    (b"MM\0*", "image"),
    (b"RIFF", "media"),
    (b"ID3", "media"),
    (b"\x1f\x8b", "archive"),
    (b"7z\xbc\xaf\x27\x1c", "archive"),
    (b"Rar!", "archive"),
    (b"BZh", "archive"),
    (b"\xfd7zXZ\0", "archive"),
    (b"\x28\xb5\x2f\xfd", "archive"),
    (b"\x7fELF", "program"),
    (b"SQLite format 3\0", "program"),
)
PACKAGES = ((b"word/", "docx"), (b"ppt/", "pptx"), (b"xl/", "xlsx"))
MIMETYPES = (
    (b"application/epub+zip", "epub"),
    (b"application/vnd.oasis.opendocument.text", "odt"),
    (b"application/vnd.oasis.opendocument.spreadsheet", "ods"),
    (b"application/vnd.oasis.opendocument.presentation", "odp"),
)
WEB_PAGE = re.compile(rb"\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.I | re.S)


def format_of(path: Path, name: str, limits: Limits) -> Format:
    """Say how to read a file. Raises DocumentUnreadable when it cannot be, or is not what it says.

    Only the first and last bytes are looked at: a ZIP directory is opened in the child process.
    """
    suffix = PurePath(name).suffix.lower()
    size_bytes = path.stat().st_size
    if suffix in UNSUPPORTED:
        found, advice = UNSUPPORTED[suffix]
        raise in_words("unsupported", "file", {"found": found, "advice": advice})
    if suffix not in SUPPORTED:
        found = f"Files named {suffix}" if suffix else "Files whose name has no ending such as .pdf"
        advice = "Save it as PDF, DOCX or plain text"
        raise in_words("unsupported", "file", {"found": found, "advice": advice})
    format_ = SUPPORTED[suffix]
    if size_bytes == 0:
        raise in_words("empty", format_.name, {})
    most_bytes = limits.file_bytes
    if format_.content == "text":
        most_bytes = min(most_bytes, LONGEST_CHARACTER * limits.characters)
    if size_bytes > most_bytes:
        raise _too_large(format_, size_bytes, most_bytes)
    _check_content(path, suffix, format_)
    return format_


def sniff(head: bytes, tail: bytes) -> str:
    """Name the content by its first and last bytes: a key of CONTENTS, "text" when in doubt."""
    if b"%PDF-" in head[:1024]:
        return "pdf"
    if head.startswith(b"PK\x03\x04"):
        return _sniff_zip(head, tail)
    for signature, content in SIGNATURES:
        if head.startswith(signature):
            return content
    if head.startswith(b"MZ") and b"\0" in head[:64]:
        return "program"
    if head[4:8] == b"ftyp":
        return "media"
    return "html" if WEB_PAGE.match(head.removeprefix(b"\xef\xbb\xbf")) else "text"


def _sniff_zip(head: bytes, tail: bytes) -> str:
    if head[30:38] == b"mimetype":
        stated = head[38:100]
        for type_, content in MIMETYPES:
            if stated.startswith(type_):
                return content
    listed = head + tail
    for folder, content in PACKAGES:
        if b"PK\x01\x02" in listed and folder in listed and b"[Content_Types].xml" in listed:
            return content
    if b"META-INF/container.xml" in listed:
        return "epub"
    return "zip"


def _check_content(path: Path, suffix: str, format_: Format) -> None:
    with path.open("rb") as file:
        head = file.read(HEAD)
        file.seek(max(0, path.stat().st_size - TAIL))
        tail = file.read(TAIL)
    content = sniff(head, tail)
    if content == format_.content or (content == "html" and format_.content == "text"):
        return
    if content == "ole" and "EncryptedPackage".encode("utf-16-le") in head + tail:
        raise in_words("encrypted", format_.name, {})
    if content == "zip" and format_.content not in ("text", "pdf", "ole"):
        return  # cut short, so that its directory is missing: the reader says so
    if content == "text" and format_.content != "text":
        raise in_words("damaged", format_.name, {})
    found, right_suffix = CONTENTS[content]
    advice = f"Rename it to {right_suffix}" if right_suffix else "Save it as PDF or DOCX"
    raise in_words("mismatch", format_.name, {"suffix": suffix, "found": found, "advice": advice})


def _too_large(format_: Format, size_bytes: int, most_bytes: int) -> DocumentUnreadable:
    details = {
        "size": f"{size_bytes / MEBIBYTE:,.0f} MB",
        "limit": f"{most_bytes // MEBIBYTE:,} MB",
        "advice": "Split it into smaller files and upload those",
    }
    return in_words("too_large", format_.name, details)
