"""Two teams on one service: what each of them holds, everything that can be asked, and rules that shake it.

Everything that a team writes carries its canary: names, labels, notes, parameters, folders. No answer to one team holds
the canary of the other.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree
from typing import Any, Protocol

from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from sqlalchemy import Engine, Select, select

from hpo_service.dispatcher.loop import Dispatcher
from hpo_service.exporters import FORMATS
from hpo_service.local.postgres import EmbeddedPostgres
from hpo_service.storage.database import make_engine, session_factory
from hpo_service.storage.promotion_tables import Delivery
from hpo_service.storage.tables import DEFAULT_PROJECT_ID, ApiKey, Job, Slice, Study
from tests import serving
from tests.conftest import fresh_database
from tests.delivering import Delivering
from tests.dispatching import make, turn_until

Json = dict[str, Any]
SHARED = "same"  #: a name that both teams use
NOBODYS = "nobodys"  #: a name that nobody uses
_NO_ID = 10**15
STEERING = ("pause", "resume", "stop", "cancel")
_SEARCH = {"strategy": "asha", "sampler": "random", "deterministic": True, "seed": 3, "warm_start": "off"}
_ENDED = ("completed", "failed", "cancelled")
#: addresses that are the same for all, or that name what belongs to no project
_COMMON = re.compile(r"/v1/(search-spaces|schemas)/|/(healthz|readyz|login)$")
#: of requests that are refused for what they say before anything is looked up
_BODIES: dict[str, Json] = {
    "extend_study": {"budget": {"max_trials": 9}},
    "clone_study": {"name": "copy"},
    "enqueue_trial": {"parameters": {"learning_rate": 1e-3}},
    "roll_back_promotion": {},
    "set_quota": {},
    "deliver_promotion": {},
    "rotate_key": {},
}
_QUERIES = {"compare_promotions": {"other": f"{SHARED}@1"}}


class Answer(Protocol):
    """What is looked at of a response, whichever library the test client is made of."""

    @property
    def status_code(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def headers(self) -> Mapping[str, str]: ...


@dataclass(kw_only=True)
class Team:
    """One project, a client with its key, and what it made."""

    canary: str
    decay: float  #: a constant of its studies that no other number looks like
    project_id: int
    client: TestClient
    studies: list[str] = field(default_factory=list)
    promotions: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)

    @property
    def marks(self) -> tuple[str, ...]:
        """What nobody else may ever see."""
        return self.canary, str(self.decay)


class Service:
    """An API over one database for two teams, and a dispatcher whose slices end at once."""

    def __init__(self, engine: Engine, root: Path) -> None:
        self.sessions = session_factory(engine)
        self.root = root
        app = serving.serve(engine, serving.settings(root)).app
        assert isinstance(app, FastAPI)
        self.app = app
        self.dispatcher: Dispatcher = make(self.sessions, Delivering(root))[0]
        projects = (DEFAULT_PROJECT_ID, serving.make_project(self.sessions, "other"))
        marks = (("canary-ant", 0.012345), ("canary-bee", 0.067891))
        self.teams = [self._team(project, *mark) for project, mark in zip(projects, marks, strict=True)]

    def spec(self, team: Team, name: str, **changes: Any) -> Json:
        """A study of the team."""
        folder = team.canary
        document = serving.spec(
            name,
            model={"path": f"{folder}/model"},
            data={"train": f"{folder}/train.jsonl", "eval": f"{folder}/eval.jsonl"},
            search=_SEARCH,
            budget={"max_trials": 2},
            **changes,
        )
        document["metadata"]["labels"] = {"team": team.canary}
        document["space"]["weight_decay"] = team.decay
        return document

    def create(self, team: Team, name: str, **changes: Any) -> Answer:
        """Ask for a study."""
        answer = team.client.post("/v1/studies", json=self.spec(team, name, **changes))
        if answer.status_code == 201 and name not in team.studies:
            team.studies.append(name)
        return answer

    def finish(self) -> None:
        """Until every study has ended."""
        turn_until(self.dispatcher, lambda: all(self._ended(team) for team in self.teams))

    def keep_snapshots(self, team: Team, study: str) -> bool:
        """Real snapshots for the trials of the newest study of this name; False before it has any."""
        with self.sessions() as session:
            query = select(Slice.study_id, Slice.trial_number).join(Study, Study.id == Slice.study_id)
            mine = query.where(Study.project_id == team.project_id, Study.name == study, Study.deleted_at.is_(None))
            trials = {(row.study_id, row.trial_number) for row in session.execute(mine)}
        for study_id, number in trials:
            serving.keep_snapshot(self.root, self.sessions, number, study_id)
        return bool(trials)

    def jobs(self, team: Team) -> list[int]:
        """Ids of the team's jobs."""
        return self._ids(select(Job.id).where(Job.project_id == team.project_id))

    def deliveries(self, team: Team) -> list[int]:
        """Ids of the team's deliveries."""
        return self._ids(select(Delivery.id).where(Delivery.project_id == team.project_id))

    def keys(self, team: Team) -> list[int]:
        """Ids of the team's keys."""
        return self._ids(select(ApiKey.id).where(ApiKey.project_id == team.project_id))

    def operations(self) -> Iterator[tuple[str, str, str]]:
        """(method, path, operation id) of everything that names something in its path."""
        for path, methods in self.app.openapi()["paths"].items():
            if "{" in path and not _COMMON.search(path):
                for method, operation in methods.items():
                    yield method.upper(), path, operation["operationId"]

    def reads(self) -> Iterator[str]:
        """Addresses of lists and pages that name nothing."""
        for path, methods in self.app.openapi()["paths"].items():
            if "get" in methods and "{" not in path and not _COMMON.search(path):
                yield path
        yield "/"

    def _ids(self, query: Select[int]) -> list[int]:
        with self.sessions() as session:
            return list(session.scalars(query))

    def _ended(self, team: Team) -> bool:
        with self.sessions() as session:
            query = select(Study.id).where(Study.project_id == team.project_id, Study.state.not_in(_ENDED))
            return session.scalars(query).first() is None

    def _team(self, project_id: int, canary: str, decay: float) -> Team:
        if not (self.root / canary).exists():
            serving.make_inputs(self.root / canary)
        client = TestClient(self.app, raise_server_exceptions=False)
        client.headers.update(serving.bearer(serving.make_key(self.sessions, project_id)))
        return Team(canary=canary, decay=decay, project_id=project_id, client=client)


