"""Several processes that work as one: how they meet, and how all end when one does."""

import contextlib
import faulthandler
import itertools
import json
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NoReturn

import jax
import numpy as np
from jax._src.distributed import global_state  # there is no public door to its store
from jax.experimental import multihost_utils

from beit_jax.options import HOSTS, variable

HUNG = 70  # the exit code where nothing went on for too long

_AGREED = (0, 75)  # exit codes of an end to which all come by themselves
_PATIENCE = 300  # seconds until all must have come
_HEARTBEAT = 10  # seconds of silence that JAX takes for a death
_LOOK = 0.5  # seconds between two looks at how the others do
_ENDED = "beit_jax/ended/"
_meetings = itertools.count()
_leaving = threading.Event()
_ending = threading.Lock()  # taken by the thread that ends this process, for ever


def join(options) -> None:
    """Waits for the other processes, if flags or environment speak of any.

    Raises:
      ValueError: they do not say enough, or a command without these flags is asked
        for by several.
    """
    place = _place(options)
    if place and "coordinator" not in options:
        raise ValueError(
            f"{variable('processes')}={place[1]}: each process would do the whole "
            "work, for this command knows of no others; start it once"
        )
    patience = {
        "heartbeat_timeout_seconds": _HEARTBEAT,
        "initialization_timeout": 2 * _PATIENCE,  # JAX would not say it in words
    }
    if place:
        missed = threading.Timer(_PATIENCE, _missed, place)
        missed.daemon = True
        missed.start()
        try:
            jax.distributed.initialize(
                *place, cluster_detection_method="deactivate", **patience
            )
        except RuntimeError as error:
            raise ValueError(
                f"process 0 cannot listen at --coordinator={place[0]}: {error}. "
                "Another program may have the port; choose another one"
            ) from error
        finally:
            missed.cancel()
    elif "multihost" in options and options.multihost:
        try:
            jax.distributed.initialize(**patience)
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                f"--multihost: JAX finds no cluster here ({error}). Tell each process "
                "by --coordinator HOST:PORT --processes N --process I where it "
                "belongs; on one machine launch/local.sh N does so"
            ) from error
    if jax.distributed.is_initialized():
        threading.Thread(target=_watch, daemon=True).start()


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """Whatever ends this process badly within ends the others, who say why.

    Without unwinding further: JAX would wait for others that never come.
    """
    try:
        yield
    except BaseException as error:
        if jax.distributed.is_initialized() and _code(error) not in _AGREED:
            _leave(error)
        raise
    finally:
        if jax.distributed.is_initialized():
            _leaving.set()
            time.sleep(2 * _LOOK)  # until nobody asks the store any more
            jax.distributed.shutdown()  # waits for all


def end(code: int, sentence: str) -> NoReturn:
    """Ends this process at once and, if it has told them, all others alike."""
    _ending.acquire()
    print(f"error: {sentence}", file=sys.stderr)
    if jax.distributed.is_initialized():
        _tell(code, sentence)
    _exit(code)


def agree(settings: Mapping[str, Any]) -> None:
    """Raises ValueError unless all processes have been given the same."""
    if not jax.distributed.is_initialized():
        return
    store, key = global_state.client, f"beit_jax/settings/{next(_meetings)}"
    text = json.dumps(_flat(settings))
    if jax.process_index() == 0:
        store.key_value_set(key, text)
        return
    mine = json.loads(text)
    first = json.loads(store.blocking_key_value_get(key, _PATIENCE * 1000))
    other = [
        f"{name}={mine.get(name)!r} instead of {first.get(name)!r}"
        for name in sorted(mine.keys() | first.keys())
        if mine.get(name) != first.get(name)
    ]
    if other:
        raise ValueError(
            f"process {jax.process_index()} has other settings than process 0: "
            f"{'; '.join(other)}; start all by the same command"
        )


