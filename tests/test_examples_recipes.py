"""The examples of a job and of a dashboard, and the Python of docs/recipes, as a user runs them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Page, expect
from redis import Redis
from rq import Queue

from ssekit import Hub
from ssekit.testing import connect
from tests.clients import Client
from tests.documents import files_of, module
from tests.redis_server import RedisServer
from tests.servers import ROOT, Server, gunicorn
from tests.waiting import until

pytestmark = pytest.mark.ci

PAGES = sorted((ROOT / "docs" / "recipes").glob("*.md"))
CODE = files_of("".join(page.read_text() for page in PAGES))


# -- the examples


def environment(folder: Path) -> dict[str, str]:
    return {"SSEKIT_URL": f"sqlite:///{folder}/hub.db"}


@contextmanager
def example(name: str, folder: Path) -> Iterator[Server]:
    options = ("--chdir", str(ROOT / "examples"))
    with gunicorn(f"{name}:app", *options, env=environment(folder)) as server:
        yield server


@contextmanager
def program(name: str, folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment(folder)}
    command = [sys.executable, ROOT / "examples" / name, *arguments]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_jobs_page_shows_how_far_it_is_and_its_end(tmp_path: Path, page: Page) -> None:
    with example("job_page", tmp_path) as server:
        page.goto(f"{server.url}/jobs/report")
        with program("job.py", tmp_path, "report", "100"):
            expect(page.locator("#status")).to_have_text(re.compile("of 100"), timeout=20_000)
            expect(page.locator("#status")).to_have_text("finished", timeout=30_000)
        page.reload()
        expect(page.locator("#status")).to_have_text("finished", timeout=15_000)
        assert page.evaluate("bar.value / bar.max") == 1


def test_the_pages_button_cancels_the_job(tmp_path: Path, page: Page) -> None:
    with example("job_page", tmp_path) as server:
        with program("job.py", tmp_path, "report", "1000") as job:
            page.goto(f"{server.url}/jobs/report")
            expect(page.locator("#status")).to_have_text(re.compile("of 1000"), timeout=20_000)
            page.get_by_role("button", name="Cancel").click()
            expect(page.locator("#status")).to_have_text("cancelled", timeout=15_000)
            assert job.wait(15) == 1


def test_the_page_is_told_that_the_job_was_killed(tmp_path: Path, page: Page) -> None:
    with example("job_page", tmp_path) as server:
        with program("job.py", tmp_path, "report", "1000") as job:
            page.goto(f"{server.url}/jobs/report")
            expect(page.locator("#status")).to_have_text(re.compile("of 1000"), timeout=20_000)
            job.send_signal(signal.SIGKILL)
            expect(page.locator("#status")).to_have_text("lost", timeout=30_000)


def test_a_dashboard_that_is_opened_shows_all_five_metrics(tmp_path: Path, page: Page) -> None:
    with program("dashboard.py", tmp_path), Hub(environment(tmp_path)["SSEKIT_URL"]) as hub:
        until(lambda: len(hub.state("metrics")) == 5, 20)
    with example("dashboard", tmp_path) as server:
        page.goto(server.url)
        expect(page.locator("tr")).to_have_count(5, timeout=15_000)
        expect(page.locator("table")).to_contain_text("MiB")


def test_the_lag_of_a_slow_viewer_is_drawn(tmp_path: Path) -> None:
    target = tmp_path / "lag.svg"
    env = {**inherited(), "SECONDS": "3"}
    command = [sys.executable, ROOT / "examples" / "dashboard_lag.py", target]
    subprocess.run(command, env=env, check=True)
    drawn = target.read_text()
    assert drawn.count("<polyline") == 2
    assert "with keys: " in drawn


# -- the recipes


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, code in CODE.items():
        (tmp_path / name).write_text(code)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def post(url: str, headers: Mapping[str, str] = {}, **form: str) -> Client:
    form_type = {"Content-Type": "application/x-www-form-urlencoded"}
    body = urlencode(form).encode()
    with Client(url, method="POST", headers={**form_type, **headers}, body=body) as client:
        client.until_end()
        return client


def served(folder: Path, name: str) -> Any:
    return gunicorn(f"{name}:app", "--chdir", str(folder), env={"SSEKIT_TOKEN": "secret"})


def test_every_block_of_python_is_a_file_that_a_test_runs() -> None:
    text = Path(__file__).read_text()
    names = [name.removesuffix(".py") for name in CODE]
    assert [name for name in names if not re.search(rf'"{name}\b', text)] == []


def test_the_tokens_of_the_recipe_are_streamed_and_stopped(folder: Path) -> None:
    with served(folder, "answers") as server:
        address = post(f"{server.url}/answers", question="What? " * 3).headers["Location"]
        with Client(f"{server.url}{address}") as client:
            client.until_end(20)
        assert [event.data for event in client.events if event.event == "message"] == [
            *["What?"] * 3,
            "A",
            "good",
            "question.",
        ]
        address = post(f"{server.url}/answers", question="What? " * 300).headers["Location"]
        with Client(f"{server.url}{address}") as client:
            assert b"true" in post(f"{server.url}{address}/stop").body
            client.until_end()
        assert json.loads(client.events[-1].data)["reason"] == "cancelled"
        with Client(f"{server.url}/answers/none") as client:
            assert client.status == 404


def test_the_recipes_job_is_seen_to_its_end(folder: Path) -> None:
    with served(folder, "report_page") as server, Client(f"{server.url}/report/events") as client:
        client.wait(1)
        subprocess.run([sys.executable, "report.py"], cwd=folder, env=inherited(), check=True)
        client.until_end()
        assert json.loads(client.events[-2].data) == {"done": 20, "of": 20}
        assert json.loads(client.events[-1].data)["reason"] == "finished"
        assert b"false" in post(f"{server.url}/report/cancel").body


def inherited() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_the_recipes_dashboard_has_the_newest_of_each_metric(folder: Path) -> None:
    with module(folder, "metrics") as metrics:
        for value in range(3):
            metrics.measured("load", value)
        with connect(metrics.app) as viewer:
            assert next(viewer).data == '{"name":"load","value":2}'
            assert next(viewer).event == "stream-open"


def test_the_page_with_its_state_streams_what_came_after_it(folder: Path) -> None:
    with served(folder, "votes") as server:
        post(f"{server.url}/vote")
        with Client(server.url) as page:
            html = page.until_end().decode()
        assert ">1</output>" in html
        post(f"{server.url}/vote")
        address = re.search(r"/events\?last_event_id=[\w-]+", html)
        assert address is not None
        with Client(f"{server.url}{address[0]}") as client:
            assert client.wait(1)[0].data == "2"


def test_with_the_id_in_the_state_no_change_is_missed_or_comes_twice(folder: Path) -> None:
    with module(folder, "exactly_once") as stock:
        stock.deliver("tea", 1)
        stop = threading.Event()

        def deliver() -> None:
            while not stop.is_set():
                stock.deliver("tea", 1)

        threads = [threading.Thread(target=deliver) for _ in range(2)]
        for thread in threads:
            thread.start()
        pages = []
        until(lambda: pages.append(stock.read("tea")) or pages[-1][0] > 60, 40)  # type: ignore[func-returns-value]
        stop.set()
        for thread in threads:
            thread.join()
        total, position = stock.read("tea")
        for known, begin in pages:
            shown = known
            if begin != position:
                events = stock.hub.subscribe("stock/tea", last_event_id=begin)
                for event in events:
                    shown += int(event.data)
                    if event.id == position:
                        break
                events.close()
            assert shown == total


def test_a_user_gets_notifications_of_their_own_and_nobody_else_any(folder: Path) -> None:
    with module(folder, "notifications") as notifications:
        notifications.notify("ann", "hello")
        notifications.notify("bob", "secret")
        session = notifications.app.session_interface.get_signing_serializer(notifications.app)
        cookie = f"session={session.dumps({'user': 'ann'})}"
        with connect(notifications.app, "/notifications", headers=[("Cookie", cookie)]) as viewer:
            assert json.loads(next(viewer).data) == {"text": "hello"}
            assert next(viewer).event == "stream-open"
        with connect(notifications.app, "/notifications") as viewer:
            assert viewer.status == 401


def test_a_cache_forgets_what_another_process_has_changed(folder: Path) -> None:
    with module(folder, "cached") as ours, module(folder, "cached") as theirs:
        ours.watch()
        assert ours.get("a", lambda key: "old") == "old"
        assert ours.get("a", lambda key: "new") == "old"
        theirs.changed("a")
        until(lambda: ours.get("a", lambda key: "new") == "new")

        def load(key: str) -> str:
            before = ours.forgotten
            theirs.changed("b")
            until(lambda: ours.forgotten > before)
            return "old"

        assert ours.get("b", load) == "old"
        assert ours.get("b", lambda key: "new") == "new"


def test_what_cron_publishes_is_there_for_later_pages(folder: Path) -> None:
    subprocess.run([sys.executable, "nightly.py"], cwd=folder, env=inherited(), check=True)
    text = (ROOT / "docs" / "recipes" / "cron.md").read_text()
    line = re.search(r"```sh\nssekit (.*?)\n```", text)
    assert line is not None
    command = f"{sys.executable} -m ssekit {line[1]}"
    subprocess.run(command, shell=True, cwd=folder, env=inherited(), check=True)
    with Hub("sqlite:///hub.db") as hub:
        assert hub.state("backups")["nightly"].data == '{"state":"done"}'
        assert [event.data for event in hub.history("backups")] == ["The backup is done"]


def test_a_task_of_celery_publishes(folder: Path, redis_server: RedisServer) -> None:
    env = {**inherited(), "BROKER": f"redis+socket://{redis_server.path}?virtual_host=14"}
    celery = [sys.executable, "-m", "celery", "--app", "tasks"]
    alone = ["--without-mingle", "--without-gossip", "--without-heartbeat"]  # Each takes a second.
    with worker([*celery, "worker", "--concurrency", "1", *alone], folder, env) as process:
        enqueue = [*celery, "call", "tasks.resize", "--args", '["cat.png", "ann"]']
        subprocess.run(enqueue, cwd=folder, env=env, check=True, capture_output=True)
        with Hub("sqlite:///hub.db") as hub:
            until(lambda: len(hub.history("user/ann")) == 2, 30)
            states = [json.loads(str(event.data))["state"] for event in hub.history("user/ann")]
        assert states == ["resizing", "done"]
        process.terminate()
        assert process.wait(20) == 0


def test_a_job_of_rq_is_a_channel_that_ends(folder: Path, redis_server: RedisServer) -> None:
    url = f"{redis_server.url}?db=13"
    with Redis.from_url(url) as connection:
        job = Queue(connection=connection).enqueue("jobs.resize", ["cat.png", "dog.png"])
        command = [sys.executable, "-m", "rq.cli", "worker", "--burst", "--url", url]
        with worker(command, folder, inherited()) as process:
            assert process.wait(30) == 0
    with Hub("sqlite:///hub.db") as hub:
        progress = hub.state(f"job/{job.id}")["progress"]
        assert json.loads(str(progress.data)) == {"image": "dog.png", "done": 2, "of": 2}
        assert hub.status(f"job/{job.id}").state == "finished"


@contextmanager
def worker(
    command: list[str], folder: Path, env: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "worker.log").open("wb") as log:
        with subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log) as process:
            try:
                yield process
            finally:
                process.kill()


def test_the_room_of_the_chat_shows_who_is_here_and_what_they_say(folder: Path) -> None:
    with module(folder, "room") as room:
        session = room.app.session_interface.get_signing_serializer(room.app)
        cookie = f"session={session.dumps({'id': '7', 'name': 'Ann'})}"
        ann = room.app.test_client()
        ann.set_cookie("session", cookie.removeprefix("session="))
        with connect(room.app, "/events", headers=[("Cookie", cookie)]) as viewer:
            events = {event.event: event for event in (next(viewer), next(viewer))}
            assert set(events) == {"stream-join", "stream-open"}
            assert ann.post("/typing").status_code == 204
            assert next(viewer).event == "typing"
            assert ann.post("/say", data={"text": "hello"}).status_code == 204
            assert json.loads(str(next(viewer).data))["text"] == "hello"
        assert room.app.test_client().post("/typing").status_code == 401


def test_another_language_publishes_with_the_token_alone(folder: Path) -> None:
    with served(folder, "publish_view") as server, Client(f"{server.url}/events") as client:
        client.wait(1)
        bearer = {"Authorization": "Bearer secret"}
        url = f"{server.url}/publish"
        assert post(url, bearer, channel="news", data="hello").status == 201
        assert client.wait(2)[1].data == "hello"
        assert post(url, channel="news", data="hello").status == 401
        assert post(url, bearer, channel="*", data="hello").status == 400
