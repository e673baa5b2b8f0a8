"""Office equations on one line of text: a/b, x^2, a_i, √(x)."""

from xml.etree.ElementTree import Element

from kb.extraction.archive import attribute, child, local


def linear_equation(element: Element) -> str:
    """Write an equation on one line: a/b, x^2, a_i, √(x)."""
    name = local(element)
    if name == "t":
        return element.text or ""
    parts = [(local(item), linear_equation(item)) for item in element]
    inside = dict(parts)
    match name:
        case "f":
            return f"{_bracketed(inside.get('num', ''))}/{_bracketed(inside.get('den', ''))}"
        case "sSup":
            return f"{inside.get('e', '')}^{_bracketed(inside.get('sup', ''))}"
        case "sSub":
            return f"{inside.get('e', '')}_{_bracketed(inside.get('sub', ''))}"
        case "sSubSup":
            lower, upper = _bracketed(inside.get("sub", "")), _bracketed(inside.get("sup", ""))
            return f"{inside.get('e', '')}_{lower}^{upper}"
        case "rad":
            return f"{inside.get('deg', '')}√{_bracketed(inside.get('e', ''))}"
        case "d":
            body = ", ".join(text for part, text in parts if part == "e")
            return f"({body})"
        case "nary":
            sign = child(element, "naryPr", "chr")
            symbol = attribute(sign, "val") if sign is not None else "∫"
            lower, upper = inside.get("sub", ""), inside.get("sup", "")
            limits = (f"_{_bracketed(lower)}" if lower else "") + (
                f"^{_bracketed(upper)}" if upper else ""
            )
            return f"{symbol}{limits} {inside.get('e', '')}"
        case "mr":
            return " ".join(text for _, text in parts) + ";"
    return "".join(text for part, text in parts if not part.endswith("Pr"))


def _bracketed(text: str) -> str:
    text = text.strip()
    return text if len(text) <= 1 or text.isalnum() else f"({text})"
