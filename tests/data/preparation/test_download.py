"""Downloads against a server of our own: cut, wrong checksum, missing, slow, redirected, changed, no ranges."""

import hashlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fedvlr_plugin.data.preparation.download import fetch
from fedvlr_plugin.errors import DataError

BODY = bytes(range(256)) * 4000
SHA = hashlib.sha256(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Behaviour by path; `seen` keeps (path, range asked for)."""

    protocol_version = "HTTP/1.1"
    seen: list = []
    cuts = 0
    etag = '"one"'

    def log_message(self, *_):
        pass

    def do_GET(self):  # noqa: N802
        asked = self.headers.get("Range")
        Handler.seen.append((self.path, asked))
        if self.path == "/missing":
            return self.reply(404, b"no")
        if self.path == "/busy":
            return self.reply(503, b"no")
        if self.path == "/round":
            self.send_response(302)
            self.send_header("Location", "/round")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/file")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        body, start = BODY, 0
        if asked and self.path != "/norange" and self.headers.get("If-Range") == Handler.etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.send_header("ETag", Handler.etag)
        self.end_headers()
        if self.path == "/slow":
            self.wfile.write(body[:1000])
            time.sleep(1.0)
            return self.close()
        if self.path in ("/cut", "/norange") and Handler.cuts > 0:
            Handler.cuts -= 1
            self.wfile.write(body[start : start + 300_000])
            return self.close()
        self.wfile.write(body[start:])

    def close(self):
        self.close_connection = True

    def reply(self, code, body):
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server():
    Handler.seen, Handler.cuts, Handler.etag = [], 0, '"one"'
    host = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=host.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{host.server_port}"
    host.shutdown()
    host.server_close()


def test_whole_file_progress_and_second_call(server, tmp_path):
    steps = []
    assert fetch(
        f"{server}/file", tmp_path / "a/b", sha256=SHA, on_bytes=lambda done, total: steps.append((done, total))
    )
    assert (tmp_path / "a/b").read_bytes() == BODY
    assert steps[-1] == (len(BODY), len(BODY)) and steps == sorted(steps)
    assert not fetch(f"{server}/file", tmp_path / "a/b", sha256=SHA) and len(Handler.seen) == 1
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b"]


def test_a_cut_is_resumed_where_it_stopped(server, tmp_path):
    Handler.cuts = 2
    assert fetch(f"{server}/cut", tmp_path / "f", sha256=SHA, pause_s=0)
    assert (tmp_path / "f").read_bytes() == BODY
    assert [asked for _, asked in Handler.seen] == [None, "bytes=300000-", "bytes=600000-"]


def test_a_cut_is_resumed_by_the_next_command(server, tmp_path):
    Handler.cuts = 1
    with pytest.raises(
        DataError, match="stopped after 300,000 bytes .*which are kept; run the same command again to go on"
    ):
        fetch(f"{server}/cut", tmp_path / "f", sha256=SHA, attempts=1)
    assert not (tmp_path / "f").exists()
    assert fetch(f"{server}/cut", tmp_path / "f", sha256=SHA)
    assert Handler.seen[-1][1] == "bytes=300000-" and (tmp_path / "f").read_bytes() == BODY


def test_another_version_on_the_server_starts_anew(server, tmp_path):
    Handler.cuts = 1
    with pytest.raises(DataError):
        fetch(f"{server}/cut", tmp_path / "f", attempts=1)
    Handler.etag = '"two"'
    fetch(f"{server}/cut", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY


def test_a_server_without_ranges_starts_anew(server, tmp_path):
    Handler.cuts = 1
    fetch(f"{server}/norange", tmp_path / "f", sha256=SHA, pause_s=0)
    assert (tmp_path / "f").read_bytes() == BODY and len(Handler.seen) == 2


def test_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(DataError, match=f"wrong checksum, sha256 {SHA} instead of 00"):
        fetch(f"{server}/file", tmp_path / "f", sha256="00")
    assert list(tmp_path.iterdir()) == []


def test_missing_is_not_tried_again_and_says_what_to_do(server, tmp_path):
    with pytest.raises(DataError, match="answers 404 .*; fetch it by hand, put it as 'f' into") as caught:
        fetch(f"{server}/missing", tmp_path / "f", pause_s=0)
    assert len(Handler.seen) == 1 and "\n" not in str(caught.value)


def test_busy_is_tried_again(server, tmp_path):
    with pytest.raises(DataError, match="answers 503"):
        fetch(f"{server}/busy", tmp_path / "f", attempts=3, pause_s=0)
    assert len(Handler.seen) == 3


def test_a_silent_server_is_given_up(server, tmp_path):
    with pytest.raises(DataError, match="stopped after 1,000 bytes"):
        fetch(f"{server}/slow", tmp_path / "f", timeout_s=0.2, attempts=1)


def test_redirects_are_followed(server, tmp_path):
    fetch(f"{server}/moved", tmp_path / "f", sha256=SHA)
    assert [path for path, _ in Handler.seen] == ["/moved", "/file"]


def test_a_redirect_that_goes_round_is_one_line(server, tmp_path):
    with pytest.raises(DataError, match="answers 302 .*infinite loop.*fetch it by hand") as caught:
        fetch(f"{server}/round", tmp_path / "f")
    assert "\n" not in str(caught.value)


def test_no_network_names_address_and_place(tmp_path):
    with pytest.raises(DataError, match="http://127.0.0.1:9/x.zip: cannot be reached .*put it as 'x.zip' into"):
        fetch("http://127.0.0.1:9/x.zip", tmp_path / "x.zip", attempts=1)
    with pytest.raises(DataError, match="is no http or https address"):
        fetch("file:///etc/passwd", tmp_path / "x")
