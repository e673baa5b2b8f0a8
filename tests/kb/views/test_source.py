import io
from typing import Any

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from kb.models import Chunk, Citation, Collection, Conversation, Document, Message, User
from tests.conftest import AddDocument

ICE = (
    "# Ice\n\n"
    + "Ice is cold. " * 60
    + "\n\n## Glaciers\n\nThe glacier melts in late summer.\n\n"
    + ("## Rivers\n\n" + "Rivers flow to the sea. " * 300)
)


def passage(document: Document, words: str) -> Chunk:
    return document.chunks.get(text__contains=words)


def cite(user: User, document: Document, words: str = "late summer") -> Citation:
    conversation = Conversation.objects.create(user=user)
    question = conversation.messages.create(role="user", text="When?")
    text = "The glacier melts in late summer. [1]"
    answer = conversation.messages.create(
        role="assistant",
        parent=question,
        text=text,
        support=[{"start": 0, "end": len(text), "markers": [1], "score": 1.0, "supported": True}],
    )
    chunk = passage(document, words)
    return answer.citations.create(
        marker=1,
        chunk=chunk,
        version=document.current_version,
        document=document,
        collection=document.collection,
        title=document.title,
        heading_path=chunk.heading_path,
        start=chunk.start,
        end=chunk.end,
        quote=chunk.text,
        is_cited=True,
    )


def pdf(*lines: str) -> bytes:
    """Write a PDF of one page, with the standard library."""
    content = (
        "BT /F1 14 Tf 72 700 Td 20 TL " + " T* ".join(f"({line}) Tj" for line in lines) + " ET"
    )
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R"
        " /Resources << /Font << /F1 5 0 R >> >> >>",
        f"<< /Length {len(content)} >>\nstream\n{content}\nendstream",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    file = io.BytesIO()
    file.write(b"%PDF-1.4\n")
    offsets = []
    for number, body in enumerate(objects, start=1):
        offsets.append(file.tell())
        file.write(f"{number} 0 obj\n{body}\nendobj\n".encode())
    start = file.tell()
    file.write(f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode())
    for offset in offsets:
        file.write(f"{offset:010} 00000 n \n".encode())
    file.write(
        f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF".encode()
    )
    return file.getvalue()


# --- Citations --------------------------------------------------------------------------------


def test_a_citation_opens_its_passage_with_the_words_taken_marked(
    page: Client, alice: User, add_document: AddDocument
) -> None:
    citation = cite(alice, add_document("ice.md", ICE))

    html = page.get(f"/source/citation/{citation.pk}/").content.decode()
    assert '<mark class="said">The glacier melts in late summer.</mark>' in html
    assert "Glaciers</h" in html
    assert "Field notes" in html


def test_the_panel_shows_a_window_that_grows(
    page: Client, alice: User, add_document: AddDocument
) -> None:
    citation = cite(alice, add_document("ice.md", ICE))
    address = f"/source/citation/{citation.pk}/"

    near = page.get(address, headers={"HX-Request": "true"}).content.decode()
    far = page.get(address, {"around": "2"}, headers={"HX-Request": "true"}).content.decode()
    assert "<!doctype" not in near
    assert f"{address}?around=1" in near
    assert near.count("Rivers flow") < far.count("Rivers flow")


def test_an_old_citation_opens_what_it_cited_and_says_it_was_replaced(
    page: Client, alice: User, add_document: AddDocument
) -> None:
    citation = cite(alice, add_document("ice.md", ICE))
    add_document("ice.md", ICE.replace("late summer", "early winter"))

    html = page.get(f"/source/citation/{citation.pk}/").content.decode()
    assert "Version 1 of 2, replaced on" in html
    assert "The glacier melts in late summer." in html


def test_a_citation_of_a_deleted_document_shows_its_quote(
    page: Client, alice: User, add_document: AddDocument
) -> None:
    document = add_document("ice.md", ICE)
    citation = cite(alice, document)
    document.remove()

    html = page.get(f"/source/citation/{citation.pk}/").content.decode()
    assert "has been deleted" in html
    assert "late summer" in html


def test_deleting_a_document_shows_its_quote_to_nobody_who_had_lost_it(
    page: Client, alice: User, add_document: AddDocument
) -> None:
    document = add_document("ice.md", ICE)
    citation = cite(alice, document)
    alice.memberships.all().delete()
    address = f"/source/citation/{citation.pk}/"
    assert page.get(address).status_code == 404

    document.remove()

    assert page.get(address).status_code == 404


def test_a_passage_that_a_search_found_opens(page: Client, add_document: AddDocument) -> None:
    chunk = passage(add_document("ice.md", ICE), "late summer")

    html = page.get(f"/source/chunk/{chunk.pk}/").content.decode()
    assert "<mark>The glacier melts in late summer.</mark>" in html


def test_a_document_cannot_write_html_into_the_panel(
    page: Client, add_document: AddDocument
) -> None:
    document = add_document("x.txt", "<script>alert(1)</script> <img src=x onerror=alert(1)>")

    html = page.get(f"/source/chunk/{document.chunks.get().pk}/").content.decode()
    assert "<script>alert" not in html
    assert "<img" not in html


@pytest.mark.parametrize("kind", ["citation", "chunk", "read", "image"])
def test_a_foreign_source_answers_like_one_that_is_not_there(
    client: Client, alice: User, charlie: User, add_document: AddDocument, kind: str
) -> None:
    document = add_document("ice.pdf", pdf("The glacier melts in late summer."))
    citation, chunk = cite(alice, document), document.chunks.get()
    addresses = {
        "citation": ("/source/citation/{}/", citation.pk),
        "chunk": ("/source/chunk/{}/", chunk.pk),
        "read": ("/documents/{}/read/", document.pk),
        "image": ("/documents/version/{}/page/1.png", document.current_version_id),
    }
    address, pk = addresses[kind]
    client.force_login(charlie)

    foreign, missing = client.get(address.format(pk)), client.get(address.format(99999))
    assert foreign.status_code == missing.status_code == 404
    assert foreign.content == missing.content


