"""Metrics in Prometheus' format: by themselves, and as a real Prometheus reads them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ssekit import Hub
from ssekit.metrics import Health, Metrics
from ssekit.testing import connect
from tests.clients import Client
from tests.components import need
from tests.prometheus_server import Prometheus, prometheus
from tests.servers import ROOT, Server, gunicorn
from tests.waiting import until

RULES = ROOT / "examples" / "prometheus" / "ssekit.rules.yml"
DASHBOARD = json.loads((ROOT / "examples" / "grafana" / "ssekit.json").read_text())
TOKEN = "the-scraper's"


def get(app: Any, **environ: str) -> tuple[str, dict[str, str], str]:
    answer: dict[str, Any] = {}

    def start(status: str, headers: list[tuple[str, str]]) -> None:
        answer.update(status=status, headers=dict(headers))

    body = b"".join(app({"REQUEST_METHOD": "GET", "PATH_INFO": "/", **environ}, start))
    return answer["status"], answer["headers"], body.decode()


def samples(text: str) -> dict[str, float]:
    return {
        sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_scrape_has_the_numbers_of_the_hub() -> None:
    with Hub() as hub, connect(hub.stream("news")) as client:
        metrics = Metrics(hub, channels=["news", "quiet"])
        next(client)
        hub.publish("news", "one")
        hub.publish("other", "one")
        next(client)
        status, headers, text = get(metrics)
        found = samples(text)
    assert status == "200 OK"
    assert headers["Content-Type"].startswith("text/plain")
    assert found["ssekit_streams"] == found["ssekit_workers"] == found["ssekit_log_up"] == 1
    assert found["ssekit_published_total"] == 2
    assert found["ssekit_events_total"] == 2, "stream-open, and one event"
    assert found["ssekit_streams_ended_total too slow"] == 0
    assert found["ssekit_channel_published_total news"] == 1
    assert found["ssekit_channel_published_total quiet"] == 0
    assert "other" not in {label.partition(" ")[2] for label in found if "channel" in label}
    assert found["ssekit_publish_seconds_count"] == found["ssekit_publish_seconds_bucket +Inf"] == 2


def test_open_metrics_is_written_for_those_who_ask_for_it() -> None:
    with Hub() as hub:
        accept = "application/openmetrics-text; version=1.0.0"
        _, headers, text = get(Metrics(hub), HTTP_ACCEPT=accept)
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN])
def test_without_the_token_nothing_is_shown(given: str) -> None:
    with Hub() as hub:
        status, headers, text = get(Metrics(hub, TOKEN), HTTP_AUTHORIZATION=given)
        assert status == "401 Unauthorized"
        assert headers["WWW-Authenticate"] == "Bearer"
        assert "ssekit_streams" not in text
        assert get(Metrics(hub, TOKEN), HTTP_AUTHORIZATION=f"bearer {TOKEN}")[0] == "200 OK"


def test_another_method_is_refused() -> None:
    with Hub() as hub:
        status, headers, _ = get(Metrics(hub), REQUEST_METHOD="POST")
    assert (status, headers["Allow"]) == ("405 Method Not Allowed", "GET, HEAD")


def test_wrong_arguments_are_refused() -> None:
    with Hub() as hub:
        with pytest.raises(TypeError, match="news"):
            Metrics(hub, channels="news")
        with pytest.raises(ValueError, match="empty"):
            Metrics(hub, "")


# Four workers that recycle, and a real Prometheus.

PUBLISHED = 200


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("hub")
    env = {"SSEKIT_URL": f"sqlite:///{folder}/hub.db", "TOKEN": TOKEN}
    with gunicorn("tests.apps.measured:app", "--workers", "4", env=env) as server:
        yield server


@pytest.fixture(scope="module")
def scraped(
    server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Prometheus, set[int]]]:
    """A Prometheus that has seen streams, events, and workers come and go; and their ids."""
    folder = tmp_path_factory.mktemp("prometheus")
    with prometheus(folder, server.port, TOKEN) as found:
        workers = publish(server, PUBLISHED // 2)
        recycle(server)
        workers |= publish(server, PUBLISHED // 2)
        streams = [Client(f"{server.url}/events") for _ in range(3)]
        try:
            until(lambda: found.value("max_over_time(ssekit_streams[1m])") == 3, 20)
            urlopen(f"{server.url}/publish?other").close()
            urlopen(f"{server.url}/publish").close()
            until(lambda: found.value("ssekit_channel_events_total"), 20)
            yield found, workers
        finally:
            for stream in streams:
                stream.close()


def publish(server: Server, count: int) -> set[int]:
    """Publish so many events, and return the ids of the workers that did."""
    workers = set()
    for _ in range(count):
        with urlopen(f"{server.url}/publish") as answer:
            workers.add(int(answer.read()))
    return workers


def recycle(server: Server) -> None:
    """End each worker, one of them without a warning; the master starts others."""
    before = server.children()
    for number, worker in enumerate(before):
        os.kill(worker, signal.SIGKILL if number == 0 else signal.SIGTERM)
    until(lambda: len(set(server.children()) - set(before)) == 4, 30)
    # Those that were told to end answer no more requests.
    until(lambda: not set(server.children()) & set(before), 30)


def test_one_scrape_sums_all_workers_and_those_that_were_recycled(
    scraped: tuple[Prometheus, set[int]],
) -> None:
    found, workers = scraped
    assert len(workers) > 4, "no worker was recycled"
    assert until(lambda: found.value("ssekit_published_total") == PUBLISHED + 2)
    assert found.value("resets(ssekit_published_total[5m])") == 0
    assert found.value("ssekit_publish_seconds_count") == PUBLISHED + 2
    assert found.value('ssekit_channel_published_total{channel="news"}') == PUBLISHED + 1


def test_the_delay_is_measured_for_each_worker_that_sends(
    scraped: tuple[Prometheus, set[int]],
) -> None:
    found, _ = scraped
    delay = found.value("histogram_quantile(0.5, ssekit_delay_seconds_bucket)")
    assert delay is not None
    assert 0 < delay < 1


def test_workers_leave_one_file_behind_them(server: Server) -> None:
    url = re.search(rb"SSEKIT_URL=sqlite:///([^\0]+)", environment(server))
    assert url
    files = list(Path(url[1].decode()).parent.glob("*-counters"))
    assert len(files) == 2, "one of the hub's numbers, one of the channels'"


def environment(server: Server) -> bytes:
    return Path(f"/proc/{server.process.pid}/environ").read_bytes()


QUERIES = [
    (panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]
]


@pytest.mark.parametrize(("title", "query"), QUERIES, ids=range(len(QUERIES)))
def test_every_query_of_the_dashboard_finds_something(
    scraped: tuple[Prometheus, set[int]], title: str, query: str
) -> None:
    found, _ = scraped
    query = query.replace("$instance", ".*").replace("$__rate_interval", "1m")
    assert "$" not in query
    assert until(lambda: found.ask(query), 10, title)


def test_every_alert_is_a_rule_that_prometheus_accepts_and_that_reads_what_there_is(
    scraped: tuple[Prometheus, set[int]],
) -> None:
    promtool = need("promtool")
    checked = subprocess.run(
        [promtool, "check", "rules", RULES], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "8 rules found" in checked.stdout
    found, _ = scraped
    for name in set(re.findall(r"ssekit_\w+", " ".join(expressions()))):
        assert found.ask(name), f"no series is called {name}"


def expressions() -> list[str]:
    return re.findall(r"^ +expr: (.*)$", RULES.read_text(), re.MULTILINE)


def test_the_documentation_says_what_to_do_about_every_alert() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    for name in re.findall(r"alert: (\w+)", RULES.read_text()):
        assert f"`{name}`" in page, f"docs/operations.md does not name {name}"


def test_every_metric_is_in_the_documentation() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    with Hub() as hub:
        text = get(Metrics(hub))[2]
    for name in re.findall(r"^# TYPE (\w+)", text, re.MULTILINE):
        assert f"`{name}`" in page, f"docs/operations.md does not name {name}"


# The health check.


def test_a_worker_is_healthy_while_its_log_can_be_reached() -> None:
    with Hub() as hub:
        health = Health(hub)
        status, headers, text = get(health)
        assert (status, json.loads(text)) == ("200 OK", {"status": "ok", "log": "ok"})
        assert headers["Cache-Control"] == "no-store"
    assert get(Health(hub))[0] == "503 Service Unavailable", "the hub is closed"


def test_a_log_that_is_away_is_no_reason_to_take_a_worker_out(tmp_path: Path) -> None:
    with Hub("redis://127.0.0.1:1/0") as hub:
        health = Health(hub)
        status, _, text = get(health)
        assert (status, json.loads(text)) == ("200 OK", {"status": "ok", "log": "away"})
        status, _, text = get(health, QUERY_STRING="log")
        assert status == "503 Service Unavailable"
        assert json.loads(text) == {"status": "unavailable", "log": "away"}


def test_a_log_that_does_not_answer_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    with Hub() as hub:
        release = []

        def position() -> str:
            asked.append(1)
            until(lambda: release, 20)
            return "1-1"

        monkeypatch.setattr(hub, "position", position)
        health = Health(hub)
        assert [json.loads(get(health)[2])["log"] for _ in range(3)] == ["away"] * 3
        release.append(1)
        assert until(lambda: json.loads(get(health)[2])["log"] == "ok", 5)
    assert asked[0] == 1


def test_the_health_check_is_served_beside_streams(server: Server) -> None:
    with urlopen(f"{server.url}/healthz?log") as answer:
        assert json.loads(answer.read()) == {"status": "ok", "log": "ok"}
    with pytest.raises(HTTPError, match="401"):
        urlopen(Request(f"{server.url}/metrics"))
