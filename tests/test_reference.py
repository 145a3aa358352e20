"""The reference names every public name, and every docstring says what may be raised."""

from __future__ import annotations

import inspect
import re
from dataclasses import is_dataclass
from importlib import import_module
from typing import Any

import pytest
from django.conf import settings

from tests.servers import ROOT

PUBLIC = [
    "ssekit",
    "ssekit.access",
    "ssekit.cgi",
    "ssekit.client",
    "ssekit.django",
    "ssekit.hub",
    "ssekit.metrics",
    "ssekit.probe",
    "ssekit.script",
    "ssekit.stream",
    "ssekit.testing",
]
"""The modules that users import from: their ``__all__`` is what is public."""

PAGES = sorted((ROOT / "docs" / "reference").glob("*.md"))
SHOWN = {
    name for page in PAGES for name in re.findall(r"^::: ([\w.]+)$", page.read_text(), re.MULTILINE)
}


def names() -> list[tuple[str, Any]]:
    if not settings.configured:
        settings.configure(SSEKIT={"URL": "memory:"})
    found = []
    for module in map(import_module, PUBLIC):
        assert module.__all__, f"{module.__name__} says what is public"
        found += [(f"{module.__name__}.{name}", getattr(module, name)) for name in module.__all__]
    return found


def place_of(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"


NAMES = [(name, thing) for name, thing in names() if hasattr(thing, "__qualname__")]
VALUES = [name for name, thing in names() if not hasattr(thing, "__qualname__")]
"""Such as modules: what is in them is looked at by itself."""


@pytest.mark.parametrize(("name", "thing"), NAMES, ids=[name for name, _ in NAMES])
def test_the_reference_has_every_public_name(name: str, thing: Any) -> None:
    place = place_of(thing)
    assert place in SHOWN or place.rpartition(".")[0] in SHOWN, f"{name} is {place}"


@pytest.mark.parametrize("name", VALUES)
def test_the_reference_explains_every_value(name: str) -> None:
    text = "".join(page.read_text() for page in PAGES)
    module, _, short = name.rpartition(".")
    assert name in text or f"from {module} import {short}" in text or f", {short}`" in text


def callables() -> list[tuple[str, Any]]:
    found: dict[str, Any] = {}
    for name, thing in NAMES:
        if inspect.isclass(thing) and not issubclass(thing, BaseException):
            if not is_dataclass(thing) or hasattr(thing, "__post_init__"):
                found[f"{place_of(thing)} or its __init__"] = thing
            for part, method in vars(thing).items():
                if inspect.isfunction(method) and not part.startswith("_"):
                    found[f"{place_of(thing)}.{part}"] = method
        elif inspect.isfunction(thing):
            found[name] = thing
    return sorted(found.items())


@pytest.mark.parametrize(("name", "thing"), callables(), ids=[name for name, _ in callables()])
def test_every_docstring_says_what_is_raised(name: str, thing: Any) -> None:
    assert thing.__doc__, f"{name} has no docstring"
    assert re.search(r"\b[Rr]aise[sd]?\b", thing.__doc__), f"{name} does not say what it raises"


def test_every_page_is_in_the_navigation() -> None:
    shown = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        assert f"- {page.relative_to(ROOT / 'docs')}\n" in shown, f"{page.name} is in no menu"
