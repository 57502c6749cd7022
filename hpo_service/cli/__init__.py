"""The command `hpo`. Exit codes: 0 ok, 1 error, 2 usage, 3 the study failed, 4 the spec is invalid."""

import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from hpo_service.cli import (
    audit,
    best,
    delivery,
    demo,
    doctor,
    export,
    insight,
    key,
    project,
    promotion,
    report,
    services,
    slice,
    space,
    study,
    suggestion,
    trial,
    worker,
)
from hpo_service.cli.output import say
from hpo_service.client.http import ApiProblem, ServiceUnreachable
from hpo_service.core.errors import HpoError, InvalidSpec

EXIT_ERROR = 1
EXIT_INVALID_SPEC = 4
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="hpo",
    help="Hyperparameter search for LoRA fine-tuning. Start with: hpo demo, or hpo up.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (services.up, services.serve, services.dispatch, services.outbox, services.migrate, services.login):
    app.command()(command)
app.command()(doctor.doctor)
app.command()(demo.demo)
app.command()(best.best)
app.command()(report.report)
app.command()(promotion.promote)
app.command()(export.export)
app.command()(delivery.deliver)
for view in (insight.explain, insight.importances, insight.pareto):
    study.app.command()(view)
study.app.command()(suggestion.suggest_spec)
for group in (study.app, trial.app, promotion.app, delivery.app, slice.app, worker.app):
    app.add_typer(group)
for group in (space.app, project.app, key.app, audit.app):
    app.add_typer(group)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its code; an error is one sentence on stderr."""
    try:
        app(args=list(arguments) if arguments is not None else None)
    except InvalidSpec as error:
        _explain(error.detail, [problem.as_json() for problem in error.problems])
        sys.exit(EXIT_INVALID_SPEC)
    except HpoError as error:
        _explain(error.detail, [problem.as_json() for problem in error.problems])
        sys.exit(EXIT_ERROR)
    except ApiProblem as error:
        _explain(error.detail, error.errors)
        sys.exit(EXIT_INVALID_SPEC if error.code == InvalidSpec.code else EXIT_ERROR)
    except ServiceUnreachable as error:
        say(f"Error: {error} Start it with `hpo up`, or set HPO_URL.")
        sys.exit(EXIT_ERROR)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(EXIT_ERROR)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(0)


def _explain(detail: str, problems: Sequence[dict[str, object]]) -> None:
    first = next((problem for problem in problems if str(problem.get("detail", "")) in detail), None)
    where = f" ({first['pointer']})" if first is not None and first.get("pointer") else ""
    say(f"Error: {detail}{where}")
    for problem in problems:
        text = str(problem.get("detail", ""))
        if text and problem is not first:
            say(f"  {problem.get('pointer') or '/'}: {text}")
