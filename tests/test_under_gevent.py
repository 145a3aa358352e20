"""What holds inside a process that gevent has patched, without a server around it."""

from __future__ import annotations

import pytest

from tests.commands import printed


@pytest.mark.parametrize("kind", ["subscription", "source"])
def test_nothing_is_kept_of_a_stream_whose_server_gave_it_up(kind: str) -> None:
    assert int(printed("abandoned_streams", kind)) < 100  # not one object for each of 200 streams


@pytest.mark.parametrize("first", ["the main thread", "a native thread"])
def test_native_threads_and_greenlets_hear_the_same_hub(first: str) -> None:
    """The first one begins to read the log, and that must outlive a native thread."""
    assert printed("native_subscriber", first) == "{} one two last\nafterwards\n"


def test_a_source_may_wait_in_several_greenlets() -> None:
    assert printed("source_of_two_greenlets") == "all\n"