def union(numbers: Collection[int]) -> set[int]:
    """The numbers, from 0 on, of all processes, which must ask together."""
    if jax.process_count() == 1:
        return set(numbers)
    room = int(multihost_utils.process_allgather(np.int32(len(numbers))).max())
    mine = np.full(room, -1, np.int32)
    mine[: len(numbers)] = sorted(numbers)
    found = multihost_utils.process_allgather(mine) if room else mine
    return set(found.ravel().tolist()) - {-1}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in settings.items():
        inner = isinstance(value, Mapping) and value
        flat |= _flat(value, f"{prefix}{key}.") if inner else {prefix + key: value}
    return flat


def _place(options) -> tuple[str, int, int] | None:
    """Coordinator, how many, and which; None: this process works alone."""
    given = {name: _given(options, name) for name in HOSTS}
    lacking = [name for name, value in given.items() if value in (None, "")]
    if len(lacking) == len(given) or given["processes"] == 1:
        return None
    if lacking:
        raise ValueError(
            "of several processes each must know "
            + ", ".join(f"--{name} ({text})" for name, text in HOSTS.items())
            + f"; not given: {', '.join(lacking)}"
        )
    coordinator, processes, process = given.values()
    if not re.fullmatch(r".+:\d+", coordinator):
        raise ValueError(f"--coordinator={coordinator} must be HOST:PORT")
    if not 0 <= process < processes:
        raise ValueError(
            f"--process={process} must be in 0 .. {processes - 1} of "
            f"--processes={processes}"
        )
    return coordinator, processes, process


def _given(options, name: str) -> Any:
    value = options[name].value if name in options else None
    if value is not None:
        return value
    text = os.environ.get(variable(name))
    if name == "coordinator" or not text:
        return text
    if not text.isdecimal():
        raise ValueError(f"{variable(name)}={text!r} must be a whole number")
    return int(text)


def _missed(coordinator: str, processes: int, process: int) -> NoReturn:
    print(
        f"error: process {process} has waited {_PATIENCE} s for all {processes} to "
        f"meet at {coordinator}. Are all started, each with a --process of its own, "
        "and can all reach that host and port?",
        file=sys.stderr,
    )
    _exit(78)


def _watch() -> None:
    """Ends this process when another has told that it ends.

    One that cannot tell any more falls silent: that JAX notices, and says.
    """
    store, me = global_state.client, jax.process_index()
    while not _leaving.wait(_LOOK):
        try:
            ended = {
                int(key.rpartition("/")[2]): json.loads(text)
                for key, text in store.key_value_dir_get(_ENDED)
            }
        except Exception:  # process 0 is gone: JAX ends this one
            return
        if me in ended:
            return
        for process, (code, sentence) in ended.items():
            print(f"error: process {process} has ended: {sentence}", file=sys.stderr)
            if code == HUNG:  # where does this one stand?
                faulthandler.dump_traceback(all_threads=True)
            _exit(code)


def _code(error: BaseException) -> int:
    """Of a process that ends so."""
    code = error.code if isinstance(error, SystemExit) else 1
    return code if isinstance(code, int) else int(code is not None)


def _leave(error: BaseException) -> NoReturn:
    """Says what has happened here, tells the others, and ends this process."""
    _ending.acquire()
    code, cause = _code(error), error
    if isinstance(error, SystemExit):
        cause = error.__context__ or error  # what was printed before
    else:
        traceback.print_exception(error)
    if _is_echo(cause):
        print("error: another process may be gone; waiting for its cause", flush=True)
        time.sleep(1.5 * _HEARTBEAT)  # who knows it ends this one meanwhile
    _tell(code, f"{type(cause).__name__}: {cause}")
    _exit(code)


def _is_echo(error: BaseException) -> bool:
    """Whether it may be but what the end of another process does to this one."""
    return isinstance(error, jax.errors.JaxRuntimeError) or bool(
        re.search("Gloo|NCCL|coordination", str(error))
    )


def _tell(code: int, sentence: str) -> None:
    with contextlib.suppress(Exception):  # there may be no one left to tell
        key = f"{_ENDED}{jax.process_index()}"
        global_state.client.key_value_set(key, json.dumps([code, sentence]))
        if jax.process_index() == 0:  # it holds the store in which the others look
            time.sleep(4 * _LOOK)


def _exit(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