def test_a_citation_in_somebody_elses_conversation_is_not_there(
    client: Client, alice: User, bob: User, add_document: AddDocument
) -> None:
    citation = cite(alice, add_document("ice.md", ICE))
    client.force_login(bob)  # reads the document, but the answer is not his

    assert client.get(f"/source/citation/{citation.pk}/").status_code == 404


def test_a_citation_closes_when_the_right_to_read_ends(
    page: Client, alice: User, add_document: AddDocument
) -> None:
    citation = cite(alice, add_document("ice.md", ICE))
    alice.memberships.all().delete()

    assert page.get(f"/source/citation/{citation.pk}/").status_code == 404


def test_a_source_is_kept_by_no_shared_cache(page: Client, add_document: AddDocument) -> None:
    chunk = add_document("ice.md", ICE).chunks.first()
    assert chunk is not None

    assert "private" in page.get(f"/source/chunk/{chunk.pk}/")["Cache-Control"]


def test_a_source_costs_few_queries(
    page: Client,
    alice: User,
    add_document: AddDocument,
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    citation = cite(alice, add_document("ice.md", ICE))

    with django_assert_max_num_queries(12):
        page.get(f"/source/citation/{citation.pk}/", headers={"HX-Request": "true"})


# --- PDF pages --------------------------------------------------------------------------------


def test_a_pdf_is_drawn_with_boxes_over_the_words(
    page: Client, alice: User, add_document: AddDocument
) -> None:
    document = add_document("ice.pdf", pdf("Ice is cold.", "The glacier melts in late summer."))
    citation = cite(alice, document)

    html = page.get(f"/source/citation/{citation.pk}/").content.decode()
    assert 'viewBox="0 0 612.00 792.00"' in html
    assert 'class="box said"' in html
    assert f"/documents/version/{document.current_version_id}/page/1.png" in html
    assert "The passage as text" in html
    assert "style=" not in html.partition("<main")[2]


def test_a_page_is_a_png_for_the_reader_alone(page: Client, add_document: AddDocument) -> None:
    document = add_document("ice.pdf", pdf("The glacier melts."))
    address = f"/documents/version/{document.current_version_id}/page/1.png"

    response = page.get(address)
    assert response["Content-Type"] == "image/png"
    assert response.content.startswith(b"\x89PNG")
    assert "private" in response["Cache-Control"]
    again = page.get(address, headers={"If-None-Match": response["ETag"]})
    assert again.status_code == 304


@pytest.mark.parametrize("number", [0, 2, 999])
def test_a_page_that_is_not_there_is_not_drawn(
    page: Client, add_document: AddDocument, number: int
) -> None:
    document = add_document("ice.pdf", pdf("The glacier melts."))

    address = f"/documents/version/{document.current_version_id}/page/{number}.png"
    assert page.get(address).status_code == 404


def test_a_document_without_pages_has_no_pictures(page: Client, add_document: AddDocument) -> None:
    document = add_document("ice.md", ICE)

    address = f"/documents/version/{document.current_version_id}/page/1.png"
    assert page.get(address).status_code == 404


# --- The reader -------------------------------------------------------------------------------


def test_a_document_is_read_from_its_beginning_and_on(
    page: Client, add_document: AddDocument
) -> None:
    long = "# Ice\n\n" + "\n\n".join(f"Paragraph {n} about ice." for n in range(4_000))
    document = add_document("long.md", long)

    html = page.get(f"/documents/{document.pk}/read/").content.decode()
    assert "Paragraph 0 about" in html
    assert "Paragraph 3999" not in html
    assert 'rel="next"' in html
    assert 'rel="prev"' not in html
    later = page.get(f"/documents/{document.pk}/read/", {"at": "30000"}).content.decode()
    assert 'rel="prev"' in later
    assert "Paragraph 0 about" not in later


def test_the_reader_marks_the_passage_it_was_opened_at(
    page: Client, add_document: AddDocument
) -> None:
    document = add_document("ice.md", ICE)
    chunk = passage(document, "late summer")

    html = page.get(
        f"/documents/{document.pk}/read/", {"start": chunk.start, "end": chunk.end}
    ).content.decode()
    assert "<mark>The glacier melts in late summer.</mark>" in html


def test_an_older_version_can_be_read(page: Client, add_document: AddDocument) -> None:
    add_document("ice.md", ICE)
    document = add_document("ice.md", ICE.replace("late summer", "early winter"))

    old = page.get(f"/documents/{document.pk}/read/", {"version": "1"}).content.decode()
    assert "This is version 1 of 2." in old
    assert "late summer" in old
    assert page.get(f"/documents/{document.pk}/read/", {"version": "9"}).status_code == 404


@pytest.mark.parametrize("values", [{"at": "-1"}, {"at": "9" * 9}, {"start": "x"}, {"end": "5"}])
def test_strange_places_in_a_document_never_break_the_reader(
    page: Client, add_document: AddDocument, values: dict[str, Any]
) -> None:
    document = add_document("ice.md", ICE)

    assert page.get(f"/documents/{document.pk}/read/", values).status_code == 200


def test_a_document_that_is_not_read_yet_says_so(
    page: Client, collection: Collection, add_document: AddDocument
) -> None:
    document = add_document("ice.md", ICE, wait=False)

    html = page.get(f"/documents/{document.pk}/read/").content.decode()
    assert "There is no text here" in html
    assert not Message.objects.exists()
