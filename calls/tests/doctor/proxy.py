"""A TLS proxy in front of a server, with the faults that tunnels and proxies have.

Its certificate is signed by a test authority, which a process trusts if `SSL_CERT_FILE` names the file.
It handles one request per connection, as the doctor sends them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Fault = Literal[
    "", "redirects", "wrong-server", "strips-signature", "decodes-query", "drops-body", "no-upgrade",
]  # fmt: skip
HEAD_BYTES = 1 << 16
WRONG_SERVER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
END = b"Content-Length: 0\r\nConnection: close\r\n\r\n"
MOVED = b"HTTP/1.1 301 Moved\r\nLocation: https://other.example/\r\n" + END


class Authority:
    """Signs certificates for localhost."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"test {folder.name}")])
        certificate = self._sign(self._name, self._key.public_key(), is_authority=True)
        self.file = folder / "authority.pem"
        folder.mkdir(parents=True, exist_ok=True)
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def make_context(self) -> ssl.SSLContext:
        """An SSL context for a server, with a new certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        certificate = self._sign(name, key.public_key(), is_authority=False)
        file = self._folder / "server.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _sign(self, name: x509.Name, key: Any, *, is_authority: bool) -> x509.Certificate:
        now = datetime.now(UTC)
        hosts = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        )
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=90))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(hosts, critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )


class Proxy:
    """Forwards requests, changed by its fault. The second port has an untrusted certificate."""

    def __init__(self) -> None:
        self.target_port = 0  # of the server
        self.fault: Fault = ""
        self.port = self.untrusted_port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        upstream = None
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if self.fault in ("redirects", "wrong-server"):
                writer.write(MOVED if self.fault == "redirects" else WRONG_SERVER)
                await writer.drain()
                return
            downstream, upstream = await asyncio.open_connection("127.0.0.1", self.target_port)
            upstream.write(self._apply_fault(head))
            uploads = []
            if self.fault != "drops-body" or not head.startswith(b"POST"):
                uploads.append(asyncio.create_task(_pipe(reader, upstream)))
            try:
                await _pipe(downstream, writer)
            finally:
                for upload in uploads:
                    upload.cancel()
                await asyncio.gather(*uploads, return_exceptions=True)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client closed the connection
        finally:
            self._tasks.discard(task)
            for each in (upstream, writer):
                if each is not None:
                    each.close()
                    with contextlib.suppress(OSError):
                        await each.wait_closed()

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _apply_fault(self, head: bytes) -> bytes:
        first, *lines = head.split(b"\r\n")
        name = {
            "strips-signature": b"x-twilio-signature:", "no-upgrade": b"upgrade:",
            "drops-body": b"content-length:",
        }.get(self.fault)  # fmt: skip
        if name is not None:
            lines = [line for line in lines if not line.lower().startswith(name)]
        if self.fault == "drops-body" and head.startswith(b"POST"):
            lines.insert(0, b"Content-Length: 0")
        if self.fault == "decodes-query":
            first = first.replace(b"%2B", b"+")
        return b"\r\n".join([first, *lines])


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(HEAD_BYTES):
        writer.write(data)
        await writer.drain()


@asynccontextmanager
async def start_tls_proxy(authority: Authority, untrusted_authority: Authority) -> AsyncIterator[Proxy]:
    proxy = Proxy()
    server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0, ssl=authority.make_context())
    untrusted = await asyncio.start_server(
        proxy._serve, "127.0.0.1", 0, ssl=untrusted_authority.make_context()
    )
    proxy.port = server.sockets[0].getsockname()[1]
    proxy.untrusted_port = untrusted.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        untrusted.close()
        await proxy.stop()
