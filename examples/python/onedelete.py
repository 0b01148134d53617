"""Starts `onedelete mock` and `onedelete serve`, and speaks to both. Nothing but the standard library."""

import json
import os
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

PROGRAM = os.environ.get("ONEDELETE", "onedelete")
PATIENCE_S = 30


def call(method, url, body=None, headers=None):
    """One request: its status, its headers and its JSON, if there is any."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method, headers=headers or {})
    if data is not None:
        request.add_header("content-type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as reply:
            text, status, received = reply.read(), reply.status, reply.headers
    except urllib.error.HTTPError as error:
        text, status, received = error.read(), error.code, error.headers
    return status, received, json.loads(text) if text else None


class Program:
    """A process that is ended with the test, whatever becomes of it."""

    def __init__(self, *arguments, stdout=None, stderr=None):
        self.process = subprocess.Popen([PROGRAM, *arguments], stdout=stdout, stderr=stderr, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe:
                pipe.close()


class Mocks(Program):
    """Mock upstreams on free ports, and their control API."""

    def __init__(self, tenant_file, *upstreams):
        super().__init__(
            "mock", *upstreams, "--port", "0", "--output", "json", "--tenant-file", str(tenant_file),
            stdout=subprocess.PIPE,
        )
        # One line, once all of them listen.
        ready = json.loads(self.process.stdout.readline())
        self.control, self.key = ready["control"], ready["key"]
        self.base_urls = {upstream["name"]: upstream["base_url"] for upstream in ready["upstreams"]}

    def ask(self, method, path, body=None):
        status, _, answer = call(method, self.control + path, body)
        assert status < 300, answer
        return answer

    def seed(self, upstream, *ids, held=False):
        self.ask("PUT", f"/upstreams/{upstream}/contacts", [{"id": each, "held": held} for each in ids])

    def contacts(self, upstream):
        return [contact["id"] for contact in self.ask("GET", f"/upstreams/{upstream}/contacts")]

    def play(self, *steps):
        self.ask("PUT", "/scenario", {"steps": steps})

    def journal(self, upstream):
        return self.ask("GET", f"/journal?upstream={upstream}&kind=delete")["entries"]

    def check(self, *checks):
        """Fails with everything that does not hold."""
        answer = self.ask("POST", "/checks", {"checks": checks})
        wrong = [f"{result['check']}: {result['why']}" for result in answer["results"] if not result["ok"]]
        assert answer["ok"], "\n".join(wrong)


class Gateway(Program):
    """A gateway in front of the mocks of a tenant's file, on a free port, with nothing kept."""

    def __init__(self, folder: Path, key):
        config = folder / "onedelete.toml"
        config.write_text(
            """
            server = { listen = "127.0.0.1:0", admin_listen = "127.0.0.1:0" }
            store = { url = "memory:" }
            tenants = { directory = "tenants" }
            log = { format = "json" }
            [upstream]
            # One call after the other, so that a scenario's steps meet the calls in the order of the test.
            limits = { max_in_flight = 1, rate = "off" }
            retry = { base_ms = 1, cap_ms = 20 }
            """
        )
        super().__init__("serve", "--config", str(config), stderr=subprocess.PIPE)
        self.headers = {"authorization": f"Bearer {key}"}
        for line in self.process.stderr:
            entry = json.loads(line)
            if entry["message"] == "listening":
                self.url = f"http://{entry['public']}"
                return
        raise RuntimeError("the gateway did not start")

    def delete(self, connection, *ids):
        """Asks for the deletion of contacts: one result for each."""
        body = {"connection": connection, "contacts": list(ids)}
        status, _, answer = call("POST", f"{self.url}/v1/deletions", body, self.headers)
        assert status in (200, 207), answer
        return answer["results"]
