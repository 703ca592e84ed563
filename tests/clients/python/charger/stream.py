"""A controller with several posts: one stream, hello first, then reports up and grants down."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from .api import Api, called
from .lease import Place, boottime, place, refusal
from .unary import settled

NEVER: Place = (0, 0)


class Post:
    """One EVSE as its controller knows it."""

    def __init__(self, evse_id: str) -> None:
        self.evse_id = evse_id
        self.ceiling = 0.0
        self.last = NEVER
        self.sent = NEVER


class Controller:
    """Speaks for its posts; a car is plugged in at the first one."""

    def __init__(self, api: Api, controller_id: str, incarnation: int, tell: Callable[..., None]) -> None:
        self._api, self._id, self._incarnation, self._tell = api, controller_id, incarnation, tell
        evses = called(api.sites.GetSite, api.site_pb.GetSiteRequest()).evses
        self.posts = [Post(evse.evse_id) for evse in evses if evse.controller_id == controller_id]
        self.renewals = 0
        self.hold_acks = False
        self._held: list[Any] = []
        self._up: queue.Queue[Any] = queue.Queue()
        self._number = 0
        self._count = 0
        self._failure: BaseException | None = None
        self._closed = threading.Event()
        self._every = 1.0

    def run(self) -> None:
        """24 A, a renewal, then 8 A: powerd counts on 24 A until the 8 A are acked."""
        evse_id = self.posts[0].evse_id
        session_id = self._api.start(evse_id, 24)
        self._tell(event="session", way="stream", evse=evse_id, session_id=session_id)
        self._open()
        try:
            self._until(lambda: self.posts[0].ceiling == 24, 20, "24 A")
            self._until(lambda: self.renewals > 0, 60, "a renewal")
            self.hold_acks = True
            self._api.update(session_id, 8)
            self._until(lambda: self.posts[0].ceiling == 8, 10, "8 A")
            time.sleep(2)
            self._tell(event="worst", way="stream", evse=evse_id, acked=False, worst=self._api.worst(evse_id))
            self._release_acks()
            self._tell(event="worst", way="stream", evse=evse_id, acked=True, worst=settled(self._api, evse_id, 8))
        finally:
            self._close()

    def _open(self) -> None:
        pb = self._api.controller_pb
        self._number += 1
        hello = pb.Hello(
            controller_id=self._id,
            stamp=self._api.stamp(self._incarnation),
            evses=[pb.EvseState(evse_id=post.evse_id, plugged=i == 0) for i, post in enumerate(self.posts)],
            report_number=self._number,
        )
        self._up.put(pb.ConnectRequest(hello=hello))
        self._call = self._api.controllers.Connect(self._upstream())
        self._threads = [threading.Thread(target=work) for work in (self._listen, self._beat)]
        for thread in self._threads:
            thread.start()

    def _upstream(self) -> Iterator[Any]:
        while (message := self._up.get()) is not None:
            yield message

    def _report(self, **columns: Any) -> None:
        pb = self._api.controller_pb
        self._number += 1
        stamp = self._api.stamp(self._incarnation)
        self._up.put(pb.ConnectRequest(report=pb.Report(stamp=stamp, report_number=self._number, **columns)))

    def _beat(self) -> None:
        while not self._closed.wait(self._every / 2):
            self._report()

    def _listen(self) -> None:
        try:
            for response in self._call:
                self._take(response)
            self._failure = RuntimeError("powerd ended the stream")
        except (grpc.RpcError, RuntimeError) as fault:
            self._failure = fault

    def _take(self, response: Any) -> None:
        kind = response.WhichOneof("message")
        if kind == "welcome":
            self._every = response.welcome.report_within.ToTimedelta().total_seconds()
            ttl_s = response.welcome.ttl.ToTimedelta().total_seconds()
            self._tell(event="welcome", controller=self._id, epoch=response.welcome.epoch, ttl_s=ttl_s)
            return
        counted = self._count
        self._count += 1
        if kind == "grants":
            self._grants(response.grants)
        elif kind == "renew_all":
            self._renew_all(response.renew_all, counted)

    def _accept(self, post: Post, message: Any) -> None:
        why = refusal(message, incarnation=self._incarnation, last=post.last, now=boottime())
        if why:  # here every message is in time and ours
            raise RuntimeError(f"refused a grant of powerd: {why}")

    def _grants(self, message: Any) -> None:
        for index, ceiling in zip(message.index, message.ceiling, strict=True):
            post = self.posts[index]
            self._accept(post, message)
            post.last = post.sent = place(message)
            post.ceiling = ceiling  # the charger takes it here
        seen = {"seq": message.seq, "posts": len(message.index), "ceiling": self.posts[0].ceiling}
        self._tell(event="grant", way="stream", evse=self.posts[0].evse_id, **seen)
        applied = self._api.controller_pb.AppliedGrants(
            epoch=message.epoch, seq=message.seq, index=message.index, ceiling=message.ceiling
        )
        if self.hold_acks:
            self._held.append(applied)
        else:
            self._report(applied=[applied])

    def _renew_all(self, message: Any, counted: int) -> None:
        if message.count != counted:
            self._count = message.count + 1
            self._report(want_index=range(len(self.posts)))
            return
        for post in self.posts:
            self._accept(post, message)
            if post.last == post.sent:
                post.last = place(message)
            post.sent = place(message)
        self.renewals += 1
        self._tell(event="renewal", way="stream", seq=message.seq, count=message.count)
        if not self.hold_acks:
            pb = self._api.controller_pb
            self._report(applied=[pb.AppliedGrants(epoch=message.epoch, seq=message.seq, all=True)])

    def _release_acks(self) -> None:
        self.hold_acks = False
        self._report(applied=self._held)

    def _until(self, condition: Callable[[], bool], within_s: float, what: str) -> None:
        end = boottime() + within_s
        while not condition():
            if self._failure is not None:
                raise self._failure
            if boottime() > end:
                raise RuntimeError(f"{what} did not come within {within_s:g} s")
            time.sleep(0.1)

    def _close(self) -> None:
        self._closed.set()
        self._up.put(None)
        self._call.cancel()
        for thread in self._threads:
            thread.join()
