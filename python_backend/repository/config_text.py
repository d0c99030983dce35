"""Takes apart the text of a `config.pbtxt`, as people write it or as protobuf prints it, and keeps its comments."""

from __future__ import annotations

import re
from collections.abc import Iterator

_TOKEN = re.compile(r'#[^\n]*|"(?:\\.|[^"\\])*"|[\[{]|[\]}]')


def without_blocks(text: str, *fields: str) -> str:
    """The text without the blocks of these fields of the configuration itself, as `input [ ... ]`."""
    for start, end in sorted(_blocks(text, fields), reverse=True):
        text = text[:start] + text[end:]
    return text


def with_blocks_of(text: str, other: str, *fields: str) -> str:
    """The text, and behind it the blocks of these fields of another configuration."""
    return "\n".join([text, *(other[start:end] for start, end in _blocks(other, fields))]) + "\n"


def with_parameter(text: str, key: str, value: str) -> str:
    """The text with this value of a parameter, in place of the one that it has."""
    setting = re.compile(rf'(key:\s*"{key}"\s*value\s*:?\s*\{{\s*string_value:\s*)"[^"]*"')
    text, found = setting.subn(rf'\g<1>"{value}"', text)
    added = f'\nparameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
    return text if found else text + added


def with_instances(text: str, count: int) -> str:
    """The text with so many instances in place of a single one; any other number that a person has set stays."""
    for start, end in _blocks(text, ("instance_group",)):
        return text[:start] + re.sub(r"\bcount:\s*1\b", f"count: {count}", text[start:end]) + text[end:]
    return text


def _blocks(text: str, fields: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    for found in re.finditer(rf"^(?:{'|'.join(fields)})\s*:?\s*(?=[\[{{])", text, re.MULTILINE):
        depth = 0
        for token in _TOKEN.finditer(text, found.end()):
            depth += (token[0] in "[{") - (token[0] in "]}")
            if depth == 0:
                yield found.start(), token.end()
                break
