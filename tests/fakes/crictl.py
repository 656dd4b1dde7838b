"""``crictl pull`` in small, for where the real one cannot be had: speaks CRI (gRPC, its protobuf by hand) to a socket.

crictl [--runtime-endpoint URL] [--timeout SECONDS] pull [--creds USER:PASSWORD] IMAGE
"""

from __future__ import annotations

import argparse
import socket
import struct
import sys
from urllib.parse import unquote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded, StreamReset, TrailersReceived

_PULL = "/runtime.v1.ImageService/PullImage"


def main() -> None:
    parser = argparse.ArgumentParser(prog="crictl")
    parser.add_argument("--runtime-endpoint", default="unix:///run/containerd/containerd.sock")
    parser.add_argument("--timeout", default="60s")
    commands = parser.add_subparsers(dest="command", required=True)
    pull = commands.add_parser("pull")
    pull.add_argument("--creds", default="")
    pull.add_argument("image")
    given = parser.parse_args()
    request = _field(1, _field(1, given.image.encode()))  # PullImageRequest.image.image
    if given.creds:
        username, _, password = given.creds.partition(":")
        request += _field(2, _field(1, username.encode()) + _field(2, password.encode()))
    answer = call(given.runtime_endpoint.removeprefix("unix://"), _PULL, request, float(given.timeout.rstrip("s")))
    sys.stdout.write(f"Image is up to date for {answer[2:].decode()}\n")  # PullImageResponse.image_ref


def call(path: str, method: str, request: bytes, timeout_seconds: float) -> bytes:
    """Return what a method answers; exit as crictl does where it fails."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(timeout_seconds)
        try:
            channel.connect(path)
            status, message, body = _exchange(channel, method, request)
        except OSError as error:
            sys.exit(f'E1 remote_image.go:171] "PullImage failed" err="{error}"')
    if status != "0":
        sys.exit(f'E1 remote_image.go:171] "PullImage from image service failed" err="rpc error: {unquote(message)}"')
    return body[5:]


def _exchange(channel: socket.socket, method: str, request: bytes) -> tuple[str, str, bytes]:
    connection = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    connection.initiate_connection()
    headers = {":method": "POST", ":scheme": "http", ":path": method, ":authority": "localhost"}
    headers |= {"te": "trailers", "content-type": "application/grpc"}
    connection.send_headers(1, list(headers.items()))
    connection.send_data(1, struct.pack(">BI", 0, len(request)) + request, end_stream=True)
    channel.sendall(connection.data_to_send())
    body, is_over = b"", False
    found: dict[str, str] = {}
    while not is_over and (data := channel.recv(65536)):
        for event in connection.receive_data(data):
            body += event.data if isinstance(event, DataReceived) else b""
            found |= _headers(event)
            is_over = is_over or isinstance(event, StreamEnded | StreamReset)
        channel.sendall(connection.data_to_send())
    return found.get("grpc-status", "none"), found.get("grpc-message", "no answer"), body


def _headers(event: Event) -> dict[str, str]:
    if isinstance(event, ResponseReceived | TrailersReceived):
        return {str(name): str(value) for name, value in event.headers or ()}
    return {}


def _field(number: int, content: bytes) -> bytes:
    assert len(content) < 128  # one byte of length
    return bytes([number << 3 | 2, len(content)]) + content


if __name__ == "__main__":
    main()
