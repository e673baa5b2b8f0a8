"""Every page holds long names, on a desk in the dark and on a phone; none leaves anybody out.

Pages that have a browser test of their own with more on them are left to it.
"""

import re

import pytest
from django.contrib.auth.models import Group
from django.template.loader import render_to_string
from playwright.sync_api import Page, expect

from finetune.models import Dataset, TrainingMetric, TrainingRun
from kb.models import Collection, Document, Job, User
from tests.browser.conftest import DESKTOP, PHONE, Accessible, Visit
from tests.conftest import AddDocument
from tests.finetune.rated import answer, ask, rate
from tests.finetune.test_snapshots import fill, freeze
from tests.finetune.views.test_training import REPORT
from tests.kb.api.conftest import secret_of
from tests.kb.views.conftest import static_files_as_they_lie

__all__ = ["static_files_as_they_lie"]

pytestmark = pytest.mark.browser
LONG = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"
ARABIC = "يذوب النهر الجليدي في أواخر الصيف."
GERMAN = "Gefährdungsbeurteilungen der Arbeitsplätze und Betriebsanweisungen"
LOOKS = pytest.mark.parametrize(
    ("size", "dark"), [(DESKTOP, True), (PHONE, False)], ids=["desk", "phone"]
)


@pytest.fixture
def collection(alice: User, bob: User) -> Collection:
    made = Collection.objects.create(name=LONG, description=GERMAN, created_by=alice)
    made.grant(alice, "owner")
    made.grant(bob, "reader")
    return made


@pytest.fixture
def document(add_document: AddDocument) -> Document:
    add_document("broken.pdf", b"%PDF-1.4\nnothing")
    add_document(f"{LONG}.md", f"# {LONG}\n\nIce.\n")
    words = f"# {LONG}\n\nThe glacier melts. {LONG}\n\n|a|b|\n|-|-|\n|1|2|\n"
    return add_document(f"{LONG}.md", words)


def run_of(dataset: Dataset, user: User, name: str, state: str, **fields: object) -> TrainingRun:
    snapshot = dataset.snapshots.filter(state="ready").first() or freeze(dataset, user)
    config = {"base_model": "mistralai/Mistral-7B-Instruct-v0.3", "rank": 16, "server": "own"}
    return TrainingRun.objects.create(
        snapshot=snapshot, name=name, state=state, config=config, created_by=user,
        **{"sweep": "abcd", **fields},
    )  # fmt: skip


@pytest.fixture
def dataset(collection: Collection, alice: User) -> Dataset:
    """A data set with runs in many states, of one sweep."""
    dataset = Dataset.objects.create(collection=collection, name=LONG, description=GERMAN)
    fill(dataset, 1, 12)
    training, done = Job.Kind.TRAIN, Job.State.DONE
    run_of(
        dataset, alice, LONG, "draft", preflight=REPORT,
        preflight_job=Job.objects.create(kind=Job.Kind.PREFLIGHT, state=done),
    )  # fmt: skip
    stop = {"level": "stop", "name": "TGI", "sentence": "TGI cannot load DoRA."}
    run_of(dataset, alice, "Blocked", "draft", preflight={**REPORT, "lines": [stop]})
    run_of(dataset, alice, "Failed", "failed", error=f"The base “{LONG}” is not on this machine.")
    run = run_of(dataset, alice, "Learns", "running", job=Job.objects.create(kind=training))
    TrainingMetric.objects.bulk_create(
        TrainingMetric(
            run=run, step=step, loss=2 / step, evaluation_loss=2.2 / step, learning_rate=1e-4,
            tokens_per_s=4000, memory_bytes=9_800_000_000,
        )
        for step in range(1, 30)
    )  # fmt: skip
    return dataset


def check(page: Page, path: str, size: tuple[int, int], accessible: Accessible) -> None:
    page.goto(path)
    expect(page.get_by_role("heading", level=1)).to_be_attached()
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= size[0], path
    accessible(page)


