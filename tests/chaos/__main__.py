"""`python -m tests.chaos --seed N --seconds S`: a whole service, users, and one fault after the other.

After S seconds all faults end; then every study must come to its end unaided, and no invariant may be broken. Prints
the seed, the schedule and the verdict. With `--seeds A-B`, one run after the other on one server; what a broken run
left stays in its folder.
"""

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import psycopg2
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from hpo_service.core.errors import HpoError
from hpo_service.local.postgres import SUPERUSER, EmbeddedPostgres
from hpo_service.storage.database import make_engine, prepare
from tests.chaos.client import HISTORY
from tests.chaos.faults import Fault, Kind, schedule
from tests.chaos.parts import FAKETIME, rung_loss
from tests.chaos.stack import Stack, left_over
from tests.consistency.study import disagreements
from tests.invariants import bad_snapshots, broken, spilled, wrong_losses

_TICK_SECONDS = 0.05
_LOOK_SECONDS = 2.0
#: three times the lease, and what a slice may take on a busy machine: so long may nothing at all get done
_QUIET_SECONDS = 24.0 + 60.0


def main(arguments: list[str] | None = None) -> int:
    """0 if nothing broke."""
    options = _options(arguments)
    # What was started is ended, however this process is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with _server() as server:
        failed = [seed for seed in options.seeds if not _run(server, seed, options.seconds, options.tiny_llama)]
    if len(options.seeds) > 1:
        print(f"{len(options.seeds) - len(failed)} of {len(options.seeds)} seeds held; broken: {failed or 'none'}")
    return 1 if failed else 0


