"""Preference pairs from what people chose among answers to one question.

Which answer is preferred is never guessed; the person said so:

- one answer was rated right and another to the same question wrong: the first is chosen;
- an answer was asked for again, and the new one rated right while nobody rated the one before it:
  the one before it was turned down by asking again.

A rating alone, an answer asked for again and left unrated, two answers rated alike, and answers that
failed, were stopped or say the same make no pair. A corrected answer comes by way of triage.
"""

from collections.abc import Iterator

from finetune import curation
from finetune.markers import cited, renumber
from finetune.models import Dataset, InstructionPair
from kb.models import Citation, Collection, Feedback, Message
from kb.models.chat import MessageQuerySet

DATASET = "From ratings"


def dataset_for(collection: Collection) -> Dataset:
    """Give the data set of a collection that ratings go to; made when the first one comes."""
    made, _ = Dataset.objects.get_or_create(
        collection=collection,
        name=DATASET,
        defaults={"description": "Choices between answers, and answers that people rated."},
    )
    return made


def from_rating(feedback: Feedback, collection: Collection) -> list[InstructionPair]:
    """Write the preference pairs that a rating completes; each only once."""
    return [_pair(chosen, turned_down, collection) for chosen, turned_down in choices(feedback)]


def choices(feedback: Feedback) -> Iterator[tuple[Message, Message]]:
    """Give (chosen, turned down) as the rule at the head of this module says."""
    rated = feedback.message
    if not _counts(rated):
        return
    others = [other for other in _siblings(rated) if _counts(other) and _differ(rated, other)]
    down = [other for other in others if _rating(other) == Feedback.Value.DOWN]
    if feedback.value == Feedback.Value.DOWN:
        up = (other for other in others if _rating(other) == Feedback.Value.UP)
        yield from ((other, rated) for other in up)
    elif down:
        yield from ((rated, other) for other in down)
    else:
        before = [other for other in others if other.pk < rated.pk]
        if before and _rating(before[-1]) is None:
            yield rated, before[-1]


def _siblings(answer: Message) -> MessageQuerySet:
    same = Message.objects.filter(parent=answer.parent_id, role=Message.Role.ASSISTANT)
    return same.exclude(pk=answer.pk).prefetch_related("feedback", "citations").order_by("pk")


def _counts(answer: Message) -> bool:
    return (
        answer.role == Message.Role.ASSISTANT
        and answer.parent_id is not None
        and answer.state == Message.State.DONE
        and bool(answer.text.strip())
    )


def _differ(one: Message, other: Message) -> bool:
    return one.text.split() != other.text.split()


def _rating(answer: Message) -> int | None:
    """Give how its owner rated an answer; nobody else can."""
    return next((feedback.value for feedback in answer.feedback.all()), None)


def _pair(chosen: Message, turned_down: Message, collection: Collection) -> InstructionPair:
    offered = list(chosen.citations.select_related("version", "document").order_by("marker"))
    # The other answer may have been offered other passages under the same numbers.
    places = {_place(citation): citation.marker for citation in offered}
    same = {
        citation.marker: places[_place(citation)]
        for citation in turned_down.citations.all()
        if _place(citation) in places
    }
    rejected = renumber(turned_down.text, same)
    named = cited(chosen.text, rejected)
    kept = [one for one in offered if one.marker in named or chosen.found_nothing]
    numbers = {one.marker: number for number, one in enumerate(kept, start=1)}
    assert chosen.parent is not None
    return curation.create_pair(
        None,
        dataset_for(collection),
        origin=InstructionPair.Origin.PREFERENCE,
        origin_key=f"{chosen.pk}>{turned_down.pk}",
        content={
            "instruction": chosen.parent.text,
            "output": renumber(chosen.text, numbers),
            "rejected": renumber(rejected, numbers),
        },
        sources=[
            curation.source_of_citation(
                one, numbers[one.marker], is_distractor=chosen.found_nothing
            )
            for one in kept
        ],
        message=chosen,
        author_label=f"{chosen.generator or 'An answer'}, chosen by a person"[:200],
    )


def _place(citation: Citation) -> tuple[int | None, int, int]:
    return citation.version_id, citation.start, citation.end
