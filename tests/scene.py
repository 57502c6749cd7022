"""Something to look at in the console."""

from typing import Any

from hpo_service.executors.base import SliceProgress
from tests import serving
from tests.browsing import Console
from trainer.spec import Progress

LONG = "a-study-with-a-long-name-that-goes-on-and-on-until-there-is-no-r"[:63]


def fill(console: Console) -> None:
    """A study that has ended, one that runs with signs of life, one that waits, and a promotion."""
    console.client.create_study(
        serving.spec("support", search={"seed": 3}, budget={"max_trials": 12, "max_cost_usd": 40})
    )
    console.turn(lambda: console.state("support") == "completed")
    best = console.client.get("/v1/studies/support")["best"]["trial_number"]
    serving.keep_snapshot(console.root, console.sessions, best)
    console.client.promote("support", "support-prod", note="for the pilot")
    console.executor.hold = True
    console.client.create_study(
        serving.spec(LONG, search={"strategy": "asha", "seed": 3}, budget={"max_trials": 9, "max_gpu_hours": 3})
    )
    console.turn(lambda: len(running(console)) >= 2)
    for work in console.executor.submitted[-2:]:
        progress = Progress(
            slice_id=work.slice_id, attempt=work.attempt, examples_seen=work.until_examples // 2, step=3,
            train_loss=1.2345, tokens_per_second=12345.6, memory_bytes=41 << 30,
        )  # fmt: skip
        console.executor.send_progress(SliceProgress(worker="fake-0", progress=progress))
    console.turn(lambda: sum(bool(one["progress"]) for one in running(console)) >= 2)
    console.client.create_study(serving.spec("waits"))


def running(console: Console) -> list[dict[str, Any]]:
    return list(console.client.get(f"/v1/studies/{LONG}/slices", state="running")["items"])


def places(console: Console) -> dict[str, str]:
    best = console.client.get("/v1/studies/support")["best"]["trial_number"]
    return {
        "start": "/",
        "study-ended": "/studies/support",
        "study-runs": f"/studies/{LONG}",
        "trial": f"/studies/support/trials/{best}",
        "workers": "/workers",
        "promotions": "/promotions",
        "promotion": "/promotions/support-prod/1",
    }