def ask(team: Team, method: str, path: str, operation: str, **names: str) -> Answer:
    """Carry out an operation on what `names` says for each part of the path."""
    address = re.sub(r"\{(\w+)\}", lambda part: names[part[1]], path)
    body = _BODIES.get(operation)
    headers = {"If-Match": "*"} if operation == "set_quota" else {}
    return team.client.request(method, address, json=body, params=_QUERIES.get(operation), headers=headers)


def read_status(team: Team, path: str) -> int:
    """What is answered to the team that asks for a list or a page that names nothing."""
    return 403 if path == "/v1/projects" and team.project_id != DEFAULT_PROJECT_ID else 200


def require_nothing_of(other: Team, answer: Answer, *said: str) -> None:
    """Whatever the caller `said` itself may be repeated to it."""
    shown = f"{answer.text} {dict(answer.headers)}"
    for part in said:
        shown = shown.replace(part, "")
    for mark in other.marks:
        assert mark not in shown, f"an answer tells of another team: {shown}"


class TwoTeams(RuleBasedStateMachine):
    """Random requests of both; subclasses say where the service is."""

    team = st.integers(0, 1)
    which = st.integers(0, 99)

    def start(self) -> Service:
        """A service on a database of its own."""
        raise NotImplementedError

    @initialize()
    def both_begin(self) -> None:
        """Each has a study of the shared name, so that there is something to find."""
        self.service = self.start()
        for team in self.service.teams:
            assert self.service.create(team, SHARED).status_code == 201

    @rule(who=team, own=st.booleans(), key=st.sampled_from([None, "once", "twice"]), foreign_past=st.booleans())
    def create(self, who: int, own: bool, key: str | None, foreign_past: bool) -> None:
        """Names and idempotency keys of the other are no obstacle; its studies are no past."""
        team, other = self._sides(who)
        name = f"{team.canary}-{len(team.studies)}" if own else SHARED
        changes: Json = {}
        if foreign_past:
            changes["search"] = _SEARCH | {"warm_start": [f"{other.canary}-0"]}
        document = self.service.spec(team, name) | changes
        headers = {} if key is None else {"Idempotency-Key": f"{key}-{who if own else 'shared'}"}
        answer = team.client.post("/v1/studies", json=document, headers=headers)
        require_nothing_of(other, answer, f"{other.canary}-0")
        assert answer.status_code in ((422,) if foreign_past else (201, 409, 422))
        if answer.status_code == 201 and name not in team.studies:
            team.studies.append(name)

    @rule(who=team, which=which, verb=st.sampled_from(STEERING), foreign=st.booleans())
    def steer(self, who: int, which: int, verb: str, foreign: bool) -> None:
        """A study of the other is not there."""
        team, other = self._sides(who)
        names = [name for name in other.studies if name != SHARED] if foreign else team.studies
        if names:
            name = names[which % len(names)]
            answer = team.client.post(f"/v1/studies/{name}:{verb}")
            require_nothing_of(other, answer, name)
            assert answer.status_code in ((404,) if foreign else (202, 409))

    @rule(who=team, which=which, rate=st.sampled_from([1e-4, 5.5e-4]))
    def change(self, who: int, which: int, rate: float) -> None:
        """Another point, another budget."""
        team, other = self._sides(who)
        path = f"/v1/studies/{team.studies[which % len(team.studies)]}"
        for answer in (
            team.client.post(f"{path}/trials", json={"parameters": {"learning_rate": rate}}),
            team.client.patch(path, json={"budget": {"max_trials": 3}}),
        ):
            require_nothing_of(other, answer)
            assert answer.status_code in (202, 409)

    @rule(turns=st.integers(1, 12))
    def work(self, turns: int) -> None:
        """The dispatcher goes on."""
        for _ in range(turns):
            self.service.dispatcher.turn()

    @rule(who=team, name=st.sampled_from([SHARED, "own"]), foreign=st.booleans())
    def deliver(self, who: int, name: str, foreign: bool) -> None:
        """A promotion of the other is not there; of the shared name, one's own is delivered."""
        team, other = self._sides(who)
        owner = other if foreign else team
        name = f"{owner.canary}-{name}" if name == "own" else name
        answer = team.client.post(f"/v1/promotions/{name}/latest/deliveries", json={"merge": True})
        require_nothing_of(other, answer, name)
        assert answer.status_code == (202 if name in team.promotions else 404)

    @rule(who=team, which=which, name=st.sampled_from([SHARED, "own"]))
    def promote(self, who: int, which: int, name: str) -> None:
        """Both may call their promotions the same."""
        team, other = self._sides(who)
        study = team.studies[which % len(team.studies)]
        name = f"{team.canary}-{name}" if name == "own" else name
        if not self.service.keep_snapshots(team, study):
            return
        answer = team.client.post("/v1/promotions", json={"study": study, "name": name, "note": team.canary})
        require_nothing_of(other, answer)
        assert answer.status_code in (201, 404, 409, 422)
        if answer.status_code == 201 and name not in team.promotions:
            team.promotions.append(name)

    @rule(who=team, which=which, borrowed=st.booleans())
    def read_lists(self, who: int, which: int, borrowed: bool) -> None:
        """Page by page; a token that the other was given leads to nothing of it."""
        team, other = self._sides(who)
        paths = list(self.service.reads())
        path = paths[which % len(paths)]
        params: dict[str, str] = {"page_size": "1"}
        if borrowed and other.tokens:
            params["page_token"] = sorted(other.tokens)[which % len(other.tokens)]
        answer = team.client.get(path, params=params)
        require_nothing_of(other, answer)
        assert answer.status_code in (read_status(team, path), 400)
        token = answer.json().get("next_page_token") if "json" in answer.headers["content-type"] else None
        if token is not None:
            team.tokens.add(token)

    @rule(who=team, which=which, study=which)
    def read_own(self, who: int, which: int, study: int) -> None:
        """Everything that can be asked of a study or a promotion of one's own."""
        team, other = self._sides(who)
        reads = [kind for kind in self.service.operations() if kind[0] == "GET"]
        method, path, operation = reads[which % len(reads)]
        promoted = team.promotions if "promotions" in path else team.studies
        if not promoted or operation == "stream_events" or "{job}" in path or "{delivery}" in path:
            return
        names = {"name": promoted[study % len(promoted)], "number": "0", "version": "1"}
        answer = ask(team, method, path, operation, **names)
        require_nothing_of(other, answer)
        assert answer.status_code < 500

    @rule(who=team, which=which, format=st.sampled_from(sorted(FORMATS)))
    def export(self, who: int, which: int, format: str) -> None:
        """In all formats."""
        team, other = self._sides(who)
        study = team.studies[which % len(team.studies)]
        for path in (f"studies/{study}/best", f"promotions/{SHARED}/latest"):
            answer = team.client.get(f"/v1/{path}/export", params={"format": format})
            require_nothing_of(other, answer)
            assert answer.status_code in (200, 404, 422)

    @rule(who=team, which=which, named=which)
    def reach_over(self, who: int, which: int, named: int) -> None:
        """What belongs to the other is answered like what nobody has."""
        team, other = self._sides(who)
        operations = list(self.service.operations())
        method, path, operation = operations[which % len(operations)]
        foreign = foreign_names(self.service, other, path)
        for names in foreign[named % len(foreign) :][:1] if foreign else []:
            if names.get("name") not in (*team.studies, *team.promotions):
                require_absent(team, other, method, path, operation, names)

    def _sides(self, who: int) -> tuple[Team, Team]:
        return self.service.teams[who], self.service.teams[1 - who]


