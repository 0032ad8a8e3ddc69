"""Files are brought by digest: whole or not at all."""

from collections.abc import Iterator
from typing import Any

import pytest

from baseai.api import files as door
from tests.api.platform import Platform, digest_of

pytestmark = pytest.mark.anyio

CONTENT = b"import this\n" * 1000


def left(platform: Platform) -> list[str]:
    return sorted(path.name for path in platform.household.uploads.iterdir())


async def test_a_file_lies_under_its_digest(platform: Platform) -> None:
    digest = digest_of(CONTENT)
    answer = await platform.ask("PUT", f"/files/{digest}", key="alpha", content=CONTENT)
    assert (answer.status_code, answer.json()) == (201, {"digest": digest, "bytes": len(CONTENT)})
    assert (platform.household.uploads / digest).read_bytes() == CONTENT
    assert (await platform.ask("HEAD", f"/files/{digest}", key="alpha")).status_code == 200
    assert (await platform.ask("PUT", f"/files/{digest}", key="alpha", content=CONTENT)).status_code == 201


async def test_a_content_of_another_digest_is_refused_and_leaves_nothing(platform: Platform) -> None:
    answer = await platform.ask("PUT", f"/files/{digest_of(b'x')}", key="alpha", content=CONTENT)
    assert answer.status_code == 422
    assert "does not have the digest" in answer.json()["detail"]
    assert left(platform) == []
    assert await platform.rows("SELECT FROM files") == []


@pytest.mark.parametrize("digest", ["abc", "..", "%2e%2e%2fkeys%2fmaster", "A" * 64, "0" * 63 + "%00"])
async def test_only_a_digest_names_a_file(platform: Platform, digest: str) -> None:
    answer = await platform.ask("PUT", f"/files/{digest}", key="alpha", content=b"x")
    assert answer.status_code in (404, 405, 422)
    assert (await platform.ask("HEAD", f"/files/{digest}", key="alpha")).status_code in (404, 405, 422)
    assert left(platform) == []


async def test_a_file_beyond_the_bound_is_refused_while_it_comes(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "FILE_BYTES_MAX", 1000)
    answer = await platform.ask("PUT", f"/files/{digest_of(CONTENT)}", key="alpha", content=CONTENT)
    assert answer.status_code == 422
    assert left(platform) == []


async def test_an_upload_cut_short_leaves_nothing(platform: Platform) -> None:
    digest = digest_of(CONTENT)
    messages: Iterator[dict[str, Any]] = iter(
        [{"type": "http.request", "body": CONTENT[:500], "more_body": True}, {"type": "http.disconnect"}]
    )
    told: list[Any] = []

    async def receive() -> dict[str, Any]:
        return next(messages)

    async def send(message: Any) -> None:
        told.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "PUT", "scheme": "http",
        "path": f"/api/v1/files/{digest}", "raw_path": b"", "query_string": b"", "root_path": "",
        "headers": [(b"authorization", f"Bearer {platform.keys['alpha']}".encode())],
        "client": ("127.0.0.1", 1), "server": ("platform", 80),
    }  # fmt: skip
    await platform.app(scope, receive, send)
    assert told[0]["status"] == 400
    assert left(platform) == []
    assert await platform.rows("SELECT FROM files") == []


async def test_a_full_disk_is_said_and_leaves_nothing(platform: Platform) -> None:
    import resource

    content = b"x" * 200_000
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (100_000, before[1])
    )  # Python ignores SIGXFSZ: writing fails with EFBIG
    try:
        answer = await platform.ask("PUT", f"/files/{digest_of(content)}", key="alpha", content=content)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert answer.status_code == 507
    assert answer.json()["detail"].startswith("the platform cannot keep it: ")
    assert left(platform) == []
