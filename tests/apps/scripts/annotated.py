"""A script without a future import sends the annotation of its function."""

from ssekit.script import send


def function(number: int): ...


send(str(function.__annotations__["number"]))
