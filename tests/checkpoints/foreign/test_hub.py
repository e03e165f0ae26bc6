"""Names of repositories: the hub's own package, on a cache folder made here."""

import hashlib
import http.server
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading

import pytest
from huggingface_hub import constants

from beit_jax.checkpoints import read
from beit_jax.checkpoints.foreign import hub

ROOT = pathlib.Path(__file__).parents[3]
VERSION = "0" * 40


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path) -> pathlib.Path:
    """The hub's cache, without a network behind it."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as a download needs, with one repository, owner/name."""

    files = ("config.json", "model.h5", "model.safetensors", "pytorch_model.bin")

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = self.path.partition("?")[0]
        sha1 = {file: hashlib.sha1(file.encode()).hexdigest() for file in self.files}
        if path == "/api/models/owner/name/revision/main":
            siblings = [{"rfilename": file} for file in sha1]
            info = {"id": "owner/name", "sha": VERSION, "siblings": siblings}
            self.answer(json.dumps(info))
        elif path == f"/api/models/owner/name/tree/{VERSION}":
            tree = [
                {"type": "file", "path": file, "size": len(file), "oid": oid}
                for file, oid in sha1.items()
            ]
            self.answer(json.dumps(tree))
        elif (file := path.removeprefix(f"/owner/name/resolve/{VERSION}/")) in sha1:
            self.answer(file, {"ETag": sha1[file], "X-Repo-Commit": VERSION})
        else:
            self.answer("", {"X-Error-Code": "RepoNotFound"}, 404)

    do_HEAD = do_GET

    def answer(self, text: str, headers=(), code: int = 200):
        self.send_response(code)
        for name, value in {"Content-Length": str(len(text)), **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(text.encode())


@pytest.fixture
def download(tmp_path):
    """Downloads a repository in a process of its own -> (what it printed, errors)."""
    code = "from beit_jax.checkpoints.foreign import hub; print(hub.download('{}'))"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}
        place = {"HF_HUB_CACHE": str(tmp_path / "cache"), "NO_PROXY": "127.0.0.1"}

        def run(name: str) -> tuple[str, str]:
            done = subprocess.run(
                [sys.executable, "-c", code.format(name)],
                env=os.environ | address | place,
                cwd=ROOT,
                capture_output=True,
                text=True,
            )
            return done.stdout.strip(), done.stderr

        yield run
        server.shutdown()


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_only_what_is_needed_is_downloaded(download, monkeypatch, weights):
    """Pickles only where there is nothing better."""
    if weights not in Hub.files[2]:
        monkeypatch.setattr(Hub, "files", (*Hub.files[:2], weights))
    folder, _ = download("owner/name")
    files = {file.name: file.read_text() for file in pathlib.Path(folder).iterdir()}
    assert files == {name: name for name in ("config.json", weights)}
    for name in ("hf:owner/name", "owner/name"):  # without connection
        assert read.locate(name) == pathlib.Path(folder)


def test_a_repository_that_there_is_not_is_told(download):
    assert "'owner/gone' cannot be downloaded" in (error := download("owner/gone")[1])
    assert "404 Client Error. Repository Not Found for url: http://127" in error


def repository(cache: pathlib.Path, name: str, *files: str) -> pathlib.Path:
    """What a download of these (empty) files leaves behind."""
    folder = cache / f"models--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / VERSION
    for number, file in enumerate(files):
        blob = folder / "blobs" / f"{number:040x}"
        for path in (blob, snapshot / file):
            path.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(b"")
        (snapshot / file).symlink_to(blob)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(VERSION)
    return snapshot


@pytest.mark.parametrize(
    "files",
    [
        ("config.json", "model.safetensors"),
        ("model-00001-of-00002.safetensors", "model.safetensors.index.json"),
        ("config.json", "pytorch_model.bin"),
    ],
)
def test_a_name_gives_the_folder_of_its_newest_version(cache, files):
    snapshot = repository(cache, "owner/beit-tiny.v1", *files)
    assert read.locate("hf:owner/beit-tiny.v1") == snapshot
    assert read.step_of(snapshot) == 0


def test_what_lies_at_a_path_comes_before_a_name(cache, tmp_path):
    repository(cache, "owner/name", "model.safetensors")
    folder = tmp_path / "owner" / "name"
    folder.mkdir(parents=True)
    (folder / "other.safetensors").write_bytes(b"")
    assert read.locate("owner/name") == folder
    assert read.locate("hf:owner/name") != folder


def test_what_does_not_say_that_it_is_on_the_hub_is_not_asked_for_there(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **_: asked.append(args))
    with pytest.raises(ValueError, match="no checkpoint 'runs/pretrain': .* hf:owner/"):
        read.locate("runs/pretrain")
    assert not asked


@pytest.mark.parametrize("text", ["hf:name", "hf:", "hf:a/b/c"])
def test_a_name_that_no_repository_has_is_told(text):
    with pytest.raises(ValueError, match=f"'{text}' must be hf:owner/name"):
        read.locate(text)


def test_a_path_that_is_missing_is_not_taken_for_a_name(cache, tmp_path):
    repository(cache, "runs/pretrain", "model.safetensors")
    (tmp_path / "runs").mkdir()
    with pytest.raises(ValueError, match="no checkpoint 'runs/pretrain': name a run"):
        read.locate("runs/pretrain")


@pytest.mark.parametrize("text", ["name", "a/b/c", "../name", "/a/b", "a/", "a/b c"])
def test_other_texts_are_no_names(text):
    assert not hub.is_name(text)


def test_what_was_never_downloaded_is_told_when_offline():
    words = "'owner/gone' cannot be downloaded from the Hugging Face hub: "
    with pytest.raises(ValueError, match=words):
        read.locate("hf:owner/gone")


def test_a_repository_without_known_weights_is_told(cache):
    repository(cache, "owner/other", "config.json", "flax_model.msgpack")
    words = "'owner/other' .* neither model.safetensors nor pytorch_model.bin; download"
    with pytest.raises(ValueError, match=words):
        read.locate("hf:owner/other")


def test_a_missing_package_is_told_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"'a/b' .*: pip install 'beit_jax\[hub\]'"):
        read.locate("hf:a/b")
