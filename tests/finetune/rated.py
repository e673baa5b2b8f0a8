"""Answers that people rated, as a conversation leaves them."""

from typing import Any

from kb.models import Citation, Conversation, Document, Feedback, Message, User

QUESTION = "When does the glacier melt?"


def ask(user: User, question: str = QUESTION) -> Message:
    conversation = Conversation.objects.create(user=user, title=question)
    return Message.objects.create(conversation=conversation, role="user", text=question)


def answer(
    question: Message, text: str, *documents: Document, cites: tuple[int, ...] = (1,), **fields: Any
) -> Message:
    """Answer with the first passage of each document on offer, those in `cites` cited."""
    fields.setdefault("trace", {"queries": [question.text], "answerable": {"answerable": True}})
    made = Message.objects.create(
        conversation=question.conversation,
        role="assistant",
        parent=question,
        text=text,
        generator="A model",
        **fields,
    )
    for marker, document in enumerate(documents, start=1):
        chunk = document.chunks.order_by("position")[0]
        Citation.objects.create(
            message=made,
            marker=marker,
            is_cited=marker in cites,
            chunk=chunk,
            version=chunk.version,
            document=document,
            collection=document.collection,
            title=document.title,
            heading_path=chunk.heading_path,
            start=chunk.start,
            end=chunk.end,
            quote=chunk.text,
            score=0.9,
        )
    return made


def rate(message: Message, value: int, *, corrected: str = "", reason: str = "") -> Feedback:
    return message.rate(message.conversation.user, value, corrected=corrected, reason=reason)
