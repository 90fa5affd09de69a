"""Text between two marker comments, such as a table of README.md that a command writes."""

import re


def marked_texts(text: str) -> dict[str, str]:
    """The text between each pair of markers, by name, without the blank lines around it.

    Raises ValueError naming a marker that is there twice or lacks its counterpart.
    """
    names = re.findall(r"<!-- results (\S+) (?:begin|end) -->", text)
    return {name: text[slice(*_span(text, name))].strip() for name in dict.fromkeys(names)}


def replace_marked(text: str, name: str, content: str) -> str:
    """The text with `content` between the markers of that name; raises ValueError as above."""
    start, stop = _span(text, name)
    return f"{text[:start]}\n\n{content}\n\n{text[stop:]}"


def _span(text: str, name: str) -> tuple[int, int]:
    begin, end = (f"<!-- results {name} {word} -->" for word in ("begin", "end"))
    start, stop = text.find(begin), text.find(end)
    if text.count(begin) != 1 or text.count(end) != 1 or stop < start:
        raise ValueError(f"needs the lines {begin} and {end}, once each and in this order")
    return start + len(begin), stop
