"""Files to pages of text. Every parser runs in a confined child process (sandbox.py).

`extract` and `draw_page` are the two ways in; what they cannot read raises DocumentUnreadable,
whose text is a sentence for the person who uploaded the file.
"""

import logging
from pathlib import Path

from kb.extraction.formats import SUPPORTED, format_of
from kb.extraction.limits import DEFAULT, Limits
from kb.extraction.unreadable import DocumentUnreadable, in_words
from kb.pages import Extraction

__all__ = ["SUPPORTED", "DocumentUnreadable", "Limits", "draw_page", "extract", "media_type_of"]

logger = logging.getLogger(__name__)

WIDEST_PX = 2_400


def extract(path: Path, name: str, *, limits: Limits = DEFAULT) -> Extraction:
    """Read a file. `name` is what people call it; its ending says how to read it.

    Raises DocumentUnreadable. Takes a tenth of a second and the time of the parser.
    """
    from kb.extraction import sandbox, wire  # here: the child imports this package too, to start

    format_ = format_of(path, name, limits)
    data = sandbox.run(format_.reader, path, kind=format_.name, limits=limits, name=name)
    try:
        extraction = wire.unpack(data)
    except (ValueError, KeyError, TypeError) as error:
        logger.warning("%s gave an answer that does not hold together: %s", format_.reader, error)
        raise in_words("damaged", format_.name, {}) from error
    if not any(page.text for page in extraction.pages):
        reason = f"The {format_.name} holds no text."
        advice = "Check the original and upload it again."
        raise in_words("no_text", format_.name, {"reason": reason, "advice": advice})
    return extraction


def draw_page(path: Path, number: int, width_px: int, *, limits: Limits = DEFAULT) -> bytes:
    """Draw page `number` (from 1) of a PDF as a PNG, 16 to 2,400 pixels wide.

    Raises DocumentUnreadable.
    """
    from kb.extraction import sandbox

    width_px = min(max(width_px, 16), WIDEST_PX)
    drawer = "kb.extraction.pdf:draw"
    return sandbox.run(drawer, path, kind="PDF", limits=limits, number=number, width_px=width_px)


def media_type_of(path: Path, name: str, *, limits: Limits = DEFAULT) -> str:
    """Give the media type by name and content. Raises DocumentUnreadable when they disagree."""
    return format_of(path, name, limits).media_type
