"""From use to invoice: duplicates, reorderings and deaths between any two statements leave the same invoice."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from baseai.finance.postgres import Auditor
from baseai.truth.session import Truth
from tests.finance.journal import Fuse, FusedTruth
from tests.finance.usage_world import UsageWorld, leftovers


def test_whatever_happens_on_the_way_the_invoice_is_that_of_what_was_used(dsn: str) -> None:
    with asyncio.Runner() as runner:
        fuse = Fuse()
        truth, fused = Truth(dsn, connections_max=3), FusedTruth(dsn, fuse)
        runner.run(truth.open())
        runner.run(fused.open())

        class World(UsageWorld):
            def run(self, work: Coroutine[Any, Any, Any]) -> Any:
                return runner.run(work)

        World.truth, World.fused, World.fuse = truth, fused, fuse
        try:
            run_state_machine_as_test(
                World,
                settings=settings(
                    max_examples=8,
                    stateful_step_count=30,
                    deadline=None,
                    derandomize=True,
                    database=None,
                    phases=[
                        Phase.generate
                    ],  # a world is not made smaller: each costs a second; the bench draws more
                    suppress_health_check=[HealthCheck.too_slow],
                ),
            )
            assert World.deaths > 0
            assert World.imbalances == 0
            assert runner.run(leftovers(truth)) == []
            assert runner.run(Auditor(truth).audit()).findings == ()
        finally:
            runner.run(fused.close())
            runner.run(truth.close())
