"""Posting to addresses that strangers name."""

import contextlib
import socket
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from grid_node.errors import WebhookNotAllowed
from grid_node.runners import guarded_http
from grid_node.runners.guarded_http import Unreachable, check_target, is_public, post

HOST = "hooks.example"
PUBLIC = "93.184.215.14"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfine\n"


class Receiver:
    """A server on loopback that lets a test say what it does with each connection, one after the other."""

    def __init__(self, serve, context=None):
        self.requests = []
        self.names = []
        self._serve = serve
        self._context = context
        if context is not None:
            context.sni_callback = lambda _sock, name, _context: self.names.append(name)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._loop, daemon=True).start()

    def _loop(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), connection:
                self._answer(connection)

    def _answer(self, connection):
        if self._context is None:
            self._serve(self, connection)
            return
        with self._context.wrap_socket(connection, server_side=True) as secure:
            self._serve(self, secure)

    def read(self, connection):
        """One request; it is kept."""
        text = b""
        while b"\r\n\r\n" not in text:
            text += connection.recv(65536)
        head, _, body = text.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        while len(body) < length:
            body += connection.recv(65536)
        self.requests.append((head.decode(), body))

    def close(self):
        self._listener.close()


def answering(text):
    def serve(receiver, connection):
        receiver.read(connection)
        connection.sendall(text)

    return serve


@pytest.fixture
def receive():
    with contextlib.ExitStack() as stack:

        def start(serve, context=None):
            receiver = Receiver(serve, context)
            stack.callback(receiver.close)
            return receiver

        yield start


def at(*addresses):
    """A resolver that says so for every name, and keeps what it was asked."""

    def resolve(host, port, seconds):
        resolve.asked.append(host)
        return list(addresses)

    resolve.asked = []
    return resolve


def send(receiver, path="/hook?a=b", scheme="http", timeout_s=5.0, **given):
    given = {"allow_private": True, "resolve": at("127.0.0.1"), **given}
    url = f"{scheme}://{HOST}:{receiver.port}{path}"
    return post(url, [("webhook-id", "msg_1")], b'{"a":1}', timeout_s=timeout_s, **given)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "10.1.2.3", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.9.9.9", "169.254.169.254",
        "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1",
        "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
        "::", "::1", "::ffff:10.0.0.1", "::ffff:93.184.215.14", "::7f00:1", "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1",
        "2001::1", "2001:db8::1", "2002:7f00:1::", "3fff::1", "5f00::1", "fc00::1", "fd12::1", "fe80::1",
        "fe80::1%eth0", "fec0::1", "ff02::1", "not an address", "",
    ],
)  # fmt: skip
def test_an_address_outside_the_open_internet_is_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", [PUBLIC, "1.1.1.1", "100.128.0.1", "172.32.0.1", "2606:4700::1111", "2a00::1"])
def test_an_address_of_the_open_internet_is_public(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        None, 7, "", "hooks.example", "//hooks.example/", "ftp://hooks.example/", "file:///etc/passwd", "https://",
        "https:///path", "http://hooks.example/", "https://user:secret@hooks.example/", "https://hooks.example:0/",
        "https://hooks.example:99999/", "https://hooks.example/a b", "https://hooks.example/\n", "https://hooks.example/\0",
        "https://hooks.example/\ud800", "https://hooks.example/" + "x" * 2027, "https://[::1", "https://127.0.0.1/",
        "https://127.1/", "https://0x7f000001/", "https://2130706433/", "https://[::1]/", "https://[::ffff:127.0.0.1]/",
        "https://10.0.0.1/", "https://169.254.169.254/latest/meta-data/", "https://localhost/",
    ],
)  # fmt: skip
def test_a_target_that_is_no_public_https_address_is_refused(url):
    with pytest.raises(WebhookNotAllowed):
        check_target(url, allow_private=False, resolve=at(PUBLIC) if "hooks" in str(url) else guarded_http.looked_up)


@pytest.mark.parametrize("host", ["127.1", "0x7f.1", "2130706433", "0177.0.0.1", "10.0.0.1"])
def test_an_address_in_an_old_way_of_writing_is_refused_whatever_the_resolver_makes_of_it(host):
    with pytest.raises(WebhookNotAllowed):
        check_target(f"https://{host}/", allow_private=False, resolve=at(PUBLIC))


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://hooks.example/", "Must be https."),
        ("ftp://hooks.example/", "Must be https."),
        ("hooks.example", "Must be https."),
        ("https://127.0.0.1/", "Must not be a private address."),
        ("https://127.1/", "Must not be a private address."),
        ("https://hooks.example/" + "x" * 2027, "Must be at most 2048 characters."),
        ("http://hooks.example/" + "x" * 2028, "Must be at most 2048 characters."),
        ("https://hooks.example/a b", "Not a valid URL."),
        ("https://user:secret@hooks.example/", "Not a valid URL."),
        ("https://[::1", "Not a valid URL."),
        (7, "Not a valid URL."),
    ],
)
def test_a_refusal_says_what_is_wrong_with_the_address(url, why):
    with pytest.raises(WebhookNotAllowed) as refusal:
        check_target(url, allow_private=False, resolve=at(PUBLIC if "hooks" in str(url) else "127.0.0.1"))
    assert refusal.value.data == {"fields": {"webhook": [why]}}
    assert refusal.value.message == "Webhook URL is not allowed."


