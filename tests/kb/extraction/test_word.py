"""DOCX: headings with levels and numbers, lists, tables, equations; what must not be read."""

from tests.kb.extraction import documents
from tests.kb.extraction.conftest import Extract, blocks_of
from tests.kb.extraction.documents import WORD, docx, paragraph


def numbering(text: str = "%1.%2", kind: str = "decimal") -> str:
    return (
        f'<w:numbering xmlns:w="{WORD}"><w:abstractNum w:abstractNumId="1">'
        f'<w:lvl w:ilvl="0"><w:start w:val="1"/><w:numFmt w:val="{kind}"/><w:lvlText w:val="%1."/></w:lvl>'
        f'<w:lvl w:ilvl="1"><w:start w:val="1"/><w:numFmt w:val="{kind}"/><w:lvlText w:val="{text}"/></w:lvl>'
        '</w:abstractNum><w:num w:numId="7"><w:abstractNumId w:val="1"/></w:num></w:numbering>'
    )


def numbered(level: int) -> str:
    return f'<w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="7"/></w:numPr>'


def test_styles_with_an_outline_level_are_headings_whatever_their_name(extract: Extract) -> None:
    body = paragraph("Ice", "Ueberschrift") + paragraph("It moves.") + paragraph("Rock", "Sub")
    styles = documents.styles({"Ueberschrift": 0, "Sub": 1})
    page = extract(docx(body, **{"word/styles.xml": styles}), "a.docx").pages[0]
    assert blocks_of(page) == [("heading1", "Ice"), ("text", "It moves."), ("heading2", "Rock")]


def test_headings_carry_the_numbers_that_word_shows(extract: Extract) -> None:
    body = (
        paragraph("Ice", "H1", numbered(0))
        + paragraph("Speed", "H2", numbered(1))
        + paragraph("Age", "H2", numbered(1))
        + paragraph("Rock", "H1", numbered(0))
        + paragraph("Grain", "H2", numbered(1))
    )
    parts = {
        "word/styles.xml": documents.styles({"H1": 0, "H2": 1}),
        "word/numbering.xml": numbering(),
    }
    page = extract(docx(body, **parts), "a.docx").pages[0]
    assert [text for _, text in blocks_of(page)] == [
        "1. Ice", "1.1 Speed", "1.2 Age", "2. Rock", "2.1 Grain",
    ]  # fmt: skip


def test_roman_and_lettered_numbers(extract: Extract) -> None:
    body = "".join(paragraph(f"Part {i}", "H1", numbered(0)) for i in range(4))
    for kind, expected in (("upperRoman", "IV. Part 3"), ("lowerLetter", "d. Part 3")):
        parts = {
            "word/styles.xml": documents.styles({"H1": 0}),
            "word/numbering.xml": numbering(kind=kind),
        }
        page = extract(docx(body, **parts), "a.docx").pages[0]
        assert blocks_of(page)[-1] == ("heading1", expected)


def test_tables_keep_rows_and_repeat_merged_cells(extract: Extract) -> None:
    def cell(words: str, more: str = "") -> str:
        return f"<w:tc><w:tcPr>{more}</w:tcPr>{paragraph(words)}</w:tc>"

    body = (
        "<w:tbl>"
        f"<w:tr>{cell('Glacier')}{cell('Length')}{cell('Year')}</w:tr>"
        f"<w:tr>{cell('Aletsch', chr(60) + 'w:vMerge w:val=' + chr(34) + 'restart' + chr(34) + '/>')}"
        f"{cell('23 km')}{cell('1990')}</w:tr>"
        f"<w:tr>{cell('', '<w:vMerge/>')}{cell('20 km')}{cell('2020')}</w:tr>"
        "</w:tbl>"
    )
    page = extract(docx(body), "a.docx").pages[0]
    assert blocks_of(page) == [
        (
            "table",
            "| Glacier | Length | Year |\n| --- | --- | --- |\n"
            "| Aletsch | 23 km | 1990 |\n| Aletsch | 20 km | 2020 |",
        )
    ]


def test_equations_are_written_on_a_line(extract: Extract) -> None:
    def run(words: str) -> str:
        return f"<m:r><m:t>{words}</m:t></m:r>"

    fraction = f"<m:f><m:num>{run('a+b')}</m:num><m:den>{run('2')}</m:den></m:f>"
    power = f"<m:sSup><m:e>{run('x')}</m:e><m:sup>{run('2')}</m:sup></m:sSup>"
    body = (
        f"<w:p><w:r><w:t>The mean is</w:t></w:r><m:oMath>{fraction}</m:oMath></w:p>"
        f"<w:p><m:oMathPara><m:oMath>{power}{run('=4')}</m:oMath></m:oMathPara></w:p>"
    )
    page = extract(docx(body), "a.docx").pages[0]
    assert [text for _, text in blocks_of(page)] == ["The mean is (a+b)/2", "x^2=4"]


def test_deleted_text_of_tracked_changes_is_left_out(extract: Extract) -> None:
    body = (
        "<w:p><w:r><w:t>Ice </w:t></w:r><w:del><w:r><w:delText>never </w:delText></w:r></w:del>"
        "<w:ins><w:r><w:t>always </w:t></w:r></w:ins><w:r><w:t>melts.</w:t></w:r></w:p>"
    )
    assert extract(docx(body), "a.docx").pages[0].text == "Ice always melts."


def test_the_title_is_the_one_in_the_properties(extract: Extract) -> None:
    core = (
        '<cp:coreProperties xmlns:cp="http://schemas.openxmlformats.org/package/2006/metadata/'
        'core-properties" xmlns:dc="http://purl.org/dc/elements/1.1/">'
        "<dc:title> On  ice </dc:title></cp:coreProperties>"
    )
    assert extract(docx("Text", **{"docProps/core.xml": core}), "a.docx").title == "On ice"
