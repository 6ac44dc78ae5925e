"""Kill forked writers of a store; `test_ohlcv_kills.py` runs this as a program of its own."""

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from datafeeds.ohlcv_store import OhlcvStore
from tests.datafeeds.stored_pages import KEY, PART_STEPS, STEP, fetch, make_history, page_of, tree

CALLS = ("open", "write", "fsync", "replace", "unlink", "mkdir", "close")
END = 3
HISTORY = make_history(85, lacking=(3, 4, 70))
LONG = make_history(20_000)


def in_child(work):
    """Run in a forked child; return how it ended and which windows it told of before."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        tell = os.write  # The patched one would count.
        os._exit(work(lambda window: tell(theirs, b"%d " % window.start)))
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        starts = {int(start) for start in pipe.read().split()}
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), starts


def kill_at(at, how):
    """Make the n-th call that changes a disk kill before it, or the n-th write halfway."""
    count = 0

    def wrap(real):
        def call(*args, **options):
            nonlocal count
            count += 1
            if count == at:
                if how == "halfway":
                    real(args[0], args[1][: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **options)

        return call

    for name in CALLS if how == "before" else ("write",):
        setattr(os, name, wrap(getattr(os, name)))
    return lambda: count


def mixed(windows):
    return random.Random(len(windows)).sample(windows, len(windows))


def every_step(root, how, deed, finish):
    """Kill at the first step, the second, and so on, until the deed gets through."""
    reference = OhlcvStore(root / "reference", part_steps=PART_STEPS)
    begun = OhlcvStore(root / "begun", part_steps=PART_STEPS)
    fetch(reference, HISTORY)
    with begun.writer(KEY, STEP) as writer:
        writer.add(page_of(HISTORY, HISTORY.window[:50]))
    expected = tree(reference.root)
    kills, at, ending = 0, 0, 0
    while ending != END:
        at += 1
        store = OhlcvStore(root / "store", part_steps=PART_STEPS)
        shutil.rmtree(store.root, ignore_errors=True)
        shutil.copytree(begun.root, store.root)

        def work(told, store=store, at=at):
            calls = kill_at(at, how)
            deed(store, told)
            return END if calls() < at else 0

        ending, told = in_child(work)
        assert ending in (0, END, -signal.SIGKILL), ending
        kills += ending == -signal.SIGKILL
        if deed is not repair:
            wrong = [found for found in store.check(KEY) if found.path.name != "journal"]
            assert not wrong, (at, wrong)
            store.read("bybit", "BTC/USDT:USDT", "1h")
        finish(store, told)
        assert tree(store.root) == expected, at
    return kills


def fetch_mixed(store, told):
    fetch(store, HISTORY, order=mixed, told=told)


def fetch_the_rest(store, told):
    again = {window.start for window in fetch(store, HISTORY)}
    assert not again & told, "a page was fetched again"


def fetch_what_is_missing(store, told):
    fetch(store, HISTORY)


def forget(store, told):
    with store.writer(KEY, STEP) as writer:
        writer.forget([HISTORY.window[10:30], HISTORY.window[60:85]])


def damage(store):
    first, second, *_ = sorted(store.root.rglob("*.parquet"))
    first.write_bytes(first.read_bytes()[:-9])
    second.unlink()
    index = next(store.root.rglob("series.json"))
    index.write_bytes(index.read_bytes()[:-9])


def repair(store, told):
    damage(store)
    store.drop_damaged(KEY)


def repair_and_fetch(store, told):
    store.drop_damaged(KEY)
    assert store.check(KEY) == []
    fetch(store, HISTORY)


def random_instants(root, kills):
    """Kill at random instants; return how many kills came while there was work to do."""
    reference = OhlcvStore(root / "reference", part_steps=1500)
    store = OhlcvStore(root / "store", part_steps=1500)
    fetch(reference, LONG, 100)
    chance = random.Random(0)
    in_work = 0
    settled = 0
    for _ in range(kills):
        child = os.fork()
        if child == 0:
            fetch(store, LONG, 20, order=mixed)
            os._exit(0)
        time.sleep(chance.uniform(0.0, 0.06))
        os.kill(child, signal.SIGKILL)
        in_work += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        if store.list():
            assert all(found.path.name == "journal" for found in store.check(KEY))
        before, settled = settled, sum(map(len, store.settled(KEY)))
        assert settled >= before
    fetch(store, LONG, 100)
    assert tree(store.root) == tree(reference.root)
    return in_work


DEEDS = {
    "fetch": (fetch_mixed, fetch_the_rest),
    "forget": (forget, fetch_what_is_missing),
    "repair": (repair, repair_and_fetch),
}

if __name__ == "__main__":
    place = Path(sys.argv[1])
    if sys.argv[2] == "random":
        print(random_instants(place, int(sys.argv[3])))
    else:
        print(every_step(place, sys.argv[3], *DEEDS[sys.argv[2]]))
