# SPDX-License-Identifier: Apache-2.0
"""HTTP as bytes on a socket: what must not be smuggled through, keep-alive, deadlines, keys, framing of streams."""

import json
import re
import socket
import time

import pytest

from conftest import ROOT, SANITIZED, report

BODY = b'{"prompt":"hi","max_tokens":1}'
SMUGGLED = b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Peer:
    def __init__(self, server, timeout=10):
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=timeout)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def more(self):
        try:
            piece = self.socket.recv(65536)
        except (ConnectionResetError, BrokenPipeError):
            piece = b""
        self.buffer += piece
        return bool(piece)

    def until(self, mark):
        while mark not in self.buffer:
            assert self.more(), f"closed before {mark!r}: {self.buffer!r}"
        part, self.buffer = self.buffer.split(mark, 1)
        return part + mark

    def answer(self, head_only=False):
        """Status, headers (lower case) and body of one response."""
        head = self.until(b"\r\n\r\n").decode("latin1").split("\r\n")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in head[1:-2])}
        body = b""
        if not head_only:
            if headers.get("transfer-encoding") == "chunked":
                while (size := int(self.until(b"\r\n"), 16)) > 0:
                    while len(self.buffer) < size + 2:
                        assert self.more()
                    body, self.buffer = body + self.buffer[:size], self.buffer[size + 2:]
                self.until(b"\r\n")
            else:
                need = int(headers.get("content-length", "0"))
                while len(self.buffer) < need:
                    assert self.more(), "closed inside a body"
                body, self.buffer = self.buffer[:need], self.buffer[need:]
        return int(head[0].split(" ")[1]), headers, body

    def rest(self):
        while self.more():
            pass
        return self.buffer


def request(path="/v1/completions", method="POST", body=BODY, headers=(), host=b"localhost", version=b"1.1",
            length=True):
    lines = [method.encode() + b" " + path.encode() + b" HTTP/" + version]
    if host is not None:
        lines.append(b"Host: " + host)
    if body is not None and method == "POST":
        lines.append(b"Content-Type: application/json")
        if length:
            lines.append(b"Content-Length: %d" % len(body))
    lines += [h if isinstance(h, bytes) else h.encode() for h in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body if body is not None and method == "POST" else b"")


def one(server, data, head_only=False):
    with Peer(server) as peer:
        peer.send(data)
        return peer.answer(head_only)


CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
TYPE = b"Content-Type: application/json\r\n"
POST = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n" + TYPE
SMUGGLING = {
    "te-and-cl": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + CHUNKED,
    "cl-and-te": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "two-lengths": POST + b"Content-Length: 5\r\nContent-Length: 30\r\n\r\n" + BODY,
    "same-length-twice": POST + b"Content-Length: 30\r\nContent-Length: 30\r\n\r\n" + BODY,
    "blank-before-colon": POST + b"Content-Length : 30\r\n\r\n" + BODY,
    "te-blank-before-colon": POST + b"Transfer-Encoding : chunked\r\nContent-Length: 3\r\n\r\n" + CHUNKED,
    "te-xchunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKED,
    "te-identity": POST + b"Transfer-Encoding: identity\r\n\r\n" + CHUNKED,
    "te-gzip-chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKED,
    "te-tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + CHUNKED,
    "two-te": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "te-1.0": b"POST /v1/completions HTTP/1.0\r\n" + TYPE + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "two-hosts": b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
    "no-host": b"GET /health HTTP/1.1\r\n\r\n",
    "control-in-value": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: a\x01b\r\n\r\n",
    "bare-cr": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: b\rX-B: c\r\n\r\n",
    "delete-in-value": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: a\x7f\r\n\r\n",
    "name-with-blank": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX A: b\r\n\r\n",
    "name-with-bracket": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX(A): b\r\n\r\n",
    "absolute-uri": b"GET http://localhost/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("probe", SMUGGLING)
def test_smuggling(server, probe):
    """400, the connection is closed, and what follows is never taken for a second request."""
    with Peer(server, 15) as peer:
        peer.send(SMUGGLING[probe] + SMUGGLED)
        everything = peer.rest()
    assert re.match(rb"HTTP/1\.[01] 400 ", everything), everything
    assert b'"version"' not in everything and everything.count(b"HTTP/1.1 200") == 0, everything


@pytest.mark.parametrize("length", [b"-1", b"+5", b"0x5", b"5, 5", b""])
def test_lengths_that_are_none(server, length):
    with Peer(server, 15) as peer:
        peer.send(POST + b"Content-Length: " + length + b"\r\n\r\n" + BODY + SMUGGLED)
        everything = peer.rest()
    assert b"HTTP/1.1 200" not in everything and b'"version"' not in everything


def test_odd_versions(server):
    assert one(server, b"GET /health HTTP/1.9\r\nHost: localhost\r\n\r\n")[0] == 505
    with Peer(server) as peer:
        peer.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert b" 200 " not in peer.rest()


def test_http_1_0_needs_no_host(server):
    with Peer(server) as peer:
        peer.send(b"GET /health HTTP/1.0\r\n\r\n")
        status, headers, _ = peer.answer()
        assert status == 200 and headers["connection"].lower() == "close" and peer.rest() == b""


@pytest.mark.parametrize("method,path,status,allow", [
    ("GET", "/v1/completions", 405, "POST"), ("PUT", "/v1/chat/completions", 405, "POST"),
    ("DELETE", "/v1/models", 405, "GET"), ("POST", "/health", 405, "GET"), ("PATCH", "/ping", 405, "GET, POST"),
    ("BREW", "/health", 405, "GET"), ("x" * 1000, "/health", 405, "GET"), ("get", "/health", 405, "GET"),
    ("GET", "/nothing", 404, None), ("POST", "/v1/embeddings", 404, None), ("BREW", "/nothing", 404, None),
    ("GET", "/v1/models/", 404, None), ("GET", "//health", 404, None), ("GET", "/health/", 404, None),
    ("GET", "/%68ealth", 404, None), ("GET", "/health%00", 404, None), ("GET", "/v1/models/a%0d%0ab", 404, None),
    ("GET", "/v1/../health", 404, None), ("GET", "/admin/drain", 404, None)])
def test_unknown_routes(server, method, path, status, allow):
    got, headers, body = one(server, request(path, method, body=None))
    error = json.loads(body)["error"]
    assert got == status and headers.get("allow") == allow
    assert error["code"] in ("method_not_allowed", "unknown_url", "model_not_found")
    assert error["type"] == "invalid_request_error" and headers["content-type"] == "application/json"


def test_query_is_no_part_of_the_path(server):
    assert one(server, request("/health?x=1&y", "GET"))[0] == 200


def test_head(server):
    with Peer(server) as peer:
        for _ in range(2):
            peer.send(request("/v1/models", "HEAD"))
            status, headers, _ = peer.answer(head_only=True)
            assert status == 200 and int(headers["content-length"]) > 0
        peer.send(request("/health", "GET"))
        assert peer.answer()[0] == 200 and peer.buffer == b""


@pytest.mark.parametrize("host,status", [
    (b"localhost", 200), (b"localhost:8000", 200), (b"LOCALHOST", 200), (b"127.0.0.1", 200), (b"127.0.0.1:1", 200),
    (b"127.1.2.3", 200), (b"[::1]:80", 200), (b"evil.example", 403), (b"127.evil.example", 403),
    (b"localhost.evil.example", 403), (b"evil.example:127", 403), (b"[::2]", 403)])
def test_host_on_loopback(server, host, status):
    got, _, body = one(server, request("/version", "GET", host=host))
    assert got == status
    assert status == 200 or json.loads(body)["error"]["code"] == "host_not_allowed"


@pytest.mark.parametrize("given,echoed", [
    ("abc-1.2_3:4", True), ("x" * 128, True), ("x" * 129, False), ("a b", False), ("a\"b", False), ("\xe4", False)])
def test_request_id(server, given, echoed):
    _, headers, _ = one(server, request("/health", "GET", headers=[f"X-Request-Id: {given}".encode("latin1")]))
    assert (headers["x-request-id"] == given) == echoed
    assert echoed or re.fullmatch("[0-9a-f]{32}", headers["x-request-id"])


def test_request_ids_differ(server):
    assert len({one(server, request("/health", "GET"))[1]["x-request-id"] for _ in range(5)}) == 5


def test_keep_alive(server):
    with Peer(server) as peer:
        for i in range(20):
            peer.send(request() if i % 2 else request("/version", "GET"))
            assert peer.answer()[0] == 200
        peer.send(request("/nothing", "GET"))
        assert peer.answer()[0] == 404
        peer.send(request(headers=["Accept: text/plain"]))
        assert peer.answer()[0] == 200


def test_pipelining(server):
    with Peer(server) as peer:
        peer.send(b"".join(request(headers=[f"x-request-id: n{i}"]) if i % 3 else
                           request("/version", "GET", headers=[f"x-request-id: n{i}"]) for i in range(30)))
        for i in range(30):
            status, headers, _ = peer.answer()
            assert status == 200 and headers["x-request-id"] == f"n{i}"


def test_bodies_in_pieces(server):
    with Peer(server) as peer:
        data = request()
        for i in range(0, len(data), 7):
            peer.send(data[i:i + 7])
        assert peer.answer()[0] == 200
        head = request(length=False, headers=["Transfer-Encoding: chunked"])[:-len(BODY)]
        peer.send(head + b"".join(b"1\r\n%c\r\n" % c for c in BODY) + b"0\r\n\r\n")
        assert peer.answer()[0] == 200


def test_expect_continue(server):
    with Peer(server) as peer:
        peer.send(request(headers=["Expect: 100-continue"])[:-len(BODY)])
        assert b" 100 " in peer.until(b"\r\n\r\n")
        peer.send(BODY)
        assert peer.answer()[0] == 200


def test_expect_is_refused_before_the_body(server):
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %d\r\nExpect: 100-continue\r\n\r\n"
    with Peer(server) as peer:
        peer.send(head % (TYPE, 100 << 20))
        assert peer.answer()[0] == 413 and peer.rest() == b""


@pytest.mark.parametrize("send_all", [False, True])
def test_announced_body_too_large(server, send_all):
    before = time.monotonic()
    with Peer(server) as peer:
        peer.send(POST + b"Content-Length: %d\r\n\r\n" % (20 << 20))
        try:
            for _ in range(320 if send_all else 1):
                peer.send(b" " * 65536)
        except (ConnectionResetError, BrokenPipeError):
            pass
        status, headers, body = peer.answer()
    assert status == 413 and json.loads(body)["error"]["code"] == "request_too_large"
    assert headers["connection"] == "close" and headers["x-request-id"] and time.monotonic() - before < 30


def test_chunked_body_too_large(server):
    with Peer(server) as peer:
        peer.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(300):
                peer.send(b"10000\r\n" + b" " * 65536 + b"\r\n")
        except (ConnectionResetError, BrokenPipeError):
            pass
        status, _, body = peer.answer()
    assert status == 413 and json.loads(body)["error"]["code"] == "request_too_large"


@pytest.mark.parametrize("headers", [
    [], ["Content-Type: text/plain"], ["Content-Type: multipart/form-data; boundary=x"],
    ["Content-Type: application/jsonx"], ["Content-Type: application/json", "Content-Encoding: gzip"]])
def test_media_types(server, headers):
    lines = "".join(h + "\r\n" for h in ["Host: localhost", f"Content-Length: {len(BODY)}", *headers])
    status, _, body = one(server, b"POST /v1/completions HTTP/1.1\r\n" + lines.encode() + b"\r\n" + BODY)
    assert status == 415 and json.loads(body)["error"]["code"] == "unsupported_media_type"


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "application/ld+json"])
def test_media_types_of_json(server, kind):
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(BODY)}"
    assert one(server, head.encode() + b"\r\n\r\n" + BODY)[0] == 200


