"""Preference pairs from what people chose among answers to one question.

Which answer is preferred is never guessed; the person said so:

- one answer was rated right and another to the same question wrong: the first is chosen;
- an answer was asked for again, and the new one rated right while nobody rated the one before it:
  the one before it was turned down by asking again.

A rating alone, an answer asked for again and left unrated, two answers rated alike, and answers that
failed, were stopped or say the same make no pair. A corrected answer comes by way of triage.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

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


def home_of(message: Message, offered: Sequence[Citation]) -> Collection | None:
    """Give the collection cited most, else offered most, else one that was asked; else None."""
    marked = [one for one in offered if one.is_cited and one.collection_id] or offered
    counted = Counter(one.collection_id for one in marked if one.collection_id)
    if counted:
        return Collection.objects.get(pk=counted.most_common(1)[0][0])
    conversation = message.conversation
    readable = Collection.objects.readable_by(conversation.user).order_by("pk")
    asked = conversation.collections.values("pk")
    return readable.filter(pk__in=asked).first() or readable.first()


def from_rating(feedback: Feedback) -> list[InstructionPair]:
    """Write the preference pairs that a rating completes; each only once."""
    made = (_pair(chosen, turned_down) for chosen, turned_down in choices(feedback))
    return [pair for pair in made if pair is not None]


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


def _pair(chosen: Message, turned_down: Message) -> InstructionPair | None:
    """Write the pair where the chosen answer belongs; None when that is nowhere."""
    mine = _offered(chosen)
    home = home_of(chosen, mine)
    if home is None:
        return None
    # That nothing was found tells nothing of the passages.
    theirs = [] if turned_down.found_nothing else _offered(turned_down)
    # Either answer may have been offered other passages, or the same under other numbers.
    passages = {_place(one): one for one in (*theirs, *mine)}
    joint = {place: number for number, place in enumerate(map(_place, mine), start=1)}
    for place in map(_place, theirs):
        joint.setdefault(place, len(joint) + 1)
    output = renumber(chosen.text, {one.marker: joint[_place(one)] for one in mine})
    rejected = renumber(turned_down.text, {one.marker: joint[_place(one)] for one in theirs})
    named = cited(output, rejected)
    kept = [
        passages[place]
        for place, number in joint.items()
        if number in named or (chosen.found_nothing and passages[place] in mine)
    ]
    kept += curation.of_other_collections(passages.values(), kept, home)
    numbers = {joint[_place(one)]: number for number, one in enumerate(kept, start=1)}
    assert chosen.parent is not None
    return curation.create_pair(
        None,
        dataset_for(home),
        origin=InstructionPair.Origin.PREFERENCE,
        origin_key=f"{chosen.pk}>{turned_down.pk}",
        content={
            "instruction": chosen.parent.text,
            "output": renumber(output, numbers),
            "rejected": renumber(rejected, numbers),
        },
        sources=[
            curation.source_of_citation(
                one, number, is_distractor=chosen.found_nothing or joint[_place(one)] not in named
            )
            for number, one in enumerate(kept, start=1)
        ],
        message=chosen,
        author_label=f"{chosen.generator or 'An answer'}, chosen by a person"[:200],
    )


def _offered(answer: Message) -> list[Citation]:
    return list(answer.citations.select_related("version", "document").order_by("marker"))


def _place(citation: Citation) -> tuple[int | None, int | None, int, int, str]:
    """Tell passages apart; those of a version that is gone by their words."""
    return (
        citation.version_id, citation.collection_id, citation.start, citation.end, citation.quote
    )  # fmt: skip