@LOOKS
def test_documents_and_collections(
    visit: Visit, alice: User, collection: Collection, document: Document, accessible: Accessible,
    size: tuple[int, int], dark: bool,
) -> None:  # fmt: skip
    failed = Document.objects.get(state=Document.State.FAILED)
    empty = Collection.objects.create(name="Nothing yet")
    empty.grant(alice, "owner")
    page = visit(alice, "/documents/", size=size, dark=dark)
    chunk = document.chunks.filter(version=document.current_version)[0]
    one, of = f"/documents/{document.pk}", f"/collections/{collection.pk}"
    for path in (
        "/documents/", f"{one}/", f"{one}/versions/", f"{one}/passages/preview/", f"{one}/edit/",
        f"{one}/replace/", f"{one}/delete/", f"{one}/read/", f"/documents/{failed.pk}/",
        f"/source/chunk/{chunk.pk}/", "/collections/", "/collections/new/", f"{of}/", f"{of}/edit/",
        f"{of}/members/", f"{of}/delete/", f"/collections/{empty.pk}/delete/", "/search/?q=glacier",
    ):  # fmt: skip
        check(page, path, size, accessible)


@LOOKS
def test_people_and_their_accounts(
    visit: Visit, alice: User, bob: User, collection: Collection, accessible: Accessible,
    size: tuple[int, int], dark: bool,
) -> None:  # fmt: skip
    User.objects.filter(pk=alice.pk).update(is_superuser=True)
    User.objects.filter(pk=bob.pk).update(last_name=LONG)
    group = Group.objects.create(name=LONG)
    group.user_set.add(bob)
    secret_of(alice, "read", "manage")
    alice.api_tokens.update(name=LONG)
    page = visit(alice, "/people/", size=size, dark=dark)
    for path in (
        "/people/", "/people/invite/", f"/people/{bob.pk}/", f"/people/{bob.pk}/remove/",
        f"/people/{alice.pk}/", "/groups/", f"/groups/{group.pk}/", f"/groups/{group.pk}/delete/",
        "/account/", "/account/password/", "/account/look/", "/account/tokens/",
    ):  # fmt: skip
        check(page, path, size, accessible)


@LOOKS
def test_conversations(
    visit: Visit, bob: User, document: Document, accessible: Accessible,
    size: tuple[int, int], dark: bool,
) -> None:  # fmt: skip
    question = ask(bob, f"Was heißt {LONG}?")
    first = answer(question, f"{LONG} [1]. `{LONG}` {ARABIC}", document)
    last = answer(question, f"Ein langes Wort [1].\n\n|{LONG}|b|\n|-|-|\n|1|2|", document)
    nothing = answer(ask(bob, ARABIC), "", document, found_nothing=True, cites=())
    rate(nothing, -1)
    of, one = f"/c/{question.conversation_id}", f"/messages/{last.pk}"
    cited = last.citations.get().pk
    page = visit(bob, f"{of}/", size=size, dark=dark)
    for path in (
        "/", f"{of}/", f"{of}/?leaf={first.pk}", f"/c/{nothing.conversation_id}/", f"{of}/rename/",
        f"{of}/delete/", f"{one}/why/", f"{one}/rate/", f"{one}/compare/",
        f"/source/citation/{cited}/",
    ):  # fmt: skip
        check(page, path, size, accessible)


def test_what_people_wrote_runs_as_its_script_runs(
    visit: Visit, alice: User, add_document: AddDocument
) -> None:
    written = add_document("ice.txt", ARABIC)
    page = visit(alice, f"/documents/{written.pk}/")
    # The full stop ends the line: it stands to the left of what is read first.
    places = page.locator(".paper p").evaluate(
        "p => [0, p.textContent.trimEnd().length - 1].map(at => { const range = new Range();"
        "const text = document.createTreeWalker(p, NodeFilter.SHOW_TEXT).nextNode();"
        "range.setStart(text, at); range.setEnd(text, at + 1);"
        "return range.getBoundingClientRect().left; })"
    )
    assert places[1] < places[0]


