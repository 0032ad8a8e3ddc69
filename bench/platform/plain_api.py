"""The peer of `start.py`: the embedded PostgreSQL and one route that asks it, with nothing of the platform around them.

python bench/platform/plain_api.py FOLDER PORT
"""

import signal
import subprocess
import sys
from pathlib import Path

from baseai.truth.embedded import as_postgres, prepare, wait_ready


def main(data: Path, port: int) -> None:
    data.mkdir(parents=True, exist_ok=True)
    data.chmod(0o755)  # PostgreSQL's account must be able to pass
    embedded = prepare(data / "postgres", data / "s")
    with (data / "postgres.log").open("ab") as log:
        child = subprocess.Popen(embedded.command(), stdout=log, stderr=log, **as_postgres())  # type: ignore[call-overload]
    import fastapi  # while PostgreSQL starts
    import psycopg
    import uvicorn

    app = fastapi.FastAPI()

    @app.get("/health")
    async def health() -> dict[str, str]:
        async with await psycopg.AsyncConnection.connect(embedded.dsn) as connection:
            await connection.execute("SELECT 1")
        return {"status": "ok"}

    wait_ready(embedded, lambda: child.poll() is None)
    uvicorn.run(app, port=port, log_level="warning")
    child.send_signal(signal.SIGINT)
    child.wait(30)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
