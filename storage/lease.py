"""One writer at a time in a trial on an object store, which has no locks that end with their process.

Who made the object with the highest number in ``running/lease/`` holds the trial, and renews the object while
at work. The store makes an object of a new name for one caller only, so two never hold the same number. One
that is not renewed for as long as it says is dead, by the watcher's own clock: clocks are not compared. The
next number takes its place, and who had the former one finds that before the next step of a publication
(`fence`) and stops.
"""

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.errors import BusyError, LeaseLostError
from storage.objects import get, put, put_new, remove, versions
from storage.place import Place

if TYPE_CHECKING:
    from upath import UPath

LEASE_FOLDER = "running/lease"

TTL_S = 60.0
"""Time after which a lease that nobody renews is dead [s]."""
RENEWALS = 4
"""Renewals in that time; a live holder shows within one of them."""

_held: dict[str, "Lease"] = {}
_guard = threading.Lock()
_log = logging.getLogger(__name__)


def _now() -> float:
    """Seconds that also run while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease:
    """The right to write a trial, while it is renewed."""

    def __init__(self, folder: "UPath", number: int, ttl_s: float) -> None:
        self.working = threading.RLock()
        """Held by the thread that publishes."""
        self._folder = folder
        self._number = number
        self._ttl_s = ttl_s
        self._facts = {"by": _myself(), "since": datetime.now(UTC).isoformat(), "ttl_s": ttl_s}
        self._nonce = secrets.token_hex(8)
        self._renewed = _now()
        self._lost = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def claim(self) -> bool:
        """Take the number, unless somebody has it."""
        self._renewed = _now()
        return put_new(_object(self._folder, self._number), self._content())

    def begin(self) -> None:
        """Renew from now on."""
        self._thread.start()

    def check(self) -> None:
        """Make sure that nobody else may hold the trial by now.

        Raises
        ------
        LeaseLostError
            If somebody does.
        """
        if not self._lost and _now() - self._renewed < 0.75 * self._ttl_s:
            return
        self._renew()

    def end(self) -> None:
        """Let others in."""
        self._ended.set()
        self._thread.join()
        if not self._lost:
            put(_object(self._folder, self._number), self._content(ended=True))

    def _content(self, *, ended: bool = False) -> bytes:
        facts = self._facts | {"renewed": datetime.now(UTC).isoformat(), "nonce": self._nonce, "ended": ended}
        return json.dumps(facts).encode()

    def _renew(self) -> None:
        # Put first, then look: who takes over looks after it has put, so that one of the two sees the other.
        now = _now()
        if not self._lost:
            self._nonce = secrets.token_hex(8)
            put(_object(self._folder, self._number), self._content())
            self._lost = max(_numbers(self._folder), default=0) != self._number
        if self._lost:
            message = (
                f"{_trial(self._folder)}: this process was silent for more than {self._ttl_s:g} s, and "
                "another one writes the trial now; run again when that has ended"
            )
            raise LeaseLostError(message)
        self._renewed = now

    def _keep(self) -> None:
        while not self._ended.wait(self._ttl_s / RENEWALS):
            try:
                self._renew()
            except LeaseLostError:
                return
            except Exception as error:  # noqa: BLE001 (whatever the store's library raises: the next try may do)
                _log.warning("lease of %s not renewed: %s", _trial(self._folder), type(error).__name__)


@contextmanager
def hold(root: Place) -> Iterator[None]:
    """Be the only writer of a trial on an object store; in a folder this does nothing.

    Raises
    ------
    BusyError
        If somebody else is; it takes a quarter of `TTL_S` to see, and all of it to see that one is dead.
    """
    if isinstance(root, Path):
        yield
        return
    with _guard:
        if str(root) in _held:
            raise BusyError(_busy(root, {"by": "this process"}))
        lease = _acquire(root)
        _held[str(root)] = lease
    try:
        yield
    finally:
        del _held[str(root)]
        lease.end()


@contextmanager
def writing(root: "UPath") -> Iterator[None]:
    """Write under the lease that this process holds, one thread at a time; or hold it meanwhile.

    Raises
    ------
    BusyError
        If somebody else writes.
    """
    lease = _held.get(str(root))
    if lease is None:
        with hold(root):
            yield
        return
    with lease.working:
        lease.check()
        yield


def fence(root: Place) -> None:
    """Make sure, before a step that others can see, that this process is still the trial's only writer.

    Raises
    ------
    LeaseLostError
        If it is not.
    """
    if not isinstance(root, Path):
        _held[str(root)].check()


def seems_held(root: "UPath") -> bool:
    """Whether somebody seems to write, by the clocks of both; for people to know, not to rely on."""
    facts = _read(root / LEASE_FOLDER, max(_numbers(root / LEASE_FOLDER), default=0))
    if facts is None or facts["ended"]:
        return False
    age_s = (datetime.now(UTC) - datetime.fromisoformat(facts["renewed"])).total_seconds()
    return bool(age_s < 2 * facts["ttl_s"])


def _acquire(root: "UPath") -> Lease:
    folder = root / LEASE_FOLDER
    while True:
        number = max(_numbers(folder), default=0)
        facts = _read(folder, number)
        if facts is not None and not facts["ended"]:
            _log.info("%s; watching whether it is alive", _busy(root, facts))
            if _is_alive(folder, number, facts):
                raise BusyError(_busy(root, facts))
            if max(_numbers(folder), default=0) != number:
                continue  # somebody was quicker
        lease = Lease(folder, number + 1, TTL_S)
        if not lease.claim():
            continue
        if facts is not None and (_read(folder, number) or facts) != facts:
            remove(_object(folder, number + 1))  # it woke up in the last moment
            raise BusyError(_busy(root, facts))
        for former in _numbers(folder):
            if former <= number:
                remove(_object(folder, former))
        lease.begin()
        return lease


def _is_alive(folder: "UPath", number: int, facts: dict[str, Any]) -> bool:
    """Watch a lease for as long as it may stay silent; one that ends is not alive."""
    began = _now()
    while _now() - began < facts["ttl_s"]:
        time.sleep(facts["ttl_s"] / 20)
        now = _read(folder, number)
        if now is None:
            return False
        if now != facts:
            if now["ended"]:
                facts |= now
                return False
            return True
    return False


def _read(folder: "UPath", number: int) -> dict[str, Any] | None:
    with suppress(FileNotFoundError):
        if number:
            facts: dict[str, Any] = json.loads(get(_object(folder, number)))
            return facts
    return None


def _numbers(folder: "UPath") -> list[int]:
    return [int(name) for name in versions(folder) if name.isdigit()]


def _object(folder: "UPath", number: int) -> "UPath":
    return folder / f"{number:09d}"


def _trial(folder: "UPath") -> str:
    return str(folder).removesuffix(f"/{LEASE_FOLDER}")


def _busy(root: "UPath", facts: dict[str, Any]) -> str:
    since = f" since {facts['since'][:19]} UTC" if "since" in facts else ""
    return f"{root}: another night or writer is at work ({facts['by']}{since}); run again when it has ended"


def _myself() -> str:
    return f"{socket.gethostname()}, process {os.getpid()}"