def foreign_names(service: Service, other: Team, path: str) -> list[dict[str, str]]:
    """What the path could name of the other team."""
    rest = {"number": "0", "version": "1"}
    if "{job}" in path:
        return [{"job": str(job)} for job in service.jobs(other)]
    if "{delivery}" in path:
        return [{"delivery": str(number), "artifact": "adapter"} for number in service.deliveries(other)]
    if "{id}" in path:
        return [{"id": str(key)} for key in service.keys(other)]
    held = other.promotions if path.startswith("/v1/promotions") else other.studies
    return [{"name": name, **rest} for name in held if name != SHARED]


def require_absent(team: Team, other: Team, method: str, path: str, operation: str, names: dict[str, str]) -> None:
    """404, in the same words as for what never was."""
    nothing = {**names, "name": NOBODYS, "job": str(_NO_ID), "delivery": str(_NO_ID), "id": str(_NO_ID)}
    answers = [ask(team, method, path, operation, **asked) for asked in (names, nothing)]
    assert {answer.status_code for answer in answers} == {404}, f"{method} {path} {names}: {answers[0].text}"
    require_nothing_of(other, answers[0], names.get("name", NOBODYS))
    texts = []
    for asked, answer in zip((names, nothing), answers, strict=True):
        text = answer.text
        for part in ("name", "job", "delivery", "id"):
            text = text.replace(repr(asked.get(part, "")), "?").replace(f" {asked.get(part, NOBODYS)}", " ?")
        texts.append(text)
    assert texts[0] == texts[1]


def open_engine(url: str) -> Engine:
    """Connections as the API's."""
    return make_engine(url, application_name="hpo-api")


def shake(postgres: EmbeddedPostgres, folder: Path, *, examples: int, steps: int, derandomize: bool = True) -> None:
    """Let hypothesis ask in the name of both, each example on a database of its own."""

    class Machine(TwoTeams):
        def start(self) -> Service:
            self.opened = ExitStack()
            engine = open_engine(self.opened.enter_context(fresh_database(postgres)))
            self.opened.callback(engine.dispose)
            rmtree(folder / "home" / "snapshots", ignore_errors=True)  # numbers of studies begin anew
            return Service(engine, folder.resolve())

        def teardown(self) -> None:
            self.opened.close()

    profile = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=derandomize,
    )
    run_state_machine_as_test(Machine, settings=profile)