def test_where_private_targets_are_taken_a_refusal_names_both_protocols():
    with pytest.raises(WebhookNotAllowed) as refusal:
        check_target("ftp://127.0.0.1/", allow_private=True)
    assert refusal.value.data == {"fields": {"webhook": ["Must be http or https."]}}


def test_a_target_of_2048_characters_is_taken():
    url = "https://hooks.example/".ljust(2048, "x")
    assert check_target(url, allow_private=False, resolve=at(PUBLIC)) == url


@pytest.mark.parametrize("addresses", [["10.0.0.1"], [PUBLIC, "127.0.0.1"], ["::1", PUBLIC]])
def test_a_target_whose_name_has_a_private_address_is_refused(addresses):
    with pytest.raises(WebhookNotAllowed):
        check_target(f"https://{HOST}/", allow_private=False, resolve=at(*addresses))


def test_a_target_whose_name_is_not_known_yet_is_taken():
    def unknown(_host, _port, _seconds):
        raise OSError("no such name")

    assert check_target(f"https://{HOST}/", allow_private=False, resolve=unknown)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/x", "https://localhost/", "http://10.0.0.1"])
def test_private_targets_are_taken_where_the_operator_says_so(url):
    assert check_target(url, allow_private=True) == url


def test_a_private_target_is_still_no_other_protocol():
    with pytest.raises(WebhookNotAllowed):
        check_target("ftp://127.0.0.1/", allow_private=True)


def test_a_post_carries_its_body_and_headers_and_brings_the_answer(receive):
    receiver = receive(answering(OK))
    assert send(receiver) == (200, b"fine\n")
    head, body = receiver.requests[0]
    lines = head.split("\r\n")
    assert lines[0] == "POST /hook?a=b HTTP/1.1"
    assert f"Host: {HOST}:{receiver.port}" in lines
    assert "webhook-id: msg_1" in lines
    assert body == b'{"a":1}'


def test_a_name_that_turned_private_is_refused_when_it_is_connected_to(receive):
    receiver = receive(answering(OK))
    answers = iter([[PUBLIC], ["127.0.0.1"]])

    def turning(_host, _port, _seconds):
        return next(answers)

    url = f"https://{HOST}:{receiver.port}/"
    check_target(url, allow_private=False, resolve=turning)
    with pytest.raises(WebhookNotAllowed):
        post(url, [], b"{}", timeout_s=5, allow_private=False, resolve=turning)
    assert receiver.requests == []


def test_the_connection_goes_to_the_address_that_was_judged_and_the_name_is_asked_once(receive):
    """The name itself is in no DNS: only the resolver that was given knows it."""
    receiver, resolve = receive(answering(OK)), at("127.0.0.1")
    assert send(receiver, resolve=resolve).status == 200
    assert resolve.asked == [HOST]


def test_a_second_address_is_tried_where_the_first_does_not_answer(receive):
    receiver = receive(answering(OK))
    assert send(receiver, resolve=at("127.0.0.77", "127.0.0.1")).status == 200


