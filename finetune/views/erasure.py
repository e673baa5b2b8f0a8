"""Forget a document or a person: what learned from it, and one action that undoes it."""

from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from finetune import erasure as journey
from finetune.erasure import Subject
from finetune.serving_forms import TraceForm
from kb.views.requests import PersonRequest

SHOWN_PAIRS = 50


@require_http_methods(["GET", "POST"])
def erasure(request: PersonRequest) -> HttpResponse:
    """Look for what learned from something; a POST turns the pairs stale and marks the adapters."""
    form = TraceForm(request.POST or request.GET or None)
    choices = _subjects(request, form) if form.is_valid() else []
    subject = choices[0] if len(choices) == 1 else None
    if request.method == "POST" and subject is not None:
        done = journey.erase(subject, request.user, reason=request.POST.get("reason", "")[:1_000])
        messages.success(
            request,
            _("%(pairs)s pairs are stale, %(adapters)s adapters are marked.")
            % {"pairs": f"{done.pairs:,}", "adapters": len(done.adapters)},
        )
        query = urlencode({"kind": subject.kind, "name": form.cleaned_data["name"]})
        return redirect(f"{request.path}?{query}")
    found = journey.trace(subject, request.user) if subject else None
    context = {
        "form": form,
        "looked": form.is_bound and form.is_valid(),
        "subject": subject,
        "choices": choices,
        "found": found,
        "pairs": found.pairs[:SHOWN_PAIRS] if found else (),
        "open_pairs": found.pairs.filter(state__in=["approved", "suggested"]).count()
        if found
        else 0,
        "unmarked": found.adapters.filter(erasure_note="").count() if found else 0,
        "tab": "erasure",
    }
    return render(request, "finetune/erasure.html", context)


def _subjects(request: PersonRequest, form: TraceForm) -> list[Subject]:
    find = {"document": journey.find_documents, "person": journey.find_people}
    return find[form.cleaned_data["kind"]](request.user, form.cleaned_data["name"].strip())
