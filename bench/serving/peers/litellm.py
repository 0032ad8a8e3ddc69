"""LiteLLM's proxy, set as its checklist for production says: one uvicorn worker, a master key, logs of errors only.

Without a database, so that it books no spend: less work than ours does. The newest version whose requirements the
package index can meet, 1.107.0 left out.
"""

import json

from bench.serving.front import MODEL, Front, Setup, free_ports, start, wait_ready
from bench.serving.peers.prefix import python

REQUIREMENT = "litellm[proxy]>=1.106,<1.110,!=1.107.*"  # 1.110 asks for a package that the index has not
KEY = "sk-bench-master-key"
WORKERS = 1  # as recommended, one a core; the bench gives a front one core


def front(setup: Setup) -> Front:
    """One model, its deployments the replicas; the cache in memory where one is asked for."""
    interpreter = python("litellm", [REQUIREMENT], probe="litellm.proxy.proxy_cli")
    [port] = free_ports(1)
    settings: dict[str, object] = {"request_timeout": 600, "set_verbose": False, "json_logs": True}
    if setup.cached:
        settings |= {"cache": True, "cache_params": {"type": "local", "ttl": 600}}
    configuration = setup.folder / "config.yaml"
    configuration.write_text(  # JSON is YAML
        json.dumps(
            {
                "model_list": [
                    {
                        "model_name": MODEL,
                        "litellm_params": {
                            "model": f"openai/{MODEL}",
                            "api_key": "none",
                            "api_base": f"http://127.0.0.1:{each}/v1",
                        },
                    }
                    for each in setup.ports
                ],
                "general_settings": {
                    "master_key": KEY,
                    "disable_spend_logs": True,
                    "disable_error_logs": True,
                    "allow_requests_on_db_unavailable": True,
                },
                "litellm_settings": settings,
            }
        )
    )
    log = setup.folder / "log"
    place = setup.folder / "place"  # it looks for modules two folders up: let there be none
    place.mkdir()
    process = start(
        [
            str(interpreter.with_name("litellm")),
            *("--host", "127.0.0.1", "--port", str(port), "--config", str(configuration)),
            *("--num_workers", str(WORKERS), "--telemetry", "False"),
        ],
        log=log,
        environment={
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOG": "ERROR",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # prices of models from the package, not from the web
            "NO_DOCS": "True",
            "DISABLE_ADMIN_UI": "True",
            "HOME": str(setup.folder),
        },
        cwd=place,
    )
    wait_ready(f"http://127.0.0.1:{port}/health/liveliness", process, log, within_s=180)
    return Front(
        name="LiteLLM",
        port=port,
        process=process,
        log=log,
        headers=(("authorization", f"Bearer {KEY}"),),
    )
