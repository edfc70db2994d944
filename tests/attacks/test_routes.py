"""Requests of every kind in any order: the right statuses and headers, one line for what fails, nothing else raised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from starlette.convertors import IntegerConvertor

from tests.attacks import asking
from tests.attacks.crafting import Seeded


@pytest.fixture(scope="module")
def stages(tmp_path_factory) -> Iterator[list[asking.Stage]]:
    made = asking.stages(tmp_path_factory.mktemp("stages"))
    yield made
    for stage in made:
        stage.close()


@pytest.mark.parametrize("live", [0, 1], ids=["record", "network"])
def test_requests_at_random(stages, live):
    found = Counter()
    for seed in range(30):
        found.update(asking.play(stages[live], Seeded(seed)))
    assert {200, 403, 404, 405} <= found.keys(), found  # the doors were tried from both sides
    assert 500 not in found or live


@pytest.mark.slow
@pytest.mark.parametrize("live", [0, 1], ids=["record", "network"])
def test_many_requests_at_random(stages, live):
    for seed in range(1000, 1500):
        asking.play(stages[live], Seeded(seed))


def get(stage: asking.Stage, path: str, method: str = "GET", body: bytes = b"", **headers: str) -> int:
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "root_path": "",
        "method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "client": None, "server": None,
        "headers": [(b"host", asking.HOST.encode()), (b"cookie", asking.COOKIE.encode())]
        + [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    return asking.check(stage, scope, [body], False)


@pytest.mark.parametrize("live", [0, 1])
def test_a_number_of_any_length_is_no_fault(stages, live):
    """int() refuses 4300 digits and more; Starlette's convertor let it raise, which was a 500 and a traceback."""
    for path in ("/api/block/{}/0", "/api/block/0/{}", "/api/picture/{}.png", "/api/unit/stem/{}/0", "/api/profile/{}",
                 "/api/tokens/stem/{}"):  # fmt: skip
        assert get(stages[live], path.format("9" * 5000)) == 404
        assert get(stages[live], path.format("9" * 12)) == 404


def test_every_address_takes_bounded_numbers(stages):
    for route in stages[1].guard._app.routes:
        for convertor in route.param_convertors.values():
            assert not isinstance(convertor, IntegerConvertor), route.path


def test_no_address_is_redirected(stages):
    """Starlette sends `/api/index/` on to an address made of the Host header."""
    assert get(stages[0], "/api/index/") == 404
    assert get(stages[0], "/web/index.html/") == 404


def test_an_upload_that_says_nothing_right(stages):
    for length in ("-1", "x", "9" * 5000, str(1 << 40)):
        assert get(stages[1], "/api/image", "POST", b"x", content_length=length) in (400, 413)
    assert get(stages[1], "/api/image", "POST", b"") == 400