def test_too_many_or_long_headers(server):
    status, _, body = one(server, request("/health", "GET", headers=[f"X-{i}: 1" for i in range(150)]))
    assert status == 431 and b"error" in body
    with Peer(server) as peer:
        peer.send(request("/health", "GET", headers=["X-A: " + "a" * 60000]))
        assert b" 431 " in peer.until(b"\r\n")
    with Peer(server) as peer:
        peer.send(request("/" + "a" * 60000, "GET"))
        assert b" 414 " in peer.until(b"\r\n")


# ---- streams ----

def test_stream_framing(server):
    body = b'{"messages":[{"role":"user","content":"hi"}],"max_tokens":8,"stream":true,"temperature":0}'
    with Peer(server) as peer:
        peer.send(request("/v1/chat/completions", body=body))
        status, headers, raw = peer.answer()
        assert status == 200 and headers["content-type"] == "text/event-stream; charset=utf-8"
        assert headers["cache-control"] == "no-cache" and headers["x-accel-buffering"] == "no"
        assert headers["x-request-id"] and headers["transfer-encoding"] == "chunked"
        events = raw.decode().split("\n\n")
        assert events.pop() == "" and events.pop() == "data: [DONE]"
        for event in events:
            assert event.startswith("data: {") and "\n" not in event
            json.loads(event[6:])
        peer.send(request("/version", "GET"))  # the connection lives on
        assert peer.answer()[0] == 200


