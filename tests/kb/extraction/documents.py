"""Make small office files, books and slides for tests, part by part."""

import io
import zipfile
from collections.abc import Iterable, Mapping

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
DRAWING = "http://schemas.openxmlformats.org/drawingml/2006/main"
PRESENTATION = "http://schemas.openxmlformats.org/presentationml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
TYPES = '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>'


def packed(parts: Mapping[str, str | bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            stored = zipfile.ZIP_STORED if name == "mimetype" else None
            archive.writestr(name, content, stored)
    return target.getvalue()


def docx(body: str, **parts: str) -> bytes:
    """Make a DOCX; a body without markup becomes one paragraph."""
    if not body.startswith("<"):
        body = paragraph(body)
    document = f'<w:document xmlns:w="{WORD}" xmlns:m="{MATH}"><w:body>{body}</w:body></w:document>'
    return packed(
        {
            "[Content_Types].xml": TYPES,
            "_rels/.rels": relations({"r1": ("officeDocument", "word/document.xml")}),
            "word/document.xml": document,
            **parts,
        }
    )


MATH = "http://schemas.openxmlformats.org/officeDocument/2006/math"


def paragraph(words: str, style: str = "", more: str = "") -> str:
    mark = f'<w:pStyle w:val="{style}"/>' if style else ""
    return f"<w:p><w:pPr>{mark}{more}</w:pPr><w:r><w:t>{words}</w:t></w:r></w:p>"


def styles(levels: Mapping[str, int]) -> str:
    """Make styles.xml with a heading style per id and its outline level, from 0."""
    made = "".join(
        f'<w:style w:type="paragraph" w:styleId="{style}"><w:name w:val="{style}"/>'
        f'<w:pPr><w:outlineLvl w:val="{level}"/></w:pPr></w:style>'
        for style, level in levels.items()
    )
    return f'<w:styles xmlns:w="{WORD}">{made}</w:styles>'


def relations(targets: Mapping[str, tuple[str, str]]) -> str:
    made = "".join(
        f'<Relationship Id="{key}" Type="{OFFICE}/{kind}" Target="{target}"/>'
        for key, (kind, target) in targets.items()
    )
    return f'<Relationships xmlns="{RELATIONS}">{made}</Relationships>'


def pptx(slides: Iterable[tuple[str, list[str]]], notes: str = "", extra: str = "") -> bytes:
    """Make a PPTX: each slide has a title and a content box of paragraphs."""
    slides = list(slides)
    parts: dict[str, str] = {
        "[Content_Types].xml": TYPES,
        "_rels/.rels": relations({"r1": ("officeDocument", "ppt/presentation.xml")}),
        "ppt/presentation.xml": (
            f'<p:presentation xmlns:p="{PRESENTATION}" xmlns:r="{OFFICE}"><p:sldIdLst>'
            + "".join(f'<p:sldId id="{256 + i}" r:id="s{i}"/>' for i in range(len(slides)))
            + "</p:sldIdLst></p:presentation>"
        ),
        "ppt/_rels/presentation.xml.rels": relations(
            {f"s{i}": ("slide", f"slides/slide{i}.xml") for i in range(len(slides))}
        ),
    }
    for i, (title, lines) in enumerate(slides):
        parts[f"ppt/slides/slide{i}.xml"] = slide(
            shape([title], "title") + shape(lines, "body") + extra
        )
        if notes:
            parts[f"ppt/slides/_rels/slide{i}.xml.rels"] = relations(
                {"n": ("notesSlide", f"../notesSlides/notes{i}.xml")}
            )
            parts[f"ppt/notesSlides/notes{i}.xml"] = slide(shape([notes], "body"))
    return packed(parts)


def slide(shapes: str) -> str:
    return (
        f'<p:sld xmlns:p="{PRESENTATION}" xmlns:a="{DRAWING}" xmlns:r="{OFFICE}">'
        f"<p:cSld><p:spTree>{shapes}</p:spTree></p:cSld></p:sld>"
    )


def shape(lines: Iterable[str], kind: str) -> str:
    made = "".join(f"<a:p><a:r><a:t>{line}</a:t></a:r></a:p>" for line in lines)
    return (
        f'<p:sp><p:nvSpPr><p:nvPr><p:ph type="{kind}"/></p:nvPr></p:nvSpPr>'
        f"<p:txBody>{made}</p:txBody></p:sp>"
    )


def epub(chapters: Mapping[str, str], title: str = "A book", **parts: str) -> bytes:
    items = "".join(f'<item id="{c}" href="{c}.xhtml"/>' for c in chapters)
    spine = "".join(f'<itemref idref="{c}"/>' for c in chapters)
    files: dict[str, str] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": (
            '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container">'
            '<rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
        ),
        "OEBPS/book.opf": (
            '<package xmlns="http://www.idpf.org/2007/opf" '
            'xmlns:dc="http://purl.org/dc/elements/1.1/">'
            f"<metadata><dc:title>{title}</dc:title></metadata>"
            f"<manifest>{items}</manifest><spine>{spine}</spine></package>"
        ),
    }
    for name, body in chapters.items():
        files[f"OEBPS/{name}.xhtml"] = f"<html><body>{body}</body></html>"
    return packed(files | parts)


def odt(body: str, **parts: str) -> bytes:
    namespaces = " ".join(
        f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
        for name in ("office", "text", "table")
    )
    content = (
        f"<office:document-content {namespaces}><office:body><office:text>{body}"
        "</office:text></office:body></office:document-content>"
    )
    return packed(
        {"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": content, **parts}
    )
