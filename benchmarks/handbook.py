"""Ask questions about a real handbook, from its files to the cited passage.

`script/bench handbook [FOLDER] [--save]`: the Markdown files of the 18F handbook are ingested, the
questions of `handbook_questions` are asked as in a chat, and the extractive generator answers.
Counted is whether a passage that the answer cites holds the words that answer, whether the answer
quotes them, and how often it says that the documents hold no answer.
"""

import argparse
import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import ingest, installation
from benchmarks.handbook_questions import HANDBOOK_QUESTIONS, HandbookQuestion

if TYPE_CHECKING:
    from kb.models import User

MANY = 10_000  # more files than there are


def measure(folder: Path, questions: Sequence[HandbookQuestion]) -> dict[str, object]:
    from kb.models import User

    user = User.objects.create_user("bench", is_superuser=True)
    started = time.perf_counter()
    ingest.add(folder, MANY, user)
    ingest.work_off()
    rows = [_ask(user, question) for question in questions]
    return {
        "questions": len(rows),
        "cited_passage_holds_the_answer": sum(row["cited"] for row in rows),
        "answer_quotes_it": sum(row["quoted"] for row in rows),
        "not_in_the_documents": sum(row["abstained"] for row in rows),
        "missed": [q.question for q, row in zip(questions, rows, strict=True) if not row["cited"]],
        "seconds": round(time.perf_counter() - started),
    }


def _ask(user: "User", asked: HandbookQuestion) -> dict[str, bool]:
    from kb import answering, chat
    from kb.models import Conversation, Message

    conversation = Conversation.objects.create(user=user)
    answer = chat.ask(conversation, asked.question)
    asyncio.run(answering.answer(answer.pk))
    answer = Message.objects.get(pk=answer.pk)
    cited = answer.citations.filter(is_cited=True).values_list("quote", flat=True)
    return {
        "cited": _holds("\n".join(cited), asked.phrases),
        "quoted": _holds(answer.text, asked.phrases),
        "abstained": answer.found_nothing,
    }


def _holds(text: str, phrases: Sequence[str]) -> bool:
    """Look for any of the phrases, white space and emphasis aside."""
    plain = " ".join(text.replace("*", "").split())
    return any(phrase in plain for phrase in phrases)


def main() -> None:
    parser = argparse.ArgumentParser(prog="script/bench handbook")
    parser.add_argument("folder", type=Path, nargs="?", default=ingest.DEFAULT_FOLDER)
    parser.add_argument(
        "--save", action="store_true", help="write benchmarks/results/handbook.json"
    )
    arguments = parser.parse_args()
    with installation.fresh_install():
        result = measure(arguments.folder, HANDBOOK_QUESTIONS)
    for name, value in result.items():
        print(f"{name:32} {value}")
    if arguments.save:
        print(f"Saved in {installation.save('handbook', result)}")


if __name__ == "__main__":
    main()
