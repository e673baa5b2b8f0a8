"""What pages of kb say about snapshots."""

from typing import Any

from django import template

from finetune import snapshots
from finetune.models import DatasetSnapshot
from kb.models import Document, User

register = template.Library()


@register.inclusion_tag("finetune/_snapshots_using.html")
def snapshots_using(document: Document, user: User) -> dict[str, Any]:
    """Name the snapshots that hold words of a document; those that one may not see are counted."""
    using = snapshots.using_document(document.pk)
    visible = DatasetSnapshot.objects.visible_to(user).filter(pk__in=using.values("pk"))
    named = list(visible.select_related("dataset").order_by("dataset__name", "number"))
    return {"snapshots": named, "hidden_count": using.count() - len(named)}