def test_what_an_address_points_at_stands_below_the_bar_of_a_phone(
    visit: Visit, alice: User, dataset: Dataset
) -> None:
    run = TrainingRun.objects.get(name=LONG)
    page = visit(alice, f"/train/run/{run.pk}/?card=L4#cards", size=PHONE)
    summary = page.get_by_text("On another card, estimated").bounding_box()
    bar = page.locator(".top-bar").bounding_box()
    assert summary
    assert bar
    assert summary["y"] >= bar["y"] + bar["height"]


@LOOKS
def test_training(
    visit: Visit, alice: User, dataset: Dataset, accessible: Accessible,
    size: tuple[int, int], dark: bool,
) -> None:  # fmt: skip
    page = visit(alice, "/train/", size=size, dark=dark)
    runs = [f"/train/run/{run.pk}/" for run in TrainingRun.objects.all()]
    frozen = TrainingRun.objects.all()[0].snapshot_id
    away = (f"{runs[0]}delete/", f"/curate/snapshot/{frozen}/delete/")
    for path in (
        "/train/", "/train/new/", "/train/sweep/abcd/", "/train/adapters/", *runs, *away,
    ):  # fmt: skip
        check(page, path, size, accessible)


@LOOKS
def test_curation_under_a_long_name(
    visit: Visit, alice: User, dataset: Dataset, accessible: Accessible,
    size: tuple[int, int], dark: bool,
) -> None:  # fmt: skip
    pair = dataset.pairs.order_by("pk")[0].pk
    empty = Dataset.objects.create(collection=dataset.collection, name="Nothing yet")
    dataset.saved_views.create(user=alice, name=LONG[:80], query="state=approved")
    page = visit(alice, "/curate/", size=size, dark=dark)
    of = f"/curate/{dataset.pk}"
    for path in (
        f"{of}/", f"{of}/export/", f"{of}/draft/", f"{of}/snapshots/", f"/curate/pair/{pair}/delete/",
        f"{of}/pairs/approve/?pair={pair}", f"{of}/pairs/reject/?pair={pair}", "/loop/",
        f"/curate/{empty.pk}/",
    ):  # fmt: skip
        check(page, path, size, accessible)


def serve(page: Page, name: str) -> None:
    """Answer an address with a page of Django's own, which no address leads to."""
    words = render_to_string(f"{name}.html")
    page.route(f"**/{name}/", lambda route: route.fulfill(body=words, content_type="text/html"))


@LOOKS
@pytest.mark.usefixtures("static_files_as_they_lie")
def test_before_somebody_signs_in_and_when_something_is_wrong(
    visit: Visit, bob: User, accessible: Accessible, size: tuple[int, int], dark: bool
) -> None:
    page = visit(None, "/sign-in/", size=size, dark=dark)
    for name in ("400", "403", "403_csrf", "500"):
        serve(page, name)
    for path in (
        "/sign-in/", "/password/forgotten/", "/password/sent/", bob.set_password_path(),
        "/password/MQ/wrong-link/", "/400/", "/403/", "/403_csrf/", "/500/",
    ):  # fmt: skip
        check(page, path, size, accessible)


def test_a_run_whose_rows_are_looked_at_follows_itself_without_a_fault(
    visit: Visit, alice: User, dataset: Dataset
) -> None:
    looking = Job.objects.create(kind=Job.Kind.PREFLIGHT)
    run = run_of(dataset, alice, "New", "draft", preflight_job=looking)
    page = visit(alice, f"/train/run/{run.pk}/")
    # What it asks for each two seconds must fit the page; an error there fails the test.
    with page.expect_response(re.compile("was=")):
        expect(page.locator("#run [role=status]")).to_contain_text("waits for a training agent")
    expect(page.locator("#run")).to_be_visible()
