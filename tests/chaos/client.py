"""A user of the service: posts studies and steers them, tries again until it is answered, and writes it all down."""

import json
import random
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.chaos.parts import EFFECTIVE_BATCH, ROWS

HISTORY = "history.jsonl"
OVER = "over"
_PATIENCE_SECONDS = 60.0
_ENDED = ("completed", "failed", "cancelled")
_STRATEGIES = ("asha", "median", "none", "hyperband", "freeze_thaw")
Json = dict[str, Any]


class User:
    """Talks to any of the APIs. `history` gets a JSON line for every answer; `wrong` there says what must not be."""

    def __init__(self, urls: Sequence[str], key: str, history: Path, seed: int) -> None:
        self._source = random.Random(seed)
        self._urls = urls
        self._http = httpx.Client(headers={"Authorization": f"Bearer {key}"}, timeout=8.0, trust_env=False)
        self._history = history.open("a", buffering=1)
        self._number = 0
        self._prefix = f"u{seed % 1000}"

    def work(self, over: Path) -> None:
        """Post one study after the other and steer some, until there is a file `over`."""
        while not over.exists():
            name = self._post()
            until = time.monotonic() + self._source.uniform(1.0, 6.0)
            while time.monotonic() < until and self._state(name) not in _ENDED:
                time.sleep(self._source.uniform(0.1, 0.6))
                if self._source.random() < 0.3:
                    self._steer(name)
            if self._state(name) in ("paused", "pausing"):
                self._ask("POST", f"/v1/studies/{name}:resume")

    def _post(self) -> str:
        self._number += 1
        spec = study(f"{self._prefix}-{self._number}", self._source)
        key, name = str(uuid.UUID(int=self._source.getrandbits(128))), str(spec["metadata"]["name"])
        first = self._ask("POST", "/v1/studies", spec, key)
        if first.status_code != 201:
            self._note(wrong=f"study {name} was answered {first.status_code}: {first.text}")
            return name
        self._note(created=name, at=first.json()["created_at"])
        again = self._ask("POST", "/v1/studies", spec, key)
        if (again.status_code, again.json()) != (201, first.json()):
            self._note(wrong=f"I5: study {name} was answered otherwise the second time: {again.text}")
        other = self._ask("POST", "/v1/studies", spec | {"budget": {"max_trials": 9}}, key)
        if other.status_code != 422:
            self._note(wrong=f"I5: another body under the key of {name} was answered {other.status_code}")
        return name

    def _steer(self, name: str) -> None:
        verb = self._source.choices(("pause", "resume", "extend", "enqueue", "stop", "cancel"), (4, 6, 2, 2, 1, 1))[0]
        if verb == "extend":
            self._ask("PATCH", f"/v1/studies/{name}", {"budget": {"max_trials": self._source.randint(2, 7)}})
        elif verb == "enqueue":
            point = {"learning_rate": 10 ** self._source.uniform(-4.5, -1.5), "lora_r": 16}
            self._ask("POST", f"/v1/studies/{name}/trials", {"parameters": point})
        else:
            self._ask("POST", f"/v1/studies/{name}:{verb}")

    def _state(self, name: str) -> str:
        answer = self._ask("GET", f"/v1/studies/{name}")
        return str(answer.json()["state"]) if answer.is_success else "?"

    def _ask(self, method: str, path: str, body: Json | None = None, key: str | None = None) -> httpx.Response:
        """The first answer that is one; the service may be away, but must not say that something is wrong with it."""
        headers = {"Idempotency-Key": key} if key else {}
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            url = self._source.choice(self._urls)
            try:
                answer = self._http.request(method, url + path, json=body, headers=headers)
            except httpx.TransportError as error:
                status, said = 0, type(error).__name__
            else:
                status, said = answer.status_code, answer.text[:300]
                if status == 503 and "Retry-After" not in answer.headers:
                    self._note(wrong=f"{method} {path} was answered 503 without Retry-After")
                if 0 < status < 500:
                    return answer
                if status != 503:
                    self._note(wrong=f"{method} {path} was answered {status}: {said}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{method} {path} was not answered for {_PATIENCE_SECONDS:g} s: {status} {said}")
            time.sleep(0.2)

    def _note(self, **entry: object) -> None:
        self._history.write(json.dumps(entry) + "\n")


def study(name: str, source: random.Random) -> Json:
    """A small study of one kind or another."""
    spec: Json = {
        "metadata": {"name": name},
        "model": {"path": "examples/tiny-llama"},
        "data": {
            "train": "examples/wordnet-instruct/train.jsonl",
            "eval": "examples/wordnet-instruct/eval.jsonl",
            "max_length": 96,
            "max_train_examples": ROWS,
            "max_eval_examples": 16,
        },
        "space": {
            "learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
            "lora_r": {"choices": [4, 8, 16]},
            "effective_batch": EFFECTIVE_BATCH,
        },
        "baseline": {"learning_rate": 1e-4, "lora_r": 8},
        "search": {
            "strategy": source.choice(_STRATEGIES),
            "seed": source.randint(0, 99),
            "deterministic": source.random() < 0.3,
            "first_rung_fraction": 0.15,
        },
        "training": {"checkpoint_every_steps": source.choice((2, 5, 200))},
        "budget": {"max_trials": source.randint(2, 5)},
        "data_checks": {"enabled": source.random() < 0.3},
        # Many faults hit each of these slices; what is counted is looked after by the invariants.
        "resources": {"max_attempts": 10},
    }
    if source.random() < 0.4:
        spec["budget"]["max_parallel"] = source.randint(1, 3)
    if source.random() < 0.25:
        spec["confirm"] = {"top": 2, "seeds": 2}
    return spec


def client(urls: Sequence[str], key: str, folder: Path, seed: int) -> Callable[[], None]:
    """What the process of a user does."""
    return lambda: User(urls, key, folder / HISTORY, seed).work(folder / OVER)
