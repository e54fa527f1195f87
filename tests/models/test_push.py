"""`ect push` against a stand-in for the hub: a server that answers what huggingface_hub asks."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ect.cli import main
from tests.helpers.configs import ROOT
from tests.models.test_diffusers_pipeline import EDM, NETWORK, saved

pytest.importorskip("huggingface_hub", reason="the extra 'hub' is not installed")
TOKEN = "hf_standin"


class Hub(BaseHTTPRequestHandler):
    """Keeps repositories as {name: {path: bytes}}. Large files come by LFS: Xet, which the hub
    speaks too, has a server of its own."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer({"error": "Invalid credentials"}, 401)
        path, server = self.path, self.server
        if path == "/api/repos/create":
            told = json.loads(body)
            name = f"{told['organization']}/{told['name']}"
            server.visible[name] = told.get("visibility")
            server.repositories.setdefault(name, {})
            return self.answer({"url": f"{server.address}/{name}"})
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if "/preupload/" in path:
            files = [
                {"path": file["path"], "shouldIgnore": False,
                 "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular"}
                for file in json.loads(body)["files"]
            ]  # fmt: skip
            return self.answer({"files": files})
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                entry | {"actions": {"upload": {"href": f"{server.address}/lfs/{entry['oid']}"}}}
                for entry in json.loads(body)["objects"]
            ]
            return self.answer({"transfer": "basic", "objects": objects})
        return self.commit(path, body)

    def commit(self, path, body):
        name = path.split("/api/models/")[1].split("/commit/")[0]
        for line in map(json.loads, body.splitlines()):
            value, files = line["value"], self.server.repositories[name]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
        url = f"{self.server.address}/{name}/commit/{'0' * 40}"
        self.answer({"commitUrl": url, "commitOid": "0" * 40})

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.large[hashlib.sha256(body).hexdigest()] = body
        self.answer({})

    def answer(self, content, status=200):
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.git-lfs+json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.address = f"http://127.0.0.1:{server.server_port}"
    server.repositories, server.large, server.visible = {}, {}, {}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An exported folder."""
    place = tmp_path_factory.mktemp("push")
    model = saved(place / "model.safetensors", EDM, NETWORK, 1)
    assert main.main(["export", str(model), "--out", str(place / "out"), "--diffusers"]) == 0
    return place / "out"


def test_every_file_arrives_and_the_address_is_printed(hub, folder, capsys):
    assert main.main(["push", "someone/a-model", str(folder), "--private"]) == 0
    assert capsys.readouterr().out.startswith(f"{hub.address}/someone/a-model/commit/")
    files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert hub.repositories == {"someone/a-model": files} and len(files) == 8
    assert hub.visible == {"someone/a-model": "private"} and len(hub.large) == 1


def refused(capsys, *words):
    """The one line that `push` ends with."""
    assert main.main(["push", *map(str, words)]) == 1
    line = capsys.readouterr().err.strip()
    assert line.startswith("ect push: ") and "allowed: " in line and "\n" not in line
    return line


@pytest.mark.parametrize("name", ["model", "a/b/c", "a b/c", "a/-b", "a--b/c", "a/b.git", "/b", ""])
def test_a_name_that_is_none_is_refused(hub, folder, name, capsys):
    assert "allowed: owner/name" in refused(capsys, name, folder)
    assert hub.repositories == {}


def test_what_was_not_exported_is_refused(hub, tmp_path, capsys):
    for place in (tmp_path, tmp_path / "none"):
        assert "found no exported model" in refused(capsys, "a/b", place)


def test_without_a_token_nothing_is_sent(hub, folder, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert "found no token" in refused(capsys, "a/b", folder)


def test_in_a_new_process_a_name_is_checked_too(folder):
    """There no other import has loaded the client's errors."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "ect", "push", "a/b/c", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1 and "allowed: owner/name" in done.stderr


@pytest.mark.parametrize("token", ["hf_\u00fc", "hf a", "hf_a\u2013b"])
def test_a_token_that_no_header_holds_is_named_and_not_shown(
    hub, folder, monkeypatch, capsys, token
):
    monkeypatch.setenv("HF_TOKEN", token)
    line = refused(capsys, "a/b", folder)
    assert "token: found one with '" in line and "ASCII" in line and token not in line
    assert hub.repositories == {}


@pytest.mark.parametrize(
    "address",
    ["huggingface.co", "ftp://x", "http://[::1", "http://a b", "http://127.0.0.1:99999", "http://",
     "http://\u00fc.de"],
)  # fmt: skip
def test_an_endpoint_that_is_no_address_is_named(hub, folder, monkeypatch, capsys, address):
    monkeypatch.setenv("HF_ENDPOINT", address)
    line = refused(capsys, "a/b", folder)
    assert "HF_ENDPOINT: found " in line and "such as https://huggingface.co" in line
    assert hub.repositories == {}


def test_a_wrong_token_is_named(hub, folder, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert "does not know this token" in refused(capsys, "a/b", folder)
    assert hub.repositories == {}


def test_without_a_network_it_says_so(hub, folder, monkeypatch, capsys):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "found no answer of http://127.0.0.1:9" in refused(capsys, "a/b", folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "found no answer of" in refused(capsys, "a/b", folder)
