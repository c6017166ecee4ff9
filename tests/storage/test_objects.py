"""What stores answer to a put that must not take another's place."""

import secrets
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError
from s3fs import S3FileSystem
from upath import UPath

from storage import objects
from storage.objects import get, keeps_the_first, put, put_new

Answer = Callable[[dict[str, Any]], None]


@pytest.fixture
def s3_place(s3_bucket: str) -> UPath:
    """Give a place for one object."""
    return UPath(f"{s3_bucket}/{secrets.token_hex(6)}/new", use_listings_cache=False)


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answer], None]:
    """Let the store answer otherwise to puts that must make a new object."""
    call_s3 = S3FileSystem._call_s3

    def let(answer: Answer) -> None:
        async def answered(system: S3FileSystem, method: str, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 (whatever it is)
            if "IfNoneMatch" in options:
                answer(options)
            return await call_s3(system, method, *arguments, **options)

        monkeypatch.setattr(S3FileSystem, "_call_s3", answered)

    return let


def refused(status: int, code: str) -> OSError:
    """Give the error that the client makes of a store's refusal."""
    error = OSError(5, code)
    error.__cause__ = ClientError(
        {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}},
        "PutObject",
    )
    return error


def test_the_first_object_stays(s3_place: UPath) -> None:
    """And who put it may ask twice, for an answer that was lost."""
    assert keeps_the_first(s3_place)
    assert not s3_place.exists()
    assert put_new(s3_place, b"mine")
    assert put_new(s3_place, b"mine")
    assert not put_new(s3_place, b"another's")
    assert get(s3_place) == b"mine"


def test_a_store_that_knows_no_conditions_is_found_out(
    s3_place: UPath, answering: Callable[[Answer], None]
) -> None:
    """It takes the second object as it took the first."""
    answering(lambda options: options.pop("IfNoneMatch"))
    assert not keeps_the_first(s3_place)


def test_so_is_one_that_says_so(s3_place: UPath, answering: Callable[[Answer], None]) -> None:
    """A header that implies what is not implemented."""

    def answer(_: dict[str, Any]) -> None:
        raise refused(501, "NotImplemented")

    answering(answer)
    assert not keeps_the_first(s3_place)


def test_a_refusal_need_not_name_its_condition(s3_place: UPath, answering: Callable[[Answer], None]) -> None:
    """As AWS does and others do not."""

    def answer(_: dict[str, Any]) -> None:
        raise refused(412, "PreconditionFailed")

    put(s3_place, b"another's")
    answering(answer)
    assert not put_new(s3_place, b"mine")


def test_who_meets_another_put_tries_again(
    s3_place: UPath, answering: Callable[[Answer], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few times; a store that never gets it done is an error, as is one that refuses for another reason."""
    monkeypatch.setattr(objects, "CONFLICT_S", 0.0)
    answers = [409, 409]

    def answer(_: dict[str, Any]) -> None:
        if answers:
            raise refused(answers.pop(), "ConditionalRequestConflict")

    answering(answer)
    assert put_new(s3_place, b"mine")
    assert get(s3_place) == b"mine"
    for status in (409, 501):
        answers = [status] * objects.CONFLICTS_MAX
        with pytest.raises(OSError, match="ConditionalRequestConflict"):
            put_new(s3_place, b"another's")
