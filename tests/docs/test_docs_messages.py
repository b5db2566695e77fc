"""Every error message of the library has an entry on the page that explains them.

Messages are read from the source. What is filled in when one is raised is a hole; the page writes
``…`` for a hole, and need only give a part of the message that tells it from others.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pointwise

PACKAGE = Path(pointwise.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"
ERRORS = frozenset(
    {"ValueError", "TypeError", "ImportError", "RuntimeError", "OSError", "FileNotFoundError",
     "NotImplementedError"}
)  # fmt: skip
HOLE = "\0"
# A shorter message has no words of its own: "FILE: reason" hands on what another library says, and
# "weight must be SHAPE, got SHAPE" is all said by what is filled in.
LETTERS = 10
MOST = 14  # messages that one entry may stand for


def fixed(part: ast.expr) -> str:
    return str(part.value) if isinstance(part, ast.Constant) else HOLE


def texts(node: ast.AST | None, tree: ast.Module, function: ast.AST) -> list[str]:
    """What an expression can be as text, with holes: one for each way through it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        return ["".join(fixed(part) for part in node.values)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        sides = texts(node.left, tree, function), texts(node.right, tree, function)
        return [left + right for left in sides[0] for right in sides[1]]
    if isinstance(node, ast.IfExp):
        return texts(node.body, tree, function) + texts(node.orelse, tree, function)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return list(returned(node.func.id, tree)) or [HOLE]
    if isinstance(node, ast.Name):
        given = [
            text
            for each in ast.walk(function)
            if isinstance(each, ast.Assign)
            and any(isinstance(name, ast.Name) and name.id == node.id for name in each.targets)
            for text in texts(each.value, tree, function)
        ]
        return given or [HOLE]
    return [HOLE]


def returned(name: str, tree: ast.Module) -> Iterator[str]:
    """What a function of the same file returns as text."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef) and function.name == name:
            for each in ast.walk(function):
                if isinstance(each, ast.Return):
                    yield from texts(each.value, tree, function)


def messages_of(source: str) -> Iterator[tuple[int, str]]:
    """(line, message) of every error that is raised in a file."""
    tree = ast.parse(source)
    functions = [each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)]
    raised = [each for each in ast.walk(tree) if isinstance(each, ast.Raise)]
    for each in sorted(raised, key=lambda each: each.lineno):
        if not isinstance(each.exc, ast.Call):
            continue
        if not (isinstance(each.exc.func, ast.Name) and each.exc.func.id in ERRORS):
            continue
        around = [
            function
            for function in functions
            if function.lineno <= each.lineno <= (function.end_lineno or 0)
        ]
        for text in texts(each.exc.args[0], tree, around[-1] if around else tree):
            yield each.lineno, text


def letters(text: str) -> int:
    return sum(character.isalpha() for character in text)


MESSAGES = sorted(
    (f"{file.relative_to(PACKAGE)}:{line}", text)
    for file in PACKAGE.rglob("*.py")
    for line, text in messages_of(file.read_text(encoding="utf-8"))
    if letters(text) >= LETTERS
)


def entries(page: str) -> list[str]:
    """The messages in code type that begin the items of the page's lists."""
    found = re.findall(r"^- ((?:`[^`\n]+`(?:,\s+)?)+)", page, re.MULTILINE)
    return [entry for item in found for entry in re.findall("`([^`]+)`", item)]


ENTRIES = entries(PAGE.read_text(encoding="utf-8"))


def names(entry: str, message: str) -> bool:
    """Whether the parts of an entry stand in a message, in their order."""
    parts = [part.strip() for part in entry.split("…")]
    return re.search(".*".join(map(re.escape, parts)), message, re.DOTALL) is not None


def test_every_message_is_on_the_page():
    missing = [
        f"{where} says: {message.replace(HOLE, '…')}"
        for where, message in MESSAGES
        if not any(names(entry, message) for entry in ENTRIES)
    ]
    assert not missing, "\n".join(missing)
    assert len(MESSAGES) > 400


def test_every_entry_is_a_message_and_tells_it_from_others():
    for entry in ENTRIES:
        assert letters(entry) >= LETTERS, entry
        found = {message for _, message in MESSAGES if names(entry, message)}
        assert 1 <= len(found) <= MOST, (entry, found)


def test_no_entry_is_there_twice():
    assert len(set(ENTRIES)) == len(ENTRIES) > 100


def test_messages_are_found_wherever_they_are_put_together():
    source = """
def reason(x):
    return f"not so {x}, by far" if x else "nothing at all"

def check(x):
    if x: raise ValueError(f"check: x is {x!r}; " + ("give more" if x else "give less"))
    words = f"{x} is wrong"
    raise TypeError(words)
    raise OSError(reason(x)) from None
    raise KeyError("not one of ours")
"""
    assert [text.replace(HOLE, "…") for _, text in messages_of(source)] == [
        "check: x is …; give more", "check: x is …; give less", "… is wrong",
        "not so …, by far", "nothing at all",
    ]  # fmt: skip


def test_a_message_without_an_entry_is_noticed():
    assert names("must be a … number", "f: k must be a whole number, got \0")
    assert not names("must be a … number", "f: k must be a whole amount, got \0")
    assert entries("- `one thing`, `another …`: text with `code`\n\ntext `no`\n") == [
        "one thing",
        "another …",
    ]
