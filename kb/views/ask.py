"""Asking: conversations, the answers in them, their stream."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render

from kb.models import Conversation


def ask(request: HttpRequest) -> HttpResponse:
    return render(request, "kb/ask.html", {})


def conversation(request: HttpRequest, pk: int) -> HttpResponse:
    chosen = get_object_or_404(Conversation.objects.visible_to(request.user), pk=pk)
    return render(request, "kb/ask.html", {"conversation": chosen})
