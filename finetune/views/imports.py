"""Bring a file of pairs in: add it, see its rows as pairs, confirm, follow, read what was left out."""

from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from finetune import importing
from finetune.forms import ReadingForm
from finetune.models import Dataset, PairImport
from kb import limits
from kb.downloads import send
from kb.models import Job
from kb.models.documents import UploadRefused
from kb.views.requests import PersonRequest, go_to
from workers import tasks

PROBLEMS_A_PAGE = 50


def _dataset(request: PersonRequest, pk: int) -> Dataset:
    found = Dataset.objects.visible_to(request.user).select_related("collection")
    return get_object_or_404(found, pk=pk)


def _imports(request: PersonRequest) -> QuerySet[PairImport]:
    found = PairImport.objects.visible_to(request.user)
    return found.select_related("dataset__collection", "job", "created_by")


@require_http_methods(["GET", "POST"])
def imports(request: PersonRequest, pk: int) -> HttpResponse:
    """List the files of a data set; a new one is looked at before anything is imported."""
    dataset, error = _dataset(request, pk), ""
    if request.method == "POST":
        made, error = _add(request, dataset)
        if made is not None:
            return redirect("pair_import", made.pk)
    context = {
        "dataset": dataset,
        "tab": "imports",
        "error": error,
        "imports": _imports(request).filter(dataset=dataset).order_by("-pk"),
        "max_upload_mb": settings.MAX_UPLOAD_BYTES // 2**20,
    }
    return render(request, "finetune/imports.html", context, status=400 if error else 200)


def _add(request: PersonRequest, dataset: Dataset) -> tuple[PairImport | None, str]:
    """Take the file of the form; gives it, or the sentence why not."""
    file = request.FILES.get("file")
    if file is None:
        return None, _("Choose a file first.")
    if not limits.allow("upload", str(request.user.pk)):
        return None, _("Many files at once. Wait a minute, then try again.")
    try:
        made, is_new = importing.add_file(dataset, file, name=file.name or "", user=request.user)
    except UploadRefused as refusal:
        return None, str(refusal)
    if not is_new:
        messages.info(request, _("This data set has this very file already; nothing was changed."))
    return made, ""


@require_http_methods(["GET", "POST"])
def pair_import(request: PersonRequest, pk: int) -> HttpResponse:
    """Show a file's rows as they would become pairs, or what became of them."""
    found = get_object_or_404(_imports(request), pk=pk)
    if found.job is None:
        return _preview(request, found)
    problems = Paginator(found.problems.order_by("row_number"), PROBLEMS_A_PAGE)
    context = {
        "dataset": found.dataset,
        "tab": "imports",
        "pair_import": found,
        "job": found.job,
        "page": problems.get_page(request.GET.get("page")),
    }
    return render(request, "finetune/pair_import.html", context)


def _preview(request: PersonRequest, found: PairImport) -> HttpResponse:
    columns = importing.columns_of(found)
    given = {"format": found.format, **found.mapping}
    form = ReadingForm(request.POST or given, columns=columns)
    is_valid = form.is_valid()
    if is_valid and request.method == "POST":
        found.format, found.mapping = form.cleaned_data["format"], form.mapping
        if "start" in request.POST:
            importing.start(found, request.user)
            tasks.hint_workers()
            return go_to(request, "pair_import", found.pk)
        found.save(update_fields=["format", "mapping"])
    context = {
        "dataset": found.dataset,
        "tab": "imports",
        "pair_import": found,
        "form": form,
        "is_by_hand": form["format"].value() == PairImport.Format.COLUMNS,
        "preview": importing.preview(found) if is_valid else None,
    }
    part = "finetune/_import_preview.html"
    return render(request, part if request.htmx else "finetune/import_preview.html", context)


@require_GET
def pair_import_state(request: PersonRequest, pk: int) -> HttpResponse:
    """Draw the line about a running import again."""
    found = get_object_or_404(_imports(request).exclude(job=None), pk=pk)
    context = {"pair_import": found, "job": found.job}
    response = render(request, "finetune/_import_state.html", context)
    if found.job and found.job.is_final:
        response["HX-Refresh"] = "true"
    return response


@require_POST
def pair_import_discard(request: PersonRequest, pk: int) -> HttpResponse:
    """Forget a file that was only looked at."""
    found = get_object_or_404(_imports(request), pk=pk)
    if importing.discard(found):
        messages.success(request, _("“%(name)s” was discarded.") % {"name": found.name})
    else:
        messages.error(request, _("Its rows are in; reject or delete the pairs instead."))
    return go_to(request, "imports", found.dataset_id)


@require_POST
def pair_import_retry(request: PersonRequest, pk: int) -> HttpResponse:
    """Go on with an import that failed, after the last row that is in."""
    found = get_object_or_404(_imports(request).filter(job__state=Job.State.FAILED), pk=pk)
    if found.job:
        found.job.retry()
    tasks.hint_workers()
    return go_to(request, "pair_import", found.pk)


@require_GET
def pair_import_problems(request: PersonRequest, pk: int) -> HttpResponseBase:
    """Download the rows that were left out, as JSON lines with number and reason."""
    found = get_object_or_404(_imports(request), pk=pk)
    name = f"{found.name}.problems.jsonl"
    return send(request, importing.problem_lines(found), name, "application/jsonl")