def test_errors_come_before_a_stream(server):
    status, headers, body = one(server, request(body=b'{"prompt":"","stream":true}'))
    assert status == 400 and headers["content-type"] == "application/json" and b'"error"' in body


# ---- deadlines ----

def test_slow_header_and_body(server):
    """One byte a second is not enough to stay: 10 s for the header; the body's 60 s are too long for a test."""
    before = time.monotonic()
    with Peer(server, 60) as first, Peer(server, 60) as second:
        second.send(request("/version", "GET"))
        assert second.answer()[0] == 200
        second.send(b"GET /version HTTP/1.1\r\n")  # the deadline holds for later requests, too
        first.socket.settimeout(1)
        ended = None
        while ended is None and time.monotonic() - before < 50:
            try:
                first.send(b"G")
                if first.socket.recv(1) == b"":
                    ended = time.monotonic() - before
            except TimeoutError:
                pass
            except OSError:
                ended = time.monotonic() - before
        assert ended is not None and 9 < ended < 40  # not the body's 60 s
        assert second.rest() == b"" and time.monotonic() - before < 55
    report(f"a header at 1 B/s was cut off after {ended:.1f} s")


# ---- keys ----

KEY = "sk-test-0123456789"
OPEN = {("GET", "/health"), ("GET", "/ping"), ("POST", "/ping"), ("GET", "/ready")}


def table():
    """The router's own table, so that a new route cannot be forgotten here."""
    rows = re.findall(r'\{"(GET|POST)", "([^"]+)", AUTH_(NONE|USER), (true|false),',
                      (ROOT / "api" / "routes.c").read_text())
    assert len(rows) >= 14
    return [(m, p.replace("*", "x"), auth) for m, p, auth, _ in rows]


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    from conftest import Server
    where = tmp_path_factory.mktemp("locked")
    (where / "keys").write_text(f"# two keys\nanother-key\n{KEY}\n")
    (where / "keys").chmod(0o600)
    s = Server(where / "log", "--api-key-file", str(where / "keys"), "--allowed-origins", "https://a.example",
               "--max-connections", "8", "--enable-log-requests", ranks=1)
    yield s
    assert s.stop() == 0, s.text()
    assert KEY not in s.text() and "another-key" not in s.text()


@pytest.mark.parametrize("method,path,auth", table())
def test_every_route_asks_for_the_key(locked, method, path, auth):
    assert (auth == "NONE") == ((method, path) in OPEN)
    wrong = {
        "none": ([], 401), "wrong": (["Authorization: Bearer nothing"], 401),
        "prefix": ([f"Authorization: Bearer {KEY[:-1]}"], 401), "longer": ([f"Authorization: Bearer {KEY}x"], 401),
        "basic": (["Authorization: Basic c2s6"], 401), "bare": ([f"Authorization: {KEY}"], 401),
        "x-api-key": ([f"x-api-key: {KEY}"], 401), "empty": (["Authorization: Bearer "], 401),
        "two": ([f"Authorization: Bearer {KEY}"] * 2, 400)}
    for name, (headers, status) in wrong.items():
        got, answer, body = one(locked, request(path, method, headers=headers))
        if auth == "NONE":
            assert got == 200, (name, got)
            continue
        assert got == status or (got == 429 and name in ("wrong", "prefix", "longer", "empty")), (name, got)
        assert "error" in json.loads(body)
        assert got != 401 or answer["www-authenticate"] == "Bearer"
    for scheme in ("Bearer", "bearer", "BEARER"):
        got, _, _ = one(locked, request(path, method, headers=[f"Authorization: {scheme} {KEY}"]))
        assert got not in (401, 403, 429), (scheme, got)
    time.sleep(0.3)