def _run(server: EmbeddedPostgres, seed: int, seconds: float, tiny_llama: bool) -> bool:
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-"))
    without = frozenset() if FAKETIME else frozenset({Kind.SKEW_LEADER})
    faults = schedule(seed, seconds, without)
    print(f"seed {seed}, {seconds:g} s, {len(faults)} faults", flush=True)
    if without:
        print("       skew_leader is left out: libfaketime is not installed")
    for fault in faults:
        print(f"  {fault}")
    server.start()
    database = f"chaos_{seed}_{int(time.time())}"
    _administer(server, f"CREATE DATABASE {database} OWNER hpo")
    prepare(server.url(database))
    stack = Stack(folder, server, database, seed=seed, tiny_llama=tiny_llama)
    began = time.monotonic()
    try:
        stack.start()
        wrong = _disturb(stack, faults, seconds)
        stack.rest()
        wrong += _settle(stack) + _judge(stack, tiny_llama)
        wrong += stack.stop() + [f"I14: {process} is left over" for process in left_over(folder)]
    finally:
        stack.kill()
    if wrong:
        (folder / "verdict.json").write_text(json.dumps({"seed": seed, "wrong": wrong}, indent=1))
        _keep_tables(stack, folder)
        print(
            "\n".join([f"seed {seed} BROKE, see {folder}", *(f"  {sentence}" for sentence in wrong[:20])]), flush=True
        )
    else:
        print(f"seed {seed} held: {_summary(stack)}; {time.monotonic() - began:.0f} s", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
    stack.engine.dispose()
    if not wrong:
        _administer(server, f"DROP DATABASE {database} WITH (FORCE)")
    return not wrong


def _disturb(stack: Stack, faults: list[Fault], seconds: float) -> list[str]:
    """Let the faults happen; look at the invariants meanwhile."""
    began, looked_at, wrong = time.monotonic(), time.monotonic(), []
    coming, ends = list(faults), list[tuple[float, Callable[[], None]]]()
    while (now := time.monotonic() - began) < seconds or ends:
        while coming and coming[0].at <= now:
            fault = coming.pop(0)
            ends.append((min(now + fault.lasts, seconds), stack.begin(fault.kind, fault.pick)))
        for end in [end for end in ends if end[0] <= now]:
            ends.remove(end)
            end[1]()
        stack.tick()
        if time.monotonic() - looked_at > _LOOK_SECONDS:
            wrong += _look(stack, settled=False)
            looked_at = time.monotonic()
        time.sleep(_TICK_SECONDS)
    return wrong


def _settle(stack: Stack) -> list[str]:
    """All faults are over: wait until users and studies have come to their end."""
    done, since = _done(stack), time.monotonic()
    while time.monotonic() < since + _QUIET_SECONDS:
        stack.tick()
        if not stack.users_work() and not _unfinished(stack):
            return []
        if (now_done := _done(stack)) > done:
            done, since = now_done, time.monotonic()
        time.sleep(5 * _TICK_SECONDS)
    return [f"I14: {what}, nothing is done and nothing is wrong" for what in _unfinished(stack) or ["users wait"]]


def _done(stack: Stack) -> int:
    """What is over for good: slices, studies, what users asked for; attempts may be repeated for ever."""
    query = """
        SELECT (SELECT count(*) FROM hpo.slices WHERE finished_at IS NOT NULL)
             + (SELECT count(*) FROM hpo.studies WHERE finished_at IS NOT NULL)
             + (SELECT count(*) FROM hpo.intents WHERE done_at IS NOT NULL)"""
    with stack.sessions() as session:
        return int(session.execute(text(query)).scalar_one())


def _unfinished(stack: Stack) -> list[str]:
    query = """
        SELECT 'study ' || name || ' is ' || state || ' ' || message FROM hpo.studies
         WHERE state NOT IN ('completed', 'failed', 'cancelled', 'paused')
        UNION ALL SELECT 'intent ' || kind || ' waits' FROM hpo.intents WHERE done_at IS NULL"""
    with stack.sessions() as session:
        return list(session.scalars(text(query)))


def _judge(stack: Stack, tiny_llama: bool) -> list[str]:
    wrong = _look(stack, settled=True)
    with stack.sessions() as session:
        wrong += [] if tiny_llama else wrong_losses(session, rung_loss)
        wrong += bad_snapshots(session, stack.folder / "snapshots", stack.damaged)
        wrong += spilled(session, (stack.key, stack.password), stack.logs.glob("*.log"))
        rows = session.execute(text("SELECT name, created_at FROM hpo.studies WHERE parent_study_id IS NULL")).all()
    history = [json.loads(line) for line in (stack.folder / HISTORY).read_text().splitlines()]
    wrong += [entry["wrong"] for entry in history if "wrong" in entry]
    there = {(row.name, row.created_at) for row in rows}
    acknowledged = {(entry["created"], datetime.fromisoformat(entry["at"])) for entry in history if "created" in entry}
    wrong += [f"I5: study {name} of {at} was acknowledged and is not there" for name, at in acknowledged - there]
    wrong += [f"I5: study {name} of {at} is there and nobody heard of it" for name, at in there - acknowledged]
    wrong += [sentence for name in sorted({name for name, _ in there}) for sentence in _asked(stack, name)]
    return wrong + [f"I14: {user.name} ended with {user.status()}" for user in stack.users() if user.status() != 0]


def _asked(stack: Stack, name: str) -> list[str]:
    """What every place says about a study, where that is not the same."""
    try:
        return disagreements(stack.place(), name)
    except (HpoError, AssertionError) as error:
        return [f"{name}: {error}"]


def _look(stack: Stack, *, settled: bool) -> list[str]:
    """What is broken now; nothing can be said while the database is away."""
    try:
        with stack.sessions() as session:
            return broken(session, settled=settled)
    except DBAPIError as error:
        return [f"I14: the database is away: {error}"] if settled else []


def _summary(stack: Stack) -> str:
    query = """
        SELECT (SELECT count(*) FROM hpo.studies) || ' studies, ' || count(*) || ' attempts, '
            || count(*) FILTER (WHERE outcome = 'lost') || ' lost, '
            || (SELECT max(epoch) FROM hpo.leases) || ' terms of dispatchers' FROM hpo.attempts"""
    with stack.sessions() as session:
        return str(session.execute(text(query)).scalar_one())


def _keep_tables(stack: Stack, folder: Path) -> None:
    """What the tables say, for whoever looks into it."""
    with stack.sessions() as session:
        tables = session.scalars(
            text(
                "SELECT table_schema || '.' || table_name FROM information_schema.tables "
                "WHERE table_schema IN ('hpo', 'optuna')"
            )
        )
        for table in list(tables):
            rows = session.scalars(text(f"SELECT row_to_json(r)::text FROM {table} r"))
            (folder / f"{table}.jsonl").write_text("\n".join(rows))


@contextmanager
def _server() -> Iterator[EmbeddedPostgres]:
    folder = Path(tempfile.mkdtemp(prefix="chaos-postgres-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    folder.chmod(0o755)
    server = EmbeddedPostgres(folder / "home", fsync=False, fallback=folder / "fallback")
    try:
        server.start()
        yield server
    finally:
        try:
            server.stop()
        except (HpoError, psycopg2.Error) as error:
            print(f"PostgreSQL did not stop: {error}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)


def _administer(server: EmbeddedPostgres, statement: str) -> None:
    engine = make_engine(server.url("postgres", role=SUPERUSER), application_name="harness", pool_size=0)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(statement))


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="what happens follows from it")
    parser.add_argument("--seeds", help="FIRST-LAST: one run each")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long faults happen")
    parser.add_argument("--tiny-llama", action="store_true", help="workers train the small model in earnest")
    options = parser.parse_args(arguments)
    if (options.seed is None) == (options.seeds is None):
        parser.error("name one seed with --seed N, or several with --seeds FIRST-LAST")
    first, _, last = (options.seeds or str(options.seed)).partition("-")
    options.seeds = range(int(first), int(last or first) + 1)
    return options


if __name__ == "__main__":
    sys.exit(main())
