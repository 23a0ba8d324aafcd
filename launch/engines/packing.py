"""Which runs are trained together, and what a worker does with them."""

import collections
import dataclasses
import queue
import sys
from collections.abc import Callable, Iterable
from typing import Any

from launch import config
from launch.config import Where
from launch.engines import Task, attempts


def companions(task: Task, todo: Iterable[Task], among: int) -> list[Task]:
    """`task` and those of `todo` that are trained with it, the costliest first: as many as have
    places, and no more than leave the others of `among` workers their share.
    """
    same = sorted((t for t in todo if t.alike == task.alike), key=lambda t: -t.cost)
    rest = [t for t in same if t is not task]
    share = -(-len(same) // max(1, among))
    return [task, *rest[: max(1, min(task.members, share)) - 1]]


def serve(
    orders: list[dict],
    joining: Callable[[], dict | None],
    send: Callable[..., None],
    progress: Callable[[str, int, int], None],
) -> None:
    """Trains orders together; `joining()` gives one more for a place that is free, or None. Each
    is answered by `send`. Where memory runs out the members are halved once; whatever else stops
    all of them, each is then trained alone. Raises Preempted.
    """
    from launch.devices import choice
    from launch.devices import members as packs
    from launch.runs import pack, preempt, trunk

    where = config.from_dict(Where, orders[0]["where"])
    todo, halved = collections.deque(orders), False
    while todo:
        given: dict[str, dict] = {}

        def more(given=given):
            order = todo.popleft() if todo else joining()
            if order is None:
                return None
            given[order["folder"]] = order
            run = config.from_dict(config.Run, order["run"])
            forks = trunk.read(order.get("forks"))
            return pack.Order(run, order["folder"], order["tags"], forks)

        def tell(told, given=given):
            order = given.pop(told.order.folder)
            if told.error is None:
                send(id=order["id"], **attempts.finished(told.result))
            else:
                send(id=order["id"], **attempts.failed(told.error, order["folder"]))

        def moved(order, done, total, given=given):
            progress(given[order.folder]["id"], done, total)

        try:
            pack.train(where, more, tell, moved)
            return
        except preempt.Preempted:
            raise
        except Exception as e:
            attempts.trace(e)
            todo.extendleft(reversed(given.values()))
            full = choice.out_of_memory(e)
        least = packs.least(where)
        half = where.members // 2 // least * least
        if full and not halved and half > 1:
            halved, where = True, dataclasses.replace(where, members=half)
            print(f"isoflop: out of memory: again with {where.members} members", file=sys.stderr)
            attempts.forget()
            continue
        attempts.forget()
        for order in todo:
            send(id=order["id"], **attempts.attempt(alone(order)))
        return


def alone(order: dict) -> dict:
    """An order of a pack as one of its own."""
    from launch.devices import members

    where = config.from_dict(Where, order["where"])
    return dict(order, where=config.to_dict(members.together(where, 1)))


def groups(tasks: Iterable[Task]) -> list[list[Task]]:
    """Tasks by the packs that they are trained in, where each pack is a job of its own."""
    found: dict[Any, list[list[Task]]] = {}
    for t in tasks:
        mine = found.setdefault(t.alike if t.members > 1 else t.id, [[]])
        if len(mine[-1]) == t.members:
            mine.append([])
        mine[-1].append(t)
    return [group for several in found.values() for group in several]


def serve_job(orders: list[dict]) -> list[dict]:
    """The orders of one job of a cluster, as a pack, and those that others hold when they are free,
    as a pack again, whose program they share. Returns the last message of each; exits with status
    75 if told to stop.
    """
    from launch.runs import preempt

    said: dict[str, dict] = {}

    def send(id, **message):
        said[id] = message

    todo = orders
    try:
        while todo:
            serve(todo, lambda: None, send, lambda *_: None)
            todo = [o for o in orders if said[o["id"]]["kind"] == "elsewhere"]
            if todo:
                attempts.until_free(todo[0]["folder"])
    except preempt.Preempted as e:
        print(f"isoflop: {e}", file=sys.stderr, flush=True)
        sys.exit(preempt.STATUS)
    return list(said.values())


def waiting(orders: queue.Queue) -> Callable[[], dict | None]:
    """What takes an order that has come in and may join the pack that trains."""

    def joining() -> dict | None:
        try:
            order = orders.get_nowait()
        except queue.Empty:
            return None
        if order is None or not order.get("joins"):
            orders.put(order)
            return None
        return order

    return joining