def test_requests_are_logged_without_keys(locked):
    assert one(locked, request("/version", "GET", headers=[f"Authorization: Bearer {KEY}"]))[0] == 200
    assert one(locked, request("/version?secret", "GET"))[0] == 401
    locked.wait_text("GET /version -> 200")
    locked.wait_text("GET /version -> 401")
    assert "secret" not in locked.text()


def test_unknown_paths_ask_for_the_key_too(locked):
    time.sleep(1.1)
    assert one(locked, request("/nothing", "GET"))[0] == 401
    assert one(locked, request("/nothing", "GET", headers=[f"Authorization: Bearer {KEY}"]))[0] == 404


def test_wrong_keys_are_rated(locked):
    time.sleep(1.1)
    wrong = request("/version", "GET", headers=["Authorization: Bearer guess"])
    with Peer(locked) as peer:
        got = []
        for _ in range(60):
            peer.send(wrong)
            status, headers, body = peer.answer()
            got.append(status)
            if status == 429:
                assert 1 <= int(headers["retry-after"]) <= 60 and int(headers["retry-after-ms"]) >= 1000
                assert json.loads(body)["error"]["type"] == "rate_limit_error"
        assert set(got) == {401, 429} and got.count(401) <= 40
        peer.send(request("/version", "GET", headers=[f"Authorization: Bearer {KEY}"]))
        assert peer.answer()[0] == 200  # a good key is never refused because of a neighbour
    time.sleep(1.1)
    assert one(locked, wrong)[0] == 401


def test_preflight(locked):
    ask = ["Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization, x-a"]
    status, headers, _ = one(locked, request("/v1/models", "OPTIONS", headers=["Origin: https://a.example", *ask]))
    assert status in (200, 204) and headers["access-control-allow-origin"] == "https://a.example"
    assert headers["access-control-allow-headers"] == "authorization, x-a" and headers["vary"] == "Origin"
    assert headers["access-control-allow-methods"] == "GET, POST"
    _, headers, _ = one(locked, request("/v1/models", "OPTIONS", headers=["Origin: https://b.example", *ask]))
    assert "access-control-allow-origin" not in headers
    got, headers, _ = one(locked, request("/version", "GET", headers=[
        "Origin: https://a.example", f"Authorization: Bearer {KEY}"]))
    assert got == 200 and headers["access-control-expose-headers"] == "x-request-id, retry-after"


def test_no_cors_unless_asked(server):
    status, headers, _ = one(server, request("/v1/models", "OPTIONS", headers=["Origin: https://a.example"]))
    assert status in (200, 204) and not any(h.startswith("access-control") for h in headers)


def test_too_many_connections(locked):
    """Beyond --max-connections requests are told so, and probes still get their answer."""
    key = [f"Authorization: Bearer {KEY}"]
    time.sleep(0.3)
    idle = [Peer(locked) for _ in range(8)]
    try:
        for peer in idle:
            peer.send(request("/health", "GET"))
            assert peer.answer()[0] == 200
        status, headers, body = one(locked, request("/version", "GET", headers=key))
        assert status == 503 and json.loads(body)["error"]["code"] == "too_many_connections"
        assert headers["retry-after"] == "1" and one(locked, request("/health", "GET"))[0] == 200
    finally:
        for peer in idle:
            peer.socket.close()
    deadline = time.monotonic() + 5
    while one(locked, request("/version", "GET", headers=key))[0] != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_many_connections(server):
    """Connecting, asking and leaving quickly does no harm."""
    before = time.monotonic()
    for i in range(100 if SANITIZED else 400):
        peer = Peer(server)
        if i % 3:
            peer.send(request("/health", "GET")[: 10 if i % 3 == 1 else 1000])
        peer.socket.close()
    assert one(server, request())[0] == 200
    report(f"400 connections opened and dropped in {time.monotonic() - before:.2f} s")