def test_a_redirect_is_an_answer_and_not_followed(receive):
    elsewhere = receive(answering(OK))
    location = f"Location: http://{HOST}:{elsewhere.port}/\r\n".encode()
    receiver = receive(answering(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n" + location + b"\r\n"))
    assert send(receiver).status == 302
    assert elsewhere.requests == []


def test_proxies_of_the_environment_are_not_used(receive, monkeypatch):
    receiver, proxy = receive(answering(OK)), receive(answering(OK))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    send(receiver)
    assert (len(receiver.requests), len(proxy.requests)) == (1, 0)


def test_of_a_long_answer_the_first_kib_is_read(receive):
    ended = threading.Event()

    def long(receiver, connection):
        receiver.read(connection)
        connection.sendall(b"HTTP/1.1 500 Oops\r\n\r\n")
        receiver.sent = 0
        with contextlib.suppress(OSError):
            for _ in range(1024):
                connection.sendall(b"x" * 65536)
                receiver.sent += 65536
        ended.set()

    receiver = receive(long)
    assert send(receiver, timeout_s=60) == (500, b"x" * 1024)
    assert ended.wait(10)
    assert receiver.sent < 32 << 20, "what lies in the buffers of the connection, of 64 MiB"


def test_a_compressed_answer_is_kept_as_it_came(receive):
    body = b"\x1f\x8b" + b"\0" * 100
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 102\r\n\r\n"
    assert send(receive(answering(head + body))).body == body


def _dripping_head(receiver, connection):
    receiver.read(connection)
    for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def _interim_for_ever(receiver, connection):
    receiver.read(connection)
    while True:
        connection.sendall(b"HTTP/1.1 102 Processing\r\n\r\n")
        time.sleep(0.05)


def _silent(receiver, connection):
    connection.recv(1)
    receiver.gate.wait(5)


@pytest.mark.parametrize("serve", [_dripping_head, _interim_for_ever, _silent])
def test_a_receiver_that_drips_or_is_silent_is_left_at_the_deadline(receive, serve):
    receiver = receive(serve)
    receiver.gate = threading.Event()
    started = time.monotonic()
    with pytest.raises(Unreachable, match="no answer in time"):
        send(receiver, timeout_s=0.5)
    receiver.gate.set()
    assert time.monotonic() - started < 5


def test_a_receiver_that_reads_slowly_is_left_at_the_deadline(receive):
    """It makes some progress all the time, and would have read everything after ten seconds."""

    def slow(_receiver, connection):
        while connection.recv(262144):
            time.sleep(0.05)

    receiver, started = receive(slow), time.monotonic()
    with pytest.raises(Unreachable, match="no answer in time"):
        post(
            f"http://{HOST}:{receiver.port}/",
            [],
            b"x" * (48 << 20),
            timeout_s=1.0,
            allow_private=True,
            resolve=at("127.0.0.1"),
        )
    assert time.monotonic() - started < 5


def test_an_answer_whose_body_drips_counts_by_its_status(receive):
    def drip(receiver, connection):
        receiver.read(connection)
        connection.sendall(b"HTTP/1.1 204 No\r\n\r\n" if receiver.requests[1:] else b"HTTP/1.1 200 OK\r\n\r\nbe")
        receiver.gate.wait(5)

    receiver = receive(drip)
    receiver.gate = threading.Event()
    assert send(receiver, timeout_s=0.5) == (200, b"be")
    receiver.gate.set()


@pytest.mark.parametrize("text", [b"", b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 40_000])
def test_what_is_no_answer_is_unreachable(receive, text):
    with pytest.raises(Unreachable):
        send(receive(answering(text)))


def test_a_closed_port_is_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(Unreachable, match="refused"):
        post(f"http://127.0.0.1:{port}/", [], b"", timeout_s=5, allow_private=True)


def test_a_name_that_nobody_resolves_in_time_is_unreachable(monkeypatch):
    gate = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_named: gate.wait(5))
    with pytest.raises(Unreachable, match="not resolved in time"):
        post(f"http://{HOST}/", [], b"", timeout_s=0.2, allow_private=True)
    gate.set()


def test_lookups_that_hang_do_not_pile_up(monkeypatch):
    gate, running = threading.Event(), []
    monkeypatch.setattr(guarded_http, "_lookups", threading.BoundedSemaphore(2))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_named: running.append(1) or gate.wait(5))
    for _ in range(5):
        with pytest.raises(OSError, match="name"):
            guarded_http.looked_up(HOST, 443, 0.05)
    assert len(running) == 2
    gate.set()


# --- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of HOST that signs itself, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "hooks.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return file


@pytest.fixture
def secure(receive, certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return receive(answering(OK), context)


def test_over_tls_the_certificate_is_that_of_the_name_and_not_of_the_address(secure, certificate):
    trust = ssl.create_default_context(cafile=str(certificate))
    assert send(secure, scheme="https", trust=trust).status == 200
    assert secure.names == [HOST]


def test_a_certificate_of_another_name_is_refused(secure, certificate):
    trust = ssl.create_default_context(cafile=str(certificate))
    with pytest.raises(Unreachable, match=r"TLS failed: .*mismatch"):
        post(
            f"https://other.example:{secure.port}/",
            [],
            b"",
            timeout_s=5,
            allow_private=True,
            resolve=at("127.0.0.1"),
            trust=trust,
        )
    assert secure.requests == []


def test_a_certificate_that_nobody_vouches_for_is_refused(secure):
    with pytest.raises(Unreachable, match=r"TLS failed: .*self-signed"):
        send(secure, scheme="https")
    assert secure.requests == []


def test_a_handshake_that_drips_is_left_at_the_deadline(receive):
    def drip(_receiver, connection):
        for byte in b"\x16\x03\x03\x40\x00" + b"\x02" * 1000:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)

    started = time.monotonic()
    with pytest.raises(Unreachable, match="no answer in time"):
        send(receive(drip), scheme="https", timeout_s=0.5)
    assert time.monotonic() - started < 5
